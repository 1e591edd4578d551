"""Strangers' bytes are decoded by processes that can do nothing else, and what becomes of these harms one photo alone.

The photos of `tests/hostile.py` do what they say, inside a real decoder around which nothing else is changed.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from producer_client.contract import Code
from tests.conftest import until
from worker.commands import doctor
from worker.core.types import Decoded, Pixels
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.sandbox import confinement, port
from worker.sandbox.confinement import FULL, NONE, RLIMITS
from worker.sandbox.port import OFF, PROGRAM, Sandbox, level_of, sandbox_of
from worker.sandbox.wire import Limits
from worker.settings import Settings

HOSTILE = ("-m", "tests.hostile")
LIMITS = Limits(memory_bytes=300_000_000, cpu_s=1, shared_bytes=30_000_000)
PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decoders of their own need Linux")


@pytest.fixture(scope="module")
def hostile() -> Iterator[Sandbox]:
    sandbox = Sandbox(LIMITS, most=2, program=HOSTILE, patience_s=20)
    yield sandbox
    sandbox.close()


def shown(sandbox: Sandbox, photo: str) -> int:
    """What a photo that does no harm looks like: its argument's length."""
    return int(sandbox.decode(photo.encode(), side=16, max_megapixels=1).pixels[0, 0, 0])


def refused(sandbox: Sandbox, photo: str) -> PhotoRefusal:
    with pytest.raises(PhotoRefusal) as caught:
        shown(sandbox, photo)
    assert caught.value.code is Code.DECODER_FAILED
    return caught.value


def said(sandbox: Sandbox, photo: str) -> str:
    """What was raised within the decoder, which goes on."""
    with pytest.raises(Permanent) as caught:
        shown(sandbox, photo)
    assert caught.value.code is Code.INTERNAL
    return caught.value.message


# -- what it cannot do


def test_a_decoder_reaches_all_that_there_is_on_this_kernel(hostile: Sandbox) -> None:
    if not Path("/sys/kernel/security/lsm").exists() and hostile.level != FULL:
        pytest.skip("nobody says whether this kernel has Landlock")
    assert hostile.level == FULL == "rlimits+seccomp+landlock"


@pytest.mark.parametrize(
    "attempt",
    [
        "read /etc/hostname",
        "read /proc/self/environ",
        f"read {__file__}",
        "write {folder}/new",
        "list {folder}",
        "stat {folder}",
        "remove {folder}/kept",
        "internet",
        "unix",
        "pair",
        "exec /bin/true",
        "fork",
        "kill {pid}",
        "trace {pid}",
        "peek {pid}",
        "code",
    ],
)
def test_a_photo_that_wants_more_than_to_be_decoded_is_forbidden_it(
    hostile: Sandbox, attempt: str, tmp_path: Path
) -> None:
    (tmp_path / "kept").touch()

    why = said(hostile, attempt.format(folder=tmp_path, pid=os.getpid()))

    assert "Operation not permitted" in why
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_nobody_gives_himself_more_time(hostile: Sandbox) -> None:
    assert "not allowed" in said(hostile, "lift")


def test_what_was_not_loaded_is_not_loaded_any_more(hostile: Sandbox) -> None:
    assert "No module named 'wave'" in said(hostile, "import wave")


def test_a_decoder_has_no_torch_no_database_and_no_environment(
    hostile: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_DATABASE_URL", "postgresql://secret")
    heavy = "torch open_clip faiss onnxruntime sqlalchemy psycopg2 redis kombu celery"
    assert said(hostile, f"loaded numpy {heavy} PIL").endswith(": numpy PIL")

    fresh = Sandbox(LIMITS, most=1, program=HOSTILE)
    try:
        names = said(fresh, "environment")
    finally:
        fresh.close()
    assert "PYTHONPATH" in names
    assert "SIGHTLINE" not in names


def test_no_library_of_torch_is_mapped_into_a_decoder(hostile: Sandbox) -> None:
    assert shown(hostile, "good 12") == 2
    (pid, *_) = hostile.pids
    if os.geteuid() != 0:
        pytest.skip("nobody but root may look: that is the point")
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "libjpeg" in maps or "_jpeg" in maps
    assert not re.search("torch|faiss|onnxruntime|psycopg2", maps)


def test_landlock_forbids_files_where_there_is_no_seccomp(tmp_path: Path) -> None:
    without = Sandbox(LIMITS, most=1, program=("-m", "tests.lacking", "seccomp", *HOSTILE))
    try:
        assert without.level == "rlimits+landlock"
        assert "Permission denied" in said(without, "read /etc/hostname")
        assert "Permission denied" in said(without, f"write {tmp_path}/new")
    finally:
        without.close()


def test_seccomp_forbids_all_of_it_where_there_is_no_landlock() -> None:
    without = Sandbox(LIMITS, most=1, program=("-m", "tests.lacking", "landlock", *HOSTILE))
    try:
        assert without.level == "rlimits+seccomp"
        assert "Operation not permitted" in said(without, "read /etc/hostname")
    finally:
        without.close()


# -- what it may take


def test_a_photo_that_takes_too_much_memory_is_refused_and_named_so(hostile: Sandbox) -> None:
    assert "300 MB" in refused(hostile, "memory").message
    assert shown(hostile, "good 12") == 2


def test_what_a_bomb_takes_is_not_the_workers(tmp_path: Path) -> None:
    """24 megapixels, which are allowed, in a decoder that has less than they need."""
    bomb = tmp_path / "bomb.png"
    Image.new("RGB", (6_000, 4_000)).save(bomb)
    sandbox = Sandbox(Limits(50_000_000, 30, 80_000_000), most=1)
    before = psutil.Process().memory_info().rss
    try:
        with pytest.raises(PhotoRefusal) as caught:
            sandbox.decode(bomb.read_bytes(), side=224, max_megapixels=100)
    finally:
        sandbox.close()

    assert caught.value.code is Code.DECODER_FAILED
    assert "50 MB" in caught.value.message
    assert psutil.Process().memory_info().rss - before < 20_000_000


def test_a_photo_that_takes_too_long_is_ended_and_named_so(hostile: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    started = time.process_time()

    assert "more than 1 seconds of a core" in refused(hostile, "burn").message

    assert time.process_time() - started < 1
    assert [line.getMessage() for line in caplog.records] == ["a decoder has ended"]
    assert shown(hostile, "good 12") == 2


def test_each_photo_has_its_own_time() -> None:
    """Together they take more than one may."""
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE)
    try:
        for _ in range(8):
            assert shown(sandbox, "work 12") == 2
        (pid,) = sandbox.pids
        assert sum(psutil.Process(pid).cpu_times()[:2]) > LIMITS.cpu_s + 1
    finally:
        sandbox.close()


def test_a_photo_that_waits_for_ever_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE, patience_s=0.5)
    try:
        assert "not done after 0.5 seconds" in refused(sandbox, "stay").message
        assert [record.message for record in caplog.records].count("a decoder has ended") == port.TRIES
        assert shown(sandbox, "good 12") == 2
    finally:
        sandbox.close()
    # Two of them are: before its thread counts as stuck.
    assert Settings().stuck_s > port.TRIES * port.PATIENCE_S


def test_the_shared_memory_does_not_grow_beyond_a_photo(hostile: Sandbox) -> None:
    assert "too large" in said(hostile, "shared")


def test_what_is_left_of_a_large_photo_is_not_kept_in_memory(hostile: Sandbox) -> None:
    photo = hostile.decode(b"large", side=16, max_megapixels=10).pixels

    assert photo.nbytes > port.KEPT_BYTES
    open_now = [Path(entry) for entry in Path("/proc/self/fd").iterdir()]
    shared = [file for file in open_now if file.is_symlink() and "memfd:photo" in str(file.readlink())]
    assert shared
    assert max(file.stat().st_size for file in shared) <= port.KEPT_BYTES


# -- what comes back


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("crash", "SIGSEGV"),
        ("abort", "SIGSEGV"),
        ("exit 3", "(3)"),
        ("reply nonsense", "no decoder says"),
        ("reply {}", "no decoder says"),
        ('reply {"outcome":{"type":"done","height":1000,"width":900,"reduced":false,"picture_hash":"","camera":"",'
         '"taken_s":0,"position":"absent"}}', "other pixels than it says"),
        # As long as it says, and more pixels than a photo may have.
        ('huge 6000000 {"outcome":{"type":"done","height":1000,"width":2000,"reduced":false,"picture_hash":"",'
         '"camera":"","taken_s":0,"position":"absent"}}', "other pixels than it says"),
        ('reply {"outcome":{"type":"done","height":1,"width":1,"reduced":false,"picture_hash":"","camera":"",'
         '"taken_s":0,"position":{"type":"position","lat":91,"lon":0,"origin":"exif","error_m":null}}}',
         "no decoder says"),
        ('reply {"outcome":{"type":"refused","code":"Not A Code","message":""}}', "no decoder says"),
    ],
)  # fmt: skip
def test_a_decoder_that_dies_or_lies_costs_its_own_photo_alone(hostile: Sandbox, act: str, why: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        before = [threads.submit(shown, hostile, f"good {'x' * n}") for n in range(8)]
        assert why in refused(hostile, act).message
        after = [threads.submit(shown, hostile, f"good {'x' * n}") for n in range(8)]

        assert [one.result() for one in before] == list(range(8)) == [one.result() for one in after]


def test_a_decoder_that_was_killed_while_it_was_idle_costs_nothing() -> None:
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE)
    try:
        assert shown(sandbox, "good 12") == 2
        os.kill(sandbox.pids[0], signal.SIGKILL)
        assert shown(sandbox, "good 123") == 3
    finally:
        sandbox.close()


def test_no_more_decoders_run_than_were_asked_for() -> None:
    sandbox = Sandbox(LIMITS, most=2, program=HOSTILE)
    most = 0
    done = threading.Event()

    def count() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, len(decoders_of(os.getpid(), HOSTILE)))

    others = len(decoders_of(os.getpid(), HOSTILE))
    counting = threading.Thread(target=count)
    counting.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda _: shown(sandbox, "good 12"), range(40))) == [2] * 40
    finally:
        done.set()
        counting.join()
        sandbox.close()
    assert most - others <= 2


def test_without_a_decoder_that_starts_it_is_to_be_tried_again() -> None:
    sandbox = Sandbox(LIMITS, most=1, program=("-c", "raise SystemExit(7)"))
    with pytest.raises(Transient, match=r"\(7\)"):
        shown(sandbox, "good")


def test_a_decoder_that_nobody_ends_ends_with_what_has_started_it() -> None:
    """Without a warning that something is left open, which would fail the test."""
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE)
    assert shown(sandbox, "good 12") == 2
    (pid,) = sandbox.pids
    itself = [sandbox]
    itself.append(itself)  # type: ignore[arg-type]  # a circle, as a runtime and its libraries are

    del sandbox, itself
    gc.collect()

    assert not psutil.pid_exists(pid)


def test_decoders_that_are_killed_stopped_or_full_leave_neither_processes_nor_files_behind() -> None:
    """The photos in their hands are decoded by the next one, but for the one that fills them all."""
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE, patience_s=3)

    def left() -> tuple[int, int]:
        # Decoders have no children. Those of servers that other tests have running come and go.
        return len(os.listdir("/proc/self/fd")), len(psutil.Process().children())  # noqa: PTH208

    try:
        assert shown(sandbox, "good 12") == 2
        before = left()
        for number in (signal.SIGKILL, signal.SIGSTOP):
            (pid,) = sandbox.pids
            with ThreadPoolExecutor(1) as threads:
                slow = threads.submit(shown, sandbox, "pause 123")
                until(lambda: not sandbox.pids)
                os.kill(pid, number)
                assert slow.result() == 3
            assert not psutil.pid_exists(pid)
            assert left() == before
        refused(sandbox, "memory")
        assert shown(sandbox, "good 1234") == 4
        assert left() == before
    finally:
        sandbox.close()


def test_decoders_end_when_they_are_closed() -> None:
    sandbox = Sandbox(LIMITS, most=1, program=HOSTILE)
    assert shown(sandbox, "good 12") == 2
    (pid,) = sandbox.pids

    sandbox.close()

    assert not psutil.pid_exists(pid)
    with pytest.raises(Transient, match="stopping"):
        shown(sandbox, "good 12")


def test_decoders_end_with_a_worker_that_is_killed_though_they_are_stopped() -> None:
    with _worker("time.sleep(60)") as (worker, orphan):
        assert psutil.Process(orphan).is_running()
        os.kill(orphan, signal.SIGSTOP)
        worker.kill()

        until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE)


def test_a_decoder_is_not_ended_by_what_is_forked_off_its_worker() -> None:
    forked = "child = os.fork()\nif child == 0:\n    del sandbox\n    os._exit(0)\nos.waitpid(child, 0)"
    with _worker(f"{forked}\nprint(sandbox.pids == pids, psutil.pid_exists(*pids), flush=True)\ntime.sleep(60)") as (
        worker,
        decoder,
    ):
        assert worker.stdout is not None
        assert worker.stdout.readline().split() == ["True", "True"]
        assert psutil.Process(decoder).status() != psutil.STATUS_ZOMBIE
        worker.kill()


@contextmanager
def _worker(goes_on: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has a decoder, and this one's id."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{_WORKER}\n{goes_on}"], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as worker:
        assert worker.stdout is not None
        yield worker, int(worker.stdout.readline())
        worker.kill()


_WORKER = """
import os, psutil, time
from worker.sandbox.port import Sandbox
from worker.sandbox.wire import Limits
sandbox = Sandbox(Limits(300_000_000, 1, 30_000_000), most=1)
sandbox.level
pids = sandbox.pids
print(*pids, flush=True)
"""


def decoders_of(pid: int, program: tuple[str, ...]) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if program[1] in _command(child)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


# -- the same pixels


#: Tests of either room that take most of its time, over files that others look at, too.
SLOW = [
    *("both_decoders", "flipped", "belong_nowhere", "broken_exif", "true_beginning", "large_png", "unpacks_to_more"),
    *("wherever_it_does", "lacks_a_byte", "that_breaks_off"),
]


@pytest.mark.timeout(400)
def test_every_photo_of_the_zoo_is_decoded_to_the_same_by_a_decoder_of_its_own() -> None:
    """What is tested of decoding, formats, positions and all that is broken, decoded both ways and compared."""
    tests = [f"tests/unit/test_{name}.py" for name in ("images", "shots")]
    plugins = ["-p", "tests.both_ways", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *tests, "-k", " and ".join(f"not {name}" for name in SLOW)],
        cwd=PROJECT, env=os.environ | {"SIGHTLINE_SANDBOX": "required"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:]
    compared = re.search(r"(\d+) photos both ways", ran.stdout)
    assert compared is not None
    assert int(compared[1]) > 500


# -- settings


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings on a kernel without Landlock."""

    def make(**given: Any) -> Settings:
        monkeypatch.setattr(port, "PROGRAM", ("-m", "tests.lacking", "landlock", *PROGRAM))
        return Settings(**given)

    return make


def test_required_refuses_less_than_all_and_says_what_lacks(lacking: Callable[..., Settings]) -> None:
    with pytest.raises(Permanent, match=r"by rlimits\+seccomp alone"):
        sandbox_of(lacking(sandbox="required"))
    assert "confined by rlimits+seccomp; this machine gives no more" in doctor.decoders(lacking(sandbox="auto"))
    assert level_of(lacking(sandbox="off")) == OFF


@pytest.mark.parametrize(("lacks", "role"), [("landlock", "serve"), ("seccomp", "serve"), ("seccomp", "index")])
def test_a_worker_does_not_start_where_less_is_to_be_had_than_is_required(
    lacks: str, role: str, tmp_path: Path
) -> None:
    settings = {"SIGHTLINE_SANDBOX": "required", "SIGHTLINE_DATA_DIR": str(tmp_path)}
    settings |= {"SIGHTLINE_BROKER_URL": "redis://127.0.0.1:1/0", "SIGHTLINE_PHOTO_ROOTS": str(tmp_path)}

    ran = subprocess.run(
        [sys.executable, "-m", "tests.lacking", lacks, "-m", "worker.cli", "worker", "--role", role],
        cwd=PROJECT, env=os.environ | settings, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ran.returncode == 1
    assert f"by {FULL.replace('+' + lacks, '')} alone, not by {FULL}" in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_no_privilege_is_needed_for_any_of_it() -> None:
    said = "print([line for line in open('/proc/self/status') if 'CapEff' in line][0].split()[1], sandbox.level)"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.lacking", "privileges", "-c", _WORKER + said],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.stdout.split()[-2:] == ["0" * 16, FULL], ran.stderr


def test_a_system_without_decoders_of_their_own_is_refused_where_they_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(Permanent, match="by none alone"):
        sandbox_of(Settings(sandbox="required"))
    assert level_of(Settings(sandbox="auto")) == NONE


def test_a_machine_that_is_not_known_is_confined_by_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert confinement.program(confinement._MACHINES["aarch64"]) != confinement.program(confinement._MACHINES["x86_64"])
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not confinement._seccomp(None)  # type: ignore[arg-type]  # it is not asked
    assert RLIMITS in FULL


def test_keypoints_of_a_photo_are_found_without_decoding_it_here(tmp_path: Path) -> None:
    """It is decoded a second time, larger: by whom the first was, too."""
    from worker.encoder import keypoints

    seen: list[int] = []

    def decode(content: bytes, *, side: int, max_megapixels: float, longer_side: int) -> Any:
        seen.append(longer_side)
        pixels: Pixels = np.zeros((480, 640, 3), np.uint8)
        return Decoded(pixels)

    small = Decoded(np.zeros((32, 48, 3), np.uint8), reduced=True)
    keypoints.find_keypoints(b"", small, side=16, max_megapixels=1, decode=decode)
    assert seen == [keypoints.SIDE_PX]
