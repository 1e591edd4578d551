"""Where index generations and exported models are published for other hosts: any fsspec URL (s3://, gs://, file://, in
tests memory://)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import get_protocol

from producer_client.contract import Code
from worker.errors import Permanent, Transient
from worker.extras import cloud_lacks


class ObjectFolder:
    """See worker.core.index_ports.RemoteFolder. Object stores have no rename: what is put last makes it whole."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def check(self) -> None:
        """Raises Permanent where nothing reads such a URL, or what does is not installed. Imports none, asks nobody."""
        if (scheme := get_protocol(self.url)) not in fsspec.available_protocols():
            raise Permanent(
                Code.NOT_READY,
                f"{scheme}:// is not known here: give s3://, gs:// or file:// of a shared directory "
                "(SIGHTLINE_INDEX_URL)",
            )
        if lacking := cloud_lacks(self.url):
            raise Permanent(Code.NOT_READY, f"{self.url}: {lacking} (SIGHTLINE_INDEX_URL)")

    def put(self, folder: Path, files: Sequence[str]) -> None:
        """Upload these files of a local folder under its name, in this order."""
        with self._reached() as (fs, root):
            fs.makedirs(f"{root}/{folder.name}", exist_ok=True)
            for name in files:
                fs.put_file(str(folder / name), f"{root}/{folder.name}/{name}")

    def get(self, name: str, files: Sequence[str], into: Path) -> None:
        """Download these files into a local folder. Raises FileNotFoundError where one is not there."""
        with self._reached() as (fs, root):
            for file in files:
                fs.get_file(f"{root}/{name}/{file}", str(into / file))

    def names(self) -> list[str]:
        with self._reached() as (fs, root), suppress(FileNotFoundError):
            fs.invalidate_cache(root)
            return sorted(path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False))
        return []

    def delete(self, name: str, files: Sequence[str]) -> None:
        """Delete in this order: without its manifest, a generation is nothing to anybody."""
        with self._reached() as (fs, root):
            for file in files:
                with suppress(FileNotFoundError):
                    fs.rm_file(f"{root}/{name}/{file}")
            with suppress(OSError):
                fs.rmdir(f"{root}/{name}")

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        self.check()
        try:
            fs, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as exc:
            raise Permanent(Code.NOT_READY, f"{self.url}: {exc} (SIGHTLINE_INDEX_URL)") from exc
        try:
            yield fs, root.rstrip("/")
        except FileNotFoundError:
            raise
        except PermissionError as exc:
            raise Permanent(Code.NOT_READY, f"{self.url}: no right to it: {exc} (SIGHTLINE_INDEX_URL)") from exc
        except Exception as exc:  # others' code: drivers of s3, gs, which raise what several libraries do; tried again
            raise Transient(Code.UNAVAILABLE, f"{self.url}: {type(exc).__name__}: {exc}") from exc


def models_at(index_url: str) -> ObjectFolder | None:
    """Where exported models lie for other hosts, beside the generations; None without a URL."""
    return ObjectFolder(f"{index_url.rstrip('/')}/models") if index_url else None
