"""Questions: what looks like this, and where was it taken."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import TaskName
from worker.tasks.base import ContractTask


@shared_task(base=ContractTask, bind=True, name=TaskName.SEARCH.value)
def search(self: ContractTask, wire: Any) -> contract.SearchReply:
    return self.runtime.library.recording.search(contract.Search.from_wire(wire), self.producer)


@shared_task(base=ContractTask, bind=True, name=TaskName.LOCATE.value)
def locate(self: ContractTask, wire: Any) -> contract.LocateReply:
    return self.runtime.library.recording.locate(contract.Locate.from_wire(wire), self.producer)
