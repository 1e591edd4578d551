"""Photos whose position something contradicts: list them, confirm, reject."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import TaskName
from worker.tasks.base import ContractTask, LastingTask


@shared_task(base=ContractTask, bind=True, name=TaskName.CONFLICTS.value)
def conflicts(self: ContractTask, wire: Any) -> contract.ConflictsReply:
    return self.runtime.library.conflicts.known(contract.Conflicts.from_wire(wire))


@shared_task(base=LastingTask, bind=True, name=TaskName.CONFIRM.value)
def confirm(self: ContractTask, wire: Any) -> contract.ConfirmReply:
    return self.runtime.library.conflicts.confirm_many(contract.Confirm.from_wire(wire).photo_ids)


@shared_task(base=LastingTask, bind=True, name=TaskName.REJECT.value)
def reject(self: ContractTask, wire: Any) -> contract.RejectReply:
    return self.runtime.library.conflicts.reject_many(contract.Reject.from_wire(wire).read_items())
