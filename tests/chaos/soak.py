"""A service under load and faults, and what came of it.

The stack is what `sightline up` runs, and what `up` watches it by: two workers, of which one reaches its servers
through proxies, the index process, the beat, Valkey and Postgres. Valkey appends every write to its file before it
answers (`appendonly`, as `up` starts it), so that a kill -9 of it takes nothing that was acknowledged; what a machine
without power loses is another matter (`appendfsync everysec`: a second).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from producer_client import SightlineError, TryAgain
from producer_client.contract import Code
from tests.between import before_postgres, before_redis
from tests.chaos import looking
from tests.chaos.disk import full, small_disk
from tests.chaos.faults import SERVE, Course, Far, Harm
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.looking import until
from tests.chaos.plan import Fault, Kind, plan
from tests.chaos.restoring import Restores
from tests.chaos.verdict import Verdict, judge
from worker import upenv
from worker.core.ports import Encoder
from worker.encoder.load import load_encoder
from worker.settings import Settings
from worker.stack import Stack
from worker.watching import Watch

#: Seconds for all that waits to be done once the faults are over: what a dead worker had in hand comes back first.
SETTLE_S = 90.0
#: Seconds after the last fault until every photo with a row is embedded, whatever has lost its message.
EMBEDDED_S = 120.0
#: Seconds between two looks of who watches, and until what has died is started again at the most: faults come faster
#: than anything dies by itself.
LOOK_EVERY_S, LONGEST_PAUSE_S = 0.25, 2.0
#: Seconds between two lines of progress.
TELL_EVERY_S = 5.0
#: Searches for all photos in the end: with so many, both workers are asked.
SEARCHES = 6

Tell = Callable[[str], None]


@dataclass
class Outcome:
    """Everything that is said of a soak at its end."""

    seconds: float
    seed: int
    faults: Counter[str]
    ledger: Ledger
    verdict: Verdict
    recoveries: list[tuple[str, float | None]]
    settled_s: float | None
    orphans: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        unheard = [kind for kind, took_s in self.recoveries if took_s is None]
        return (
            self.verdict.holds
            and not (self.ledger.seen_wrong or self.orphans or unheard)
            and self.settled_s is not None
        )

    def as_json(self) -> dict[str, Any]:
        calls, verdict = self.ledger.calls, self.verdict
        asked = ("search ", "probe_search ")
        return {
            "seconds": self.seconds,
            "seed": self.seed,
            "faults": dict(sorted(self.faults.items())),
            "adds": calls["add"] + calls["probe_write"],
            "removes": calls["remove"],
            "purges": calls["purge"],
            "searches": calls["search"] + calls["probe_search"],
            "rebuilds": calls["rebuild"],
            "lost": len(verdict.lost),
            "duplicated": len(verdict.duplicated),
            "wrong_vector": len(verdict.wrong_vector),
            "resurrected": len(verdict.resurrected),
            "torn": len(verdict.torn),
            "left": len(verdict.left),
            "orphans": len(self.orphans),
            "seen_wrong": len(self.ledger.seen_wrong),
            "failed_searches": sum(count for call, count in calls.items() if call.startswith(asked)),
            "failed_writes": sum(
                count for call, count in calls.items() if call.startswith(("add ", "add_many ", "probe_write "))
            ),
            "recovery_p50_s": quantile([took_s for _, took_s in self.recoveries], 0.5),
            "recovery_p99_s": quantile([took_s for _, took_s in self.recoveries], 0.99),
            "settled_s": self.settled_s,
        }


def quantile(values: Sequence[float | None], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed; None where that is one which never came."""
    rising = sorted(float("inf") if value is None else value for value in values)
    if not rising:
        return None
    value = rising[min(len(rising) - 1, max(0, -int(-share * len(rising) // 1) - 1))]
    return None if value == float("inf") else round(value, 2)


def soak(
    folder: Path,
    encoder_name: str,
    *,
    seconds: float,
    seed: int,
    tell: Tell,
    kinds: tuple[Kind, ...] = tuple(Kind),
    encoder: Encoder | None = None,
    visibility_timeout_s: int = 10,
    workers: int = 2,
) -> Outcome:
    """folder: of a short name, as a socket lies in it. Photos and all that the service keeps lie there afterwards.

    kinds: of faults that may come. encoder: the one of that name, where it is loaded.
    visibility_timeout_s: after that, what a dead worker had in hand comes back. workers: all but the first of them
    reach their servers through proxies.
    """
    photos = folder / "photos"
    photos.mkdir()
    settings = Settings(
        data_dir=folder / "data",
        photo_roots=(photos,),
        encoder=encoder_name,
        backend="torch-float32",
        model_threads=1,
        concurrency=4,
        visibility_timeout_s=visibility_timeout_s,
        retry_pause_s=0.2,
        tick_every_s=2.0,
        exam_photos=0,
    )
    ledger = Ledger()
    with ExitStack() as closing:
        if Kind.FILL_DISK in kinds and not closing.enter_context(small_disk(settings.generations_dir)):
            tell("no disk may be mounted here: none is filled")
            kinds = tuple(kind for kind in kinds if kind is not Kind.FILL_DISK)
        stack = closing.enter_context(Stack(settings, log_dir=folder / "logs", port=0))
        near = stack.settings
        # As `up` does, for the commands of its folder.
        upenv.write(near.data_dir / upenv.NAME, near.as_env())
        far = closing.enter_context(_far(near, folder))
        stack.start(*SERVE)
        for _ in range(1, workers):
            stack.start(*SERVE, settings=near.model_copy(update=far.addresses))
        stack.start("worker", "--role", "index")
        stack.start("beat")
        stack.wait_ready()
        load = Load(lambda: stack.client(5.0), near.database_url, near.photos_table, photos, seed, ledger)
        closing.callback(load.close)
        watching = threading.Lock()
        restores = Restores(stack, ledger, watching)
        more: dict[Kind, Callable[[float], Course]] = {
            Kind.RESTORE_POSTGRES: restores.course,
            Kind.FILL_DISK: partial(full, near.generations_dir),
        }
        with _watched(stack, watching) as watched, _acting(load) as acting:
            tell(f"{len(stack.processes)} processes and 2 servers run in {folder}; seed {seed}")

            def check() -> None:
                _raise_what_ended([watched, *acting])

            faults, ended = _do_harm(
                Harm(stack, far, more), plan(seconds, seed, kinds=kinds), seconds, tell, load, check
            )
            load.over.set()
            last = max((at for _, at in ended), default=time.monotonic())
            until(lambda: load.probes.recovery_s(last) is not None, SETTLE_S)
            load.probing_over.set()
            for act in acting:
                act.result(6 * SETTLE_S)
            encoder = encoder or load_encoder(encoder_name, device="cpu", threads=2)
            waiting = _waiting(stack, encoder.model_key, last, tell)
            settled_s = _settle(stack, load, last, tell)
            check()
        verdict = _judged(stack, load, encoder, waiting, restores.generation, tell)
        data_dir = str(near.data_dir)
    return Outcome(
        seconds=seconds,
        seed=seed,
        faults=faults,
        ledger=ledger,
        verdict=verdict,
        recoveries=[(kind, load.probes.recovery_s(at)) for kind, at in ended],
        settled_s=settled_s,
        orphans=orphans(data_dir),
    )


def orphans(folder: str) -> list[str]:
    """Processes that work in this folder, or name it."""
    found = psutil.process_iter(["pid", "name", "cwd", "cmdline"])
    facts = [f"{p.info['name']} {p.info['pid']} in {p.info['cwd']}: {' '.join(p.info['cmdline'] or [])}" for p in found]
    return [words for words in facts if folder in words]


# -------------------------------------------------------------------------------------------- below


@contextmanager
def _far(settings: Settings, folder: Path) -> Iterator[Far]:
    """Proxies before both servers."""
    with before_redis(settings.broker_url) as valkey, before_postgres(settings.database_url, folder) as postgres:
        yield Far(valkey, postgres)


@contextmanager
def _watched(stack: Stack, watching: threading.Lock) -> Iterator[Future[None]]:
    """What has died is started again, as by `sightline up`. watching: held at each look."""
    over = threading.Event()
    watch = Watch(stack, lambda _: None, pointless=frozenset({2, 3}), longest_pause_s=LONGEST_PAUSE_S)

    def look() -> None:
        while not over.wait(LOOK_EVERY_S):
            with watching:
                watch.look()

    with ThreadPoolExecutor(1, thread_name_prefix="watch") as pool:
        try:
            yield pool.submit(look)
        finally:
            over.set()


@contextmanager
def _acting(load: Load) -> Iterator[list[Future[None]]]:
    acts = load.acts()
    with ThreadPoolExecutor(len(acts), thread_name_prefix="load") as pool:
        try:
            yield [pool.submit(act) for act in acts.values()]
        finally:
            load.over.set()
            load.probing_over.set()


def _raise_what_ended(running: Sequence[Future[None]]) -> None:
    for future in running:
        if future.done():
            future.result()


def _do_harm(
    harm: Harm, planned: Sequence[Fault], seconds: float, tell: Tell, load: Load, check: Callable[[], None]
) -> tuple[Counter[str], list[tuple[str, float]]]:
    """Returns how often each kind was done, and the name and the end of each (monotonic seconds)."""
    began = told = time.monotonic()
    waiting, done = list(planned), Counter[str]()
    running: list[tuple[Fault, Course, frozenset[str]]] = []
    ended: list[tuple[str, float]] = []
    try:
        while (now := time.monotonic() - began) < seconds or running:
            check()
            busy = frozenset().union(*(targets for _, _, targets in running))
            for fault in waiting:
                targets = harm.targets(fault)
                if fault.at_s <= now < seconds and not targets & busy:
                    waiting.remove(fault)
                    running.append((fault, harm.course(fault), targets))
                    done[fault.kind.value] += 1
                    tell(f"{now:5.1f} s: {fault.kind} begins")
                    break
            for one in list(running):
                if next(one[1], one) is one:
                    running.remove(one)
                    at_s = time.monotonic() - began
                    ended.append((f"{one[0].kind} at {at_s:.1f} s", began + at_s))
                    tell(f"{at_s:5.1f} s: {one[0].kind} is over")
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                tell(_progress(now, done, [fault for fault, _, _ in running], load))
            time.sleep(0.05)
    finally:
        for _, course, _ in running:
            course.close()
    return done, ended


def _progress(now: float, done: Counter[str], running: Sequence[Fault], load: Load) -> str:
    calls = load._ledger.calls
    said = ", ".join(f"{name} {calls[name]}" for name in ("add", "remove", "purge", "search", "rebuild"))
    return f"{now:5.0f} s: {done.total()} faults, {said}; now: {', '.join(fault.kind for fault in running) or '-'}"


def _waiting(stack: Stack, model_key: str, since: float, tell: Tell) -> set[int]:
    """Photos with a row that nothing has embedded in time after the last fault: no rebuild is asked for meanwhile."""
    lacking: set[int] = set()

    def none_lacks() -> bool:
        nonlocal lacking
        lacking = looking.without_vector(stack.settings, model_key)
        return not lacking

    if not none_lacks():
        tell(f"{len(lacking)} photos with a row wait to be embedded")
    until(none_lacks, since + EMBEDDED_S - time.monotonic())
    return lacking


def _settle(stack: Stack, load: Load, since: float, tell: Tell) -> float | None:
    """Seconds until no message was left and a rebuild had succeeded; None where that never came.

    The beat goes on: a tick of its own lies in its queue for a moment."""
    tell("no more faults; waiting for what is still to be done")

    def done() -> bool:
        return not any(looking.messages(stack.settings).values())

    if not until(done, SETTLE_S):
        tell(f"left: {looking.messages(stack.settings)}")
        return None
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            load.rebuild_at_last(SETTLE_S)
        except SightlineError as exc:
            tell(f"rebuild: {exc}")
            if time.monotonic() > deadline:
                return None
            time.sleep(1.0)
        else:
            return round(time.monotonic() - since, 1) if until(done, SETTLE_S) else None


def _judged(stack: Stack, load: Load, encoder: Encoder, waiting: Collection[int], restored: int, tell: Tell) -> Verdict:
    photos = load._ledger.all()
    tell(f"judging {len(photos)} photos")
    searches = [_hits(load) for _ in range(SEARCHES)]
    files = {photo.sha256: photo.path for photo in (*photos, load.asked)}
    vectors = looking.vectors_of(encoder, files, max_megapixels=stack.settings.max_megapixels)
    found = looking.found(stack.settings, encoder.model_key, encoder.dimension, searches)
    found = replace(found, waiting=waiting, restored=restored)
    return judge(photos, vectors, vectors[load.asked.sha256], found)


def _hits(load: Load) -> list[tuple[int, float]]:
    """Of a client that may have seen what a restore has taken back, which it is told once."""
    try:
        return load.hits(60.0)
    except TryAgain as exc:
        if exc.code != Code.STALE:
            raise
        return load.hits(60.0)


def main_tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
