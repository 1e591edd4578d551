"""The client of a photo backend: small messages out, typed replies back. Needs celery and msgspec alone.

    sightline = Sightline("redis://127.0.0.1:6399/0")
    stored = sightline.add_to_index(path="/photos/1.jpg", lat=55.7, lon=13.2, provenance="exif_gps")
    answer = sightline.locate(path="/photos/2.jpg").answer

A client's questions see what its replies have told of, whichever worker answers. `session` carries that to another
process, `min_seq=0` asks for less.

Every verb has a `submit_` twin that returns a Handle at once: `.wait(timeout_s)`, or `await` it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from producer_client import contract
from producer_client.arguments import ids, photo_of, provenance_given
from producer_client.bulk import in_bulk
from producer_client.celery_app import RETRY, client_app, close_app
from producer_client.contract import NewPhoto, Refused
from producer_client.errors import PhotoRefused
from producer_client.handle import Handle, connection_lost, read_reply
from producer_client.session import Session
from producer_client.words import Provenance, Queue, TaskName

T = TypeVar("T")
Outcome = TypeVar("Outcome")

#: Seconds that a verb waits for its reply unless told otherwise: a cold worker loads its model within it.
DEFAULT_TIMEOUT_S = 60.0


class Sightline:
    """One per process is enough; threads may share it. Constructing it connects to nothing.

    broker_url: the workers' Redis, for example redis://host:6379/0. result_backend: where replies lie; the
    broker unless given. timeout_s: the default wait of every verb. session: of another client, whose writes are to be
    seen too.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        session: int = 0,
    ) -> None:
        self.timeout_s = timeout_s
        self._session = Session(session)
        self._app = client_app(broker_url, result_backend or broker_url)

    # -------------------------------------------------------------------------------- what it has seen

    @property
    def session(self) -> int:
        """The newest seq that a reply has named: what questions see at least. For another process it is plain JSON."""
        return self._session.seq

    def join(self, session: int) -> None:
        """See what another client has seen too. From your own processes alone: after a seq that nobody has written
        every question is `stale`."""
        self._session.join(session)

    def read_reply(self, wire: Any, read: Callable[[Any], T]) -> T:
        """As `producer_client.read_reply`; this client's questions then see what the reply speaks of."""
        return read_reply(wire, self._session.hearing(read))

    # ------------------------------------------------------------------------------------------ add

    def submit_add_to_index(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        lat: float | None = None,
        lon: float | None = None,
        provenance: Provenance | str | None = None,
        address: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Handle[contract.Stored]:
        """Add one photo. Without coordinates the worker takes those of the row or of the EXIF tags."""
        photo = photo_of(photo_id, path, url, content)
        item = NewPhoto(
            ref=photo.name,
            photo=photo,
            lat=lat,
            lon=lon,
            provenance=provenance_given(provenance),
            address=address,
            metadata=metadata,
        )
        request = contract.AddToIndex(photos=[item.to_wire()])
        return self._send(
            TaskName.ADD_TO_INDEX,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.AddReply.from_wire(w).outcomes),
        )

    def add_to_index(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Stored:
        """`submit_add_to_index` and wait. Raises PhotoRefused with the code when the photo is not taken."""
        return self.submit_add_to_index(**photo).wait(timeout_s)

    def add_many(
        self,
        photos: Iterable[NewPhoto],
        *,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Stored | Refused]:
        """Add any number of photos by bulk messages of 64. Returns one outcome per photo, found by its `ref`.

        progress: called with (photos done, photos in all). timeout_s: for each message, 300 unless given; the photos of
        one that fails as a whole are refused with its code, which says whether to send them again.
        """

        def submit(chunk: Sequence[NewPhoto]) -> Handle[list[contract.Stored | Refused]]:
            request = contract.AddToIndex(photos=[item.to_wire() for item in chunk])
            return self._send(
                TaskName.ADD_TO_INDEX, Queue.BULK, request, lambda w: contract.AddReply.from_wire(w).outcomes
            )

        return in_bulk(list(photos), submit, timeout_s, progress)

    # ---------------------------------------------------------------------------------------- embed

    def submit_embed(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        return_vector: bool = False,
    ) -> Handle[contract.Embedded]:
        """Compute and store one photo's vector without adding the photo to the index."""
        photo = photo_of(photo_id, path, url, content)
        request = contract.Embed(photos=[contract.EmbedItem(photo.name, photo).to_wire()], return_vectors=return_vector)
        return self._send(
            TaskName.EMBED,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.EmbedReply.from_wire(w).outcomes),
        )

    def embed(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Embedded:
        return self.submit_embed(**photo).wait(timeout_s)

    def embed_many(
        self,
        items: Iterable[contract.EmbedItem],
        *,
        return_vectors: bool = False,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Embedded | Refused]:
        """Like `add_many`, for vectors alone."""

        def submit(chunk: Sequence[contract.EmbedItem]) -> Handle[list[contract.Embedded | Refused]]:
            request = contract.Embed(photos=[item.to_wire() for item in chunk], return_vectors=return_vectors)
            return self._send(TaskName.EMBED, Queue.BULK, request, lambda w: contract.EmbedReply.from_wire(w).outcomes)

        return in_bulk(list(items), submit, timeout_s, progress)

    def submit_embed_text(self, text: str) -> Handle[contract.TextVector]:
        """The vector of a text; searching by text needs no such step (`search(text=...)`)."""
        request = contract.EmbedText(text=text)
        return self._send(TaskName.EMBED_TEXT, Queue.INTERACTIVE, request, contract.TextVector.from_wire)

    def embed_text(self, text: str, *, timeout_s: float | None = None) -> contract.TextVector:
        return self.submit_embed_text(text).wait(timeout_s)

    # --------------------------------------------------------------------------------------- remove

    def submit_remove(self, photo_ids: int | Sequence[int]) -> Handle[contract.RemoveReply]:
        """Take photos out of the index at once and for good; their rows in `photos` stay."""
        request = contract.Remove(photo_ids=ids(photo_ids))
        return self._send(TaskName.REMOVE, Queue.INTERACTIVE, request, contract.RemoveReply.from_wire)

    def remove(self, photo_ids: int | Sequence[int], *, timeout_s: float | None = None) -> contract.RemoveReply:
        return self.submit_remove(photo_ids).wait(timeout_s)

    def submit_purge(self, photo_ids: int | Sequence[int]) -> Handle[contract.PurgeReply]:
        """Remove photos and erase what Sightline stores of them, also from every index generation."""
        request = contract.Purge(photo_ids=ids(photo_ids))
        return self._send(TaskName.PURGE, Queue.INTERACTIVE, request, contract.PurgeReply.from_wire)

    def purge(self, photo_ids: int | Sequence[int], *, timeout_s: float | None = None) -> contract.PurgeReply:
        return self.submit_purge(photo_ids).wait(timeout_s)

    # ------------------------------------------------------------------------------ search and locate

    def submit_search(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        text: str | None = None,
        vector: Sequence[float] | None = None,
        model_key: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        near: contract.Near | None = None,
        where: dict[str, Any] | None = None,
        min_seq: int | None = None,
        trusted_only: bool = False,
        timeout_s: float | None = None,
    ) -> Handle[contract.SearchReply]:
        """Similar photos, best first. The photo itself and its duplicates are never among them.

        min_seq: the write that must have been seen, `session` unless given. trusted_only: only photos with coordinates
        that are evidence, `top_k` of them where there are so many.
        """
        by_photo = any(given is not None for given in (photo_id, path, url, content))
        request = contract.Search(
            photo=photo_of(photo_id, path, url, content) if by_photo else None,
            text=text,
            vector=None if vector is None else [float(x) for x in vector],
            model_key=model_key,
            top_k=top_k,
            threshold=threshold,
            near=near,
            where=where,
            min_seq=self.session if min_seq is None else min_seq,
            trusted_only=trusted_only,
        )
        return self._send(
            TaskName.SEARCH,
            Queue.INTERACTIVE,
            request,
            contract.SearchReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    def search(self, *, timeout_s: float | None = None, **query: Any) -> contract.SearchReply:
        return self.submit_search(timeout_s=timeout_s, **query).wait(timeout_s)

    def submit_locate(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        threshold: float | None = None,
        near: contract.Near | None = None,
        min_seq: int | None = None,
        timeout_s: float | None = None,
    ) -> Handle[contract.LocateReply]:
        """Where was it taken? `.answer` is located with point, radius and evidence, or abstained with a reason.

        min_seq: the write that must have been seen, `session` unless given. timeout_s: a worker that comes to it later
        drops it. Give more than the default 60 where nobody waits.
        """
        request = contract.Locate(
            photo=photo_of(photo_id, path, url, content),
            threshold=threshold,
            near=near,
            min_seq=self.session if min_seq is None else min_seq,
        )
        return self._send(
            TaskName.LOCATE,
            Queue.INTERACTIVE,
            request,
            contract.LocateReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    def locate(self, *, timeout_s: float | None = None, **query: Any) -> contract.LocateReply:
        return self.submit_locate(timeout_s=timeout_s, **query).wait(timeout_s)

    def locating(self, task_id: str) -> Handle[contract.LocateReply]:
        """The handle of a `submit_locate` by its `task_id`, also in another process than the one that sent it.

        Replies are kept for an hour (SIGHTLINE_RESULT_EXPIRES_S). An id that nobody sent looks like one that is still
        on its way. To look without waiting, ask `ready()`: `wait` takes a second at least when nothing is there.
        """
        read = self._session.hearing(contract.LocateReply.from_wire)
        return Handle(self._app.AsyncResult(task_id), read, self.timeout_s)

    # ------------------------------------------------------------------------------------- the index

    def submit_rebuild_index(self) -> Handle[contract.RebuildReply]:
        return self._send(TaskName.REBUILD_INDEX, Queue.INDEX, contract.RebuildIndex(), contract.RebuildReply.from_wire)

    def rebuild_index(self, *, timeout_s: float | None = None) -> contract.RebuildReply:
        """Rebuild the index now. One runs at a time: a second one waits for its turn where there is one index process,
        and raises TryAgain(already_running) where there are several."""
        return self.submit_rebuild_index().wait(timeout_s)

    def submit_stats(self, *, timeout_s: float | None = None) -> Handle[contract.StatsReply]:
        return self._send(
            TaskName.STATS,
            Queue.INTERACTIVE,
            contract.Stats(),
            contract.StatsReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    def stats(self, *, timeout_s: float | None = None) -> contract.StatsReply:
        return self.submit_stats(timeout_s=timeout_s).wait(timeout_s)

    def close(self) -> None:
        """Give the connections back. Handles of this client can no longer be waited for."""
        close_app(self._app)

    def __enter__(self) -> Sightline:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(
        self,
        name: TaskName,
        queue: Queue,
        request: contract.Request,
        read: Callable[[Any], T],
        expires_s: float | None = None,
    ) -> Handle[T]:
        """expires_s: nobody waits after that, so a worker that gets to it later drops it."""
        with connection_lost(self._app):
            result = self._app.send_task(
                name.value,
                args=[request.to_wire()],
                queue=queue.value,
                expires=expires_s,
                retry_policy=RETRY,
            )
        return Handle(result, self._session.hearing(read), self.timeout_s)


def _only(outcomes: Sequence[Outcome | Refused]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise PhotoRefused(outcome.code, outcome.message, outcome.ref)
    return outcome
