"""`make demo`, as a newcomer runs it: its last line, its honesty, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import __main__ as demo
from demo.soak import busy_cores, run, wrong_runs
from producer_client import TimedOut
from producer_client.contract import Code
from tests.conftest import Scene, processes_of, server_dir, without_torch
from tests.integration.test_words_shown import latin_words
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 160


def run_demo(*arguments: str, data_dir: Path, **env: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--data-dir", str(data_dir), *arguments],
        cwd=ROOT,
        env=os.environ | Settings(**without_torch()).as_env() | {"COLUMNS": "80"} | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])


def test_the_demo_ends_with_its_json_and_leaves_no_process(scenes: list[Scene]) -> None:
    with server_dir() as folder:
        # As a newcomer has it: the worker measures what runs its model.
        made = folder / "data" / "demo"
        auto = {"SIGHTLINE_BACKEND": "auto", "SIGHTLINE_MODELS_DIR": str(made / "models")}
        done, result = run_demo("--photos", str(scenes[0].path.parents[1]), data_dir=made, **auto)

        assert list(result) == [
            "encoder",
            "held_out",
            "added",
            "indexed",
            "generation",
            "located",
            "abstained",
            "with_probability",
            "median_error_m",
            "search_p50_ms",
            "seconds",
        ]
        assert result["indexed"] == result["added"] > 0
        assert len(list((made / "models").glob("*/float32.onnx"))) == 1
        assert result["located"] >= 1
        assert result["abstained"] >= 1
        assert result["median_error_m"] < 40
        assert "never seen" in done.stdout, "the table says which place was held out"
        assert [path for path in (made.parent, made) if path.stat().st_mode & 0o077] == [], "open to other users"
        assert processes_of(folder) == []


def test_ctrl_c_stops_everything_that_the_demo_has_started(scenes: list[Scene]) -> None:
    with server_dir() as folder:
        demo = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "demo",
                "--data-dir",
                str(folder / "demo"),
                "--photos",
                str(scenes[0].path.parents[1]),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while len(psutil.Process(demo.pid).children()) < 4:
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(demo.pid).children(recursive=True)

        demo.send_signal(signal.SIGINT)
        demo.wait(60)

        _, alive = psutil.wait_procs(children, timeout=10)
        assert demo.returncode == 130
        assert alive == []
        assert processes_of(folder) == []


def test_who_asks_again_while_it_says_that_it_has_stopped_gets_no_traceback() -> None:
    code = """
import signal, sys
import demo.__main__ as program

def stopped(*_: object) -> object:
    raise KeyboardInterrupt

def asked_again(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)
    print("stopped")

program._run, program.out.print = stopped, asked_again
sys.argv[1:] = []
sys.exit(program.main())
"""

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "stopped\n", "")


def test_an_interrupt_that_falls_within_a_finalizer_is_not_forgotten() -> None:
    code = f"""
import signal, time
from worker.signals import raise_on_signals

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

raise_on_signals()
try:
    Finalized()
    time.sleep({PATIENCE_S})
except KeyboardInterrupt:
    print("interrupted")
"""

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "interrupted\n"


@pytest.mark.real_photos
def test_real_photos_of_known_places_are_located_and_a_place_never_seen_is_not(real_photos: Path) -> None:
    with server_dir() as folder:
        _, result = run_demo(
            "--photos", str(real_photos), "--encoder", "packaged/efficientnet-lite0", data_dir=folder / "demo"
        )

    assert result["located"] >= 8
    assert result["abstained"] >= 3
    assert result["median_error_m"] < 25


def test_photos_of_one_place_are_each_asked_for_without_themselves(scenes: list[Scene]) -> None:
    here = [scene for scene in scenes if scene.place == scenes[0].place]
    with server_dir() as folder:
        photos = folder / "Дача, 2024" / "my photos"
        photos.mkdir(parents=True)
        for number, scene in enumerate(here):
            shutil.copy(scene.path, photos / f"{number}.jpg")
        shutil.copy(scenes[0].path, photos / "again.jpg")
        broken = photos / "broken.jpg"
        broken.write_bytes(scenes[0].path.read_bytes()[:3000])
        (photos / "notes.txt").write_text("no photo")

        done, result = run_demo("--photos", str(photos.parent), data_dir=folder / "demo", SIGHTLINE_LANG="ru")

    assert result["held_out"] == "photos"
    assert result["added"] == len(here) + 1
    assert result["located"] + result["abstained"] == len(here) + 1
    assert result["located"] >= len(here) - 1
    said = " ".join(" ".join(done.stdout.splitlines()[:-1]).split())
    assert "ничего не говорит о том, каким будет ответ о незнакомом месте" in said
    assert re.search(r"broken.jpg: фото не раскодировать: .*\(damaged_image\)", said)
    # Beside names.
    assert latin_words(said.replace(str(folder), ""), {"make", "demo", "ENCODER", "open_clip", "jpg"}) == set()


def test_an_encoder_that_there_is_not_is_told_before_anything_is_made(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "demo", "--encoder", "bogus", "--data-dir", str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert said.returncode == 1
    assert "'bogus' is none of open_clip/<model>/<tag or file>" in " ".join(said.stdout.split())
    assert "packaged/efficientnet-lite0" in " ".join(said.stdout.split())
    assert not (tmp_path / "demo").exists()


def test_what_the_service_says_to_a_demo_that_fails_is_in_the_language_that_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any) -> None:
        raise TimedOut(Code.TIMED_OUT, "no worker took the request before its caller's patience ended")

    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    monkeypatch.setattr("sys.argv", ["demo"])
    monkeypatch.setattr(demo, "_run", run)
    monkeypatch.setattr(demo, "raise_on_signals", lambda: None)

    assert demo.main() == 1

    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("показ не удался:"), said
    assert said.endswith("[timed_out]")
    assert not latin_words(said.removesuffix("[timed_out]"), set()), said


def said(**changed: int) -> dict[str, Any]:
    return {"added": 35, "indexed": 35, "located": 10, "abstained": 6, "median_error_m": 7.5, "seconds": 30.0} | changed


def test_a_soak_names_the_runs_that_came_to_something_else() -> None:
    other_backend = said() | {"median_error_m": 7.6}

    assert wrong_runs([said(), other_backend], None) == []
    assert wrong_runs([said(), said(located=9, abstained=7), None], None) == [2, 3]
    assert wrong_runs([None, said(), said()], 10) == [1]
    assert wrong_runs([said(located=1), said(located=1)], 10) == [1, 2], "equal and wrong"
    assert wrong_runs([said(indexed=34)], None) == [1]


def test_a_run_of_a_soak_that_fails_has_no_result_and_its_words() -> None:
    failed, words = run([sys.executable, "-c", "print('the demo failed: no disk'); raise SystemExit(1)"])
    went, _ = run([sys.executable, "-c", "print('table'); print('{\"located\": 10}')"])

    assert (failed, words) == (None, "the demo failed: no disk\n")
    assert went == {"located": 10}


def test_a_soaks_load_is_one_niced_loop_for_each_core_and_ends_with_it() -> None:
    others = psutil.Process().children()  # servers and workers of other tests
    with busy_cores(wanted=True):
        loops = [child for child in psutil.Process().children() if child not in others]
        deadline = time.monotonic() + PATIENCE_S
        while any(loop.nice() != 10 for loop in loops):
            assert time.monotonic() < deadline

    assert len(loops) == len(os.sched_getaffinity(0))
    assert not any(loop.is_running() for loop in loops)
