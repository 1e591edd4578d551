"""The soak of `make chaos`, for some seconds: that it finds a service that keeps what it acknowledged, and ends all
that it started. Its checks have tests of their own (tests/unit/test_chaos.py)."""

from __future__ import annotations

from tests.chaos.plan import Kind
from tests.chaos.soak import soak
from tests.conftest import ENCODER, server_dir
from worker.core.ports import Encoder


def test_a_service_under_faults_keeps_what_it_acknowledged_and_recovers(encoder: Encoder) -> None:
    told: list[str] = []
    with server_dir() as folder:
        outcome = soak(
            folder,
            ENCODER,
            seconds=6,
            seed=1,
            tell=told.append,
            kinds=(Kind.CUT_POSTGRES, Kind.KILL_VALKEY),
            encoder=encoder,
            visibility_timeout_s=5,
            workers=1,
        )

    said = outcome.as_json()
    assert outcome.holds, (vars(outcome.verdict), outcome.ledger.seen_wrong, outcome.orphans, said, told)
    assert set(outcome.faults) == {"cut_postgres", "kill_valkey"}
    assert said["adds"] >= 5
    assert said["searches"] >= 5
    assert said["recovery_p99_s"] is not None
