"""A library of photos in this process, as the service joins it, asked by each policy where other photos were taken.

Nothing here answers by itself: every answer is `Questions.locate`'s, with the service's own switches set otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.processes import cores
from benchmarks.service import sql
from producer_client.contract import (
    Answer,
    Conflicts,
    Locate,
    NewPhoto,
    Photo,
    Provenance,
    Refused,
)
from producer_client.contract import Policy as Rule
from worker.core.geo import distance_m
from worker.embedded import EmbeddedServers
from worker.place.exam import Examined
from worker.runtime import Runtime
from worker.settings import Rung, Settings
from worker.storage.migrate import migrate
from worker.storage.store import PostgresStore

ENCODER = "packaged/efficientnet-lite0"
#: What runs it: the reference, so that no half minute goes into choosing something faster.
BACKEND = "torch-float32"
#: Photos of one message.
ADDED_AT_ONCE = 50
#: Questions that are asked side by side where no time is taken: a core has work while others wait for Postgres.
ASKING_PER_CORE = 2
#: Seconds for a process to serve what was published.
SERVED_TIMEOUT_S = 60.0


#: The rungs, each on top of those before it, and those that are off unless they are asked for.
LADDER: tuple[str, ...] = Settings.model_fields["rungs"].default
ASKED_FOR: tuple[str, ...] = tuple(rung for rung in get_args(Rung) if rung not in LADDER)
#: How a generation is built before wrong positions are looked for: what is learnt from known photos hangs on these.
BEFORE_CONFLICTS: Mapping[str, Any] = {"rungs": LADDER[: LADDER.index("conflicts")]}
#: And how the one is built that the others ask: what is learnt of times changes nothing for who asks without them.
WITH_ALL: Mapping[str, Any] = {"rungs": (*LADDER, *ASKED_FOR)}


@dataclass(frozen=True, slots=True)
class Policy:
    """changes: settings that are otherwise than a user has them. learnt: with which changes the generation is built
    that it asks. guide: the nearest photo's coordinates instead."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    learnt: Mapping[str, Any] = field(default_factory=dict)
    guide: bool = False


def policies() -> list[Policy]:
    """Those that are compared, each better than the one before it, as we hope; those of one generation in a row. The
    last that changes nothing is what a user gets; after it come rungs that are off unless they are asked for."""
    none: Mapping[str, Any] = {"rungs": ()}
    found = [Policy("guide", none, BEFORE_CONFLICTS, guide=True), Policy("today", none, BEFORE_CONFLICTS)]
    for at, rung in enumerate(LADDER):
        up_to = LADDER[: at + 1]
        changes = {} if up_to == LADDER else {"rungs": up_to}
        found.append(Policy(f"+{rung}", changes, WITH_ALL if "conflicts" in up_to else BEFORE_CONFLICTS))
    return found + [Policy(f"+{rung}", {"rungs": (*LADDER, rung)}, WITH_ALL) for rung in ASKED_FOR]


def default_of(compared: Sequence[Policy]) -> Policy:
    """What a user gets."""
    return next(policy for policy in compared if not policy.changes)


@dataclass(frozen=True, slots=True)
class Placed:
    """A photo with where it was taken, or was said to be."""

    path: Path
    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class Question:
    """lat, lon: the truth. place: questions of one place share it. seen: photos of it are in the library. kinds: what
    it is one of."""

    number: int
    path: Path
    lat: float
    lon: float
    place: int
    seen: bool
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """ms: of `Questions.locate`, the way of the photo from its file to the answer."""

    question: Question
    answer: Answer
    ms: float

    @property
    def examined(self) -> Examined:
        question, answer = self.question, self.answer
        return Examined(
            photo_id=question.number,
            seen=question.seen,
            place=question.place,
            lat=question.lat,
            lon=question.lon,
            provenance=Provenance.SURVEYED,
            density=0,
            located=answer.located,
            reason=None if answer.located else str(answer.reason),
            point=None if answer.point is None else (answer.point.lat, answer.point.lon),
            # The guide names none.
            radius_m=answer.radius_m if answer.radius_m is not None or not answer.located else 0.0,
            confidence=answer.confidence,
        )

    @property
    def error_m(self) -> float | None:
        point = self.answer.point
        return None if point is None else distance_m(point.lat, point.lon, self.question.lat, self.question.lon)


def settings_of(servers: EmbeddedServers, folder: Path, photos: Path | None = None) -> Settings:
    """Of a library below this folder. photos: a folder of others that may be added."""
    return Settings(
        database_url=servers.database_url,
        data_dir=folder / "service",
        photo_roots=(folder, *([photos] if photos else [])),
        encoder=ENCODER,
        backend=BACKEND,
        device="cpu",
    )


class Shelf:
    """One library's Postgres and folder. Policies that ask it are processes of the service of their own, as far as
    settings, caches and the index in memory go. Open until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with closing(PostgresStore(settings)) as store:
            migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)
        self._own = started(settings)

    def close(self) -> None:
        self._own.close()

    def add(self, photos: Iterable[Placed]) -> dict[Path, int]:
        """The photos' ids. Raises RuntimeError where one is refused."""
        new = [NewPhoto(str(p.path), Photo(path=str(p.path)), p.lat, p.lon, Provenance.EXIF_GPS) for p in photos]
        ids = {}
        for start in range(0, len(new), ADDED_AT_ONCE):
            for outcome in self._own.library.photos.add_many(new[start : start + ADDED_AT_ONCE]).outcomes:
                if isinstance(outcome, Refused):
                    raise RuntimeError(f"{outcome.ref} was not taken: {outcome.message}")
                ids[Path(outcome.ref)] = outcome.photo_id
        return ids

    def remove(self, ids: Sequence[int]) -> None:
        self._own.library.photos.remove_many(ids)

    def another(self, name: str, **changes: Any) -> Shelf:
        """An empty library beside this one."""
        own = {"db_schema": name, "photos_table": f"photos_{name}", "data_dir": self.settings.data_dir / name}
        return Shelf(self.settings.model_copy(update=own | changes))

    def take_embeddings_of(self, other: Shelf) -> None:
        """Know the vectors and keypoints of all contents that the other one knows, so that nothing is made again."""
        with sql(self.settings.database_url) as cursor:
            for name in ("embeddings", "keypoints"):
                own, from_ = (f"{shelf.settings.db_schema}.{name}" for shelf in (self, other))
                cursor.execute(f"INSERT INTO {own} SELECT * FROM {from_}")

    def suspected(self) -> set[str]:
        """Paths of the photos whose position something contradicts."""
        found: set[str] = set()
        after_id: int | None = -1
        while after_id is not None:
            page = self._own.library.conflicts.known(Conflicts(after_id=after_id))
            found |= {conflict.path for conflict in page.conflicts if conflict.path is not None}
            after_id = page.after_id
        return found

    def rebuild(self, **changes: Any) -> int:
        """The generation that was published, with all that is learnt from the photos. changes: of the settings."""
        if not changes:
            return self._own.library.rebuilding.rebuild().generation
        with closing(started(self.settings.model_copy(update=changes))) as runtime:
            return runtime.library.rebuilding.rebuild().generation

    @contextmanager
    def asked_by(self, policies: Sequence[Policy], generation: int, warm: Path) -> Iterator[dict[str, Runtime]]:
        """A process for each policy, that serves the generation and has answered before, about the photo `warm`."""
        runtimes: dict[str, Runtime] = {}
        try:
            for policy in policies:
                runtimes[policy.name] = started(self.settings.model_copy(update=policy.changes))
                serve(runtimes[policy.name], generation, warm)
            yield runtimes
        finally:
            for runtime in runtimes.values():
                runtime.close()


def started(settings: Settings) -> Runtime:
    """With its model loaded."""
    runtime = Runtime(settings)
    runtime.start(follow=False)
    return runtime


def in_turns(
    runtimes: Mapping[str, Runtime], policies: Sequence[Policy], questions: Sequence[Question]
) -> dict[str, list[Reply]]:
    """What each policy answers, one question at a time, by the policies in turns: drift of the machine meets all."""
    found: dict[str, list[Reply]] = {policy.name: [] for policy in policies}
    for turn, question in enumerate(questions):
        for at in range(len(policies)):
            policy = policies[(turn + at) % len(policies)]
            found[policy.name].append(_ask(runtimes[policy.name], policy, question))
    return found


def at_once(
    runtimes: Mapping[str, Runtime], policies: Sequence[Policy], questions: Sequence[Question]
) -> dict[str, list[Reply]]:
    """The same as fast as all cores can: these times say nothing."""
    with ThreadPoolExecutor(ASKING_PER_CORE * cores()) as pool:
        return {
            policy.name: list(pool.map(partial(_ask, runtimes[policy.name], policy), questions)) for policy in policies
        }


def serve(runtime: Runtime, generation: int, warm: Path) -> None:
    """Wait until it answers by this generation. warm: what it is asked about."""
    deadline = time.monotonic() + SERVED_TIMEOUT_S
    while runtime.library.questions.locate(Locate(photo=Photo(path=str(warm)))).generation != generation:
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {SERVED_TIMEOUT_S:g} s for generation {generation} to be served")
        time.sleep(0.02)


def _ask(runtime: Runtime, policy: Policy, question: Question) -> Reply:
    photo = Photo(path=str(question.path))
    started = time.perf_counter()
    request = Locate(photo=photo, policy=Rule.GUIDE if policy.guide else None)
    answer = runtime.library.questions.locate(request).answer
    return Reply(question, answer, (time.perf_counter() - started) * 1000)
