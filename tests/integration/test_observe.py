"""The rules and dashboards of deploy/, against a running stack and a real Prometheus: `make observe-test` as a test."""

from __future__ import annotations

from tests.conftest import ENCODER, server_dir
from tests.monitored import needs_prometheus
from tests.observe.observed import observe
from worker.encoder.choice import REFERENCE


@needs_prometheus
def test_a_running_stack_exports_all_that_is_asked_of_it_and_a_stuck_queue_raises_its_alert() -> None:
    with server_dir() as folder:
        outcome = observe(folder, ENCODER, REFERENCE)

    assert outcome.missing == []
    assert outcome.unanswered == []
    assert outcome.scraped == 4
    # Ten seconds are what a question may wait; a second to be read, one for the rule, one of `for`.
    assert 10 < outcome.stuck_alert_s < 30
