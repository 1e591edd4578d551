"""Log lines: constant text first, facts after it as `name=value`, so that both people and grep can read them."""

from __future__ import annotations

import logging
import time

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "data",
    "color_message",
}


class FactsFormatter(logging.Formatter):
    """`2026-11-23T02:00:00Z INFO worker.library photos added stored=64 refused=0 took_ms=812.4`"""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        facts = "".join(f" {name}={value}" for name, value in vars(record).items() if name not in _OWN)
        return super().formatMessage(record) + facts


def configure(level: str) -> None:
    """Send everything from `level` on to standard error."""
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
