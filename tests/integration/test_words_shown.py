"""What the commands say to people and programs, over a real stack: each of them as a new user meets it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from producer_client import Sightline
from producer_client.contract import Code, Doubt, PositionIssue, Provenance, Reason
from tests.conftest import Scene, until, whole_stack
from worker.joined import ROOMS
from worker.settings import Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
#: Runs commands one after the other in a process, as starting Python takes longer than most of them.
PROGRAM = """
import contextlib, io, json, sys
from worker.cli import main
for line in sys.stdin:
    sys.argv = ["sightline", *json.loads(line)]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exc:
            code = exc.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

#: Names of things, which no language puts otherwise.
NAMES = {
    "Sightline", "sightline", "JSON", "CSV", "CLIP", "EXIF", "XMP", "Google", "Takeout", "Redis", "Valkey", "Postgres",
    "Prometheus", "Ctrl", "C", "UTC", "SHA", "URL", "id", "ids", "k", "h", "seq", "recall", "beat", "up", "cpu",
    "cuda", "exact", "ivf", "hnsw", "float32", "int8", "packaged", "efficientnet", "lite0", "onnxruntime", "JPEG",
    "PNG", "WEBP", "HEIF", "TIFF", "GIF", "AVIF", "JXL", "XL", "lat", "lon", "file", "photo", "text", "vector",
    "photos", "location_method", "method", "embeddings", "pkl", "manifest", "csv", "serve", "index", "true", "false",
    "redis", "torch", "Errno", "x", "address", "metadata", "json", "LAT", "LON", "fallback", "ID_", "ID", "d", "tsv",
    "place", "coordinate_source", "contents", "seccomp", "rlimits", "landlock",
}  # fmt: skip
COMMANDS = list(ROOMS)
CODES = {word.value for words in (Code, Doubt, PositionIssue, Provenance, Reason) for word in words}


def said_by(settings: Settings, *commands: list[str], **env: str) -> Iterator[tuple[list[str], int, str, str]]:
    """(command, exit code, standard output, standard error) of each, in a terminal of 80 columns."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="".join(f"{json.dumps(command)}\n" for command in commands),
        env={**os.environ, **settings.as_env(), "COLUMNS": "80", "NO_COLOR": "1", **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    for command, line in zip(commands, done.stdout.splitlines(), strict=True):
        code, out, err = json.loads(line)
        yield command, code, out, err


def latin_words(said: str, own: set[str]) -> set[str]:
    """Words of the output that are neither names, nor codes, nor what somebody has typed."""
    without = re.sub(
        r"`[^`]*`|\b[0-9a-f]{8,}\b|import-legacy|T\d\d|--[a-z-]+|\S*/\S*|SIGHTLINE_\w+|[\w.]+@\w+|\S+\.(jpg|csv|pkl)\b",
        " ",
        said,
    )
    return set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", without)) - NAMES - CODES - own


@pytest.fixture(scope="module")
def stack(photo_root: Path) -> Iterator[Stack]:
    """One of its own: what other tests have refused has sentences that are cut, or are another language's."""
    with whole_stack(photo_root) as running:
        yield running


@pytest.fixture(scope="module")
def photos(stack: Stack, photo_root: Path, scenes: list[Scene]) -> Path:
    """A folder with a photo, and files that are none; and rows of the table whose files are gone."""
    folder = photo_root / "слова" / "a long name for a folder of holidays in the mountains"
    folder.mkdir(parents=True)
    (folder / "good.jpg").write_bytes(scenes[0].path.read_bytes() + b"words")
    (folder / "empty.jpg").touch()
    (folder / "odd.jpg").write_text("no photo")
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        insert = text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:p, 1.25, 2.5, 'manual')")
        connection.execute(insert, [{"p": str(folder / f"gone {n}.jpg")} for n in range(6)])
        # Postgres takes it, Python's reader does not.
        connection.execute(
            text("INSERT INTO photos (file_path, address_data) VALUES (:p, CAST(:deep AS jsonb))"),
            {"p": str(folder / "deep.jpg"), "deep": "[" * 3000 + "]" * 3000},
        )
    engine.dispose()
    return folder


def every_command(photos: Path) -> list[list[str]]:
    good = str(photos / "good.jpg")
    return [
        ["-h"],
        *([name, "-h"] for name in COMMANDS),
        ["add", str(photos)],
        ["rebuild"],
        ["stats"],
        ["doctor"],
        ["generations"],
        ["refused"],
        ["refused", "--code", "not_found", "--retry"],
        ["refused", "--code", "nope"],
        ["search", good, "--threshold", "0"],
        ["search", good, "--threshold", "0.9999999"],
        ["search", "--text", "x"],
        ["search"],
        ["search", good, "--near", "1,2"],
        ["locate", good],
        ["locate", good, "--policy", "guide"],
        ["locate", str(photos / "nothing.jpg")],
        ["locate", "/etc/passwd"],
        ["embed", good, str(photos / "odd.jpg")],
        ["embed"],
        ["embed", "--missing"],
        ["backfill", "--dry-run"],
        ["backfill"],
        ["import-legacy", "/x.pkl"],
        ["add", "/x.csv"],
        ["add", good, "--lat", "1"],
        ["add", good, "--lat", "x"],
        ["add", good, "--lat", "100", "--lon", "1"],
        ["add"],
        ["add", good, "--x"],
        ["reconcile", "--dry-run"],
        ["quarantine"],
        ["quarantine", "show", "0123abcd"],
        ["quarantine", "forget", "0123"],
        ["conflicts"],
        ["conflicts", "999999999", "--settled"],
        ["confirm", "999999999"],
        ["reject", "999999999"],
        ["reject", "1", "2", "--lat", "1", "--lon", "1"],
        ["remove", "999999999"],
        ["purge", "999999999"],
        ["parked"],
        ["parked", "none", "--drop"],
        ["parked", "all", "--requeue"],
        ["parked", "--drop"],
        ["rollback", "999999999"],
        ["rollback", "x"],
        ["rollback", "0"],
        ["migrate"],
        ["x"],
    ]


def test_every_command_speaks_russian_to_the_last_word_and_fits_a_terminal(stack: Stack, photos: Path) -> None:
    answers = list(said_by(stack.settings, *every_command(photos), SIGHTLINE_LANG="ru"))

    left = {}
    choices = {"guide", "list", "show", "retry", "forget"}
    for command, _, out, err in answers:
        own = set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", f"{' '.join(command)} {photos}")) | set(COMMANDS) | choices
        if words := latin_words(out + err, own):
            left[" ".join(command)] = words
        assert "Traceback" not in err
    assert left == {}
    assert [command for command, _, out, _ in answers if is_cut(out)] == []


def test_every_command_fits_a_terminal_in_english(stack: Stack, photos: Path) -> None:
    answers = list(said_by(stack.settings, *every_command(photos), SIGHTLINE_LANG="en"))

    assert [command for command, _, out, _ in answers if is_cut(out)] == []
    said = {" ".join(command): out for command, _, out, _ in answers}
    for name in ("empty.jpg", "odd.jpg"):
        assert name in said[f"add {photos}"]
    for name in ("gone 0.jpg", "gone 5.jpg"):
        assert name in said["refused"]
        assert name in said["backfill --dry-run"]
    assert "nothing similar" in said[f"search {photos / 'good.jpg'} --threshold 0.9999999"]
    assert "┏" not in said[f"search {photos / 'good.jpg'} --threshold 0.9999999"]


def is_cut(said: str) -> bool:
    """Whether a table loses its edge, or a cell its end; folders alone may."""
    lines = said.splitlines()
    return any(
        "…" in line.replace("…/", "") or (line[:1] in tuple("│┃┏└╭") and line[-1] not in "│┃┓┘╮") for line in lines
    )


def test_programs_get_one_json_object_whatever_is_wrong_and_nothing_else(stack: Stack, photos: Path) -> None:
    commands = [[*command, "--json"] for command in every_command(photos) if "-h" not in command and command != ["x"]]

    for command, code, out, err in said_by(stack.settings, *commands, SIGHTLINE_LANG="ru"):
        said = json.loads(out)
        assert isinstance(said, dict), command
        assert "\\u" not in out, command
        assert re.findall(r"[а-яё]+", (out + err).replace(photos.parent.name, ""), re.IGNORECASE) == [], command
        if "error" in said:
            assert code != 0, command
            assert set(said["error"]) == {"code", "message"}
            assert err.startswith("sightline: "), command
        else:
            assert err == "", command


def test_the_version_is_that_of_the_release(stack: Stack) -> None:
    ((_, code, out, _),) = said_by(stack.settings, ["--version"])

    assert (code, out) == (0, "sightline 0.1.0\n")


@pytest.mark.parametrize("verb", ["remove", "purge"])
def test_ids_that_nobody_knows_are_told_and_the_others_are_done(
    stack: Stack, client: Sightline, scenes: list[Scene], verb: str
) -> None:
    photo_id = str(client.add_to_index(path=str(scenes[0].path)).photo_id)

    nothing, mixed, again = said_by(
        stack.settings,
        [verb, "999999999"],
        [verb, photo_id, "999999999"],
        [verb, photo_id, "999999999", "--json"],
    )

    assert [code for _, code, _, _ in (nothing, mixed, again)] == [1, 1, 1]
    assert "unknown_photo" in nothing[2]
    assert "erased" not in nothing[2]
    assert "was indexed" not in nothing[2]
    assert "was indexed" in mixed[2]
    assert photo_id in mixed[2]
    assert [outcome["status"] for outcome in json.loads(again[2])["outcomes"]] == [
        "removed" if verb == "remove" else "purged",
        "refused",
    ]


def test_a_conflict_is_listed_and_settled_from_the_command_line(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    folder = photo_root / "conflicts with a long name of a folder of holidays in the mountains"
    folder.mkdir()
    ids = []
    for n, lat in enumerate((55.70, -55.70)):
        path = folder / f"castle {n}.jpg"
        path.write_bytes(scenes[3].path.read_bytes() + b"conflict")
        ids.append(str(client.add_to_index(path=str(path), lat=lat, lon=13.19, provenance="surveyed").photo_id))
    # The beat's own may come before it.
    client.rebuild_index(timeout_s=60)
    right, wrong = ids
    commands = [
        ["stats", "--json"],
        ["conflicts", *ids],
        ["conflicts", "--json"],
        ["confirm", right],
        ["conflicts", *ids, "--settled", "--limit", "1"],
        ["reject", wrong, "999999999"],
        ["reject", wrong, "--lat", "55.7", "--lon", "13.19", "--json"],
        ["reject", wrong, "--lat", "55.7", "--lon", "13.19"],
        ["conflicts", *ids],
    ]

    stats, shown, as_json, confirmed, rest, rejected, moved, again, none = said_by(stack.settings, *commands)
    russian = list(said_by(stack.settings, ["conflicts", *ids, "--settled"], ["confirm", right], SIGHTLINE_LANG="ru"))

    assert json.loads(stats[2])["conflicts"] >= 2
    for said in ("castle 0.jpg", "castle 1.jpg", "-55.700000", "12387 km away", "same_content: 2", "sightline confirm"):
        assert said in shown[2], said
    of_wrong = {one["photo_id"]: one for one in json.loads(as_json[2])["conflicts"]}[int(wrong)]
    assert (of_wrong["doubt"], of_wrong["mistake"]) == ("same_content", "lat_sign")
    assert (of_wrong["photo_ids"], of_wrong["conflict_state"]) == ([int(right)], "open")
    assert (confirmed[1], "surveyed" in confirmed[2], "suspended" in confirmed[2]) == (0, True, False)
    assert "confirmed" in rest[2]
    assert "--limit 0" in rest[2]
    assert (rejected[1], "something contradicts it" in " ".join(rejected[2].split())) == (1, True)
    assert "unknown_photo" in rejected[2]
    (outcome,) = json.loads(moved[2])["outcomes"]
    assert (outcome["status"], outcome["lat"], outcome["provenance"]) == ("rejected", 55.7, "confirmed")
    assert again[1] == 0
    assert none[2].strip() == "no position of these photos is contradicted"
    for _, _, out, _ in (shown, confirmed, rest, rejected, *russian):
        assert not is_cut(out)
    own = set(re.findall(r"[A-Za-z_]+", str(folder))) | {"castle", "jpg"}
    assert [latin_words(out, own | set(COMMANDS)) for _, _, out, _ in russian] == [set(), set()]


def test_refused_photos_are_listed_with_what_files_have_gone_and_tried_again(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    mended, gone = photo_root / "mended.jpg", photo_root / "to go.jpg"
    mended.write_text("no photo")
    gone.write_bytes(scenes[1].path.read_bytes() + b"to go")
    client.add_to_index(path=str(gone))
    gone.unlink()
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        insert = text("INSERT INTO photos (file_path, lat, lon) VALUES (:p, 1, 2) RETURNING id")
        photo_id = connection.scalar(insert, {"p": str(mended)})
    engine.dispose()
    client.rebuild_index(timeout_s=60)

    def listed(*more: str) -> dict[str, Any]:
        ((_, _, out, _),) = said_by(stack.settings, ["refused", *more, "--json"])
        return {photo["path"]: photo for photo in json.loads(out)["photos"]}

    first = listed()
    ((_, _, out, _),) = said_by(stack.settings, ["doctor", "--json"])
    checked = json.loads(out)["photos"]
    client.rebuild_index(timeout_s=60)
    second = listed("--code", "not_an_image", "--code", "file_gone")
    mended.write_bytes(scenes[2].path.read_bytes() + b"mended")
    ((_, code, out, _),) = said_by(stack.settings, ["refused", str(photo_id), "--retry"])

    counts = Counter(photo["code"] for photo in first.values())
    assert {"not_an_image", "file_gone"} <= counts.keys()
    said = dict(re.findall(r"(\w+): (\d+)", checked["message"]))
    assert (checked["ok"], {code: int(count) for code, count in said.items()}) == (True, counts)
    assert first[str(mended)]["code"] == "not_an_image"
    assert first[str(mended)]["photo_id"] == photo_id
    assert first[str(mended)]["since"] == second[str(mended)]["since"] != ""
    assert first[str(gone)]["code"] == "file_gone"
    assert first[str(gone)]["since"] == second[str(gone)]["since"] != ""
    assert {photo["code"] for photo in second.values()} == {"not_an_image", "file_gone"}
    assert listed("--code", "file_gone").keys() >= {str(gone)}
    assert (code, "1 stored, 0 refused" in out) == (0, True)
    assert str(mended) not in listed()


def test_of_photos_that_are_asked_for_by_id_the_others_are_not_spoken_for(
    stack: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    taken = str(client.add_to_index(path=str(scenes[0].path)).photo_id)
    commands = [
        ["refused", taken],
        ["refused", taken, "999999999"],
        ["refused", "999999999", "--retry"],
        ["refused", "--code", "too_thin"],
        ["refused", taken, "999999999", "--json"],
    ]

    one, mixed, unknown, of_code, as_json = said_by(stack.settings, *commands, SIGHTLINE_LANG="en")
    russian = list(said_by(stack.settings, *commands[:4], SIGHTLINE_LANG="ru"))

    for said in (one, mixed, of_code):
        assert "none of those that were asked for is refused" in " ".join(said[2].split())
    assert "none of those" not in unknown[2]
    assert [said[1] for said in (one, mixed, unknown, of_code, as_json)] == [0, 1, 1, 0, 1]
    assert "unknown_photo" in mixed[2]
    assert "unknown_photo" in unknown[2]
    (outcome,) = json.loads(as_json[2])["outcomes"]
    assert (outcome["ref"], outcome["code"]) == ("photo 999999999", "unknown_photo")
    assert all("среди названных" in " ".join(russian[n][2].split()) for n in (0, 1, 3))
    assert "нет в таблице" in " ".join(russian[2][2].split())


def test_ctrl_c_while_photos_are_added_says_what_is_stored_and_what_goes_on(stack: Stack, photos: Path) -> None:
    manifest = photos / "many.csv"
    rows = "".join(f"gone {n}.jpg,1,2,surveyed\n" for n in range(3000))
    manifest.write_text(f"file,lat,lon,coordinate_source\n{rows}")
    env = {**os.environ, **stack.settings.as_env(), "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "worker.cli", "add", str(manifest)]
    adding = subprocess.Popen(command, env=env, cwd=ROOT, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    try:

        def answered() -> bool:
            nonlocal said
            said += os.read(terminal, 4096)
            return b"/3000" in said

        until(answered, PATIENCE_S)
        adding.send_signal(signal.SIGINT)
        while piece := _read(terminal):
            said += piece
    finally:
        adding.kill()
        code = adding.wait()
        os.close(terminal)

    words = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode(errors="replace")).split())
    assert code == 130, words
    assert re.search(r"stopped: \d+ of 3000 photos are answered for\. Up to \d+ more are with the workers", words)
    assert "The same command again adds the rest" in words
    assert "Traceback" not in words


@pytest.mark.parametrize("command", [["backfill"], ["embed", "--missing"]], ids=" ".join)
def test_ctrl_c_while_what_lacks_is_embedded_says_what_goes_on(stack: Stack, command: list[str]) -> None:
    program = f"""
import sys
from worker import joined
from worker.commands import moving, photos

def stopped(*_: object) -> object:
    raise KeyboardInterrupt

moving.embed_missing = photos.embed_missing = stopped
sys.argv = ["sightline", *{command}]
joined.run()
"""
    env = {**os.environ, **stack.settings.as_env(), "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, text=True)

    words = " ".join(done.stderr.split())
    assert done.returncode == 130, words
    assert "stopped: the workers go on with the photos that they have. The same command again goes on" in words
    assert "Traceback" not in words


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""
