"""References to bytes: what may be read, from where, and how much of it. The only server is ours, on loopback."""

from __future__ import annotations

import gc
import gzip
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import ValidationError

from producer_client.contract import Code, Photo
from producer_client.errors import BadRequest
from worker.errors import PhotoRefusal, Transient
from worker.settings import Settings
from worker.storage.source import PhotoFiles
from worker.storage.web import is_private
from worker.words import in_language

CONTENT = b"the bytes of a photo"
#: Many times what a socket gives at once.
LARGE = bytes(range(256)) * 12_000


def fetch(photo: Photo, **settings: Any) -> bytes:
    return PhotoFiles(Settings(**settings)).fetch(photo)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refusal(photo: Photo, **settings: Any) -> PhotoRefusal:
    with pytest.raises(PhotoRefusal) as caught:
        fetch(photo, **settings)
    return caught.value


# ---------------------------------------------------------------------------------------------- files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "year").mkdir(parents=True)
    (folder / "year" / "photo.jpg").write_bytes(CONTENT)
    (tmp_path / "secret.jpg").write_bytes(b"not yours")
    return folder


def of_path(path: object) -> Photo:
    return Photo(path=str(path))


def test_a_file_below_a_root_is_read(root: Path) -> None:
    assert fetch(of_path(root / "year" / "photo.jpg"), photo_roots=(root,)) == CONTENT


def test_a_relative_path_is_found_below_any_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    assert fetch(of_path("year/photo.jpg"), photo_roots=(tmp_path / "other", root)) == CONTENT


def test_a_path_with_spaces_and_letters_of_the_world_is_read(root: Path) -> None:
    (root / "Žižkov č. 1 %20.jpg").write_bytes(CONTENT)

    assert fetch(of_path("Žižkov č. 1 %20.jpg"), photo_roots=(root,)) == CONTENT


def test_a_link_within_the_roots_is_followed(root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "year" / "photo.jpg")
    (root / "folder").symlink_to("year", target_is_directory=True)

    assert fetch(of_path(root / "link.jpg"), photo_roots=(root,)) == CONTENT
    assert fetch(of_path(root / "folder" / "photo.jpg"), photo_roots=(root,)) == CONTENT


def test_a_root_that_is_itself_a_link_works(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)

    assert fetch(of_path(tmp_path / "alias" / "year" / "photo.jpg"), photo_roots=(tmp_path / "alias",)) == CONTENT


@pytest.mark.parametrize("path", ["absent.jpg", "absent/photo.jpg", "year/photo.jpg/deeper"])
def test_a_file_that_is_not_there_is_not_found(root: Path, path: str) -> None:
    for given in (path, root / path):
        assert refusal(of_path(given), photo_roots=(root,)).code is Code.NOT_FOUND


def test_a_link_to_nowhere_and_a_link_to_itself_are_not_found(root: Path) -> None:
    (root / "nowhere.jpg").symlink_to(root / "absent.jpg")
    (root / "itself.jpg").symlink_to("itself.jpg")

    for name in ("nowhere.jpg", "itself.jpg"):
        assert refusal(of_path(root / name), photo_roots=(root,)).code is Code.NOT_FOUND


def links(root: Path, tmp_path: Path) -> None:
    (root / "year" / "in.jpg").symlink_to("photo.jpg")
    (root / "gone.jpg").symlink_to("absent.jpg")
    (root / "gone too.jpg").symlink_to("gone.jpg")
    (root / "gone folder").symlink_to(root / "absent")
    (root / "out.jpg").symlink_to("../secret.jpg")
    (root / "out too.jpg").symlink_to(root / "out.jpg")
    (root / "nowhere.jpg").symlink_to(tmp_path / "absent.jpg")
    (root / "folder").symlink_to(tmp_path)
    (root / "here").symlink_to("year")
    (root / "itself.jpg").symlink_to("itself.jpg")
    (root / "one.jpg").symlink_to("two.jpg")
    (root / "two.jpg").symlink_to("one.jpg")
    (tmp_path / "elsewhere.jpg").symlink_to(tmp_path / "secret.jpg")


#: Of a path below the root: the link that is named, and what is said of it.
LINKED = {
    "gone.jpg": ("gone.jpg", "is a link to absent.jpg, which is not there"),
    "gone too.jpg": ("gone.jpg", "is a link to absent.jpg, which is not there"),
    "gone folder/a.jpg": ("gone folder", "is a link to {root}/absent, which is not there"),
    "out.jpg": ("out.jpg", "is a link to ../secret.jpg, outside the allowed folders"),
    "out too.jpg": ("out.jpg", "is a link to ../secret.jpg, outside the allowed folders"),
    "nowhere.jpg": ("nowhere.jpg", "is a link to {root.parent}/absent.jpg, outside the allowed folders"),
    "folder/secret.jpg": ("folder", "is a link to {root.parent}, outside the allowed folders"),
    "folder/absent.jpg": ("folder", "is a link to {root.parent}, outside the allowed folders"),
    "here/../out.jpg": ("out.jpg", "is a link to ../secret.jpg, outside the allowed folders"),
    "itself.jpg": ("itself.jpg", "cannot be reached: {root}/itself.jpg is one of links in a circle"),
    "one.jpg": ("one.jpg", "cannot be reached: {root}/two.jpg is one of links in a circle"),
    "here/none.jpg": ("here/none.jpg", "cannot be reached on the worker: No such file or directory"),
    "../elsewhere.jpg": ("../elsewhere.jpg", "is outside the allowed folders"),
}


@pytest.mark.parametrize("name", LINKED)
def test_a_refusal_names_the_link_and_where_it_leads(
    root: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    links(root, tmp_path)
    link, said = LINKED[name]

    message = refusal(of_path(f"{root}/{name}"), photo_roots=(root,)).message

    assert message.startswith(f"{root}/{link} {said.format(root=root)}")
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    russian = in_language(message.replace(str(tmp_path), "/"))
    assert not re.search("is a link|outside|cannot|one of", russian)


def test_a_link_to_a_photo_is_the_photo(root: Path, tmp_path: Path) -> None:
    links(root, tmp_path)

    for name in ("year/in.jpg", "here/in.jpg", "here/photo.jpg"):
        assert fetch(of_path(root / name), photo_roots=(root,)) == CONTENT


def test_a_folder_is_not_a_file(root: Path) -> None:
    for path in (root, root / "year", "year"):
        assert refusal(of_path(path), photo_roots=(root,)).code is Code.NOT_A_FILE


@pytest.mark.timeout(60)
def test_a_pipe_is_not_a_file_and_nobody_waits_for_its_writer(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")

    assert refusal(of_path(root / "pipe.jpg"), photo_roots=(root,)).code is Code.NOT_A_FILE


def test_a_device_is_not_a_file() -> None:
    assert refusal(of_path("/dev/zero"), photo_roots=(Path("/dev"),)).code is Code.NOT_A_FILE


def test_a_refused_file_is_closed_again(root: Path) -> None:
    open_before = open_files()

    for _ in range(10):
        refusal(of_path(root), photo_roots=(root,))
        refusal(of_path("year/photo.jpg"), photo_roots=(root,), max_photo_bytes=1)

    assert open_files() == open_before


def test_a_file_outside_the_roots_is_refused(root: Path, tmp_path: Path) -> None:
    error = refusal(of_path(tmp_path / "secret.jpg"), photo_roots=(root,))

    assert error.code is Code.OUTSIDE_ROOTS
    assert "SIGHTLINE_PHOTO_ROOTS" in error.message


@pytest.mark.parametrize("path", ["../secret.jpg", "year/../../secret.jpg", "year/../year/../../secret.jpg"])
def test_dots_do_not_lead_out_of_a_root(root: Path, path: str) -> None:
    for given in (path, f"{root}/{path}"):
        assert refusal(of_path(given), photo_roots=(root,)).code is Code.OUTSIDE_ROOTS


def test_a_link_does_not_lead_out_of_a_root(root: Path, tmp_path: Path) -> None:
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)

    for given in ("link.jpg", root / "link.jpg", "folder/secret.jpg", root / "folder" / "secret.jpg"):
        assert refusal(of_path(given), photo_roots=(root,)).code is Code.OUTSIDE_ROOTS


def test_a_folder_whose_name_only_begins_like_a_root_is_outside(root: Path) -> None:
    neighbour = root.with_name(root.name + "-private")
    neighbour.mkdir()
    (neighbour / "photo.jpg").write_bytes(CONTENT)

    assert refusal(of_path(neighbour / "photo.jpg"), photo_roots=(root,)).code is Code.OUTSIDE_ROOTS


@pytest.mark.parametrize("name", ["secret.jpg", "absent.jpg", "secret.jpg/deeper", "absent/photo.jpg"])
def test_the_answer_does_not_tell_what_exists_outside_the_roots(root: Path, tmp_path: Path, name: str) -> None:
    assert refusal(of_path(tmp_path / name), photo_roots=(root,)).code is Code.OUTSIDE_ROOTS


def test_without_roots_no_path_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)

    for given in (root / "year" / "photo.jpg", "year/photo.jpg", "absent.jpg"):
        error = refusal(of_path(given), photo_roots=())
        assert error.code is Code.OUTSIDE_ROOTS
        assert "none are set" in error.message


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(root: Path) -> None:
    photo = of_path("year/photo.jpg")

    assert fetch(photo, photo_roots=(root,), max_photo_bytes=len(CONTENT)) == CONTENT
    error = refusal(photo, photo_roots=(root,), max_photo_bytes=len(CONTENT) - 1)

    assert error.code is Code.TOO_LARGE
    assert "SIGHTLINE_MAX_PHOTO_BYTES" in error.message


def test_a_file_of_a_terabyte_is_refused_by_its_size_alone(root: Path) -> None:
    with (root / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)

    error = refusal(of_path("sparse.jpg"), photo_roots=(root,))

    assert error.code is Code.TOO_LARGE
    assert f"has {2**40} bytes" in error.message


def test_an_empty_file_is_refused(root: Path) -> None:
    (root / "empty.jpg").touch()

    assert refusal(of_path("empty.jpg"), photo_roots=(root,)).code is Code.EMPTY_FILE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_not_found(root: Path) -> None:
    (root / "year" / "photo.jpg").chmod(0)

    assert refusal(of_path("year/photo.jpg"), photo_roots=(root,)).code is Code.NOT_FOUND


@pytest.mark.parametrize("path", ["x" * 300, "a/" * 3000])
def test_a_path_that_no_file_system_has_is_not_found(root: Path, path: str) -> None:
    assert refusal(of_path(path), photo_roots=(root,)).code is Code.NOT_FOUND


# ---------------------------------------------------------------------- files that change while they are opened or read


@pytest.fixture
def before_opening(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What another program does after a path was looked at, and before the file is opened."""

    def do(change: Callable[[], object]) -> None:
        opened = os.open

        def later(*args: Any, **named: Any) -> int:
            monkeypatch.setattr(os, "open", opened)
            change()
            return opened(*args, **named)

        monkeypatch.setattr(os, "open", later)

    return do


Later = Callable[[Callable[[], object]], None]


def put_in_place(path: Path, make: Callable[[Path], object]) -> None:
    path.rename(path.with_name("moved"))
    make(path)


def test_a_link_that_is_put_in_the_place_of_a_checked_file_is_not_followed(
    root: Path, tmp_path: Path, before_opening: Later
) -> None:
    photo = root / "year" / "photo.jpg"
    before_opening(lambda: put_in_place(photo, lambda path: path.symlink_to(tmp_path / "secret.jpg")))

    assert refusal(of_path(photo), photo_roots=(root,)).code is Code.NOT_A_FILE
    assert photo.is_symlink()


def test_a_link_that_is_put_in_the_place_of_a_folder_above_a_checked_file_is_noticed(
    root: Path, tmp_path: Path, before_opening: Later
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"not yours")
    before_opening(lambda: put_in_place(root / "year", lambda path: path.symlink_to(tmp_path)))

    assert refusal(of_path(root / "year" / "photo.jpg"), photo_roots=(root,)).code is Code.OUTSIDE_ROOTS


@pytest.mark.timeout(60)
def test_a_pipe_that_is_put_in_the_place_of_a_checked_file_is_not_waited_for(root: Path, before_opening: Later) -> None:
    photo = root / "year" / "photo.jpg"
    before_opening(lambda: put_in_place(photo, os.mkfifo))

    assert refusal(of_path(photo), photo_roots=(root,)).code is Code.NOT_A_FILE


def test_a_file_that_vanishes_after_it_was_checked_is_not_found(root: Path, before_opening: Later) -> None:
    photo = root / "year" / "photo.jpg"
    before_opening(photo.unlink)

    assert refusal(of_path(photo), photo_roots=(root,)).code is Code.NOT_FOUND


def test_a_file_that_vanishes_while_it_is_open_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = root / "year" / "photo.jpg"
    looked = os.fstat

    def unlinked(descriptor: int) -> os.stat_result:
        photo.unlink(missing_ok=True)
        return looked(descriptor)

    monkeypatch.setattr(os, "fstat", unlinked)

    assert fetch(of_path(photo), photo_roots=(root,)) == CONTENT


@pytest.mark.parametrize(("more", "code"), [(b"x" * 100, Code.TOO_LARGE), (None, Code.EMPTY_FILE)])
def test_a_file_that_grows_or_is_emptied_while_it_is_open_is_held_to_the_limits(
    root: Path, more: bytes | None, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = root / "year" / "photo.jpg"
    looked = os.fstat

    def changed(descriptor: int) -> os.stat_result:
        facts = looked(descriptor)
        photo.write_bytes(CONTENT + more if more else b"")
        return facts

    monkeypatch.setattr(os, "fstat", changed)

    assert refusal(of_path(photo), photo_roots=(root,), max_photo_bytes=len(CONTENT) + 99).code is code


def test_a_device_is_not_even_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open one may do something: a tape winds back, a watchdog starts."""
    opened = os.open
    how = []

    def noted(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        how.append(flags)
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", noted)

    assert refusal(of_path("/dev/zero"), photo_roots=(Path("/dev"),)).code is Code.NOT_A_FILE
    assert how
    assert all(flags & os.O_PATH for flags in how)


def test_a_file_that_cannot_be_read_is_tried_again_later() -> None:
    with pytest.raises(Transient) as caught:
        fetch(of_path("/proc/self/mem"), photo_roots=(Path("/proc"),))

    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.timeout(60)
def test_a_path_of_two_thousand_folders_is_refused_at_once(root: Path) -> None:
    for path in (f"{root}/" + "a/" * 1900, "/elsewhere/" + "a/" * 1900):
        started = time.thread_time()
        assert refusal(of_path(path), photo_roots=(root,)).code in (Code.NOT_FOUND, Code.OUTSIDE_ROOTS)
        assert time.thread_time() - started < 2.0


# --------------------------------------------------------------------------------------------- inline


def test_inline_bytes_are_the_photo() -> None:
    assert fetch(Photo.of_bytes(CONTENT)) == CONTENT


@pytest.mark.parametrize("size", [1, 2, 3, 99, 100])
def test_inline_bytes_up_to_the_limit_are_taken(size: int) -> None:
    assert fetch(Photo.of_bytes(b"x" * size), max_inline_bytes=100) == b"x" * size


def test_inline_bytes_beyond_the_limit_are_refused() -> None:
    error = refusal(Photo.of_bytes(b"x" * 110), max_inline_bytes=100)

    assert error.code is Code.TOO_LARGE
    assert "SIGHTLINE_MAX_INLINE_BYTES" in error.message


def test_inline_text_that_is_not_base64_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="base64"):
        fetch(Photo(inline="this is no base64!"))


def test_a_photo_that_came_inline_cannot_be_read_again(root: Path) -> None:
    error = refusal(of_path("inline:" + "0" * 64), photo_roots=(root,))

    assert error.code is Code.NOT_FOUND
    assert "inline" in error.message


# --------------------------------------------------------------------------------------- URLs: refused


@pytest.mark.parametrize("url", ["https://photos.example/a.jpg", "s3://bucket/a.jpg", "http://127.0.0.1/a.jpg"])
def test_urls_are_off_unless_hosts_are_named(url: str) -> None:
    error = refusal(Photo(url=url), url_schemes=("http", "https", "s3"))

    assert error.code is Code.URL_NOT_ALLOWED
    assert "SIGHTLINE_URL_HOSTS" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/a.jpg",
        "https://photos.example.evil.example/a.jpg",
        "https://evil.example/photos.example",
        "https://photos.example@evil.example/a.jpg",
        "https://photos.example:80@evil.example/a.jpg",
        "https://evil.example#@photos.example/a.jpg",
        "https://evil.example?@photos.example/a.jpg",
        "https://evil.example\\@127.0.0.1/a.jpg",
        "https://photos.example\u3002evil.example/a.jpg",
        "https://sub.photos.example/a.jpg",
        "https:///a.jpg",
        "https://",
        "s3://other-bucket/a.jpg",
        "gs://other-bucket/a.jpg",
        "s3://photos@other-bucket/a.jpg",
    ],
)
def test_only_a_named_host_or_bucket_is_asked(url: str) -> None:
    error = refusal(Photo(url=url), url_hosts=("photos.example", "photos"), url_schemes=("https", "s3", "gs"))

    assert error.code is Code.URL_NOT_ALLOWED
    assert "SIGHTLINE_URL_HOSTS" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "http://photos.example/a.jpg",
        "ftp://photos.example/a.jpg",
        "file:///etc/passwd",
        "gopher://photos.example/",
        "data:image/png;base64,AAAA",
        "photos.example/a.jpg",
        "//photos.example/a.jpg",
        "simplecache::https://photos.example/a.jpg",
        "::",
    ],
)
def test_only_an_allowed_scheme_is_asked(url: str) -> None:
    error = refusal(Photo(url=url), url_hosts=("photos.example", "etc"))

    assert error.code is Code.URL_NOT_ALLOWED
    assert "SIGHTLINE_URL_SCHEMES" in error.message


@pytest.mark.parametrize("scheme", ["ftp", "memory", "local", "ssh", "github"])
def test_a_scheme_that_nobody_reviewed_cannot_be_set(scheme: str) -> None:
    with pytest.raises(ValidationError, match="url_schemes"):
        Settings.model_validate({"url_schemes": scheme})


@pytest.mark.parametrize(
    "url", ["https://[::1/a.jpg", "https://photos.example:99999/a.jpg", "https://photos.example:x/a.jpg"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    assert refusal(Photo(url=url), url_hosts=("photos.example",)).code is Code.URL_NOT_ALLOWED


#: Ways to write an address that not everybody can reach, or that carries one: by numbers, in others' digits, in IPv6.
PRIVATE = [
    "127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.000.000.001", "012.0.0.1", "0",
    "①②⑦.0.0.1", "127。0。0。1", "１２７.0.0.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "[fe80::1]", "[fd00::1]", "[ff02::1]",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_address_is_refused_even_where_it_is_allowed_as_a_host(host: str) -> None:
    error = refusal(Photo(url=f"https://{host}:9/a.jpg"), url_hosts=(host.strip("[]"),))

    assert error.code is Code.URL_NOT_ALLOWED
    assert "SIGHTLINE_URL_PRIVATE" in error.message


@pytest.mark.parametrize("host", ["8.8.8.8", "134744072", "2001:4860:4860::8888", "64:ff9b::808:808", "photos.example"])
def test_what_everybody_can_reach_is_no_private_address_and_neither_is_a_name(host: str) -> None:
    assert not is_private(host)


#: What a name server answers.
ANSWERS = {
    "a private address": ["10.0.0.7"],
    "a private one behind a public one": ["8.8.8.8", "127.0.0.1"],
    "a private one of IPv6": ["fd00::7"],
    "one that carries a private one": ["64:ff9b::a00:7"],
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(
    answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == "photos.example"
        of_four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers if ":" not in a]
        of_six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, port, 0, 0)) for a in answers if ":" in a]
        return of_four + of_six

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))

    error = refusal(Photo(url="https://photos.example/a.jpg"), url_hosts=("photos.example",))

    assert error.code is Code.URL_NOT_ALLOWED
    assert f"photos.example is at the private address {answers[-1]}" in error.message


def test_a_path_with_a_scheme_obeys_the_rules_of_urls(root: Path) -> None:
    assert refusal(of_path("https://photos.example/a.jpg"), photo_roots=(root,)).code is Code.URL_NOT_ALLOWED


# ------------------------------------------------------------------------------------ URLs of our disk


def test_a_file_url_is_a_path_below_the_roots(root: Path, tmp_path: Path) -> None:
    (root / "with space.jpg").write_bytes(CONTENT)
    settings: dict[str, Any] = {"photo_roots": (root,), "url_schemes": ("file",)}

    assert fetch(Photo(url=f"file://{root}/with%20space.jpg"), **settings) == CONTENT
    assert refusal(Photo(url=f"file://{tmp_path}/secret.jpg"), **settings).code is Code.OUTSIDE_ROOTS
    assert refusal(Photo(url=f"file://{root}/%2e%2e/secret.jpg"), **settings).code is Code.OUTSIDE_ROOTS
    assert refusal(Photo(url=f"file://{root}/a%00b.jpg"), **settings).code is Code.NOT_FOUND


# ------------------------------------------------------------------------------------- URLs of a server


class Server(ThreadingHTTPServer):
    """A web server with one behaviour a path. `asked` holds the requests; `patience` lets slow answers end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.sent = 0
        self.patience = threading.Event()
        self.said: int | None = None  #: how long an object is, to who asks for that alone
        self.connections = 0
        self.changed = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.connections -= 1
            self.changed.notify_all()

    def url(self, path: str, host: str = "127.0.0.1") -> Photo:
        return Photo(url=f"http://{host}:{self.server_port}{path}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if "Range" in self.headers:
            self.server.asked.append(f"Range: {self.headers['Range']}")
        answer: Callable[[], None] = getattr(self, f"answer_{self.word}", self.answer_status)
        answer()

    @property
    def word(self) -> str:
        """What the path begins with: how to answer."""
        in_gs = re.match("/(download/)?storage/v1/b/([^/]+)/o", self.path)
        if in_gs and not in_gs[1] and in_gs[2] in ("photo", "large", "stuck", "drip"):
            return "facts"
        return in_gs[2] if in_gs else re.split("[/?:]", self.path.strip("/"))[0]

    def answer_facts(self) -> None:
        """Of an object in gs, as its JSON API says them."""
        where = f"http://127.0.0.1:{self.server.server_port}/download{self.path}?alt=media"
        said = json.dumps({"name": "a.jpg", "bucket": "b", "size": str(len(LARGE)), "mediaLink": where}).encode()
        self.head(200, len(said))
        self.write_slices(said)

    def answer_photo(self) -> None:
        self.head(200, len(CONTENT))
        self.write_slices(CONTENT)

    def answer_large(self) -> None:
        self.head(200, len(LARGE))
        self.write_slices(LARGE)

    def answer_chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(LARGE), 50_000):
            piece = LARGE[start : start + 50_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def answer_zipped(self) -> None:
        packed = gzip.compress(LARGE)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def answer_endless(self) -> None:
        self.head(200, 10**12)
        while True:
            self.wfile.write(LARGE)
            self.server.sent += len(LARGE)

    def answer_empty(self) -> None:
        # As stores do: there is no part of nothing.
        self.head(416 if "Range" in self.headers else 200, 0)

    def answer_redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/photo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_late(self) -> None:
        self.server.patience.wait(30)
        self.answer_photo()

    def answer_drip(self) -> None:
        self.head(200, len(LARGE))
        while self.command == "GET" and not self.server.patience.wait(0.1):
            self.wfile.write(b"x")
            self.wfile.flush()

    def answer_stuck(self) -> None:
        self.head(200, len(LARGE))
        if self.command == "HEAD":
            return
        self.wfile.write(LARGE[:1000])
        self.server.patience.wait(30)

    def answer_short(self) -> None:
        self.head(200, len(LARGE))
        self.wfile.write(LARGE[:1000])
        self.close_connection = True

    def answer_nothing(self) -> None:
        self.close_connection = True

    def answer_status(self) -> None:
        self.head(int(self.word), 0)

    def head(self, status: int, length: int) -> None:
        self.send_response(status)
        said = self.server.said if self.command == "HEAD" else None
        self.send_header("Content-Length", str(length if said is None else said))
        self.send_header("Last-Modified", "Mon, 02 Mar 2026 03:00:00 GMT")
        self.end_headers()

    def write_slices(self, content: bytes) -> None:
        if self.command == "HEAD":
            return
        for start in range(0, len(content), 100_000):
            self.wfile.write(content[start : start + 100_000])
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.patience.set()
            running.shutdown()
            thread.join()


#: As an object store in the same network is set up.
ALLOWED: dict[str, Any] = {"url_hosts": ("127.0.0.1", "localhost"), "url_schemes": ("http",), "url_private": True}


def test_a_photo_is_read_from_an_allowed_server_with_one_request(server: Server) -> None:
    assert fetch(server.url("/photo"), **ALLOWED) == CONTENT
    assert server.asked == ["GET /photo"]


def test_a_path_that_is_a_url_is_read_as_one(server: Server) -> None:
    assert fetch(Photo(path=server.url("/photo").url), **ALLOWED) == CONTENT


@pytest.mark.parametrize("path", ["/large", "/chunked", "/zipped"])
def test_a_photo_of_many_packets_arrives_whole(server: Server, path: str) -> None:
    assert fetch(server.url(path), **ALLOWED) == LARGE


def test_colons_in_a_url_are_part_of_it(server: Server) -> None:
    assert fetch(server.url("/photo::file:///etc/passwd"), **ALLOWED) == CONTENT
    assert server.asked == ["GET /photo::file:///etc/passwd"]


def test_a_host_is_allowed_in_any_case_of_letters(server: Server) -> None:
    assert fetch(server.url("/photo", host="LOCALHOST"), **ALLOWED) == CONTENT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_address_is_not_connected_to_by_number_or_by_name(server: Server, host: str) -> None:
    error = refusal(server.url("/photo", host=host), **ALLOWED | {"url_private": False})

    assert error.code is Code.URL_NOT_ALLOWED
    assert "SIGHTLINE_URL_PRIVATE" in error.message
    assert server.asked == []


def test_a_password_before_the_host_is_not_the_host(server: Server) -> None:
    trick = Photo(url=f"http://photos.example@127.0.0.1:{server.server_port}/photo")

    assert refusal(trick, **ALLOWED | {"url_hosts": ("photos.example",)}).code is Code.URL_NOT_ALLOWED
    assert server.asked == []


def test_a_redirect_is_not_followed(server: Server) -> None:
    error = refusal(server.url("/redirect"), **ALLOWED)

    assert error.code is Code.URL_NOT_ALLOWED
    assert server.asked == ["GET /redirect"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_the_server_will_say_again_is_a_refusal(server: Server, status: int) -> None:
    error = refusal(server.url(f"/{status}"), **ALLOWED)

    assert error.code is Code.NOT_FOUND
    assert str(status) in error.message
    assert len(server.asked) == 1


@pytest.mark.parametrize("path", ["/500", "/502", "/503", "/429", "/408", "/short", "/nothing"])
def test_a_server_in_trouble_is_asked_again_later(server: Server, path: str) -> None:
    with pytest.raises(Transient) as caught:
        fetch(server.url(path), **ALLOWED)

    assert caught.value.code is Code.UNAVAILABLE


def test_a_server_that_is_not_there_is_asked_again_later(server: Server) -> None:
    gone = server.url("/photo")
    server.shutdown()
    server.server_close()

    with pytest.raises(Transient):
        fetch(gone, **ALLOWED)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["/late", "/stuck"])
def test_a_slow_server_is_given_up_in_time(server: Server, path: str) -> None:
    with pytest.raises(Transient) as caught:
        fetch(server.url(path), **ALLOWED, url_timeout_s=0.5)

    assert caught.value.code is Code.UNAVAILABLE
    assert not caught.value.message.endswith(": ")


@pytest.mark.timeout(60)
def test_a_body_beyond_the_limit_is_not_read_to_its_end(server: Server) -> None:
    error = refusal(server.url("/endless"), **ALLOWED, max_photo_bytes=100_000)

    assert error.code is Code.TOO_LARGE
    assert server.sent < 100_000_000


@pytest.mark.parametrize(("limit", "fits"), [(len(LARGE), True), (len(LARGE) - 1, False)])
def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(server: Server, limit: int, fits: bool) -> None:
    if fits:
        assert fetch(server.url("/large"), **ALLOWED, max_photo_bytes=limit) == LARGE
    else:
        assert refusal(server.url("/large"), **ALLOWED, max_photo_bytes=limit).code is Code.TOO_LARGE


def test_an_empty_body_is_refused(server: Server) -> None:
    assert refusal(server.url("/empty"), **ALLOWED).code is Code.EMPTY_FILE


@pytest.mark.parametrize("path", ["/photo", "/large", "/404", "/redirect", "/500", "/short"])
def test_a_connection_is_closed_without_waiting_for_the_garbage_collector(server: Server, path: str) -> None:
    gc.disable()
    try:
        with suppress(PhotoRefusal, Transient):
            fetch(server.url(path), **ALLOWED)

        with server.changed:
            assert server.changed.wait_for(lambda: server.connections == 0, timeout=5)
    finally:
        gc.enable()


# --------------------------------------------------------------------------------------- object stores


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same server as an object store, for the real driver. A bucket is the first part of the path there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    return server


BUCKETS: dict[str, Any] = {
    "url_hosts": ("photo", "large", "empty", "404", "403", "late", "stuck", "drip", "500"),
    "url_schemes": ("s3", "gs"),
}


def test_an_object_is_read_from_an_allowed_bucket(bucket: Server) -> None:
    assert fetch(Photo(url="s3://photo/2026/a.jpg"), **BUCKETS) == CONTENT
    assert "GET /photo/2026/a.jpg" in bucket.asked


def test_a_large_object_arrives_whole(bucket: Server) -> None:
    assert fetch(Photo(url="s3://large/a.jpg"), **BUCKETS) == LARGE


def test_an_object_beyond_the_limit_is_refused_by_its_size_alone(bucket: Server) -> None:
    error = refusal(Photo(url="s3://large/a.jpg"), **BUCKETS, max_photo_bytes=1000)

    assert error.code is Code.TOO_LARGE
    assert not [asked for asked in bucket.asked if asked.startswith("GET")]


def test_an_object_that_has_grown_since_its_size_was_asked_is_refused(bucket: Server) -> None:
    bucket.said = 1000

    error = refusal(Photo(url="s3://large/a.jpg"), **BUCKETS, max_photo_bytes=1001)

    assert error.code is Code.TOO_LARGE
    assert "Range: bytes=0-1001" in bucket.asked


def test_an_object_of_no_bytes_is_refused(bucket: Server) -> None:
    assert refusal(Photo(url="s3://empty/a.jpg"), **BUCKETS).code is Code.EMPTY_FILE


@pytest.mark.parametrize("name", ["404", "403"])
def test_an_object_that_is_not_there_or_not_ours_is_not_found(bucket: Server, name: str) -> None:
    assert refusal(Photo(url=f"s3://{name}/a.jpg"), **BUCKETS).code is Code.NOT_FOUND


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["late", "stuck", "drip", "500"])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_slow_object_store_is_given_up_in_time(bucket: Server, scheme: str, name: str) -> None:
    """Also one that goes on sending a byte now and then, and one that is tried again for its errors."""
    fsspec.get_filesystem_class(scheme)  # what reads it takes seconds to load, once for a process
    started = time.monotonic()

    with pytest.raises(Transient) as caught:
        fetch(Photo(url=f"{scheme}://{name}/a.jpg"), **BUCKETS, url_timeout_s=0.6)

    assert caught.value.code is Code.UNAVAILABLE
    assert time.monotonic() - started < 10.0


def test_an_object_of_a_gs_bucket_is_read_up_to_the_limit(bucket: Server) -> None:
    assert fetch(Photo(url="gs://large/a.jpg"), **BUCKETS) == LARGE
    assert refusal(Photo(url="gs://large/a.jpg"), **BUCKETS, max_photo_bytes=1000).code is Code.TOO_LARGE
    assert refusal(Photo(url="gs://404/a.jpg"), **BUCKETS).code is Code.NOT_FOUND


def test_every_spelling_of_a_file_ends_in_the_same_one(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    settings = Settings(photo_roots=(root,))
    name = "a.jpg"
    (root / name).write_bytes(b"a")
    ways = [str(root / name), f"{root}/./{name}", str(tmp_path / "link" / name), name]

    spelled = [PhotoFiles(settings).spellings(way) for way in ways]

    assert {names[-1] for names in spelled} == {str(root / name)}
    for names in spelled:
        assert {str(root / name), name} <= set(names)
    assert spelled[0][0] == ways[0]
    assert spelled[1][0] == ways[0], "a crooked path is kept straight"


def test_a_root_that_is_a_link_has_its_photos_by_both_names(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    source = PhotoFiles(Settings(photo_roots=(link,)))
    ways = [str(folder / "year" / "photo.jpg") for folder in (link, root)]

    for way in [*ways, "year/photo.jpg"]:
        assert source.fetch(Photo(path=way)) == CONTENT
        spelled = source.spellings(way)
        assert spelled[0] == way
        assert spelled[-1] == ways[1]
        assert {*ways, "year/photo.jpg"} <= set(spelled)


@pytest.mark.parametrize("path", ["a" * 5000, "/" + "a" * 300 + "/b.jpg", "no such file", ""])
def test_a_path_that_no_file_system_takes_is_not_there(root: Path, path: str) -> None:
    assert PhotoFiles(Settings(photo_roots=(root,))).is_there(path) is False


@pytest.mark.parametrize("path", ["inline:0a1b", "https://photos.example/a/../b.jpg?x=1", "s3://bucket/a.jpg"])
def test_what_is_no_file_has_one_spelling(path: str) -> None:
    assert PhotoFiles(Settings()).spellings(path) == (path,)
