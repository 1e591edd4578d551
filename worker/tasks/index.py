"""The index as a whole: rebuild it, look at it, start what is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import Queue, TaskName
from worker import stuck
from worker.memory import resident_mb
from worker.tasks.base import ContractTask
from worker.tasks.photos import fill

NIGHTLY = "nightly rebuild"
#: Seconds after which a claimed night that nobody finished is claimed again. If it still runs, the second claim is
#: answered `already_running` and costs nothing.
CLAIM_S = 900.0
#: Claims of one night at the most: after five hours the next night is near enough.
CLAIMS = 20


# Acknowledged at the start, unlike every other task: a rebuild may outlast the visibility timeout, and a second
# copy of its message would be answered `already_running` in its place. A lost night is made up by a later tick; who
# asked for a rebuild by hand gets no reply and asks again.
@shared_task(base=ContractTask, bind=True, name=TaskName.REBUILD_INDEX.value, acks_late=False)
def rebuild_index(self: ContractTask, wire: Any) -> contract.RebuildReply:
    request = contract.RebuildIndex.from_wire(wire)
    return self.runtime.library.rebuilding.rebuild(force=request.force)


@shared_task(base=ContractTask, bind=True, name=TaskName.TICK.value, acks_late=False, ignore_result=True)
def tick(self: ContractTask, wire: Any) -> contract.TickReply:
    """Rebuild if the night, the growth of the log or a purge asks for it, and bring a change of the model forward: by
    level, so that nothing is missed."""
    contract.Tick.from_wire(wire)
    rebuilding, recording = self.runtime.library.rebuilding, self.runtime.library.recording
    if self.runtime.settings.audit_days:
        recording.forget()
    slot = latest_slot(self.runtime.settings.rebuild_at, datetime.now(UTC))
    ran = rebuilding.nightly(NIGHTLY, slot, claims=CLAIMS, claim_s=CLAIM_S)
    ran = ran or rebuilding.catch_up_generations(claims=CLAIMS, claim_s=CLAIM_S)
    coming = self.runtime.next_library
    if coming is not None:
        ran = coming.models.take_over(lambda slot: _start_filler(coming.model_key, slot)) or ran
    if ran and not self.runtime.settings.audit_days:
        # Of a time when questions were recorded.
        recording.forget()
    return contract.TickReply(ran=ran)


def _start_filler(model_key: str, slot: int) -> None:
    fill.apply_async(args=(contract.Fill(model_key=model_key, slot=slot).to_wire(),), queue=Queue.BULK.value)


@shared_task(base=ContractTask, bind=True, name=TaskName.STATS.value)
def stats(self: ContractTask, wire: Any) -> contract.StatsReply:
    contract.Stats.from_wire(wire)
    coming = self.runtime.next_library
    return self.runtime.library.statistics.stats(
        rss_mb=resident_mb(),
        sandbox=self.runtime.sandbox_level(),
        stuck=stuck.lately(self.app),
        next_model_key=None if coming is None else coming.model_key,
    )


def latest_slot(at: str, now: datetime) -> datetime:
    """The last moment not after `now` at which the clock showed `at` (HH:MM, UTC)."""
    hour, minute = map(int, at.split(":"))
    slot = now.astimezone(UTC).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return slot if slot <= now else slot - timedelta(days=1)
