"""The client's questions: what looks like this photo, and where was it taken."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from producer_client import contract
from producer_client.arguments import checked, near_of, photo_of
from producer_client.connection import Connection
from producer_client.handle import Handle
from producer_client.words import Queue, TaskName


class QuestionVerbs(Connection):
    @checked
    def submit_search(
        self,
        *,
        photo_id: int | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        content: bytes | bytearray | memoryview | BinaryIO | None = None,
        text: str | None = None,
        vector: Sequence[float] | None = None,
        model_key: str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        near: contract.Near | Mapping[str, float] | None = None,
        where: dict[str, Any] | None = None,
        min_seq: int | None = None,
        trusted_only: bool = False,
        allow_stale: bool = False,
        timeout_s: float | None = None,
    ) -> Handle[contract.SearchReply]:
        """Similar photos, best first. The photo itself and its duplicates are never among them.

        min_seq: the write that must have been seen, `session` unless given. trusted_only: only photos with coordinates
        that are evidence, `top_k` of them where there are so many. allow_stale: while the workers' Postgres is away,
        answer by what a worker remembers; the reply then says how old that is (`stale_s`), and its hits have no path.
        """
        by_photo = any(given is not None for given in (photo_id, path, url, content))
        request = contract.Search(
            photo=photo_of(photo_id, path, url, content) if by_photo else None,
            text=text,
            vector=None if vector is None else list(vector),
            model_key=model_key,
            top_k=top_k,
            threshold=threshold,
            near=near_of(near),
            where=where,
            trusted_only=trusted_only,
            allow_stale=allow_stale,
            **self._seen(min_seq),
        )
        return self._send(
            TaskName.SEARCH,
            Queue.INTERACTIVE,
            request,
            contract.SearchReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    @checked
    def search(self, *, timeout_s: float | None = None, **query: Any) -> contract.SearchReply:
        return self.submit_search(timeout_s=timeout_s, **query).wait(timeout_s)

    @checked
    def submit_locate(
        self,
        *,
        photo_id: int | None = None,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        content: bytes | bytearray | memoryview | BinaryIO | None = None,
        threshold: float | None = None,
        near: contract.Near | Mapping[str, float] | None = None,
        min_seq: int | None = None,
        policy: contract.Policy | str | None = None,
        timeout_s: float | None = None,
    ) -> Handle[contract.LocateReply]:
        """Where was it taken? `.answer` is located with point, radius and evidence, or abstained with a reason.

        min_seq: the write that must have been seen, `session` unless given. policy: "guide" is the guide's rule, for
        comparison. timeout_s: a worker that comes to it later drops it. Give more than the default 60 where nobody
        waits.
        """
        request = contract.Locate(
            photo=photo_of(photo_id, path, url, content),
            threshold=threshold,
            near=near_of(near),
            policy=None if policy is None else contract.Policy(policy),
            **self._seen(min_seq),
        )
        return self._send(
            TaskName.LOCATE,
            Queue.INTERACTIVE,
            request,
            contract.LocateReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    @checked
    def locate(self, *, timeout_s: float | None = None, **query: Any) -> contract.LocateReply:
        return self.submit_locate(timeout_s=timeout_s, **query).wait(timeout_s)

    @checked
    def locating(self, task_id: str) -> Handle[contract.LocateReply]:
        """The handle of a `submit_locate` by its `task_id`, also in another process than the one that sent it.

        Replies are kept for an hour (SIGHTLINE_RESULT_EXPIRES_S). An id that nobody sent looks like one that is still
        on its way. To look without waiting, ask `ready()`.
        """
        return self._handle(task_id, contract.LocateReply.from_wire)
