"""Since when a message waits: by its header, by its id for a client of before it, by nothing that strangers write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_client import ids
from producer_client.ids import SENT, new_id, waits_since_ms
from producer_client.signing import SIGNED, Keys, admitted, stamp

NOW = 1_800_000_000_000
KEYS = Keys("one", {"one": b"1" * 32})
FOREIGN = "5b3e2f0c-0a6b-4a8e-9d5e-2f1d6c7b8a90"


def test_the_header_says_it_then_the_id_then_nobody() -> None:
    before = ids.now_ms()

    assert waits_since_ms({SENT: NOW, "id": new_id()}) == NOW
    assert before <= (waits_since_ms({"id": new_id()}) or 0) <= ids.now_ms()
    assert waits_since_ms({"id": FOREIGN}) is None
    assert waits_since_ms({}) is None


@pytest.mark.parametrize("zone", ["+00:00", ""])
def test_what_is_sent_round_again_waits_from_when_it_is_due(zone: str) -> None:
    due = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=5)

    assert waits_since_ms({SENT: NOW, "eta": due.isoformat()[:19] + zone}) == NOW + 5_000
    assert waits_since_ms({SENT: NOW + 9_000, "eta": due.isoformat()}) == NOW + 9_000


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", new_id(), 1 << 48, -1, 0, 1e20]),
)


@given(st.fixed_dictionaries({}, optional={SENT: odd, "id": odd, "eta": odd}))
def test_strange_values_say_nothing_and_break_nothing(headers: dict[str, Any]) -> None:
    found = waits_since_ms(headers)

    # The eta is one that Celery waits for, and no later than its years go.
    assert found is None or 0 < found < 253_402_400_000_000 + (1 << 48)
    if type(headers.get(SENT)) is not int:
        assert waits_since_ms({**headers, SENT: NOW, "eta": None}) == NOW


def test_of_a_signed_message_the_signature_says_it() -> None:
    given = {"task": "sightline.remove", "id": FOREIGN, "retries": 0, SENT: NOW + 123}
    how: dict[str, Any] = {"content_type": "t", "content_encoding": "e"}
    signed = stamp(KEYS, "bulk", given, b"{}", now=NOW / 1000, **how)

    assert admitted(KEYS, "bulk", given | {SIGNED: signed}, b"{}", now=NOW / 1000, **how).sent_ms == NOW + 123
    # As a worker of an earlier release sends it again, with the header as it came: that one is not signed.
    del given[SENT]
    unsaid = stamp(KEYS, "bulk", given, b"{}", now=NOW / 1000 + 60, **how)
    assert '"sent"' not in unsaid
    again = admitted(KEYS, "bulk", given | {SENT: NOW, SIGNED: unsaid}, b"{}", now=NOW / 1000 + 60, **how)
    assert again.sent_ms == NOW + 60_000
