"""Which faults happen when: drawn from a seed. Knows no service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

#: Seconds between two faults, least and most.
GAPS_S = (1.2, 3.2)
#: Seconds for which what can be stopped, held or closed stays so.
LASTS_S = (0.5, 6.0)
#: Seconds before the first fault.
BEFORE_S = 2.0


class Kind(StrEnum):
    """Of a fault. Those of `sightline` processes first, then those of servers, then those of what lies between, then
    what takes away what was there."""

    KILL_WORKER = "kill_worker"
    KILL_ALL_WORKERS = "kill_all_workers"
    KILL_INDEX = "kill_index"
    KILL_INDEX_CHILD = "kill_index_child"
    KILL_BEAT = "kill_beat"
    STOP_WORKER = "stop_worker"
    STOP_INDEX = "stop_index"
    STOP_BEAT = "stop_beat"
    END_WORKER = "end_worker"
    KILL_VALKEY = "kill_valkey"
    STOP_VALKEY = "stop_valkey"
    FILL_VALKEY = "fill_valkey"
    DEMOTE_VALKEY = "demote_valkey"
    CUT_VALKEY = "cut_valkey"
    KILL_POSTGRES = "kill_postgres"
    KILL_POSTGRES_CHILD = "kill_postgres_child"
    STOP_POSTGRES = "stop_postgres"
    CLOSE_POSTGRES = "close_postgres"
    CUT_POSTGRES = "cut_postgres"
    SILENCE_VALKEY = "silence_valkey"
    SILENCE_POSTGRES = "silence_postgres"
    RESET_VALKEY = "reset_valkey"
    RESET_POSTGRES = "reset_postgres"
    FLUSH_VALKEY = "flush_valkey"
    RESTORE_POSTGRES = "restore_postgres"
    FILL_DISK = "fill_disk"


#: Kinds that come so often at the most: what a restore takes back is what there is to be judged.
AT_MOST = {Kind.RESTORE_POSTGRES: 2}


@dataclass(frozen=True)
class Fault:
    """at_s: seconds after the start. lasts_s: of those that last. which: of several that a kind can fall upon."""

    at_s: float
    kind: Kind
    lasts_s: float
    which: int


def plan(seconds: float, seed: int, *, kinds: tuple[Kind, ...] = tuple(Kind)) -> list[Fault]:
    """Faults within the first `seconds`. Every kind comes once before any comes twice, those of AT_MOST no oftener."""
    random = Random(seed)
    left = dict(AT_MOST)
    faults: list[Fault] = []
    deck: list[Kind] = []
    at_s = BEFORE_S
    while at_s < seconds:
        if not deck:
            again = [kind for kind in kinds if left.get(kind, 1)]
            deck = random.sample(again, len(again))
            left = {kind: count - (kind in deck) for kind, count in left.items()}
        faults.append(Fault(at_s, deck.pop(), random.uniform(*LASTS_S), random.randrange(1_000)))
        at_s += random.uniform(*GAPS_S)
    return faults
