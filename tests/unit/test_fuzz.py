"""Bytes that nobody has thought of: only what is defined becomes of them. `make fuzz` goes on for longer."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.inputs import BY_TARGET, CORPUS

#: As many as take some five seconds each.
EXAMPLES = {"item": 300, "message": 250, "structure": 300, "photo": 1200}


def test_the_corpus_is_small_and_every_photo_of_it_is_read() -> None:
    assert sum(map(len, CORPUS.values())) < 50_000
    assert {name: targets.photo(content) for name, content in CORPUS.items()} == dict.fromkeys(CORPUS, "decoded")


@pytest.mark.parametrize("name", BY_TARGET)
def test_of_bytes_that_nobody_has_thought_of_only_what_is_defined_becomes(name: str) -> None:
    """Refused by a code, or read as what they say; in bounded time and memory."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target = getattr(targets, name)
    became = set()

    @settings(
        derandomize=True,
        max_examples=EXAMPLES[name],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.one_of(*BY_TARGET[name]))
    def check(content: Any) -> None:
        became.add(targets.timed(target, content))

    check()

    assert len(became) > 2, "neither all are refused nor none"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000
