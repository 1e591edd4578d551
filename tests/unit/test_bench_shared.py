"""What all benchmarks share: asking a peer in its own environment, exact neighbours, rows for COPY, tables."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.measure import K, copy_rows, exact_neighbours, fastest_s
from benchmarks.processes import ask, python_of
from benchmarks.report import table
from benchmarks.vectors import ClusteredVectors


def test_a_peer_answers_or_says_why_not() -> None:
    here = Path(sys.executable)

    assert ask(here, "benchmarks.decoders", {"files": []}).keys() == {"pillow", "simplejpeg", "pyvips"}
    assert "unexpected" in ask(here, "benchmarks.decoders", {"photos": []})["skipped"]
    assert "No module" in ask(here, "benchmarks.nobody", {})["skipped"]
    assert ".venv-bench-nobody is not there" in ask(python_of("nobody"), "benchmarks.decoders", {})["skipped"]
    assert "within 0.01 s" in ask(here, "benchmarks.decoders", {"files": []}, timeout_s=0.01)["skipped"]


def test_exact_neighbours_are_the_same_whatever_the_chunks() -> None:
    random = np.random.default_rng(0)
    rows, queries = (random.standard_normal((count, 8), dtype=np.float32) for count in (100, 5))
    chunks = [(np.arange(start, start + 7) + 1, rows[start : start + 7]) for start in range(0, 98, 7)]
    chunks.append((np.array([99, 100]), rows[98:]))

    found = exact_neighbours(chunks, queries)

    assert np.array_equal(found, np.argsort(-(queries @ rows.T), axis=1)[:, :K] + 1)


def test_the_places_of_drawn_vectors_are_those_of_their_rows() -> None:
    made = ClusteredVectors(2_000, dimension=32)

    (rows,), (places,) = list(made.chunks()), list(made.places())

    of_one = places[:, None] == places[None, :]
    np.fill_diagonal(of_one, False)
    cosines = rows @ rows.T
    assert np.median(cosines[of_one]) > 0.75 > np.median(cosines[~of_one]) + 0.1


def test_rows_for_copy_have_their_fields_with_lengths() -> None:
    names, vectors = np.array([b"ab", b"cd"]), np.array([[1, 2], [3, 4]], dtype="<f4")

    stream = copy_rows(name=names, vector=vectors)

    first = struct.pack(">hi2si", 2, 2, b"ab", 8) + struct.pack("<2f", 1, 2)
    second = struct.pack(">hi2si", 2, 2, b"cd", 8) + struct.pack("<2f", 3, 4)
    assert stream == b"PGCOPY\n\xff\r\n\0" + bytes(8) + first + second + b"\xff\xff"


def test_the_fastest_call_counts_and_there_are_as_many_as_wanted() -> None:
    calls = list[int]()

    assert fastest_s(lambda: calls.append(1), calls=3) < 1
    assert len(calls) == 3


def test_a_table_has_what_is_measured_and_below_it_what_is_left_out() -> None:
    written = io.StringIO()
    ours, theirs = {"p50_ms": 1234.5, "sure": True}, {"p50_ms": None}

    shown = table("Times", {"ours": ours, "[theirs]": theirs, "other": {"skipped": "too slow"}})
    Console(file=written, width=60).print(shown)

    text = written.getvalue()
    for words in ("p50 ms", "1,234.5", "True", "[theirs]", "other is left out: too slow"):
        assert words in text
