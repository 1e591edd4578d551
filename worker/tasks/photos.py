"""Photos (and texts) to vectors, into the index and out of it: embed, add, remove, purge."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from producer_client import contract
from producer_client.contract import Queue, TaskName
from worker.tasks.base import ContractTask, LastingTask


@shared_task(base=ContractTask, bind=True, name=TaskName.EMBED.value)
def embed(self: ContractTask, wire: Any) -> contract.EmbedReply:
    request = contract.Embed.from_wire(wire)
    return self.runtime.library.photos.embed_many(request.read_items(), return_vectors=request.return_vectors)


@shared_task(base=ContractTask, bind=True, name=TaskName.EMBED_TEXT.value)
def embed_text(self: ContractTask, wire: Any) -> contract.TextVector:
    return self.runtime.library.photos.embed_text(contract.EmbedText.from_wire(wire).text)


@shared_task(base=LastingTask, bind=True, name=TaskName.ADD_TO_INDEX.value)
def add_to_index(self: ContractTask, wire: Any) -> contract.AddReply:
    request = contract.AddToIndex.from_wire(wire)
    return self.runtime.library.photos.add_many(request.read_new_photos())


@shared_task(base=LastingTask, bind=True, name=TaskName.REMOVE.value)
def remove(self: ContractTask, wire: Any) -> contract.RemoveReply:
    request = contract.Remove.from_wire(wire)
    return self.runtime.library.photos.remove_many(request.photo_ids)


@shared_task(base=LastingTask, bind=True, name=TaskName.PURGE.value)
def purge(self: ContractTask, wire: Any) -> contract.PurgeReply:
    request = contract.Purge.from_wire(wire)
    return self.runtime.library.photos.purge_many(request.photo_ids)


@shared_task(base=LastingTask, bind=True, name=TaskName.FILL.value, ignore_result=True)
def fill(self: ContractTask, wire: Any) -> contract.FillReply:
    """Embed some photos with the model that is to serve next, then send for the next ones, behind all others."""
    request = contract.Fill.from_wire(wire)
    after_id = self.runtime.library_of(request.model_key).models.fill_page(request.slot, after_id=request.after_id)
    if after_id is not None:
        next_page = contract.Fill(model_key=request.model_key, slot=request.slot, after_id=after_id)
        self.apply_async(args=(next_page.to_wire(),), queue=Queue.BULK.value)
    return contract.FillReply(after_id=after_id)
