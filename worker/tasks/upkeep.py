"""Photos that are left alone because processes have died with them: list them, release them."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import TaskName
from worker.tasks.base import ContractTask, LastingTask


@shared_task(base=ContractTask, bind=True, name=TaskName.QUARANTINED.value)
def quarantined(self: ContractTask, wire: Any) -> contract.QuarantinedReply:
    request = contract.Quarantined.from_wire(wire)
    return contract.QuarantinedReply(self.runtime.library.quarantine.known(request.contents, request.limit))


@shared_task(base=LastingTask, bind=True, name=TaskName.RELEASE.value)
def release(self: ContractTask, wire: Any) -> contract.ReleaseReply:
    request = contract.Release.from_wire(wire)
    return self.runtime.library.quarantine.release(request.contents, forget=request.forget)
