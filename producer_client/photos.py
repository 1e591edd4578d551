"""The client's verbs for photos: into the index and out of it, and their vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, TypeVar

from producer_client import contract, plain
from producer_client.arguments import checked, photo_of, read_items
from producer_client.bulk import Pending, in_bulk
from producer_client.connection import Connection
from producer_client.contract import NewPhoto, Refused
from producer_client.errors import PhotoRefused
from producer_client.handle import Handle
from producer_client.words import Provenance, Queue, TaskName

Outcome = TypeVar("Outcome")


class PhotoVerbs(Connection):
    """Arguments are plain values, and what plainly stands for one: others' numbers, Path, dates, numbers as text. For
    all others a verb raises BadRequest with the argument's name, before anything is sent."""

    # ------------------------------------------------------------------------------------------ add

    @checked
    def submit_add_to_index(
        self,
        *,
        photo_id: int | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        content: bytes | bytearray | memoryview | BinaryIO | None = None,
        lat: float | None = None,
        lon: float | None = None,
        provenance: Provenance | str | None = None,
        address: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        update_row: bool | None = None,
    ) -> Handle[contract.Stored]:
        """Add one photo. Without coordinates the worker takes those of the row or of the file.

        update_row: whether coordinates and address are written to a row that is there (see `NewPhoto`).
        """
        photo = photo_of(photo_id, path, url, content)
        item = NewPhoto(
            ref=photo.name,
            photo=photo,
            lat=lat,
            lon=lon,
            provenance=None if provenance is None else Provenance(provenance),
            address=address,
            metadata=metadata,
            update_row=update_row,
        )
        item.check()
        request = contract.AddToIndex(photos=[item.to_wire()])
        return self._send(
            TaskName.ADD_TO_INDEX,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.AddReply.from_wire(w).outcomes),
        )

    @checked
    def add_to_index(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Stored:
        """`submit_add_to_index` and wait. Raises PhotoRefused with the code when the photo is not taken."""
        return self.submit_add_to_index(**photo).wait(timeout_s)

    @checked
    def add_many(
        self,
        photos: Iterable[NewPhoto],
        *,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Stored | Refused | Pending]:
        """Add any number of photos by bulk messages of 64. Returns one outcome per photo, found by its `ref`; one that
        no message can carry is refused without being sent, and its neighbours are.

        progress: called with (photos done, photos in all). timeout_s: longest silence, 300 unless given; the photos of
        messages that nobody has answered by then are `Pending`: they may still be taken. Those that were not sent yet
        are refused, and those of a message that fails as a whole with its code, which says whether to send them again.
        0 sends all and waits for nothing. Raises Unreachable where nothing could be sent.
        """

        def submit(chunk: Sequence[NewPhoto]) -> Handle[list[contract.Stored | Refused]]:
            request = contract.AddToIndex(photos=[item.to_wire() for item in chunk])
            return self._send(
                TaskName.ADD_TO_INDEX, Queue.BULK, request, lambda w: contract.AddReply.from_wire(w).outcomes
            )

        return in_bulk(read_items(NewPhoto, photos), submit, timeout_s, progress)

    # ---------------------------------------------------------------------------------------- embed

    @checked
    def submit_embed(
        self,
        *,
        photo_id: int | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        content: bytes | bytearray | memoryview | BinaryIO | None = None,
        return_vector: bool = False,
    ) -> Handle[contract.Embedded]:
        """Compute and store one photo's vector without adding the photo to the index."""
        photo = photo_of(photo_id, path, url, content)
        item = contract.EmbedItem(photo.name, photo)
        item.check()
        request = contract.Embed(photos=[item.to_wire()], return_vectors=return_vector)
        return self._send(
            TaskName.EMBED,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.EmbedReply.from_wire(w).outcomes),
        )

    @checked
    def embed(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Embedded:
        return self.submit_embed(**photo).wait(timeout_s)

    @checked
    def embed_many(
        self,
        items: Iterable[contract.EmbedItem],
        *,
        return_vectors: bool = False,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Embedded | Refused | Pending]:
        """Like `add_many`, for vectors alone."""

        def submit(chunk: Sequence[contract.EmbedItem]) -> Handle[list[contract.Embedded | Refused]]:
            request = contract.Embed(photos=[item.to_wire() for item in chunk], return_vectors=return_vectors)
            return self._send(TaskName.EMBED, Queue.BULK, request, lambda w: contract.EmbedReply.from_wire(w).outcomes)

        return in_bulk(read_items(contract.EmbedItem, items), submit, timeout_s, progress)

    @checked
    def submit_embed_text(self, text: str) -> Handle[contract.TextVector]:
        """The vector of a text; searching by text needs no such step (`search(text=...)`)."""
        request = contract.EmbedText(text=text)
        return self._send(TaskName.EMBED_TEXT, Queue.INTERACTIVE, request, contract.TextVector.from_wire)

    @checked
    def embed_text(self, text: str, *, timeout_s: float | None = None) -> contract.TextVector:
        return self.submit_embed_text(text).wait(timeout_s)

    # --------------------------------------------------------------------------------------- remove

    @checked
    def submit_remove(self, photo_ids: int | Iterable[int]) -> Handle[contract.RemoveReply]:
        """Take photos out of the index at once and for good; their rows in `photos` stay."""
        request = contract.Remove(photo_ids=plain.ids("photo_ids", photo_ids))
        return self._send(TaskName.REMOVE, Queue.INTERACTIVE, request, contract.RemoveReply.from_wire)

    @checked
    def remove(self, photo_ids: int | Iterable[int], *, timeout_s: float | None = None) -> contract.RemoveReply:
        return self.submit_remove(photo_ids).wait(timeout_s)

    @checked
    def submit_purge(self, photo_ids: int | Iterable[int]) -> Handle[contract.PurgeReply]:
        """Remove photos and erase what Sightline stores of them, also from every index generation."""
        request = contract.Purge(photo_ids=plain.ids("photo_ids", photo_ids))
        return self._send(TaskName.PURGE, Queue.INTERACTIVE, request, contract.PurgeReply.from_wire)

    @checked
    def purge(self, photo_ids: int | Iterable[int], *, timeout_s: float | None = None) -> contract.PurgeReply:
        return self.submit_purge(photo_ids).wait(timeout_s)


def _only(outcomes: Sequence[Outcome | Refused]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise PhotoRefused(outcome.code, outcome.message, outcome.ref)
    return outcome
