"""Log lines: constant text first, facts after it as `name=value`, so that both people and grep can read them; or one
JSON object each, for programs."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from itertools import chain
from types import MappingProxyType
from typing import Any

#: What every line about a message carries, by name: `task_id`, `photo_id`, `seq`, `trace_id`, those that are known. Of
#: this thread.
of_message: ContextVar[Mapping[str, Any]] = ContextVar("of_message", default=MappingProxyType({}))

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "data",
    "color_message",
}
#: Levels of values within values that are written.
_DEEPEST = 8


class FactsFormatter(logging.Formatter):
    """`2026-11-23T02:00:00Z INFO worker.library photos added stored=64 refused=0 took_ms=812.4`"""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        traced = ((name, value) for name, value in of_message.get().items() if name == "trace_id")
        facts = "".join(f" {name}={value}" for name, value in chain(_facts(record), traced))
        return super().formatMessage(record) + facts


class JsonFormatter(logging.Formatter):
    """`{"time": "2026-11-23T02:00:00.000Z", "level": "INFO", "logger": "worker.library", "message": "photos added",
    "stored": 64}` in one line, which is ASCII. A fact of a name that every line has gets a `_` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        ms = int(record.created * 1000)
        said: dict[str, Any] = {
            # First: `sightline up` knows a line by its beginning (worker.children).
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _plain(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = _plain(self.formatException(record.exc_info))
        if record.stack_info:
            said["stack"] = _plain(self.formatStack(record.stack_info))
        facts = {f"{name}_" if name in said else name: _plain(value) for name, value in _facts(record)}
        return json.dumps(said | {name: _plain(value) for name, value in of_message.get().items()} | facts)


def configure(level: str, form: str = "text") -> None:
    """Send everything from `level` on to standard error. form: `text`, or `json`: then whatever else is said in this
    process by Python comes as such a line, too."""
    if form == "json":
        handler: logging.Handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter())
        _take_what_is_printed()
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(FactsFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At INFO they tell every request, every CPU feature that is tried, and celery every reply in full.
    for chatty in ("httpx", "httpcore", "urllib3", "alembic", "kombu", "faiss.loader", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Of every connection that is lost and made again; worker.outage says it once.
    logging.getLogger("celery.worker.consumer.connection").setLevel(logging.WARNING)
    logging.getLogger("celery.worker.consumer.consumer").setLevel(logging.ERROR)


def ms_since(started: float) -> float:
    """Milliseconds since a moment of time.monotonic, as `took_ms` says them."""
    return round((time.monotonic() - started) * 1000, 2)


def _facts(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(record).items() if name not in _OWN)


def _plain(value: Any, deep: int = 0) -> Any:
    """A value as strict readers of JSON take it."""
    match value:
        case str():
            # Paths that are no text have half characters in them.
            return str.__str__(value).encode(errors="backslashreplace").decode()
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.decode(errors="backslashreplace")
        case Mapping() if deep < _DEEPEST:
            return {_plain(_words(name)): _plain(part, deep + 1) for name, part in value.items()}
        case list() | tuple() | set() | frozenset() if deep < _DEEPEST:
            return [_plain(part, deep + 1) for part in value]
    return _plain(_words(value))


def _words(value: object) -> str:
    try:
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception:  # others' code: a value, which raises what it likes; its line is written  # noqa: BLE001
        return type(value).__name__


def _take_what_is_printed() -> None:
    """Lines of others: warnings, what a thread has died of, what is printed."""
    from celery.utils.log import LoggingProxy

    log = logging.getLogger("printed")
    logging.captureWarnings(True)
    sys.stdout = sys.stderr = LoggingProxy(log, logging.WARNING)
    # Celery's handlers of signals write there by its number, past everybody (5.7, apps/worker.py).
    sys.__stdout__ = None  # type: ignore[misc]

    def of_thread(died: threading.ExceptHookArgs) -> None:
        if died.exc_type is not SystemExit and died.exc_value is not None:
            log.error("a thread has died", exc_info=died.exc_value, extra={"thread": getattr(died.thread, "name", "")})

    threading.excepthook = of_thread
    sys.excepthook = lambda kind, exc, _: log.critical("the process has died", exc_info=exc)
