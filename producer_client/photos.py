"""The client's verbs for photos: into the index and out of it, and their vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, TypeVar

from producer_client import contract, plain, rows
from producer_client.arguments import checked, photo_of, read_items
from producer_client.bulk import Pending, in_bulk
from producer_client.connection import Connection
from producer_client.contract import NewPhoto, Refused
from producer_client.errors import BadRequest, PhotoRefused
from producer_client.handle import Handle
from producer_client.words import Code, ConflictState, Provenance, Queue, TaskName

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
        durable: bool = False,
    ) -> Handle[contract.Stored]:
        """Add one photo. Without coordinates the worker takes those of the row or of the file.

        update_row: whether coordinates and address are written to a row that is there (see `NewPhoto`). durable: one
        without a row gets it before the message is sent, by the client's write_rows: whatever loses the message, the
        photo is embedded. Of what is lost with a message, metadata is all that a row does not have.
        """
        write_rows = rows.needed(self._write_rows) if durable else None
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
        if write_rows is not None:
            (item,) = rows.with_rows([rows.checked(item)], write_rows)
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
        durable: bool = False,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Stored | Refused | Pending]:
        """Add any number of photos by bulk messages of 64. Returns one outcome per photo, found by its `ref`; one that
        no message can carry is refused without being sent, and its neighbours are.

        progress: called with (photos done, photos in all). timeout_s: longest silence, 300 unless given; the photos of
        messages that nobody has answered by then are `Pending`: they may still be taken. Those that were not sent yet
        are refused, and those of a message that fails as a whole with its code, which says whether to send them again.
        0 sends all and waits for nothing. Raises Unreachable where nothing could be sent.

        durable: as of `submit_add_to_index`, the rows of one message at a time. What write_rows raises goes up; what
        was sent before that is on its way.
        """
        write_rows = rows.needed(self._write_rows) if durable else None

        def submit(chunk: Sequence[NewPhoto]) -> Handle[list[contract.Stored | Refused]]:
            if write_rows is not None:
                chunk = rows.with_rows(chunk, write_rows)
            request = contract.AddToIndex(photos=[item.to_wire() for item in chunk])
            return self._send(
                TaskName.ADD_TO_INDEX, Queue.BULK, request, lambda w: contract.AddReply.from_wire(w).outcomes
            )

        items = read_items(NewPhoto, photos)
        return in_bulk(rows.checked_all(items) if durable else items, submit, timeout_s, progress)

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

    # ------------------------------------------------------------------------------------ conflicts

    @checked
    def submit_conflicts(
        self,
        photo_ids: int | Iterable[int] | None = None,
        *,
        settled: bool = False,
        after_id: int = -1,
        limit: int = 100,
    ) -> Handle[contract.ConflictsReply]:
        """Photos whose position something contradicts, which are no witnesses until somebody settles it.

        settled: those too that were confirmed or rejected. after_id: as the reply before says it, for the next ones.
        """
        request = contract.Conflicts(
            photo_ids=None if photo_ids is None else plain.ids("photo_ids", photo_ids),
            conflict_state=None if settled else ConflictState.OPEN,
            after_id=after_id,
            limit=limit,
        )
        return self._send(TaskName.CONFLICTS, Queue.INTERACTIVE, request, contract.ConflictsReply.from_wire)

    @checked
    def conflicts(
        self,
        photo_ids: int | Iterable[int] | None = None,
        *,
        settled: bool = False,
        after_id: int = -1,
        limit: int = 100,
        timeout_s: float | None = None,
    ) -> contract.ConflictsReply:
        found = self.submit_conflicts(photo_ids, settled=settled, after_id=after_id, limit=limit)
        return found.wait(timeout_s)

    @checked
    def submit_confirm(self, photo_ids: int | Iterable[int]) -> Handle[contract.ConfirmReply]:
        """The positions of these photos are right: they are witnesses again."""
        request = contract.Confirm(photo_ids=plain.ids("photo_ids", photo_ids))
        return self._send(TaskName.CONFIRM, Queue.INTERACTIVE, request, contract.ConfirmReply.from_wire)

    @checked
    def confirm(self, photo_ids: int | Iterable[int], *, timeout_s: float | None = None) -> contract.ConfirmReply:
        return self.submit_confirm(photo_ids).wait(timeout_s)

    @checked
    def submit_reject(
        self, photo_ids: int | Iterable[int], *, lat: float | None = None, lon: float | None = None
    ) -> Handle[contract.RejectReply]:
        """The positions of these photos are wrong: they stay no witnesses for as long as they lie there.

        lat, lon: where a single photo lies, as a person says; it is a witness of that place from now on.
        """
        ids = dict.fromkeys(plain.ids("photo_ids", photo_ids))
        if len(ids) != 1 and (lat is not None or lon is not None):
            raise BadRequest(
                Code.BAD_REQUEST, "lat and lon are of a single one of photo_ids: reject others on their own"
            )
        if (lat is None) != (lon is None):
            raise BadRequest(Code.BAD_COORDINATES, "give both lat and lon, or neither")
        if lat is not None and lon is not None:
            contract.check_coordinates(lat, lon)
        if negative := [photo_id for photo_id in ids if photo_id < 0]:
            raise BadRequest(Code.BAD_REQUEST, f"photo_ids: {negative[0]} is not a 64-bit row id")
        items = [contract.RejectItem(f"photo {photo_id}", photo_id, lat, lon) for photo_id in ids]
        request = contract.Reject(photos=[item.to_wire() for item in items])
        return self._send(TaskName.REJECT, Queue.INTERACTIVE, request, contract.RejectReply.from_wire)

    @checked
    def reject(
        self,
        photo_ids: int | Iterable[int],
        *,
        lat: float | None = None,
        lon: float | None = None,
        timeout_s: float | None = None,
    ) -> contract.RejectReply:
        return self.submit_reject(photo_ids, lat=lat, lon=lon).wait(timeout_s)

    # ----------------------------------------------------------------------------------- quarantine

    @checked
    def submit_quarantined(
        self, contents: str | Iterable[str] | None = None, *, limit: int = 100
    ) -> Handle[contract.QuarantinedReply]:
        """Photos that are left alone because workers have died with them, the newest first.

        contents: those whose SHA-256 begins so, by eight digits or more.
        """
        request = contract.Quarantined(contents=None if contents is None else list(contents), limit=limit)
        return self._send(TaskName.QUARANTINED, Queue.INTERACTIVE, request, contract.QuarantinedReply.from_wire)

    @checked
    def quarantined(
        self, contents: str | Iterable[str] | None = None, *, limit: int = 100, timeout_s: float | None = None
    ) -> contract.QuarantinedReply:
        return self.submit_quarantined(contents, limit=limit).wait(timeout_s)

    @checked
    def submit_release(self, contents: str | Iterable[str], *, forget: bool = False) -> Handle[contract.ReleaseReply]:
        """Let quarantined photos be tried once more. forget: hold nothing against them any more."""
        request = contract.Release(contents=list(contents), forget=forget)
        return self._send(TaskName.RELEASE, Queue.INTERACTIVE, request, contract.ReleaseReply.from_wire)

    @checked
    def release(
        self, contents: str | Iterable[str], *, forget: bool = False, timeout_s: float | None = None
    ) -> contract.ReleaseReply:
        return self.submit_release(contents, forget=forget).wait(timeout_s)


def _only(outcomes: Sequence[Outcome | Refused]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise PhotoRefused(outcome.code, outcome.message, outcome.ref)
    return outcome
