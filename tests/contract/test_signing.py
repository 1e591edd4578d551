"""What a signature covers, byte by byte, when it is good, and what becomes of everything that it does not cover."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from producer_client import BadRequest, Sightline, read_secret
from producer_client.contract import Code, Queue
from producer_client.errors import Untrusted
from producer_client.signing import (
    DECIDING,
    GOOD_FOR_S,
    SIGNED,
    SKEW_S,
    Keys,
    admitted,
    check_reply,
    read_keys,
    signed_reply,
    stamp,
)
from worker.door import Door

OLD, NEW = Keys("2026", {"2026": b"o" * 32}), Keys("2027", {"2027": b"n" * 32})
BOTH = Keys("2027", {"2027": b"n" * 32, "2026": b"o" * 32})
BODY = '[[{"v":1,"photo_ids":["7"],"from":"Ångström"}],{},null]'.encode()
TYPE, ENCODING = "application/vnd.sightline+json", "utf-8"
HEADERS = {"lang": "py", "task": "sightline.remove", "id": "0f-1", "root_id": "0f-1", "retries": 0, "origin": "a@b"}
NOW = 1_800_000_000.0
#: As this release writes it, the digests by openssl: a later one must still read it, and write the same.
STAMP = (
    "2026 9fc359544d7c740763f74199cd5a8737e8f5fef03a49fc764f046b6e6285329e "
    '{"issued":1800000000,"expires":1800604800,"nonce":"000102030405060708090a0b0c0d0e0f","queue":"bulk",'
    '"type":"application/vnd.sightline+json","encoding":"utf-8",'
    '"headers":{"task":"sightline.remove","id":"0f-1","root_id":"0f-1","retries":0}}'
)
REPLY = b'{"status":"SUCCESS","result":{"v":1,"ok":true,"reply":{}},"task_id":"0f-1"}'
SIGNED_REPLY = (
    REPLY[:-1] + b',"sightline_signed":"2026 8cc38da019ced9b2d5a311bb0c1ae7eba3d953cbc855e94a017fa14b0a5dcf09"}'
)


def stamped(keys: Keys = OLD, queue: str = "bulk", *, now: float = NOW, **headers: Any) -> dict[str, Any]:
    """The headers of a message, with its signature."""
    given = HEADERS | headers
    return given | {SIGNED: stamp(keys, queue, given, BODY, content_type=TYPE, content_encoding=ENCODING, now=now)}


def admit(
    headers: dict[str, Any],
    keys: Keys = OLD,
    queue: str = "bulk",
    *,
    body: bytes = BODY,
    kind: str = TYPE,
    encoding: str = ENCODING,
    now: float = NOW,
) -> dict[str, Any]:
    return admitted(keys, queue, headers, body, content_type=kind, content_encoding=encoding, now=now).headers


def refused(call: Callable[[], Any]) -> Code:
    with pytest.raises(Untrusted) as caught:
        call()
    return caught.value.code


def test_a_message_is_signed_as_the_vector_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: bytes(range(size)).hex())

    assert stamped()[SIGNED] == STAMP
    assert admit(HEADERS | {SIGNED: STAMP}) == {name: HEADERS[name] for name in ("task", "id", "root_id", "retries")}


def test_a_reply_is_signed_as_the_vector_says() -> None:
    assert signed_reply(OLD, "0f-1", REPLY) == SIGNED_REPLY
    check_reply(OLD, "0f-1", SIGNED_REPLY)
    assert json.loads(SIGNED_REPLY)["result"] == json.loads(REPLY)["result"], "who has no keys reads it as before"


@pytest.mark.parametrize("name", DECIDING)
@pytest.mark.parametrize("value", ["another", 7])
def test_a_header_that_decides_cannot_be_altered(name: str, value: object) -> None:
    assert refused(lambda: admit(stamped() | {name: value})) is Code.BAD_SIGNATURE


@pytest.mark.parametrize("name", ["task", "id", "root_id", "retries"])
def test_a_header_that_decides_cannot_be_left_out(name: str) -> None:
    headers = stamped()
    del headers[name]

    assert refused(lambda: admit(headers)) is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    "altered",
    [
        {"body": BODY.replace(b"7", b"8")},
        {"body": b""},
        {"kind": "application/json"},
        {"encoding": "binary"},
        {"queue": "interactive"},
    ],
    ids=str,
)
def test_body_its_kind_and_queue_cannot_be_altered(altered: dict[str, Any]) -> None:
    assert refused(lambda: admit(stamped(), **altered)) is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("was", "will_be"),
    [("1800604800", "1900604800"), ("1800000000", "1800000001"), ('"nonce":"0', '"nonce":"1'), ("2026 ", "2027 ")],
)
def test_times_nonce_and_key_id_cannot_be_altered(was: str, will_be: str) -> None:
    assert was in STAMP

    altered = HEADERS | {SIGNED: STAMP.replace(was, will_be, 1)}

    # A key id of ours that is not the one which signed.
    assert refused(lambda: admit(altered, Keys("2026", {"2026": b"o" * 32, "2027": b"o" * 32}))) is Code.BAD_SIGNATURE


@given(st.data())
def test_no_altered_byte_of_a_message_passes(data: st.DataObject) -> None:
    headers = stamped()
    parts = {"body": BODY, "signed": headers[SIGNED].encode(), "task": b"sightline.remove", "id": b"0f-1"}
    name = data.draw(st.sampled_from(sorted(parts)))
    whole = bytearray(parts[name])
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(whole[place] != byte)
    whole[place] = byte
    text = whole.decode(errors="surrogateescape")
    altered = {"body": {}, "signed": {SIGNED: text}, "task": {"task": text}, "id": {"id": text}}[name]

    code = refused(lambda: admit(headers | altered, body=bytes(whole) if name == "body" else BODY))

    assert code is Code.BAD_SIGNATURE


@given(st.integers(0, len(SIGNED_REPLY) - 1), st.integers(0, 255))
def test_no_altered_byte_of_a_reply_passes(place: int, byte: int) -> None:
    whole = bytearray(SIGNED_REPLY)
    assume(whole[place] != byte)
    whole[place] = byte

    assert refused(lambda: check_reply(OLD, "0f-1", bytes(whole))) in (Code.BAD_SIGNATURE, Code.UNSIGNED)


def test_a_reply_is_of_one_request() -> None:
    assert refused(lambda: check_reply(OLD, "0f-2", SIGNED_REPLY)) is Code.BAD_SIGNATURE
    assert refused(lambda: check_reply(OLD, "0f-1", REPLY)) is Code.UNSIGNED


def test_what_lies_behind_a_signed_reply_is_no_part_of_it() -> None:
    twice = signed_reply(NEW, "0f-1", SIGNED_REPLY)

    assert refused(lambda: check_reply(OLD, "0f-1", twice)) is Code.BAD_SIGNATURE
    assert refused(lambda: check_reply(OLD, "0f-1", SIGNED_REPLY + b" ")) is Code.UNSIGNED


@pytest.mark.parametrize("code", ["unsigned", "bad_signature"])
def test_who_cannot_be_known_is_refused_without_a_signature_and_learns_why(code: str) -> None:
    plain = json.dumps({"status": "SUCCESS", "result": {"v": 1, "ok": False, "error": {"code": code, "message": ""}}})

    assert refused(lambda: check_reply(OLD, "0f-1", plain.encode())) == code


@pytest.mark.parametrize("queue", [queue.value for queue in Queue])
def test_a_message_expires_by_its_queue_give_or_take_the_clocks(queue: str) -> None:
    headers, last = stamped(queue=queue), NOW + GOOD_FOR_S[queue] + SKEW_S

    assert admit(headers, queue=queue, now=last)["id"] == "0f-1"
    assert admit(headers, queue=queue, now=NOW - SKEW_S)["id"] == "0f-1"
    for at in (last + 1, NOW - SKEW_S - 1):
        with pytest.raises(Untrusted) as caught:
            admit(headers, queue=queue, now=at)
        assert (caught.value.code, caught.value.task_id) == (Code.EXPIRED, "0f-1"), "its sender is known and told"


@pytest.mark.parametrize("queue", [queue.value for queue in Queue])
def test_no_sender_makes_a_message_good_for_longer_than_its_queue_allows(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a copy of it could be forgotten before it has expired."""
    monkeypatch.setattr("producer_client.signing.GOOD_FOR_S", {queue: GOOD_FOR_S[queue] + 1})
    headers = stamped(queue=queue)
    monkeypatch.undo()

    assert refused(lambda: admit(headers, queue=queue)) is Code.EXPIRED


@pytest.mark.parametrize("nonce", ["", "0" * 31, "0" * 33, "A" * 32, "../" + "0" * 29, "0" * 31 + "\n"])
def test_a_nonce_of_another_form_is_refused(nonce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a part of a key's name in Redis."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: nonce)

    assert refused(lambda: admit(stamped())) is Code.BAD_SIGNATURE


def test_two_keys_go_together_until_the_old_one_is_withdrawn() -> None:
    by_old, by_new = stamped(OLD), stamped(BOTH)

    assert by_new[SIGNED].startswith("2027 ")
    assert [admit(headers, BOTH)["id"] for headers in (by_old, by_new)] == ["0f-1", "0f-1"]
    assert refused(lambda: admit(by_old, NEW)) is Code.BAD_SIGNATURE
    check_reply(BOTH, "0f-1", SIGNED_REPLY)
    assert refused(lambda: check_reply(NEW, "0f-1", SIGNED_REPLY)) is Code.BAD_SIGNATURE


# ------------------------------------------------------------------------------------------------ the door


class Done:
    """What a Redis knows of messages that were carried out."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def exists(self, name: str) -> bool:
        return name in self.names


def raw(headers: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """As it lies in the list, parsed."""
    told = {
        "body_encoding": "base64",
        "delivery_tag": "t",
        "delivery_info": {"exchange": "bulk", "routing_key": "bulk"},
    }
    return {
        "body": base64.b64encode(BODY).decode(),
        "content-type": TYPE,
        "content-encoding": ENCODING,
        "headers": headers,
        "properties": told | properties,
    }


def door(keys: Keys | None = OLD, *, required: bool = True, told: list[Any] | None = None) -> Door:
    return Door(keys, required=required, prefix="p:", answer=lambda *said: None if told is None else told.append(said))


def taken(message: dict[str, Any]) -> dict[str, Any]:
    found = door().admit(message, BODY, "bulk", Done())
    assert found is not None
    return found


def fresh(**headers: Any) -> dict[str, Any]:
    given = HEADERS | headers
    return given | {SIGNED: stamp(OLD, "bulk", given, BODY, content_type=TYPE, content_encoding=ENCODING)}


def test_nothing_that_a_signature_does_not_cover_has_an_effect() -> None:
    signed = fresh()
    plain = raw(dict(signed))
    odd = raw(
        {
            **signed,
            "shadow": "x",
            "argsrepr": "y",
            "lang": "c",
            "stamps": {"a": 1},
            "origin": "them",
            "sightline_sent": 1,
        },
        priority=9,
        reply_to="them",
        correlation_id="another",
        delivery_info={"exchange": "theirs", "routing_key": "interactive"},
    )

    one, other = (taken(message) for message in (plain, odd))

    for message in (one, other):
        del message["headers"][SIGNED], message["properties"]["delivery_tag"]
    assert one == other
    assert other["properties"]["delivery_info"] == {"exchange": "", "routing_key": "bulk"}
    assert other["properties"]["correlation_id"] == "0f-1"
    assert set(other["headers"]) == {"lang", "task", "id", "root_id", "retries", "sightline_sent"}


def test_a_tag_that_another_message_has_is_not_taken_over() -> None:
    first, second = (taken(raw(fresh())) for _ in range(2))

    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"] != "t"


def test_a_message_that_was_handed_out_before_says_so_afterwards() -> None:
    again = taken(raw(fresh(redelivered=True)))

    assert again["headers"]["redelivered"] is again["properties"]["delivery_info"]["redelivered"] is True


def test_what_is_unsigned_is_refused_where_signatures_are_required_and_answered() -> None:
    told: list[Any] = []

    assert refused(lambda: door(told=told).admit(raw(dict(HEADERS)), BODY, "bulk", Done())) is Code.UNSIGNED
    assert [(task_id, code, known) for task_id, code, _, known in told] == [("0f-1", Code.UNSIGNED, None)]


def test_whose_message_it_is_says_the_key_that_it_was_signed_with() -> None:
    """Who is told of a refusal, too, by a reply that he can read."""
    told: list[Any] = []
    both = door(BOTH, told=told)
    late = HEADERS | {SIGNED: stamp(OLD, "bulk", HEADERS, BODY, content_type=TYPE, content_encoding=ENCODING, now=0)}

    assert refused(lambda: both.admit(raw(late), BODY, "bulk", Done())) is Code.EXPIRED
    assert [said[3] for said in told] == ["2026"]
    taken = both.admit(raw(fresh()), BODY, "bulk", Done())
    assert taken is not None
    assert both.signer(taken["headers"][SIGNED]) == "2026"
    assert both.signer(None) is None
    assert door(None, required=False).signer(taken["headers"][SIGNED]) is None, "who has no keys has not looked"


def test_a_reply_is_signed_by_the_key_of_its_request() -> None:
    for key_id in ("2026", "2027"):
        reply = door(BOTH).signed_reply("0f-1", REPLY, key_id)
        assert isinstance(reply, bytes)
        check_reply(Keys(key_id, {key_id: BOTH.secrets[key_id]}), "0f-1", reply)
    assert door(BOTH).signed_reply("0f-1", REPLY, None) == door(BOTH).signed_reply("0f-1", REPLY, "gone")


def test_what_is_unsigned_passes_as_it_is_where_signatures_are_not_required() -> None:
    plain = raw(dict(HEADERS))

    assert door(required=False).admit(plain, BODY, "bulk", Done()) is plain
    assert door(None, required=False).admit(plain, BODY, "bulk", Done()) is plain
    broken = raw(HEADERS | {SIGNED: "2026 " + "0" * 64 + " {}"})
    assert refused(lambda: door(required=False).admit(broken, BODY, "bulk", Done())) is Code.BAD_SIGNATURE
    assert door(None, required=False).admit(broken, BODY, "bulk", Done()) is broken, "who has no keys checks nothing"


def test_a_copy_of_what_was_carried_out_is_refused_and_not_answered() -> None:
    told: list[Any] = []
    ours, known, headers = door(told=told), Done(), fresh()
    ours.admit(raw(headers), BODY, "bulk", known)
    ours.admit(raw(headers), BODY, "bulk", known)  # handed out again: it has not ended

    noted = ours.done(headers)
    assert noted is not None
    known.names.add("p:" + noted[0])

    assert refused(lambda: ours.admit(raw(headers), BODY, "bulk", known)) is Code.REPLAYED
    assert told == [], "the reply to the first is left alone"
    assert ours.admit(raw({**headers, "redelivered": True}), BODY, "bulk", known) is None, "by who had it for too long"
    assert ours.admit(raw(fresh()), BODY, "bulk", known) is not None, "the same request, sent again"


def test_a_copy_is_remembered_for_as_long_as_it_would_be_carried_out() -> None:
    week = door().done(fresh())
    minute = door().done(fresh(expires="1970-01-01T00:00:00+00:00"))

    assert week is not None
    assert minute is not None
    assert GOOD_FOR_S["bulk"] < week[1] <= GOOD_FOR_S["bulk"] + SKEW_S + 1
    assert minute[1] == 1
    assert door().done(dict(HEADERS)) is None


# ------------------------------------------------------------------------------------------------ keys


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_are_read_one_a_line_and_never_shown(tmp_path: Path) -> None:
    keys = read_keys(written(tmp_path / "keys", f"# ours\n2027 {'n' * 32}\n\n2026 {'o' * 32}\n"))

    assert keys == BOTH
    assert "nnn" not in repr(keys)


@pytest.mark.parametrize(
    "text",
    ["", "# none", f"a {'s' * 31}", "s" * 40, f"a {'s' * 32}\na {'t' * 32}", f"a {'s' * 32} more", f"ä {'s' * 32}"],
)
def test_a_file_of_keys_that_is_none_is_refused_without_its_words(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "keys", text)

    with pytest.raises(BadRequest) as caught:
        Sightline("redis://127.0.0.1:1/0", signing_keys_file=path)

    assert "sss" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o602])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="chmod 600"):
        read_secret(written(tmp_path / "secret", "word", mode))


@pytest.mark.parametrize("mode", [0o440, 0o400, 0o600])
def test_a_secret_of_another_user_may_be_its_groups(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "secret", " word\n", mode)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    assert read_secret(path) == "word"


def test_a_secret_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_secret(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"cannot be read|no file"):
        read_secret(tmp_path)
