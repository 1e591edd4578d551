"""References to bytes: files under allowed roots, URLs of allowed hosts, inline bytes. Knows limits, not images."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from producer_client.contract import Code, Photo
from producer_client.errors import quoted
from worker.core.types import INLINE, FileFacts, UnknownFile, is_on_disk
from worker.errors import PhotoRefusal, Transient
from worker.extras import cloud_lacks
from worker.prefixes import Prefixes, is_windows
from worker.settings import Settings
from worker.spelling import composed, forms, last_link, on_disk
from worker.storage.web import is_private, options_of, streamed

T = TypeVar("T")


def is_file(path: Path) -> bool:
    """As Path.is_file, which raises for a name that is too long or a folder that may not be entered (Python 3.11)."""
    try:
        return path.is_file()
    except OSError:
        return False


class _Place(NamedTuple):
    """Where a file would lie that is not there. anywhere: or below any other root."""

    folders: tuple[Path, ...]  #: its own, and of a link the one that it leads to
    anywhere: bool


class PhotoFiles:
    """See worker.core.ports.PhotoSource."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefixes = Prefixes(settings.path_prefixes)
        self._real_roots = tuple(Path(os.path.realpath(root)) for root in settings.photo_roots)
        #: Each by its own name and by that which it leads to.
        self._roots = tuple(dict.fromkeys([*settings.photo_roots, *self._real_roots]))

    def fetch(self, photo: Photo) -> bytes:
        """The bytes of a path, a URL or an inline photo; `photo_id` is resolved before.

        Raises PhotoRefusal, or Transient where a server did not answer.
        """
        if photo.inline is not None:
            return self._inline(photo)
        if photo.url is not None:
            return self._url(photo.url)
        if photo.path is not None and "://" in photo.path:
            return self._url(photo.path)
        return self._file(photo.path or "")

    def beside(self, path: str, names: Iterable[tuple[T, str]], *, limit: int) -> Iterator[tuple[T, bytes]]:
        """The files of these names that lie in the folder of a photo, each read when it is asked for.

        names: with what each of them is called back by. A file is read as a photo is, under the allowed roots alone;
        one that may not be read is passed over, one of more than `limit` bytes comes as nothing. Raises Transient.
        """
        if "://" in path:
            return
        folder = self._absolute(path).parent
        for key, name in names:
            try:
                yield key, self._file(str(folder / name), limit=limit)
            except PhotoRefusal as exc:
                if exc.code in (Code.TOO_LARGE, Code.EMPTY_FILE):
                    yield key, b""

    def facts(self, paths: Sequence[str]) -> list[FileFacts | UnknownFile | None]:
        """How files on this disk are, without reading them; of each None where it is gone: not there, while its root
        is. UnknownFile where nothing can be said: the disk answers something else, or the root is missing or empty, as
        it is while nothing is mounted there."""
        found = [self._stat(path) for path in paths]
        if missing := [number for number, facts in enumerate(found) if facts is None]:
            # Mounted before they are looked for once more, and after it.
            places = {number: self._place(paths[number]) for number in missing}
            before = {place: self._unmounted(place) for place in set(places.values())}
            again = {number: self._stat(paths[number]) for number in missing}
            after = {place: self._unmounted(place) for place in before}
            for number, place in places.items():
                found[number] = again[number] or before[place] or after[place]
        return found

    def is_there(self, path: str) -> bool:
        """Whether a path of the table names a file; URLs are not asked."""
        return "://" in path or is_file(self._absolute(path))

    def file_of(self, path: str) -> str:
        """One name for one file, however a table spells it: links followed, and composed where nothing is there."""
        if not is_on_disk(path):
            return path
        absolute = str(self._absolute(path))
        try:
            real = os.path.realpath(absolute)
        except ValueError:  # a NUL, which no file's name has
            return absolute
        return real if os.path.lexists(real) else composed(real)

    def spellings(self, path: str) -> tuple[str, ...]:
        """The ways in which a table may name this file; the last is the same for all of them. First the one to keep."""
        if not is_on_disk(path):
            return (path,)
        absolute, real = str(self._absolute(path)), self.file_of(path)
        kept = path if path == os.path.normpath(path) else real
        names = dict.fromkeys([os.path.normpath(absolute), real])
        for name in tuple(names):
            for root, leads_to in zip(self._settings.photo_roots, self._real_roots, strict=True):
                for beginning in (root, leads_to):
                    if Path(name).is_relative_to(beginning):
                        below = Path(name).relative_to(beginning)
                        names |= dict.fromkeys([str(root / below), str(below)])
        names |= dict.fromkeys([other for name in tuple(names) for other in self._prefixes.elsewhere(name)])
        # Another form of the name may be another file.
        others = [form for name in (path, *names) for form in forms(name) if form == name or self._is(form, real)]
        return (*dict.fromkeys(name for name in (kept, *others) if name != real or name == kept), real)

    def _inline(self, photo: Photo) -> bytes:
        limit = self._settings.max_inline_bytes
        if len(photo.inline or "") * 3 // 4 > limit + 2:
            raise PhotoRefusal(
                Code.TOO_LARGE,
                f"inline photos go up to {limit} bytes (SIGHTLINE_MAX_INLINE_BYTES); send a path or URL",
            )
        return photo.inline_bytes()

    def _file(self, given: str, *, limit: int | None = None) -> bytes:
        if given.startswith(INLINE):
            raise PhotoRefusal(Code.NOT_FOUND, "the photo came as inline bytes, which are not kept")
        path = self._absolute(given)
        if self._prefixes.of(given) is not None:
            given = f"{given} (here {path})"
        elif is_windows(given) and not os.path.lexists(path):
            raise PhotoRefusal(
                Code.NOT_FOUND,
                f"{given} is a path of Windows: say in SIGHTLINE_PATH_PREFIXES which folder it is here, "
                "as C:\\photos=/photos",
            )
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as exc:
            # Said only about places that the caller may see: the answer must not map the rest of the disk.
            self._check_root(Path(os.path.realpath(path)), given, path)
            link, target = last_link(path, self._roots) or (None, None)
            if link is not None and exc.errno == errno.ELOOP:
                why = f"{given} cannot be reached: {link} is one of links in a circle"
                raise PhotoRefusal(Code.NOT_FOUND, why) from exc
            if link is not None and not os.path.exists(link):  # noqa: PTH110  # which may raise
                raise PhotoRefusal(Code.NOT_FOUND, f"{link} is a link to {target}, which is not there") from exc
            raise PhotoRefusal(Code.NOT_FOUND, f"{given} cannot be reached on the worker: {exc.strerror}") from exc
        except ValueError as exc:
            raise PhotoRefusal(Code.NOT_FOUND, f"{quoted(given)} is not a path: {exc}") from exc  # %00 in a file:// URL
        self._check_root(real, given, path)
        with ExitStack() as stack:
            try:
                # O_PATH: only a regular file is opened for reading. To open a device may do something, and a FIFO waits
                # for a writer. O_NOFOLLOW: a link put there since is not followed, and one put there for a folder above
                # is noticed below.
                found = os.open(real, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, found)
                facts = os.fstat(found)
                if not stat.S_ISREG(facts.st_mode):
                    raise PhotoRefusal(Code.NOT_A_FILE, f"{given} is not a regular file")
                itself = Path(f"/proc/self/fd/{found}")
                self._check_root(itself.readlink(), given, path)
                self._check_size(facts.st_size, given, limit)
                file = stack.enter_context(itself.open("rb"))
            except OSError as exc:
                raise PhotoRefusal(Code.NOT_FOUND, f"{given} cannot be opened on the worker: {exc.strerror}") from exc
            try:
                content = file.read((limit or self._settings.max_photo_bytes) + 1)
            except OSError as exc:
                raise Transient(Code.UNAVAILABLE, f"{given} cannot be read now: {exc.strerror}") from exc
        return self._checked(content, given, limit)

    def _absolute(self, given: str) -> Path:
        return Path(self._name(given))

    def _name(self, given: str) -> str:
        """As this machine has it and the disk spells it. A relative path is looked for under each root: some backends
        store only the part below."""
        given = self._prefixes.here(given)
        if given.startswith("/"):
            return on_disk(given)
        below = [on_disk(f"{root}/{given}") for root in self._settings.photo_roots] or [given]
        return below[0] if len(below) == 1 else next(filter(os.path.lexists, below), below[0])

    def _is(self, given: str, real: str) -> bool:
        return os.path.realpath(self._absolute(given)) == real

    def _stat(self, given: str) -> FileFacts | UnknownFile | None:
        try:
            # Asked for every photo of a library, and a Path takes longer to make than a disk to answer.
            found = os.stat(self._name(given))  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            return UnknownFile(f"{given} cannot be looked at: {exc.strerror}")
        return FileFacts(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None

    def _place(self, given: str) -> _Place:
        absolute = self._absolute(given)
        folders = [absolute.parent]
        if absolute.is_symlink():
            folders.append(Path(os.path.realpath(absolute)).parent)
        return _Place(tuple(folders), anywhere=not self._prefixes.here(given).startswith("/"))

    def _unmounted(self, place: _Place) -> UnknownFile | None:
        """Unless every root in which a file of this place may lie is there with something in it, and so is what is left
        of its folder, which may be a place to mount at."""
        names = [name(folder) for folder in place.folders for name in (os.path.normpath, os.path.realpath)]
        roots = [
            root for root in self._roots if place.anywhere or any(Path(name).is_relative_to(root) for name in names)
        ]
        if not roots:
            return UnknownFile(f"{place.folders[0]} is outside the allowed folders (SIGHTLINE_PHOTO_ROOTS)")
        left = [next(filter(os.path.isdir, (folder, *folder.parents)), folder) for folder in place.folders]
        for folder in dict.fromkeys([*roots, *left]):
            try:
                if not _holds_something(folder):
                    return UnknownFile(f"{folder} is empty: is nothing mounted there?")
            except OSError as exc:
                return UnknownFile(f"{folder} cannot be looked into: {exc.strerror}")
        return None

    def _check_root(self, real: Path, given: str, path: Path) -> None:
        if not any(real.is_relative_to(root) for root in self._real_roots):
            roots = ", ".join(map(str, self._settings.photo_roots)) or "none are set"
            if found := last_link(path, self._roots):
                link, target = found
                raise PhotoRefusal(
                    Code.OUTSIDE_ROOTS,
                    f"{link} is a link to {target}, outside the allowed folders ({roots}; SIGHTLINE_PHOTO_ROOTS)",
                )
            raise PhotoRefusal(
                Code.OUTSIDE_ROOTS, f"{given} is outside the allowed folders ({roots}; SIGHTLINE_PHOTO_ROOTS)"
            )

    def _url(self, url: str) -> bytes:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            scheme = parts.scheme.lower()
        except ValueError as exc:
            raise PhotoRefusal(Code.URL_NOT_ALLOWED, f"{quoted(url):.200} is not a URL: {exc}") from exc
        if scheme not in self._settings.url_schemes:
            allowed = ", ".join(self._settings.url_schemes)
            raise PhotoRefusal(
                Code.URL_NOT_ALLOWED, f"scheme {quoted(scheme)} is not allowed ({allowed}; SIGHTLINE_URL_SCHEMES)"
            )
        if scheme == "file":
            return self._file(unquote(parts.path))
        if host not in self._settings.url_hosts:
            raise PhotoRefusal(Code.URL_NOT_ALLOWED, f"host {quoted(host)} is not allowed (SIGHTLINE_URL_HOSTS)")
        if scheme in ("http", "https") and not self._settings.url_private and is_private(host):
            raise PhotoRefusal(Code.URL_NOT_ALLOWED, f"{host} is a private address (SIGHTLINE_URL_PRIVATE)")
        return self._checked(self._read_url(url, scheme), url)

    def _read_url(self, url: str, scheme: str) -> bytes:
        import fsspec  # imports that only URLs need

        if lacking := cloud_lacks(url):
            raise PhotoRefusal(Code.NOT_READY, f"{url} cannot be read by this worker: {lacking}")
        over_http = scheme in ("http", "https")
        options = options_of(private=self._settings.url_private, timeout_s=self._settings.url_timeout_s)
        system: Any = None
        try:
            # Not url_to_fs: it takes "::" in a URL for a chain of file systems.
            system = fsspec.filesystem(scheme, skip_instance_cache=True, **(options if over_http else {}))
            return streamed(system, url, self._settings.max_photo_bytes) if over_http else self._object(system, url)
        except (PhotoRefusal, Transient):
            raise
        except FileNotFoundError as exc:
            raise PhotoRefusal(Code.NOT_FOUND, f"nothing is at {url}") from exc
        except PermissionError as exc:
            raise PhotoRefusal(Code.NOT_FOUND, f"{url} may not be read: {exc}") from exc
        except ValueError as exc:
            raise PhotoRefusal(Code.URL_NOT_ALLOWED, f"{quoted(url):.200} cannot be asked for: {exc}") from exc
        except Exception as exc:  # others' code: drivers of URLs, which raise what five libraries do; tried again
            raise Transient(Code.UNAVAILABLE, f"{url} did not answer: {str(exc) or type(exc).__name__}") from exc
        finally:
            # fsspec leaves the connection to the garbage collector, which a busy worker may wait long for.
            if over_http and getattr(system, "_session", None) is not None:
                system.close_session(system.loop, system._session)

    def _object(self, system: Any, url: str) -> bytes:
        """Of a bucket: its size, then so much of it. The drivers' own limits hold for one answer or one packet, and are
        tried anew; `timeout` is fsspec's, for a call as a whole."""
        deadline = time.monotonic() + self._settings.url_timeout_s

        def left_s() -> float:
            return max(0.001, deadline - time.monotonic())

        facts = system.info(url, timeout=left_s())
        if facts["type"] == "directory":
            raise FileNotFoundError(url)
        size = int(facts["size"] or 0)
        self._check_size(size, url)
        # A store may refuse a part of nothing. A byte more than the limit shows what has grown meanwhile.
        end = self._settings.max_photo_bytes + 1
        return bytes(system.cat_file(url, start=0, end=end, timeout=left_s())) if size else b""

    def _check_size(self, size: int, given: str, limit: int | None = None) -> None:
        limit = limit or self._settings.max_photo_bytes
        if size > limit:
            raise PhotoRefusal(
                Code.TOO_LARGE, f"{given} has {size} bytes, the limit is {limit} (SIGHTLINE_MAX_PHOTO_BYTES)"
            )

    def _checked(self, content: bytes, given: str, limit: int | None = None) -> bytes:
        self._check_size(len(content), given, limit)
        if not content:
            raise PhotoRefusal(Code.EMPTY_FILE, f"{given} is empty")
        return content


def _holds_something(folder: Path, *, folders_count: bool = False) -> bool:
    """A folder to mount at may keep a hidden file, and a disk of its own has lost+found; and a root of nothing but such
    empty folders is as good as empty."""
    with os.scandir(folder) as found:
        return any(
            folders_count or not entry.is_dir() or _holds_something(Path(entry.path), folders_count=True)
            for entry in found
            if not entry.name.startswith(".") and entry.name != "lost+found"
        )
