"""What strangers, and our own programs gone wrong, put on a worker's queues: each made by code, and what becomes of it.

MESSAGES are whole items of a queue. PHOTOS are what a message names as a photo.
"""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

from producer_client import serializer
from producer_client.contract import Code, TaskName
from worker import unfit
from worker.unfit import Unfit

QUEUE = "interactive"


@dataclass(frozen=True)
class Answered:
    """With an error's code. A reply lies where the message's id says."""

    code: Code


@dataclass(frozen=True)
class Refused:
    """Answered, with this code of its only photo."""

    code: Code


#: Answered as any good message.
FINE = "fine"
#: Not carried out: nobody waits any more.
EXPIRED = "expired"
#: Carried out or refused, and nobody is told, as of the index process' own messages.
UNTOLD = "untold"

Outcome = Unfit | Answered | Refused | str

# ----------------------------------------------------------------------------------------- how they are made

NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def item(body: Any, *, named: str = "strange", queue: str = QUEUE, **headers: Any) -> bytes:
    """As Celery puts it on a queue. named: its id, and its tag. headers: changed; Ellipsis takes one away."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    properties = {
        "correlation_id": named,
        "reply_to": headers.pop("reply_to", "someone"),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": headers.pop("priority", 0),
        "body_encoding": headers.pop("body_encoding", "base64"),
        "delivery_tag": headers.pop("tag", named),
    }
    whole = {
        "body": headers.pop("body", None) or base64.b64encode(content).decode(),
        "content-encoding": headers.pop("content_encoding", "utf-8"),
        "content-type": headers.pop("content_type", "application/json"),
    }
    said = {"lang": "py", "task": TaskName.STATS.value, "id": named, "retries": 0, **headers}
    whole["headers"] = {name: value for name, value in said.items() if value is not ...}
    return json.dumps({**whole, "properties": properties}).encode()


def asks(task: TaskName | str, wire: Any, **headers: Any) -> Any:
    """A message that a client would send, but for what it says. wire: bytes as they are, or a value."""
    content = wire if isinstance(wire, bytes) else json.dumps(wire).encode()
    body = b"[[%s], {}, %s]" % (content, json.dumps(NOTHING_FOLLOWS).encode())
    return lambda named: item(body, named=named, task=str(task), **headers)


def is_put(body: Any, **headers: Any) -> Any:
    """A question for the statistics with this body and these headers."""
    return lambda named: item(body, named=named, **headers)


def written(content: bytes) -> Any:
    return lambda _: content


def stats(**headers: Any) -> Any:
    return is_put([[{"v": 1}], {}, NOTHING_FOLLOWS], **headers)


def followed(**what: Any) -> Any:
    return is_put([[{"v": 1}], {}, {**NOTHING_FOLLOWS, **what}])


def add(photo: Any, **fields: Any) -> Any:
    """One photo is to be added."""
    return asks(TaskName.ADD_TO_INDEX, {"v": 1, "photos": [{"ref": "a", "photo": photo, **fields}]})


def search(**fields: Any) -> Any:
    return asks(TaskName.SEARCH, {"v": 1, **fields})


def locate(**fields: Any) -> Any:
    return asks(TaskName.LOCATE, {"v": 1, **fields})


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def with_envelope(**changed: Any) -> Any:
    """An item whose outer parts are changed; Ellipsis takes one away."""

    def make(named: str) -> bytes:
        whole = {**json.loads(item([[{"v": 1}], {}, NOTHING_FOLLOWS], named=named)), **changed}
        return json.dumps({name: part for name, part in whole.items() if part is not ...}).encode()

    return make


def properties(**changed: Any) -> dict[str, Any]:
    return {**json.loads(item([]))["properties"], **changed}


class Ran:
    """What a pickle would do."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


GOOD, THERE = {"path": "absent.jpg"}, {"path": "a good one.jpg"}
PLACED = {"lat": 1.0, "lon": 2.0, "provenance": "surveyed"}
ENVELOPE_BOMB = b'{"body": [' + b"[]," * unfit.MOST_VALUES + b"[]]}"
BODY_BOMB = b"[[" + b"[]," * unfit.MOST_VALUES + b"[]], {}, {}]"
PACKED = zlib.compress(b"[[" + b" " * 30_000_000 + b'{"v": 1}], {}, {}]', 9)
BAD_REQUEST, BAD_COORDINATES = Answered(Code.BAD_REQUEST), Refused(Code.BAD_COORDINATES)
TEXT, NUMBER = Refused(Code.BAD_REQUEST), BAD_REQUEST

# --------------------------------------------------------------------------------------------------- them

#: By name: how it is made, of its id; and what becomes of it.
MESSAGES: dict[str, tuple[Any, Outcome]] = {
    # no messages
    "no JSON": (written(b"hello"), Unfit.NO_JSON),
    "no text": (written(b"\xff\xfe\x00"), Unfit.NO_JSON),
    "nothing": (written(b""), Unfit.NO_JSON),
    "a pickle alone": (written(pickle.dumps(Ran())), Unfit.NO_JSON),
    "YAML alone": (written(b"task: sightline.stats\nid: 1\n"), Unfit.NO_JSON),
    "deeper than a parser goes": (written(deep(100_000)), Unfit.NO_JSON),
    "JSON that breaks off": (written(item([])[:-30]), Unfit.NO_JSON),
    "a list": (written(b"[1, 2]"), Unfit.NO_MESSAGE),
    "a number": (written(b"7"), Unfit.NO_MESSAGE),
    "an empty object": (written(b"{}"), Unfit.NO_MESSAGE),
    "a million values": (written(ENVELOPE_BOMB), Unfit.TOO_LARGE),
    "a type that kombu does not know": (
        with_envelope(headers={"__type__": "thing", "__value__": 1}),
        Unfit.NO_MESSAGE,
    ),
    "a number that kombu cannot read": (
        with_envelope(headers={"__type__": "decimal", "__value__": "x"}),
        Unfit.NO_MESSAGE,
    ),
    "headers that are a list": (with_envelope(headers=[1]), Unfit.NO_MESSAGE),
    "no properties": (with_envelope(properties=...), Unfit.NO_MESSAGE),
    "properties that are text": (with_envelope(properties="x"), Unfit.NO_MESSAGE),
    "no tag": (with_envelope(properties={"delivery_info": {"exchange": "", "routing_key": "x"}}), Unfit.NO_MESSAGE),
    "a tag that is no text": (with_envelope(properties=properties(delivery_tag={"a": 1})), Unfit.NO_MESSAGE),
    "no way that it came": (with_envelope(properties=properties(delivery_info=None)), Unfit.NO_MESSAGE),
    "a queue that is no text": (
        with_envelope(properties=properties(delivery_info={"exchange": "", "routing_key": [1]})),
        Unfit.NO_MESSAGE,
    ),
    "a body that is no base64": (with_envelope(body="A"), Unfit.NO_MESSAGE),
    "a body that is a number": (with_envelope(body=7), Unfit.NO_MESSAGE),
    "an unknown way to write the body": (
        with_envelope(properties=properties(body_encoding="rot13")),
        Unfit.NO_MESSAGE,
    ),
    # content of another kind
    "a pickle": (is_put(pickle.dumps(Ran()), content_type="application/x-python-serialize"), Unfit.UNKNOWN_CONTENT),
    "a pickle that says that it is JSON": (is_put(pickle.dumps(Ran())), Unfit.UNKNOWN_CONTENT),
    "YAML": (is_put(b"!!python/object/apply:os.getpid []", content_type="application/x-yaml"), Unfit.UNKNOWN_CONTENT),
    "msgpack": (is_put(b"\x93\x90\x80\x80", content_type="application/x-msgpack"), Unfit.UNKNOWN_CONTENT),
    "plain text": (is_put(b"[[], {}, {}]", content_type="text/plain"), Unfit.UNKNOWN_CONTENT),
    "an unknown kind of content": (is_put(b"1", content_type="application/strange"), Unfit.UNKNOWN_CONTENT),
    "a kind of content that is a list": (is_put([[], {}, {}], content_type=["application/json"]), Unfit.BAD_TASK),
    "letters of another table": (stats(content_encoding="rot13"), FINE),
    "a body that is no JSON": (is_put(b"{"), Unfit.UNKNOWN_CONTENT),
    "a body that is no text": (is_put(b"\xff\xfe"), Unfit.UNKNOWN_CONTENT),
    "a body nested 10,000 deep": (is_put(b"[" + deep(10_000) + b", {}, {}]"), Unfit.UNKNOWN_CONTENT),
    "a body of a million values": (is_put(BODY_BOMB), Unfit.TOO_LARGE),
    "a body that unpacks to 30 MB": (is_put(PACKED, compression="gzip"), Unfit.UNKNOWN_CONTENT),
    "an unknown compression": (is_put([[], {}, {}], compression="strange"), Unfit.UNKNOWN_CONTENT),
    # no tasks
    "no task at all": (is_put({"what": 1}, task=None), Unfit.NO_TASK),
    "no task in its headers": (is_put({"what": 1}, task=...), Unfit.NO_TASK),
    "an unknown task": (stats(task="backend.resize"), Unfit.UNKNOWN_TASK),
    "a task's name in capitals": (stats(task="SIGHTLINE.STATS"), Unfit.UNKNOWN_TASK),
    "a task's name that is a list": (stats(task=["a"]), Unfit.BAD_TASK),
    "a task's name of 100,000 letters": (stats(task="x" * 100_000), Unfit.UNKNOWN_TASK),
    "Celery's task that calls another many times": (
        is_put([[{"task": "sightline.stats"}, [[{"v": 1}]] * 100], {}, NOTHING_FOLLOWS], task="celery.map"),
        Unfit.UNKNOWN_TASK,
    ),
    "Celery's task that waits for a chord": (
        is_put([["group", {"task": "sightline.stats"}], {}, NOTHING_FOLLOWS], task="celery.chord_unlock"),
        Unfit.UNKNOWN_TASK,
    ),
    "Celery's task that clears up replies": (
        is_put([[], {}, NOTHING_FOLLOWS], task="celery.backend_cleanup"),
        Unfit.UNKNOWN_TASK,
    ),
    # bodies of another form
    "a body of one number": (is_put(7), Unfit.BAD_TASK),
    "a body that is null": (is_put(None), Unfit.BAD_TASK),
    "a body of one part": (is_put([1]), Unfit.BAD_TASK),
    "a body whose parts are of another kind": (is_put([1, 2, 3]), Unfit.BAD_TASK),
    # what is to follow
    "callbacks that are numbers": (followed(callbacks=[1]), Unfit.BAD_TASK),
    "a callback without a name": (followed(callbacks=[{}]), Unfit.BAD_TASK),
    "a callback with odd arguments": (followed(errbacks=[{"task": "x", "args": 7}]), Unfit.BAD_TASK),
    "a chord that is text": (followed(chord="x"), Unfit.BAD_TASK),
    "a chain that is text": (followed(chain="x"), Unfit.BAD_TASK),
    "a chord of no group": (followed(chord={"task": "sightline.stats"}), FINE),
    # headers that lie
    "no id": (stats(id=...), Unfit.BAD_TASK),
    "an id that is an object": (stats(id={"a": 1}), Unfit.BAD_TASK),
    "a time that is none": (stats(eta="tomorrow"), Unfit.BAD_TASK),
    "a time in a thousand years": (stats(eta="3026-01-01T00:00:00+00:00"), Unfit.BAD_TASK),
    "a time long ago": (stats(eta="1970-01-01T00:00:00+00:00"), FINE),
    "an expiry that is a list": (stats(expires=[1]), Unfit.BAD_TASK),
    "an expiry long ago": (stats(expires="1970-01-01T00:00:00+00:00"), EXPIRED),
    "a limit that is a number": (stats(timelimit=7), Unfit.BAD_TASK),
    "limits of nothing": (stats(timelimit=[0.000001, 0.000001]), FINE),
    "tried many times": (stats(retries="many"), FINE),
    "tried less than never": (stats(retries=-(10**9)), FINE),
    "arguments that look otherwise": (stats(argsrepr="({'v': 99},)", kwargsrepr={"a": 1}), FINE),
    "a sender that is an object": (stats(origin={"a": 1}, lang=7), FINE),
    "a name for logs that is a list": (stats(shadow=["a"]), Unfit.BAD_TASK),
    "a family of its own": (stats(root_id={"a": 1}, parent_id=[1], group={"b": 2}), FINE),
    "a group that nobody knows": (stats(group="x", group_index=-1), FINE),
    "stamps that are a number": (stats(stamped_headers=["a"], stamps=7), FINE),
    "a reply to another key": (stats(reply_to="sightline:interactive"), FINE),
    "a reply to an object": (stats(reply_to={"a": 1}), FINE),
    "a priority beyond all": (stats(priority=10**9), FINE),
    "no reply wanted": (stats(ignore_result=True), UNTOLD),
    # messages whose content is another
    "an argument too many": (is_put([[{"v": 1}, 2], {}, NOTHING_FOLLOWS]), BAD_REQUEST),
    "no argument": (is_put([[], {}, NOTHING_FOLLOWS]), BAD_REQUEST),
    "an argument by name": (is_put([[], {"wire": {"v": 1}}, NOTHING_FOLLOWS]), BAD_REQUEST),
    "a message that is null": (asks(TaskName.STATS, None), BAD_REQUEST),
    "a message that is text": (asks(TaskName.STATS, "stats"), BAD_REQUEST),
    "a message without a version": (asks(TaskName.STATS, {}), Answered(Code.UNKNOWN_VERSION)),
    "a message of version 2": (asks(TaskName.STATS, {"v": 2}), Answered(Code.UNKNOWN_VERSION)),
    "a version said twice": (asks(TaskName.STATS, b'{"v": 1, "v": 2}'), Answered(Code.UNKNOWN_VERSION)),
    "a field of nobody's": (asks(TaskName.STATS, {"v": 1, "__class__": "x"}), Answered(Code.UNKNOWN_FIELD)),
    "a photo of another kind": (locate(photo=["a.jpg"]), BAD_REQUEST),
    "no photo": (locate(), BAD_REQUEST),
    "two photos in one": (locate(photo={"path": "a", "url": "b"}), BAD_REQUEST),
    "a rule of nobody's": (locate(photo=GOOD, policy="eval"), BAD_REQUEST),
    "a number of 400 digits": (search(text="a", top_k=10**400), BAD_REQUEST),
    "a number of 5,000 digits": (
        asks(TaskName.SEARCH, b'{"v": 1, "text": "a", "top_k": %s}' % (b"9" * 5000)),
        Unfit.UNKNOWN_CONTENT,
    ),
    "a million hits": (search(text="a", top_k=1_000_000), BAD_REQUEST),
    "minus one hit": (search(text="a", top_k=-1), BAD_REQUEST),
    "half a hit": (search(text="a", top_k=1.5), BAD_REQUEST),
    "a threshold beyond all": (search(text="a", threshold=1e308), BAD_REQUEST),
    "a threshold that is NaN": (asks(TaskName.SEARCH, b'{"v": 1, "text": "a", "threshold": NaN}'), BAD_REQUEST),
    "a vector with an infinite number": (
        asks(TaskName.SEARCH, b'{"v": 1, "vector": [Infinity]}'),
        Answered(Code.BAD_VECTOR),
    ),
    "a vector of another length": (search(vector=[1.0, 0.0]), Answered(Code.BAD_VECTOR)),
    "a vector of zeros": (search(vector=[0.0] * 1280), Answered(Code.BAD_VECTOR)),
    "a vector of text": (search(vector=["1"] * 1280), BAD_REQUEST),
    "a circle beyond the pole": (
        search(text="a", near={"lat": 91, "lon": 0, "radius_m": 1}),
        Answered(Code.BAD_COORDINATES),
    ),
    "a circle of nothing": (search(text="a", near={"lat": 1, "lon": 0, "radius_m": 0}), BAD_REQUEST),
    "metadata nested 500 deep": (search(text="a", where={"a": json.loads(deep(500))}), BAD_REQUEST),
    "a write that is yet to come": (search(photo=THERE, min_seq=2**63 - 1), Answered(Code.STALE)),
    "a write beyond all numbers": (search(photo=THERE, min_seq=2**64), Answered(Code.STALE)),
    "a text of a megabyte": (search(text="a " * 500_000), BAD_REQUEST),
    "a word of 10,000 letters": (search(text="a", heard="x" * 10_000), BAD_REQUEST),
    "a batch of none": (asks(TaskName.ADD_TO_INDEX, {"v": 1, "photos": []}), BAD_REQUEST),
    "a batch of 257": (asks(TaskName.ADD_TO_INDEX, {"v": 1, "photos": [7] * 257}), BAD_REQUEST),
    "a batch that is an object": (asks(TaskName.ADD_TO_INDEX, {"v": 1, "photos": {"0": 1}}), BAD_REQUEST),
    "an item that is a number": (asks(TaskName.ADD_TO_INDEX, {"v": 1, "photos": [7]}), Refused(Code.BAD_REQUEST)),
    "an item of nobody's field": (add(GOOD, eval="1"), Refused(Code.UNKNOWN_FIELD)),
    "a latitude of 91": (add(GOOD, **{**PLACED, "lat": 91}), BAD_COORDINATES),
    "a longitude of 181": (add(GOOD, **{**PLACED, "lon": -181}), BAD_COORDINATES),
    "a latitude in text": (add(GOOD, **{**PLACED, "lat": "1"}), Refused(Code.BAD_REQUEST)),
    "half a place": (add(GOOD, lat=1.0, provenance="surveyed"), BAD_COORDINATES),
    "a place of nobody's": (add(GOOD, lat=1.0, lon=2.0), Refused(Code.BAD_REQUEST)),
    "metadata with a NUL": (add(GOOD, metadata={"a": "\0"}), Refused(Code.BAD_REQUEST)),
    "metadata with half a letter": (add(GOOD, metadata={"a": "\ud800"}), Refused(Code.BAD_REQUEST)),
    "metadata of a megabyte": (add(GOOD, metadata={"a": "x" * 1_000_000}), Refused(Code.BAD_REQUEST)),
    "metadata with kombu's types": (
        add(GOOD, metadata={"__type__": "datetime", "__value__": "x"}),
        Refused(Code.NOT_FOUND),
    ),
    "an id of no row": (asks(TaskName.REMOVE, {"v": 1, "photo_ids": [2**62]}), Refused(Code.UNKNOWN_PHOTO)),
    "an id beyond all rows": (asks(TaskName.REMOVE, {"v": 1, "photo_ids": [2**63]}), BAD_REQUEST),
    "an id below all rows": (asks(TaskName.PURGE, {"v": 1, "photo_ids": [-1]}), BAD_REQUEST),
    "an id in text": (asks(TaskName.PURGE, {"v": 1, "photo_ids": ["1; DROP TABLE photos"]}), BAD_REQUEST),
    "an id that is true": (asks(TaskName.PURGE, {"v": 1, "photo_ids": [True]}), BAD_REQUEST),
    # what other processes are asked
    "a tick of another version": (asks(TaskName.TICK, {"v": 2}), UNTOLD),
    "a rebuild with another word": (asks(TaskName.REBUILD_INDEX, {"v": 1, "drop": 1}), Answered(Code.UNKNOWN_FIELD)),
    "a filling of another version": (asks(TaskName.FILL, {"v": 2, "model_key": "x"}), UNTOLD),
    # as earlier clients and a backend's own Celery write them
    "a message in kombu's JSON": (stats(), FINE),
    "a message in our JSON": (stats(content_type=serializer.CONTENT_TYPE), FINE),
    "a message of Celery's first protocol": (
        lambda named: item({"task": "sightline.stats", "id": named, "args": [{"v": 1}]}, named=named, task=...),
        FINE,
    ),
}

#: Hosts that a worker may ask by these names, if they were public.
HOSTS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.000.000.001", "0", "localhost",
    "①②⑦.0.0.1", "127。0。0。1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "photos.example",
]  # fmt: skip
NOT_ALLOWED, OUTSIDE, NOT_FOUND = Refused(Code.URL_NOT_ALLOWED), Refused(Code.OUTSIDE_ROOTS), Refused(Code.NOT_FOUND)

#: By name: a photo as a message names it, and what becomes of it. {port}: of a server on this machine that nobody may
#: ask.
PHOTOS: dict[str, tuple[dict[str, Any], Refused]] = {
    **{
        f"URL of {host}": ({"url": f"http://{f'[{host}]' if ':' in host else host}:{{port}}/a.jpg"}, NOT_ALLOWED)
        for host in HOSTS
        if host != "photos.example"
    },
    "URL in a path": ({"path": "http://127.0.0.1:{port}/a.jpg"}, NOT_ALLOWED),
    "URL of another host": ({"url": "http://elsewhere.example/a.jpg"}, NOT_ALLOWED),
    "URL with an allowed host before an @": ({"url": "http://photos.example@127.0.0.1:{port}/a.jpg"}, NOT_ALLOWED),
    "URL with an allowed password": ({"url": "http://a:photos.example@127.0.0.1:{port}/"}, NOT_ALLOWED),
    "URL with an allowed host behind a #": ({"url": "http://127.0.0.1:{port}#@photos.example/"}, NOT_ALLOWED),
    "URL with a backslash": ({"url": "http://127.0.0.1:{port}\\@elsewhere.example/"}, NOT_ALLOWED),
    "URL with a line end": ({"url": "http://127.0.0.1:{port}/\r\nHost: photos.example\r\n"}, NOT_ALLOWED),
    "URL without a host": ({"url": "http:///a.jpg"}, NOT_ALLOWED),
    "URL of no port": ({"url": "http://photos.example:99999/a.jpg"}, NOT_ALLOWED),
    "URL of another scheme": ({"url": "gopher://127.0.0.1:{port}/"}, NOT_ALLOWED),
    "URL with its content": ({"url": "data:image/png;base64,AAAA"}, NOT_ALLOWED),
    "URL of two schemes": ({"url": "simplecache::http://127.0.0.1:{port}/a.jpg"}, NOT_ALLOWED),
    "URL of a bucket of nobody's": ({"url": "s3://bucket/a.jpg"}, NOT_ALLOWED),
    "URL of a file elsewhere": ({"url": "file:///etc/passwd"}, OUTSIDE),
    "URL of a file with a NUL": ({"url": "file:///etc/passwd%00.jpg"}, NOT_FOUND),
    "URL of a file by dots": ({"url": "file://{root}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd"}, OUTSIDE),
    "path elsewhere": ({"path": "/etc/passwd"}, OUTSIDE),
    "path of a process": ({"path": "/proc/self/environ"}, OUTSIDE),
    "path by dots": ({"path": "../../../../../../../../etc/passwd"}, OUTSIDE),
    "path of another user": ({"path": "~root/.ssh/id_rsa"}, NOT_FOUND),
    "path with a NUL": ({"path": "a\0b"}, Refused(Code.BAD_REQUEST)),
    "path of a megabyte": ({"path": "ä/" * 500_000}, Refused(Code.BAD_REQUEST)),
    "URL of a megabyte": ({"url": "http://photos.example/" + "a" * 1_000_000}, Refused(Code.BAD_REQUEST)),
    "path that is empty": ({"path": ""}, Refused(Code.BAD_REQUEST)),
    "path of an inline photo": ({"path": "inline:" + "0" * 64}, NOT_FOUND),
    "bytes that are no base64": ({"inline": "this is none!"}, Refused(Code.BAD_REQUEST)),
    "bytes that are no photo": ({"inline": base64.b64encode(b"none").decode()}, Refused(Code.NOT_AN_IMAGE)),
    "bytes of two megabytes": ({"inline": "A" * 2_700_000}, Refused(Code.TOO_LARGE)),
    "row that nobody has": ({"photo_id": 2**62}, Refused(Code.UNKNOWN_PHOTO)),
    "row beyond all numbers": ({"photo_id": 2**64}, Refused(Code.BAD_REQUEST)),
    "row below all": ({"photo_id": -1}, Refused(Code.BAD_REQUEST)),
}
