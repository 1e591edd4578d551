"""One target in a process of its own, with what Hypothesis thinks of: each turn by a seed of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.inputs import BY_TARGET
from tests.fuzz.watched import Watched

#: Examples of one turn.
TURN = 500


def turn(watched: Watched, name: str, number: int) -> Callable[[], None]:
    @seed(number)
    @settings(
        max_examples=TURN, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(*BY_TARGET[name]))
    def check(content: Any) -> None:
        if not watched.over:
            watched(content)

    return check


def main(name: str, seconds: str, first: str, folder: str) -> None:
    watched = Watched(partial(targets.timed, getattr(targets, name)), Path(folder), float(seconds))
    number = int(first)
    try:
        while not watched.over:
            turn(watched, name, number)()
            number += 1
    finally:
        # What is found ends the process, with its own words.
        print(watched.report())


if __name__ == "__main__":
    main(*sys.argv[1:])
