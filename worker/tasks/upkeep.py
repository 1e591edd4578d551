"""What keeps the service whole: photos that are left alone, their release, and what lacks a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import Queue, TaskName
from worker.tasks.base import ContractTask, LastingTask


@shared_task(base=ContractTask, bind=True, name=TaskName.QUARANTINED.value)
def quarantined(self: ContractTask, wire: Any) -> contract.QuarantinedReply:
    request = contract.Quarantined.from_wire(wire)
    return contract.QuarantinedReply(self.runtime.library.quarantine.known(request.contents, request.limit))


@shared_task(base=LastingTask, bind=True, name=TaskName.RELEASE.value)
def release(self: ContractTask, wire: Any) -> contract.ReleaseReply:
    request = contract.Release.from_wire(wire)
    return self.runtime.library.quarantine.release(request.contents, forget=request.forget)


@shared_task(base=ContractTask, bind=True, name=TaskName.RECONCILE.value)
def reconcile(self: ContractTask, wire: Any) -> contract.ReconcileReply:
    request = contract.Reconcile.from_wire(wire)
    library = self.runtime.library

    def send(photo_ids: Sequence[int]) -> None:
        message = contract.EmbedMissing(model_key=library.model_key, photo_ids=list(photo_ids))
        embed_missing.apply_async(args=(message.to_wire(),), queue=Queue.BULK.value)

    return library.reconciling.run(request, send)


@shared_task(base=LastingTask, bind=True, name=TaskName.EMBED_MISSING.value, ignore_result=True)
def embed_missing(self: ContractTask, wire: Any) -> contract.EmbedMissingReply:
    request = contract.EmbedMissing.from_wire(wire)
    return contract.EmbedMissingReply(self.runtime.library_of(request.model_key).reconciling.embed(request.photo_ids))
