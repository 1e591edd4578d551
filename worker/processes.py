"""Settings of one process's life: what it has in hand at once, when it is held to be stuck, what it may take, what it
says.

A part of worker.settings, which says how settings are read.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from producer_client.words import Queue

#: Queues of the two kinds of worker process.
ROLES = {"serve": (Queue.INTERACTIVE, Queue.BULK), "index": (Queue.INDEX,)}
#: The longest pause or patience that makes sense: clocks of libraries overflow far above.
DAY_S = 86_400


class ProcessSettings(BaseSettings):
    model_config = SettingsConfigDict(defer_build=True, allow_inf_nan=False)

    concurrency: int = Field(default=8, ge=1)
    """Tasks at once in one worker process. They share one model, which gets larger batches from more of them. Bulk
    messages take half of them at the most, so that a search does not wait for one to end."""
    visibility_timeout_s: int = Field(default=900, ge=5, le=DAY_S)
    """Seconds after which a message whose worker died is handed out again. Longer than any task but a rebuild."""
    result_expires_s: int = Field(default=3600, ge=1, le=30 * DAY_S)
    """Seconds that an unread reply is kept."""
    retry_pause_s: float = Field(default=1.0, gt=0, le=DAY_S)
    """First pause before a task is tried again after a transient error; it doubles up to a minute."""
    stuck_s: float = Field(default=600.0, gt=0, le=DAY_S)
    """Seconds that one thread may be at one message. Then it is named in the log and by `sightline stats`, the message
    goes to another worker, and the process ends, to be started again. Less than the visibility timeout, after which
    another has it anyway."""
    stop_grace_s: float = Field(default=20.0, ge=0, le=DAY_S)
    """Seconds that a process which is to end gives the messages in hand; what has not ended then goes back to its
    queue. Ten seconds later the process is gone, whatever hangs. Whoever ends it has to wait for so long: Docker waits
    for 10 s in all unless told otherwise."""
    memory_mb: int = Field(default=0, ge=0)
    """Megabytes above which a process that answers ends between messages, as one with a stuck thread does, five minutes
    after its start at the earliest. Its own memory counts, not files that are mapped, as the index is: `sightline
    health --all` shows it. 0 for no limit: what a process needs depends on its model, its threads and the photos. One
    that has more as soon as its model is loaded says so in its log and has none."""
    stall_s: float = Field(default=90.0, ge=1, le=DAY_S)
    """Seconds without a turn of its loop after which `sightline health --live` says no of a process. Longer than two
    calls to a Redis that does not answer (30 s each), which are no reason to start it again."""
    recall_sample: int = Field(default=100, ge=0)
    """Of so many searches one is repeated by comparing with every vector, by a thread that is the last in line:
    `sightline stats` and the metrics say which share of the true ten is found, the log when that is surely below
    `SIGHTLINE_INDEX_RECALL`, and how many answers a new generation changes. Of each generation, the first hundred that
    this thread comes to are repeated whatever this says; 0 repeats and keeps nothing."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port at which each process answers Prometheus (`/metrics`), or the next free one of the 15 above it where several
    share a host; 0 takes any. The log says which, and `sightline metrics` lists them all (`/targets`). Where all are
    taken it is tried again until one is free. Unset: none."""
    metrics_host: str = "127.0.0.1"
    """Address that it listens at. In a container `0.0.0.0`, where nobody but Prometheus can reach it: metrics tell what
    is asked and how much, and ask nobody who reads them."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Level of the workers' log lines."""
    log_format: Literal["text", "json"] = "text"
    """`text` for people, or `json`: one object a line on standard error, with `time`, `level`, `logger`, `message`,
    `exception`, and what there is to say as fields: `task_id`, `photo_id` and `seq` among them."""
    task_events: bool = False
    """Whether a worker tells whoever listens at Redis (Flower, deploy/README.md) of each task: received, started,
    ended, with what was asked and replied, paths and coordinates in it. Up to three more commands of Redis a task."""

    @field_validator("*", mode="before")
    @classmethod
    def _unset(cls, value: Any, info: ValidationInfo) -> Any:
        """Empty is unset, as an env file writes it, where unset is something else than any value."""
        fields = cls.model_fields
        return None if value == "" and fields[info.field_name or ""].default is None else value
