"""What people are shown on a terminal of 80 columns."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from demo.__main__ import PROMISED
from demo.folders import Case
from demo.shown import Asked, asked_table, found_by_words_table, places_table, similar_table
from demo.words import say as demo_words
from producer_client import NewPhoto, Pending, Photo, Provenance, Refused, Sightline
from producer_client.contract import (
    Answer,
    Code,
    ConfidenceKind,
    Conflict,
    ConflictState,
    Doubt,
    Hit,
    LeftAlone,
    Mistake,
    Point,
    PositionIssue,
    Purged,
    Reason,
    RebuildReply,
    RebuildRun,
    Rejected,
    Removed,
    StatsReply,
)
from producer_client.errors import Declined, Untrusted
from worker import roots as roots_page
from worker import unfit
from worker.commands import parked, terminal
from worker.commands.audit import audit_table
from worker.commands.backends import backend_lines, backends_table
from worker.commands.conflicts import conflicts_table, settled_table
from worker.commands.doctor import checks_table
from worker.commands.health import processes_table
from worker.commands.index import generations_table, stats_table
from worker.commands.moving import changes_table
from worker.commands.photos import checked_lines, purged_table, removed_table
from worker.commands.quarantine import left_alone_table, shown_whole
from worker.commands.questions import answer_shown, hits_table
from worker.commands.refused import refused_table
from worker.commands.reports import named_lines, point_lines, report_table
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import fail, named_shortly, print_refused, show, with_code
from worker.commands.where import kept_table, kind_said, until_said
from worker.core.audit import Question, Recorded
from worker.core.generations import PublishedGeneration
from worker.core.kept import Holding, Kept, Kind, State, Until
from worker.core.types import Missing, NotTaken, RowChange
from worker.encoder.choice import Measured
from worker.joined import ROOMS, run
from worker.library.checking import Checked
from worker.parking import Parked
from worker.points import SharedPoint
from worker.progress import embed_missing, progress_bar, rebuild_lines
from worker.pulse import Found
from worker.settings import Settings
from worker.survey import LegacyPhoto, Report
from worker.unfit import Unfit
from worker.words import in_language

ROOT = Path(__file__).parents[2]
MODEL = "open_clip/ViT-B-32/openai@0123456789abcdef"


def shown(what: object) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=80).print(what)
    return page.getvalue().splitlines()


def test_an_answer_with_a_probability_says_how_near_the_truth_is() -> None:
    found = Answer(
        status=Answer.LOCATED,
        point=Point(56.15, 10.2),
        radius_m=31.0,
        confidence=0.87,
        confidence_kind=ConfidenceKind.PROBABILITY,
        within={"25": 0.8, "100": 0.96, "1000": 0.97},
    )

    lines = shown(Group(*answer_shown(found)))

    assert lines[0] == "located 56.150000, 10.200000 within 31 m, probability 87%"
    assert "probability within 25 m 80%, 100 m 96%, 1000 m 97%" in lines


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("state", list(State))
def test_what_is_kept_of_a_photo_is_shown_whole_in_80_columns(
    state: State, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    places = ("sightline.embeddings", "/srv/sightline/index/000012", f"sightline:celery-task-meta-{'0' * 36}")
    untils, at = cycle(Until), "2026-11-28T08:12:33+00:00"
    kept = [
        Kept(kind, place, next(untils), "open_clip/ViT-B-32/openai@0123456789abcdef, 2048 B", at)
        for kind in Kind
        for place in places
    ]
    photo = Holding(2**62, f"/photos/{'very/' * 20}far.jpg", "a" * 64, state, tuple(kept))

    lines = shown(kept_table(photo))

    assert max(map(cell_len, lines)) <= 80
    assert "far.jpg" in "".join(lines) or state is State.PURGED
    assert len({until_said(one) for one in kept}) == len(Until)
    assert len({kind_said(one.kind) for one in kept}) == len(Kind)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_generations_are_shown_whole_in_80_columns(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    facts = (1_000_000, 1_234_567, "exact")
    at = "2026-11-28T08:12:33+00:00"
    promising = PublishedGeneration(1234, MODEL, *facts, 0.9851, 0.9722, 512_300_000, at, "serving")
    of_before = PublishedGeneration(1233, MODEL, *facts, None, None, None, at, "withdrawn")

    lines = shown(generations_table([promising, of_before]))

    assert "…" not in "".join(lines)
    whole = ("1234 ", "1000000", "seq 1234567", "exact", "512.3 ", "0.985", "≥ 0.972", "2026-11-28", "08:12:33 UTC")
    for said in whole:
        assert any(said in line for line in lines), said
    pieces = [line.split("│")[-2].strip() for line in lines if line.startswith("│")]
    assert "".join(pieces) == 2 * MODEL


def test_a_rebuild_says_what_its_index_promises_beside_what_was_measured() -> None:
    def said(promised: float | None) -> str:
        reply = RebuildReply(2, 7, 1, 1, 0, 0, 1, 4, "model", MODEL, "cpu", 0.1, "ivf", 0.9851, 12_300_000, promised)
        (line,) = (line for line in rebuild_lines(reply) if "recall" in line)
        return line

    assert said(0.9722).split(maxsplit=1) == ["recall@10:", "0.985 (for new photos at least 0.972)"]
    assert said(None).split(maxsplit=1) == ["recall@10:", "0.985"]


def test_files_that_have_changed_or_gone_are_told_and_of_others_why_nothing_is_known() -> None:
    all_well = Checked(files=9, changed=0, gone=0, open=0, unknown=0, why=None)
    unwell = Checked(files=9, changed=2, gone=3, open=0, unknown=4, why="/photos [1] is empty")

    assert checked_lines(all_well) == []
    assert shown("\n".join(checked_lines(unwell))) == [
        "files that have changed since they were embedded: 2",
        "files that are gone: 3",
        "files of which nothing can be said: 4 (/photos [1] is empty)",
    ]


# --------------------------------------------------------------------------------------- names and sentences in tables

DEEP = "/photos/" + "a rather long folder of holidays/" * 9
NAME = "IMG_20190512_142233 (the castle from the bridge).jpg"
LANGUAGES = pytest.mark.parametrize("language", ["en", "ru"])


def cells(lines: list[str], column: int) -> str:
    """What stands in a column of a table, one line after the other."""
    found = [re.split("[│┃]", line)[column + 1].strip() for line in lines if line[:1] in "│┃"]
    return " ".join(text for text in found if text)


def is_whole(lines: list[str]) -> bool:
    """Nothing but folders is cut, and no line is longer than the terminal, which would cut it."""
    cut = [line for line in lines if "…" in line.replace("…/", "") or (line[:1] in "│┃┏└" and line[-1] not in "│┃┓┘")]
    return not cut and max(sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) for line in lines) <= 80


@LANGUAGES
def test_the_name_of_a_file_is_readable_in_every_table(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    monkeypatch.setattr(terminal, "out", Console(file=(page := io.StringIO()), width=80))
    path = DEEP + NAME
    issue = PositionIssue.TOO_COARSE
    hit = Hit(1_234_567, 0.9123, path, -57.557574, -110.7498, Provenance.FALLBACK, position_issue=issue)
    reason = f"{path} cannot be reached on the worker: No such file or directory"
    refused = [Refused(path, Code.NOT_FOUND, reason), Refused("photo 7", Code.URL_NOT_ALLOWED, "host x is not allowed")]

    print_refused(refused)
    shown_refused = page.getvalue().splitlines()
    shown_hits = shown(hits_table("similar", [hit]))
    listed = shown(refused_table([NotTaken(1_234_567, "not_found", reason, path, "2026-11-28T08:12:33+00:00")]))

    for lines, column in ((shown_hits, 4), (shown_refused, 0), (listed, 0)):
        assert is_whole(lines), "\n".join(lines)
        assert NAME.replace(" ", "") in cells(lines, column).replace(" ", "")
    for said in ("1234567", "0.912", "-57.557574", "-110.749800", "fallback"):
        assert any(said in line for line in shown_hits), said


@pytest.mark.parametrize(
    ("path", "width", "said"),
    [
        ("/a/b/c.jpg", 20, "/a/b/c.jpg"),
        ("/photos/holidays/c.jpg", 20, "…/holidays/c.jpg"),
        ("/photos/holidays/c.jpg", 8, "…/c.jpg"),
        ("/photos/IMG_1234567890.jpg", 10, "…/IMG_1234567890.jpg"),
        ("one name without a folder.jpg", 10, "one name without a folder.jpg"),
        ("https://host/p/q/1.jpg?w=1", 16, "…/p/q/1.jpg?w=1"),
        ("/фото/отпуск/замок.jpg", 16, "…/замок.jpg"),
        ("/写真/城/城の写真.jpg", 16, "…/城の写真.jpg"),
        ("", 10, ""),
    ],
)
def test_a_path_loses_its_folders_first_and_never_its_name(path: str, width: int, said: str) -> None:
    lines = PathShown(path).at(width).plain

    assert lines.replace("\n", "") == said or lines.split() == said.split()


def test_where_a_link_leads_is_not_cut_from_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`l/e.jpg` stood beside `…/e.jpg is outside the allowed folders`."""
    (tmp_path / "l").symlink_to("/elsewhere")
    monkeypatch.chdir(tmp_path)
    message = "/elsewhere/e.jpg is outside the allowed folders"

    assert named_shortly(message, "l/e.jpg") == message
    assert named_shortly(f"{tmp_path}/a/e.jpg is no photo", "a/e.jpg") == "…/e.jpg is no photo"


def test_a_path_is_shortened_as_a_whole_and_never_within_a_longer_one() -> None:
    of_roots = "/nope is outside the allowed folders (/tmp/nope)"

    assert named_shortly(of_roots, "/nope") == of_roots
    assert (
        named_shortly("/a/nope is not in /a/nope/b or /x/a/nope", "/a/nope")
        == "…/nope is not in /a/nope/b or /x/a/nope"
    )


def test_a_path_of_a_hundred_thousand_characters_is_a_few_lines() -> None:
    for path in ("/" + "x" * 100_000 + "/end.jpg", "/a/" + "x" * 100_000 + "end.jpg"):
        lines = PathShown(path).at(30).plain

        assert len(lines) < 400
        assert lines.replace("\n", "").endswith("end.jpg")


@LANGUAGES
def test_what_doctor_says_is_shown_whole(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    why = "its vectors are others: cosine 0.9812 (at least 0.999), 61.2% of the neighbours are the same (at least 99%)"
    backends = [
        Measured("onnxruntime-float32", 212.31, 1189.12, 0.99999, 1.0),
        Measured("openvino-bfloat16", 12.31, 9.12, 0.9812, 0.612, why=why),
        Measured("onnxruntime-int8", why="OSError: " + "no such file " * 9),
    ]

    checks = shown(
        checks_table([("broker", False, "redis://" + "long-host." * 12 + " does not answer"), ("model", True, why)])
    )
    measured = shown(backends_table(backends))

    assert is_whole(checks)
    assert is_whole(measured), "\n".join(measured)
    for said in ("onnxruntime-float32", "openvino-bfloat16", "1189.1", "0.98120", "61.2%"):
        assert any(said in line for line in measured), said
    assert [line.split(":")[0] for line in backend_lines(backends)] == ["openvino-bfloat16", "onnxruntime-int8"]


@LANGUAGES
def test_a_folder_in_which_no_photo_can_be_read_is_named_with_the_reason(
    language: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("здесь, and here").mkdir()
    Path("здесь, and here", "01.jpg").touch()
    here = Path.cwd()
    monkeypatch.setenv("HOME", str(here))

    def said(*roots: str) -> list[str]:
        found = roots_page.faults(Settings(photo_roots=tuple(map(Path, roots))).photo_roots)
        assert all(str(root) in fault for root, fault in found.items())
        return [fault.replace(str(here), "") for fault in found.values()]

    assert said("здесь, and here", "/", "~") == []
    whys = {
        "en": ("it is not there", "it is no folder", "Too many levels", "stands a comma"),
        "ru": ("её нет на месте", "это не папка", "слишком длинная цепочка ссылок", "разделяются запятой"),
    }
    gone, no_folder, loop, comma = whys[language]
    wrong = said("gone", "здесь, and here", "file", "file/below", "loop")
    assert len(wrong) == 4
    for fault, why in zip(wrong, (gone, no_folder, no_folder, loop), strict=True):
        assert why in fault
        assert "SIGHTLINE_PHOTO_ROOTS" in fault
        assert comma not in fault
    for separated in ("здесь:/old", "a;~/b", "/a /b"):
        assert comma in said(separated)[0]
    assert comma not in said("12:30")[0]


@LANGUAGES
def test_whoever_has_set_folders_is_not_told_to_set_them(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    roots = (Path("/photos"), Path("/[old]"))
    correct, unset = {
        "en": ("correct SIGHTLINE_P", ": set SIGHTLINE_P"),
        "ru": ("исправьте SIGHTLINE_P", "задайте SIGHTL"),
    }[language]

    none_read = roots_page.which_folders(roots, [])

    assert correct in none_read
    assert unset not in none_read
    assert unset in roots_page.which_folders((), [])
    assert "/[old]" in Text.from_markup(roots_page.which_folders(roots, roots[1:])).plain


@pytest.mark.parametrize(("total", "some_wait"), [(9, False), (3000, True)])
def test_who_stops_while_all_is_sent_is_not_told_of_others(
    total: int, some_wait: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        with terminal.told_when_stopped(total) as hear:
            hear(2, total)
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        stopped()

    said = " ".join(capsys.readouterr().err.split())
    assert f"2 of {total} photos are answered for" in said
    assert ("the others were not sent" in said) == some_wait


@LANGUAGES
def test_figures_are_shown_in_words(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    at = "2026-11-28T08:12:33+00:00"
    run = RebuildRun(1, "running", "check", 3, 9, at, None, None, None)
    values: dict[str, Any] = {
        "model": MODEL, "model_key": MODEL, "dimension": 512, "device": "cpu", "has_text": True, "photos": 1,
        "with_coordinates": 1, "indexed": 1, "refused": 0, "generation": None, "generation_count": 0,
        "generation_published_at": at, "kind": None, "recall_at_10": None, "delta": 0, "next_model_key": None,
        "next_model_missing": None, "removed": 0, "purges_pending": 0, "seq": 1, "cache_hits": 0, "cache_misses": 0,
        "rss_mb": 1.0, "last_rebuild": run,
    }  # fmt: skip

    lines = shown(stats_table(StatsReply(**values)))

    assert is_whole(lines)
    assert not any(word in line.split() for line in lines for word in ("None", "True", "False"))
    assert "".join(lines).count("UTC") == 2
    assert not any("T08" in line or "+00" in line for line in lines)
    said = {"en": ("yes", "photos in the generation", "running, checking 3/9"), "ru": ("да", "идёт, проверка 3/9")}
    for words in said[language]:
        assert any(words in line for line in lines), words


@LANGUAGES
def test_a_survey_names_what_is_missing_and_asks_about_points(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    photos = [LegacyPhoto(n, f"{DEEP}[bold] {n}.jpg", 1.0, 2.0, Provenance.SURVEYED, {}) for n in range(40)]
    place = SharedPoint(47.5, 10.7, list(range(6)), trusted=6, nearby=3, days=2.0)
    default = SharedPoint(55.7, 37.6, list(range(30)), 30, 0, 900.0, 0.31, 0.30, is_default=True)
    report = Report(photos=40, missing=list(range(40)), points=[default, place])

    named = list(named_lines(report, photos))
    asked = "\n".join(point_lines(report, settings=Settings(photos_table="my.photos")))
    of_pickle = "\n".join(point_lines(report, trust=True))

    assert is_whole(shown(report_table("photos [1]", report)))
    assert any("photos [1]" in line for line in shown(report_table("photos [1]", report)))
    assert len(named) == 12
    assert "\\[bold] 0.jpg" in named[1]
    assert "30" in named[-1]
    assert asked.count("UPDATE") == 1
    assert "UPDATE my.photos SET location_method = 'fallback' WHERE lat = 55.7 AND lon = 37.6;" in asked
    assert "UPDATE" not in of_pickle
    assert "--trust" in of_pickle


@LANGUAGES
def test_what_a_survey_counts_has_a_word_for_it(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    photos = [LegacyPhoto(n, "", 1.0, 2.0, Provenance.SURVEYED, {}) for n in range(2)]
    points = [SharedPoint(1.0, n, [0, 1], days=days) for n, days in enumerate((0.0, 0.4, 1.0, 1.1, 2.0))]
    report = Report(photos=2, without_path=[0, 1], beside=3, points=points)

    table = shown(report_table("photos", report))
    named = list(named_lines(report, photos))
    asked = "\n".join(point_lines(report))

    words = {
        "en": ("others, known beside their rows", "without a path", "all within one day", "within 2 days"),
        "ru": ("прочие, известны помимо строк", "без пути", "все в пределах суток", "в пределах 2 дн."),
    }[language]
    assert is_whole(table)
    assert any(words[0] in line and "3" in line for line in table)
    assert any(words[1] in line and "2" in line for line in table)
    assert named == [f"[bold]{words[1]}[/]", "  0", "  1"]
    assert (asked.count(words[2]), asked.count(words[3])) == (3, 2)
    assert not any(words[0] in line or words[1] in line for line in shown(report_table("photos", Report())))


@LANGUAGES
def test_refused_photos_are_shown_with_the_hour_and_never_as_an_empty_line(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    photos = [
        NotTaken(1, "file_gone", "", "/photos/a.jpg", "2026-11-28T08:12:33+00:00"),
        NotTaken(2, "not_found", "photo 2 has no file_path", "", None),
    ]

    lines = shown(refused_table(photos))

    assert is_whole(lines)
    assert any("08:12 UTC" in line for line in lines)
    assert any({"en": "without a path", "ru": "без пути"}[language] in line for line in lines)


def test_a_progress_bar_that_nobody_looks_at_writes_nothing() -> None:
    page = io.StringIO()

    with progress_bar("adding", Console(file=page)) as progress:
        progress(1, 2)

    assert page.getvalue() == ""


def test_an_error_is_json_with_its_letters_where_a_program_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sightline", "add", "--json"])

    with pytest.raises(SystemExit, match="2"):
        fail("нет фото " + "x" * 5000, 2, code=Code.NOT_FOUND)

    said = capsys.readouterr()
    assert "нет фото" in said.out
    error = json.loads(said.out)["error"]
    assert (error["code"], len(error["message"])) == ("not_found", len("нет фото ") + 200)
    assert "нет фото" in said.err


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("no such file", "no such file [not_ready]"),
        ("no backup\n  pg_restore: error: x\n  y", "no backup [not_ready]\n  pg_restore: error: x\n  y"),
        ("run\n  ALTER TABLE x;\nand again", "run\n  ALTER TABLE x;\nand again [not_ready]"),
    ],
)
def test_a_code_stands_at_the_end_of_our_own_sentence(sentence: str, shown: str) -> None:
    assert with_code(sentence, Code.NOT_READY) == shown


def test_programs_get_english_whatever_language_is_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "rollback", "--json"],
        env={**os.environ, "SIGHTLINE_LANG": "ru", "COLUMNS": "80"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] == "Missing argument 'NUMBER'. See `sightline rollback --help`."
    assert not re.search("[а-яё]", done.stderr, re.IGNORECASE)


def test_what_a_worker_declines_is_no_fault_of_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def declined(*_: object, **__: object) -> StatsReply:
        raise Declined(Code.BAD_REQUEST, "it is declined")

    monkeypatch.setattr(Sightline, "stats", declined)
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", "redis://127.0.0.1:1/5")
    monkeypatch.setattr("sys.argv", ["sightline", "stats"])

    with pytest.raises(SystemExit) as ended:
        run()

    said = capsys.readouterr().err
    assert (ended.value.code, "it is declined" in said, "--help" in said) == (1, True, False)


# ---------------------------------------------------------------------------------------------- words of a command

#: What is wrong in the words of a command, and what is said of it.
MISUSED = {
    "search": "--photo-id or --text: one of them",
    "search x --text y": "--photo-id or --text: one of them",
    "search --photo-id 1 --text y": "--photo-id or --text: one of them",
    "search --text=": "text is empty",
    "search --text": "requires an argument. See",
    "parked --drop=1": "does not take a value. See",
    "search x --top-k 0": "--top-k",
    "search x --near x": "--near wants LAT,LON,METRES",
    "search x --near 91,0,1": "latitude runs from -90 to 90",
    "search x --near nan,0,1": "near.lat",
    "search x --near 1,2,-3": "radius_m",
    "search x --threshold 5": "--threshold",
    "search x --timeout -1": "--timeout",
    "search --photo-id -1": "--photo-id",
    "locate": "PHOTO",
    "locate x --near 1": "--near wants LAT,LON,METRES",
    "locate x --timeout nan": "--timeout",
    "rebuild --timeout nan": "--timeout",
    "stats --timeout 1e12": "--timeout",
    "health --quick": "No such option: --quick",
    "health --all x": "x",
    "metrics --port 70000": "--port",
    "export x": "x",
    "export --upload": "--upload wants SIGHTLINE_INDEX_URL to be set",
    "exam --photos 0": "--photos",
    "exam --baseline none.json": "none.json: No such file or directory",
    "exam --baseline README.md": "README.md is not what `sightline exam --json` has written",
    "tune --photos 0": "--photos",
    "embed": "give photo files, or --missing",
    "embed --missing x": "they exclude each other",
    "embed --missing --timeout -1": "--timeout",
    "parked --drop": "together with ids",
    "parked x": "together with ids",
    "parked --drop --requeue x": "give one of them",
    "add": "PHOTOS",
    "add README.md --lat 1": "give both --lat and --lon",
    "add README.md --lat 100 --lon 1": "--lat",
    "add README.md --lat 1 --lon inf": "--lon",
    "add README.md CHANGELOG.md --lat 1 --lon 1": "for a single photo",
    "add tests --lat 1 --lon 1": "for a single photo",
    "add none.csv --lat 1 --lon 1": "for a single photo",
    "add none.csv": "none.csv",
    "add README.md --provenance seen": "--provenance",
    "where": "PHOTOS",
    "where 1 --limit 2": "No such option",
    "refused --code bogus": "bogus is no code",
    "refused --limit -1": "--limit",
    "refused -- -1": "PHOTO_IDS",
    "audit --since friday": "--since wants a day or a moment as 2026-11-29T08:00, not 'friday'",
    "audit --content 12": "--content wants 8 to 64 digits of a SHA-256, not '12'",
    "audit --photo-id -1": "--photo-id",
    "audit --limit -1": "--limit",
    "audit x": "x",
    "quarantine lift": "is not one of",
    "quarantine list 0123abcd": "takes no contents",
    "quarantine retry": "name the photos by their contents",
    "quarantine forget 0123": "'0123' is not the beginning of a SHA-256",
    "quarantine list --limit -1": "--limit",
    "reconcile x": "x",
    "conflicts --limit -1": "--limit",
    "confirm": "PHOTO_IDS",
    "confirm x": "PHOTO_IDS",
    "reject -- -1": "PHOTO_IDS",
    "reject 1 --lat 1": "give both --lat and --lon",
    "reject 1 2 --lat 1 --lon 1": "for a single photo",
    "purge": "PHOTO_IDS",
    "purge -- -1": "PHOTO_IDS",
    "purge 9223372036854775808": "PHOTO_IDS",
    "remove x": "PHOTO_IDS",
    "remove -- -1": "PHOTO_IDS",
    "backfill --dry-run --path-prefix nonsense": "'nonsense' is not OLD=NEW",
    "backfill --dry-run --path-prefix =/a": "'=/a' is not OLD=NEW",
    "backfill --dry-run --path-prefix C:\\a=": "'C:\\a=' is not OLD=NEW",
    "backfill --path-prefix /a=/b": "leave --path-prefix away",
    "import-legacy none.pkl": "none.pkl",
    "import-legacy README.md --path-prefix nonsense": "is not OLD=NEW",
    "import-legacy README.md --trust seen": "--trust",
    "restore none.dump": "none.dump",
    "backup": "FILE",
    "rollback 0": "NUMBER",
    "rollback x": "NUMBER",
    "generations x": "x",
    "worker --role x": "--role is one of serve, index",
    "worker --queues bulk,bulks": "not bulks",
    "beat x": "x",
    "migrate x": "x",
    "doctor x": "x",
    "up x": "x",
    "down x": "x",
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks for a server ends with another code."""
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", "redis://127.0.0.1:1/5")
    monkeypatch.setenv("SIGHTLINE_DATABASE_URL", "postgresql://postgres@127.0.0.1:1/x")
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("words", MISUSED)
def test_what_is_wrong_in_the_words_of_a_command_is_told_with_the_code_of_wrong_arguments(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sightline", *words.split(" ")])

    with pytest.raises(SystemExit) as ended:
        run()

    said = capsys.readouterr()
    sentence = " ".join(said.err.split())
    assert (ended.value.code, said.out) == (2, ""), sentence
    assert MISUSED[words] in sentence
    assert f"See `sightline {words.split()[0]} --help`." in sentence
    assert not re.search("Input should|Value error", sentence)


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "No such command 'ad'. Did you mean 'add'? See `sightline --help`."),
        ("ru", "нет команды 'ad'. Может быть, 'add'? См. `sightline --help`."),
    ],
)
def test_a_command_that_is_nearly_one_is_asked_about(
    language: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    monkeypatch.setattr("sys.argv", ["sightline", "ad"])

    with pytest.raises(SystemExit, match="2"):
        run()

    assert " ".join(capsys.readouterr().err.split()) == f"sightline: {said}"


def test_the_words_of_every_command_are_tried() -> None:
    assert {words.split()[0] for words in MISUSED} == ROOMS.keys()


# ------------------------------------------------------------------------------------------------ what is parked


@LANGUAGES
@pytest.mark.parametrize("width", [60, 80])
def test_what_is_parked_is_shown_with_its_reason_and_nothing_that_steers_a_terminal(
    language: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    monkeypatch.setattr(parked, "out", Console(file=(page := io.StringIO()), width=width))
    items = [b"\x00\x1b[31m\xff \xd0\xb6 [red]", b"[" * 10_000, json.dumps({"body": 1}).encode(), b""]
    faults = [unfit.no_message(item, 5_000) for item in items]
    faults += [unfit.unknown_content(), unfit.no_task(), unfit.unknown_task("a\x1b[31mb"), unfit.bad_task()]
    faults += [unfit.bad_note(), unfit.bad_entry()]
    faults += [
        unfit.untrusted(
            Untrusted(
                Code(code), "it is a copy of a message that was carried out: see who writes to this queue, and drop it"
            )
        )
        for code in ("unsigned", "bad_signature", "expired", "replayed")
    ]
    parked.print_parked([
        Parked(
            f"0123456{number}",
            "" if fault.code == Unfit.BAD_ENTRY else "2026-11-28T08:12:33+00:00",
            "" if fault.code in (Unfit.BAD_NOTE, Unfit.BAD_ENTRY) else "sightline:interactive",
            fault.code,
            fault.why,
            base64.b64encode(items[number % len(items)]).decode(),
        )
        for number, fault in enumerate(faults)
    ])  # fmt: skip

    said = page.getvalue()
    lines = said.splitlines()
    assert {fault.code for fault in faults} == set(Unfit)
    assert all(line.isprintable() and len(line) <= width for line in lines)
    assert said.count("├") == len(faults) - 1, "a line between rows"
    for shown in (r"\x00\x1b[31m\xff ж [red]", r"a\x1b[31mb"):
        assert shown in cells(lines, 1)
    for shown in ("01234567", "sightline:interactive", "2026-11-28", "08:12:33 UTC"):
        assert shown in cells(lines, 0)
    first = "это не JSON" if language == "ru" else "it is no JSON"
    assert first in cells(lines, 1)
    untranslated = [fault.why for fault in faults if in_language(fault.why) == fault.why]
    assert len(untranslated) == (0 if language == "ru" else len(faults))


# ------------------------------------------------------------------------------------------------------------ the demo


def asked(place: str, name: str, answer: Answer, *, unseen: bool = False) -> Asked:
    photo = NewPhoto(name, Photo(path=f"/photos/{place}/{name}"))
    return Asked(Case(photo, place, 55.0, 13.0), unseen, answer)


@LANGUAGES
@pytest.mark.parametrize("width", [80, 60])
def test_the_demo_shows_whole_names_and_its_reasons_in_words(
    language: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    name = "93341989_396310999_from_the_bridge.jpg"
    hit = Hit(7, 0.897, f"/photos/rathaus/{name}", 55.0, 13.0, Provenance.SURVEYED)
    far = Answer(Answer.LOCATED, Point(-55.69846, -113.19511), 12.0, 1.0, evidence=[hit] * 8)
    abstained = [Answer(Answer.ABSTAINED, reason=reason) for reason in Reason]
    answers = [asked("rathaus", name, far), *(asked("rathaus", f"{n}.jpg", no) for n, no in enumerate(abstained))]
    page = io.StringIO()
    console = Console(file=page, width=width)

    for table in (*asked_table([*answers, asked("bridge", "01.jpg", far, unseen=True)], single=False),):
        console.print(table)
    lines = page.getvalue().splitlines()

    assert max(map(len, lines)) <= width
    assert all(line[-1] in "│┃┓┘┩┤" for line in lines if line[:1] in "│┃┏└┡├")
    assert "…" not in page.getvalue()
    assert name in cells(lines, 0).replace(" ", "")
    assert {"en": "16699 km", "ru": "16699 км"}[language] in cells(lines, 2)
    assert not any(reason in page.getvalue() for reason in Reason)
    assert ("too few" in cells(lines, 1), "мало" in cells(lines, 1)) == ((True, False), (False, True))[language == "ru"]


@pytest.mark.parametrize(
    ("north_deg", "said"), [(0.0, "< 1 m"), (0.000008, "< 1 m"), (0.00003, "3 m"), (0.001, "111 m"), (1.0, "111 km")]
)
def test_the_demo_tells_no_distance_nearer_than_positions_are_known(north_deg: float, said: str) -> None:
    answer = Answer(Answer.LOCATED, Point(55.0 + north_deg, 13.0), 12.0, 1.0)

    tables = [*asked_table([asked("a", "1.jpg", answer)], single=True), *places_table([asked("a", "1.jpg", answer)])]

    for table in tables:
        assert any(re.search(rf"│ +{said} │", line) for line in shown(table))


@LANGUAGES
def test_the_demo_tells_its_promise_from_what_a_service_promises(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)

    told = demo_words(PROMISED, share=0.15, usual=0.05)

    assert "15%" in told
    assert "5%" in told.split("15%")[1]
    assert {"en": "not what was found", "ru": "а не то, что получилось"}[language] in told


def test_a_folder_of_which_nothing_is_located_or_similar_is_told_so() -> None:
    no = Answer(Answer.ABSTAINED, reason=Reason.NOTHING_SIMILAR)

    by_place = [line for table in places_table([asked("bridge", "1.jpg", no)]) for line in shown(table)]

    assert "none was located" in " ".join(by_place)
    assert "Nothing in the index looks like /photos/1.jpg" in " ".join(shown(similar_table("/photos/1.jpg", [])))
    assert "Nothing was found by the words “a tower”" in " ".join(shown(found_by_words_table("a tower", [])))


def test_the_demo_names_the_photo_that_it_searched_by_as_it_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hit = Hit(7, 0.897, "/photos/2.jpg", 55.0, 13.0, Provenance.SURVEYED)

    def title(path: Path) -> str:
        return shown(similar_table(str(path), [hit]))[0].strip()

    assert title(tmp_path / "drawn" / "1.jpg") == "Most similar to drawn/1.jpg"
    assert title(Path("/elsewhere/[1].jpg")) == "Most similar to /elsewhere/[1].jpg"


def test_what_others_have_called_their_keys_steers_no_terminal() -> None:
    lines = shown(checks_table([("keys", True, "beside them lie a\x1b[31mb\x00 and [red]")]))

    assert all(line.isprintable() for line in lines)
    assert r"a\x1b[31mb\x00 and [red]" in cells(lines, 2)


# -------------------------------------------------------------------------------------------- tables on every terminal

#: Words and names, and what is wider than a letter or has no width of its own.
letters = st.sampled_from(
    [*"aЖß7 /-_.,=:[]()\\", "\n", "\t", "城", "ア", "📷", "e\u0301", "👩\u200d👧", ":smile:", "SIGHTLINE_PATH_PREFIXES"]
)
contents = st.lists(letters, max_size=30).map("".join)


def no_spaces(text: str) -> Counter[str]:
    return Counter("".join(text.split()))


def fits(lines: list[str], width: int) -> bool:
    """No line is wider, and where there is a frame its right edge stands below itself."""
    edges = {cell_len(line) for line in lines if line[:1] in EDGES}
    return (
        max(map(cell_len, lines)) <= width
        and len(edges) <= 1
        and all(line[-1] in EDGES for line in lines if line[:1] in EDGES)
    )


EDGES = tuple("│┃┏└┡├┓┘┩┤")


@settings(derandomize=True, max_examples=300)
@given(
    rows=st.integers(1, 7).flatmap(
        lambda n: st.lists(st.lists(contents, min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    kinds=st.lists(st.sampled_from(["", "no_wrap", "min_width", "max_width", "path"]), min_size=7, max_size=7),
    title=contents,
    width=st.integers(40, 120),
)
def test_no_table_is_wider_than_its_terminal_and_no_letter_is_lost(
    rows: list[list[str]], kinds: list[str], title: str, width: int
) -> None:
    table = Table(title=Text(title), show_lines=True)
    columns = kinds[: len(rows[0])]
    for kind in columns:
        table.add_column(
            "name",
            no_wrap=kind == "no_wrap",
            min_width=24 if kind == "min_width" else None,
            max_width=10 if kind == "max_width" else None,
        )
    for row in rows:
        # A path may lose its folders, so that it is one name here.
        named = [
            text.replace("/", "")[:100] if kind == "path" else text for kind, text in zip(columns, row, strict=True)
        ]
        table.add_row(
            *(
                ("7", PathShown(text)) if kind == "path" else Text(text)
                for kind, text in zip(columns, named, strict=True)
            )
        )
        row[:] = named
    page = io.StringIO()
    Console(file=page, width=width).print(table)

    lines = page.getvalue().splitlines()
    assert fits(lines, width), page.getvalue()
    shown = no_spaces(re.sub("[│┃┏└┡├┓┘┩┤━─┳╇┼┴]", "", page.getvalue()))
    ids = "7" * columns.count("path") * len(rows)
    whole = no_spaces(title + "name" * len(columns) + ids + "".join(map("".join, rows)))
    assert whole == shown if "┏" in page.getvalue() else not no_spaces("".join(map("".join, rows))) - shown


def test_a_name_breaks_where_its_parts_end_and_a_number_stays_whole() -> None:
    table = Table("name", "figure")
    table.add_row("SIGHTLINE_PATH_PREFIXES=/srv/photos/of-2019", "-57.557574")
    page = io.StringIO()
    Console(file=page, width=30).print(table)

    lines = page.getvalue().splitlines()
    assert cells(lines, 0).split() == ["name", "SIGHTLINE_", "PATH_", "PREFIXES=/", "srv/photos/", "of-2019"]
    assert cells(lines, 1).split() == ["figure", "-57.557574"]


def test_words_stay_whole_and_then_what_asks_for_it_for_as_long_as_there_is_room() -> None:
    def columns(width: int) -> list[list[str]]:
        table = Table("name", "why", "")
        table.add_column("lat", no_wrap=True)
        table.add_row("similarity similarity", "as it is " * 9, "", "-57.557574")
        page = io.StringIO()
        Console(file=page, width=width).print(table)
        assert fits(page.getvalue().splitlines(), width)
        return [cells(page.getvalue().splitlines(), n).split() for n in (0, 3)]

    def backend_of(width: int) -> list[str]:
        page = io.StringIO()
        table = backends_table([Measured("onnxruntime-float32", 212.31, 1189.12, 0.99999, 1.0)])
        Console(file=page, width=width).print(table)
        assert "1189.1" in page.getvalue()
        return cells(page.getvalue().splitlines(), 0).split()

    assert columns(39) == [["name", "similarity", "similarity"], ["lat", "-57.557574"]]
    assert columns(35) == [["name", "simila", "rity", "simila", "rity"], ["lat", "-57.557574"]]
    assert columns(28) == [["name", "simil", "arity", "simil", "arity"], ["lat", "-57.", "55757", "4"]]
    assert backend_of(80) == ["backend", "onnxruntime-float32"]
    assert backend_of(60) == ["backend", "onnxruntim", "e-float32"]


def test_a_column_has_the_width_that_is_wished_where_there_is_room() -> None:
    table = Table()
    table.add_column("a", min_width=9)
    table.add_column("b", max_width=4)
    table.add_row("1", "12345678")

    assert shown(table)[0] == f"┏{'━' * 11}┳{'━' * 6}┓"


def test_rows_that_have_no_room_side_by_side_are_lists() -> None:
    table = Table(*(f"name {n}" for n in range(6)), title="figures", caption="of today")
    table.add_row(*(f"value {n}" for n in range(6)))
    page = io.StringIO()
    Console(file=page, width=40).print(table)

    said = [f"name {n}: value {n}" for n in range(6)]
    assert [line.strip() for line in page.getvalue().splitlines()] == ["figures", *said, "", "of today"]


@LANGUAGES
@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("odd", ["SIGHTLINE_PATH_PREFIXES", "城の写真📷" * 9, "x" * 90, "[1] :smile: \\"])
def test_every_table_is_whole_whatever_stands_in_it(
    odd: str, width: int, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    at, path = "2026-11-28T08:12:33+00:00", f"/photos/{odd}/{odd}.jpg"
    hit = Hit(
        1_234_567, 0.9123, path, -57.557574, -110.7498, Provenance.FALLBACK, position_issue=PositionIssue.TOO_COARSE
    )
    columns = {"lat": -57.557574, "lon": -110.7498, "location_method": odd, "address_data": {odd: odd}}
    answers = [
        asked(odd, f"{odd}.jpg", Answer(Answer.LOCATED, Point(-55.69846, -113.19511), 12.0, 1.0, evidence=[hit]))
    ]
    conflict = Conflict(
        1_234_567, path, -57.557574, -110.7498, Provenance.EXIF_GPS, Doubt.GPS_ELSEWHERE, ConflictState.REJECTED, at,
        [2**63 - 1] * 8, Point(57.557574, 110.7498), 12_387_000.0, Mistake.BOTH_SIGNS,
    )  # fmt: skip
    question = Question(
        answer="located", producer=odd, content_sha256="a" * 64, photo_id=2**63 - 1, lat=-57.557574, lon=-110.7498,
        told=tuple(range(2**60, 2**60 + 9)),
    )  # fmt: skip
    generation = PublishedGeneration(1234, odd, 10**6, 10**6, "exact", 0.9851, 0.9722, 512_300_000, at, "serving")
    line = {"role": "serve", "pid": 4_194_304, "host": odd, "stall_s": 90, "turned": 1e5, "polled": 1e5, "redis": True}
    line |= {"generation": 123_456, "sandbox": "rlimits+seccomp+landlock", "memory_mb": 81_234.5, "limit_mb": 100_000}
    tables = {
        "hits": hits_table("similar", [hit]),
        "hits by time": hits_table("evidence", [msgspec.structs.replace(hit, inliers=1_500, apart_s=-299.5)]),
        "demo, by words": found_by_words_table(odd, [hit]),
        "demo, asked": next(asked_table(answers, single=True)),
        "demo, places": next(places_table(answers)),
        "audit": audit_table([Recorded(at, at, question)]),
        "refused": refused_table([NotTaken(1_234_567, Code.URL_NOT_ALLOWED, f"set {odd}", path, at)]),
        "left alone": left_alone_table([LeftAlone("a" * 64, 3, at, None, odd, 1_234_567, path)]),
        "left alone, stuck": left_alone_table([LeftAlone("a" * 64, 3, at, "stuck", odd, 1_234_567, path)]),
        "left alone, whole": shown_whole(LeftAlone("a" * 64, 3, at, "SIGSEGV", odd, 1_234_567, path)),
        "processes": processes_table([Found(Path(odd), line, now=1e6)]),
        "changes": changes_table([RowChange(1_234_567, path, columns, columns)], written=False),
        "checks": checks_table([("broker", False, f"set {odd}")]),
        "backends": backends_table([Measured("onnxruntime-float32", 212.31, 1189.12, 0.99999, 1.0)]),
        "generations": generations_table([generation]),
        "report": report_table(odd, Report(photos=10**9)),
        "conflicts": conflicts_table([conflict]),
        "settled": settled_table(
            [
                Rejected(
                    "photo 7", 2**63 - 1, 10**12, -57.557574, -110.7498, Provenance.FALLBACK, PositionIssue.SUSPENDED
                )
            ]
        ),
        "removed": removed_table([Removed("photo 7", 2**63 - 1, 10**12, was_indexed=True)]),
        "purged": purged_table([Purged("photo 7", 2**63 - 1, 10**12, was_indexed=True, generations=list(range(50)))]),
    }
    pages = {}
    for name, table in tables.items():
        Console(file=(page := io.StringIO()), width=width).print(table)
        pages[name] = page.getvalue()
    for module in (terminal, parked):
        monkeypatch.setattr(module, "out", Console(file=(page := io.StringIO()), width=width))
        if module is parked:
            parked.print_parked([Parked("01234567", at, odd, "", odd, "")])
        else:
            print_refused([Refused(path, Code.URL_NOT_ALLOWED, f"set {odd}")])
        pages[module.__name__] = page.getvalue()

    for name, said in pages.items():
        assert fits(said.splitlines(), width), f"{name}\n{said}"
        if name not in ("backends", "conflicts", "settled", "removed", "purged"):
            assert not no_spaces(odd) - no_spaces(said), f"{name}\n{said}"


def test_every_table_is_one_of_those_that_fit() -> None:
    pages = [
        page for room in ("worker", "demo", "benchmarks", "producer_client") for page in (ROOT / room).rglob("*.py")
    ]

    others = [
        page.name for page in pages if re.search(r"(?m)^ *(from|import) rich(\.table| import.*table)", page.read_text())
    ]

    assert others == ["tables.py"]


#: The help of every command, one after another.
HELP = """
import sys
import typer
from worker.joined import join
group = typer.main.get_command(join())
for name in group.commands:
    group.main([name, "--help"], prog_name="sightline", standalone_mode=False)
    print(chr(12))
"""


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("width", [60, 80])
def test_the_help_of_every_command_fits_and_breaks_no_name(language: str, width: int) -> None:
    env = {**os.environ, "SIGHTLINE_LANG": language, "COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}

    pages = subprocess.run(
        [sys.executable, "-c", HELP], env=env, capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert pages.count("sightline ") > 20
    assert max(map(len, pages.splitlines())) <= width
    assert "9223372036854775807" not in pages
    for page in pages.split(chr(12)):
        text = [line.strip() for line in page.partition("╭")[0].splitlines()]
        for line, after in pairwise(text):
            assert not line or not after or len(f" {line} {after.split()[0]} ") > width, "a line breaks off early"
    # At 60 the column beside `--update-rows --keep-rows` is too narrow for any.
    for name in re.findall(r"SIGHTLINE_\w*", pages) if width == 80 else ():
        assert name in {f"SIGHTLINE_{field.upper()}" for field in Settings.model_fields}, name


def test_what_programs_read_has_numbers_that_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    show(True, {"share": float("nan"), "places": [{"away_m": float("inf")}, -float("inf"), 1e308]}, lambda: None)

    assert capsys.readouterr().out == '{"share": null, "places": [{"away_m": null}, null, 1e+308]}\n'


def test_a_name_that_is_no_utf8_is_whole_in_what_programs_read(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="utf-8", errors="strict", write_through=True))
    monkeypatch.setattr("sys.argv", ["sightline", "add", "--json"])

    show(True, {"path": "/photos/\udcff.jpg", "place": "Орхус"}, lambda: None)
    with pytest.raises(SystemExit):
        fail("/photos/\udcff.jpg is no photo")

    shown, failed = (json.loads(line) for line in written.getvalue().decode("utf-8").splitlines())
    assert shown == {"path": "/photos/\udcff.jpg", "place": "Орхус"}
    assert failed["error"]["message"] == "/photos/\udcff.jpg is no photo"


def test_what_a_file_is_called_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    named = "/photos/a\x1b[31m\u202eb👩\u200d👧.jpg"

    print_refused([Refused(named, Code.NOT_FOUND, f"{named} is not there")])
    with pytest.raises(SystemExit):
        fail(f"{named} is not there")

    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\u202e"} & set(said)
    assert said.count(r"\x1b[31m\u202eb👩‍👧") >= 2


def test_after_a_page_that_nobody_answers_no_other_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vectors:
        def missing(self, _: str, *, after_id: int, limit: int) -> list[Missing]:
            return [Missing(after_id + n, "") for n in (1, 2)] if after_id < 5 else []

    class Silent:
        pages = 0

        def add_many(self, items: list[NewPhoto], **_: Any) -> list[Pending | Refused]:
            self.pages += 1
            return [
                Pending(items[0].ref, "a task", Code.TIMED_OUT, "no reply within 2 s"),
                Refused(items[1].ref, Code.TIMED_OUT, "not sent"),
            ]

    client = Silent()
    well, refused, pending = embed_missing(cast(Any, client), cast(Any, Vectors()), "m@1", 10, 2.0)

    assert (client.pages, well, len(refused), len(pending)) == (1, 0, 1, 1)
