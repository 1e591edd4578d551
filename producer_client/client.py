"""The client of a photo backend: small messages out, typed replies back. Needs celery and msgspec alone.

    sightline = Sightline("redis://127.0.0.1:6399/0")
    stored = sightline.add_to_index(path="/photos/1.jpg", lat=55.7, lon=13.2, provenance="exif_gps")
    answer = sightline.locate(path="/photos/2.jpg", min_seq=stored.seq).answer

Every verb has a `submit_` twin that returns a Handle at once: `.wait(timeout_s)`, or `await` it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from celery import Celery
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined]  # not in celery-types
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from producer_client import contract
from producer_client.contract import Code, NewPhoto, Photo, Provenance, Queue, Refused, TaskName
from producer_client.errors import BadRequest, PhotoRefused, SightlineError, TimedOut, TryAgain

T = TypeVar("T")
Outcome = TypeVar("Outcome")

#: Seconds that a verb waits for its reply unless told otherwise: a cold worker loads its model within it.
DEFAULT_TIMEOUT_S = 60.0
#: How often a broker that does not answer is tried, seconds between: about a second in all.
RETRY = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0}
#: Photos in one bulk message: seconds of work, far below any visibility timeout.
BULK_SIZE = 64
#: Seconds that a bulk message is waited for: others of the same list may be served before it.
BULK_TIMEOUT_S = 300.0
#: Bulk messages on their way at once: enough to keep several workers busy, small enough to stop soon.
BULK_IN_FLIGHT = 8
#: Threads that wait for what is awaited. asyncio's own are cores + 4, and its caller needs them for other things.
_waiters = ThreadPoolExecutor(64, thread_name_prefix="sightline-wait")


def read_reply(wire: Any, read: Callable[[Any], T]) -> T:
    """What a Sightline task returned, as the next task of a Celery chain gets it: `read_reply(wire,
    LocateReply.from_wire)`. Raises what Handle.wait raises, but TimedOut.
    """
    if not isinstance(wire, dict) or "ok" not in wire:
        raise SightlineError(Code.INTERNAL, f"the worker answered outside the contract: {wire!r:.200}")
    if not wire["ok"]:
        failure = contract.Failure.from_wire(wire["error"])
        raise (TryAgain if failure.code in contract.RETRYABLE else BadRequest)(failure.code, failure.message)
    return read(wire["reply"])


class PinnedCelery(Celery):
    """A Celery application at these addresses and no others.

    Celery lets CELERY_BROKER_URL and CELERY_RESULT_BACKEND of the environment win over what is given (celery 5.7,
    app/utils.py). They belong to the Celery of the backend around us, which may be at another Redis.
    """

    def __init__(self, name: str, *, broker: str, backend: str, set_as_current: bool) -> None:
        super().__init__(name, broker=broker, backend=backend, set_as_current=set_as_current)
        self._pinned_broker = broker
        self.backend_cls = backend

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self._pinned_broker, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self._pinned_broker, **options)


class Handle(Generic[T]):
    """A request on its way. It may be waited for again after TimedOut, in any thread."""

    def __init__(self, result: AsyncResult[Any], read: Callable[[Any], T], timeout_s: float) -> None:
        self._result = result
        self._read = read
        self._timeout_s = timeout_s

    @property
    def task_id(self) -> str:
        return str(self._result.id)

    def ready(self) -> bool:
        """Whether `wait` would return at once. Raises TryAgain where Redis is away."""
        with _connection_lost(self._result.app):
            return bool(self._result.ready())

    def wait(self, timeout_s: float | None = None) -> T:
        """The reply. Raises BadRequest, PhotoRefused, TryAgain, or TimedOut after `timeout_s` seconds."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            with _connection_lost(self._result.app):
                wire = self._result.get(timeout=limit_s, propagate=False, disable_sync_subtasks=False)
        except ResultTimeout as exc:
            raise TimedOut(
                Code.TIMED_OUT,
                f"no reply within {limit_s:g} s; the request {self.task_id} may still be carried out. "
                "Is a worker running? `sightline doctor` tells.",
            ) from exc
        if isinstance(wire, TaskRevokedError):
            raise TimedOut(Code.TIMED_OUT, "no worker took the request before its caller's patience ended")
        if isinstance(wire, Exception):
            raise TryAgain(Code.UNAVAILABLE, f"the worker ended in the middle of it: {wire!r:.200}") from wire
        return read_reply(wire, self._read)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.get_running_loop().run_in_executor(_waiters, self.wait).__await__()


class Sightline:
    """One per process is enough; threads may share it. Constructing it connects to nothing.

    broker_url: the workers' Redis, for example redis://host:6379/0. result_backend: where replies lie; the
    broker unless given. timeout_s: the default wait of every verb.
    """

    def __init__(
        self, broker_url: str, *, result_backend: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self.timeout_s = timeout_s
        self._app = PinnedCelery(
            "sightline-client", broker=broker_url, backend=result_backend or broker_url, set_as_current=False
        )
        self._app.conf.update(
            task_serializer="json",
            result_serializer="json",
            accept_content=["json"],
            broker_connection_timeout=5,
            broker_transport_options={
                "socket_connect_timeout": 5,
                "socket_timeout": 30,
                "socket_keepalive": True,
            },
            redis_socket_connect_timeout=5,
            redis_socket_timeout=30,
            redis_socket_keepalive=True,
            redis_backend_health_check_interval=25,
            # Celery's own policy waits 20 s for replies' Redis before it gives up; the caller decides that here.
            result_backend_transport_options={"retry_policy": RETRY},
        )

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
        photo = _photo(photo_id, path, url, content)
        item = NewPhoto(
            ref=photo.name,
            photo=photo,
            lat=lat,
            lon=lon,
            provenance=_provenance(provenance),
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

        return _in_bulk(list(photos), submit, timeout_s, progress)

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
        photo = _photo(photo_id, path, url, content)
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

        return _in_bulk(list(items), submit, timeout_s, progress)

    def submit_embed_text(self, text: str) -> Handle[contract.TextVector]:
        """The vector of a text; searching by text needs no such step (`search(text=...)`)."""
        request = contract.EmbedText(text=text)
        return self._send(TaskName.EMBED_TEXT, Queue.INTERACTIVE, request, contract.TextVector.from_wire)

    def embed_text(self, text: str, *, timeout_s: float | None = None) -> contract.TextVector:
        return self.submit_embed_text(text).wait(timeout_s)

    # --------------------------------------------------------------------------------------- remove

    def submit_remove(self, photo_ids: int | Sequence[int]) -> Handle[contract.RemoveReply]:
        """Take photos out of the index at once and for good; their rows in `photos` stay."""
        request = contract.Remove(photo_ids=_ids(photo_ids))
        return self._send(TaskName.REMOVE, Queue.INTERACTIVE, request, contract.RemoveReply.from_wire)

    def remove(self, photo_ids: int | Sequence[int], *, timeout_s: float | None = None) -> contract.RemoveReply:
        return self.submit_remove(photo_ids).wait(timeout_s)

    def submit_purge(self, photo_ids: int | Sequence[int]) -> Handle[contract.PurgeReply]:
        """Remove photos and erase what Sightline stores of them, also from every index generation."""
        request = contract.Purge(photo_ids=_ids(photo_ids))
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
        min_seq: int = 0,
        timeout_s: float | None = None,
    ) -> Handle[contract.SearchReply]:
        """Similar photos, best first. The photo itself and its duplicates are never among them."""
        by_photo = any(given is not None for given in (photo_id, path, url, content))
        request = contract.Search(
            photo=_photo(photo_id, path, url, content) if by_photo else None,
            text=text,
            vector=None if vector is None else [float(x) for x in vector],
            model_key=model_key,
            top_k=top_k,
            threshold=threshold,
            near=near,
            where=where,
            min_seq=min_seq,
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
        min_seq: int = 0,
        timeout_s: float | None = None,
    ) -> Handle[contract.LocateReply]:
        """Where was it taken? `.answer` is located with point, radius and evidence, or abstained with a reason.

        timeout_s: a worker that comes to it later drops it. Give more than the default 60 where nobody waits.
        """
        request = contract.Locate(
            photo=_photo(photo_id, path, url, content), threshold=threshold, near=near, min_seq=min_seq
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
        return Handle(self._app.AsyncResult(task_id), contract.LocateReply.from_wire, self.timeout_s)

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
        consumer = getattr(self._app.backend, "result_consumer", None)
        if consumer is not None:
            consumer.stop()
            # Or celery 5.7 connects again to say goodbye for every handle that is collected later.
            consumer._pubsub = None
        self._app.close()

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
        with _connection_lost(self._app):
            result = self._app.send_task(
                name.value,
                args=[request.to_wire()],
                queue=queue.value,
                expires=expires_s,
                retry_policy=RETRY,
            )
        return Handle(result, read, self.timeout_s)


@contextmanager
def _connection_lost(app: Celery) -> Iterator[None]:
    """Turn what kombu, celery and the Redis driver raise for a server that is away into TryAgain."""
    driver_errors: tuple[type[Exception], ...] = getattr(app.backend, "connection_errors", ())
    try:
        yield
    except (OperationalError, *driver_errors) as exc:  # type: ignore[misc]  # a tuple made at run time
        raise TryAgain(Code.UNAVAILABLE, f"Redis cannot be reached: {exc}") from exc
    except RuntimeError as exc:
        # Celery's word for a result store that stayed away (celery.backends.asynchronous).
        if str(exc) != E_RETRY_LIMIT_EXCEEDED:
            raise
        raise TryAgain(Code.UNAVAILABLE, "Redis cannot be reached: no connection for replies") from exc


def _ids(photo_ids: int | Sequence[int]) -> list[int]:
    return [photo_ids] if isinstance(photo_ids, int) else list(photo_ids)


def _photo(photo_id: int | None, path: str | None, url: str | None, content: bytes | None) -> Photo:
    inline = None if content is None else Photo.of_bytes(content).inline
    return Photo(photo_id=photo_id, path=None if path is None else str(path), url=url, inline=inline)


def _provenance(given: Provenance | str | None) -> Provenance | None:
    if given is None:
        return None
    if given not in set(Provenance):
        raise BadRequest(Code.BAD_REQUEST, f"provenance {given!r} is not one of {', '.join(Provenance)}")
    return Provenance(given)


def _only(outcomes: Sequence[Outcome | Refused]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise PhotoRefused(outcome.code, outcome.message, outcome.ref)
    return outcome


def _first_twice(refs: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for ref in refs:
        if ref in seen:
            return ref
        seen.add(ref)
    return None


def _in_bulk(
    items: Sequence[Any],
    submit: Callable[[Sequence[Any]], Handle[list[Any]]],
    timeout_s: float | None,
    progress: Callable[[int, int], None] | None,
) -> list[Any]:
    """Keep some messages on their way; collect their outcomes in the order of sending."""
    twice = _first_twice(item.ref for item in items)
    if twice is not None:
        raise BadRequest(Code.BAD_REQUEST, f"ref {twice!r} occurs twice: give every photo a ref of its own")
    chunks = [items[start : start + BULK_SIZE] for start in range(0, len(items), BULK_SIZE)]
    waiting: list[tuple[Sequence[Any], Handle[list[Any]]]] = []
    outcomes: list[Any] = []

    def collect() -> None:
        chunk, handle = waiting.pop(0)
        try:
            outcomes.extend(handle.wait(BULK_TIMEOUT_S if timeout_s is None else timeout_s))
        except SightlineError as exc:
            # The other messages' outcomes must not be lost with this one's.
            outcomes.extend(Refused(item.ref, exc.code, exc.message) for item in chunk)
        if progress:
            progress(len(outcomes), len(items))

    for chunk in chunks:
        if len(waiting) == BULK_IN_FLIGHT:
            collect()
        waiting.append((chunk, submit(chunk)))
    while waiting:
        collect()
    return outcomes
