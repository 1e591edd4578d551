"""What callers send comes back in sentences, cut to what a person can read."""

from __future__ import annotations

import pytest

from producer_client import BadRequest, Code, NewPhoto, Photo, Refused
from producer_client.contract import AddToIndex, failed
from producer_client.errors import LONGEST_SENTENCE, LONGEST_WORD, short
from worker.errors import Permanent, PhotoRefusal, Stale, Transient

LONG = "/photos/" + "x" * 100_000 + "/castle.jpg"


@pytest.mark.parametrize(
    "said",
    [
        lambda words: BadRequest(Code.BAD_REQUEST, words).message,
        lambda words: str(BadRequest(Code.BAD_REQUEST, words)),
        lambda words: Permanent(Code.BAD_REQUEST, words).message,
        lambda words: str(PhotoRefusal(Code.NOT_FOUND, words)),
        lambda words: Transient(Code.UNAVAILABLE, words).message,
        lambda words: Stale(words, 3).message,
        lambda words: Refused("a", Code.NOT_FOUND, words).message,
        lambda words: Refused.from_wire(Refused("a", Code.NOT_FOUND, words).to_wire()).message,
        lambda words: failed(Code.NOT_FOUND, words)["error"]["message"],
    ],
    ids=["client", "client text", "permanent", "refusal", "transient", "stale", "outcome", "outcome read", "envelope"],
)
def test_a_sentence_with_a_long_path_keeps_its_words_and_the_name_of_the_file(said: object) -> None:
    words = said(f"{LONG} is outside the allowed folders ({LONG}; SIGHTLINE_PHOTO_ROOTS)")  # type: ignore[operator]

    assert len(words) < 2 * LONGEST_WORD + 100
    assert "castle.jpg is outside the allowed folders" in words
    assert "SIGHTLINE_PHOTO_ROOTS" in words
    assert words.count("…") == 2


def test_a_sentence_of_nothing_but_short_words_is_cut_in_its_middle() -> None:
    words = short("ref " + "a b " * 50_000 + "occurs twice")

    assert len(words) == LONGEST_SENTENCE
    assert words.startswith("ref a b")
    assert words.endswith("occurs twice")


@pytest.mark.parametrize("words", ["", "photo 81 has no file_path", "x" * LONGEST_WORD, "two words " * 40])
def test_what_a_person_can_read_stays_as_it_is(words: str) -> None:
    assert short(words) == words


def test_a_ref_stays_whole_however_long_it_is() -> None:
    """It is the caller's name for the photo, by which the outcome is found."""
    odd = NewPhoto(LONG, Photo(path="/a.jpg")).to_wire() | {"odd": 1}

    (refused,) = AddToIndex(photos=[odd]).read_new_photos()

    assert isinstance(refused, Refused)
    assert refused.ref == LONG
    assert len(refused.message) < 1000


def test_what_is_to_be_pasted_stays_whole() -> None:
    statement = f"  CREATE VIEW photos_for_sightline AS SELECT {', '.join(['lat::float8 AS lat'] * 100)};"
    words = f"the table cannot be used. To do: run\n{statement}\nand start the workers again"

    assert short(words) == words
    assert len(short(words * 100)) == LONGEST_SENTENCE
