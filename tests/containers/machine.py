"""What the machine must bring, and how programs are run on it: shown while they take long, ended when we end.

Run by itself, it says whether this machine can run the test. Imports nothing but the standard library, and knows no
container.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

#: Where images and all else are kept, unless told.
FOLDER = Path(__file__).parents[2] / ".containers"

#: Debian's packages, by the program or file that shows that they are there.
PACKAGES = {
    "podman": "podman",
    "buildah": "buildah",
    "runc": "runc",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "catatonit": "catatonit",
}
#: Bytes that the folder grows to while everything is built, and that must be free in any case, for what comes after.
NEEDED, LEAST_FREE = 35e9, 3e9
#: Seconds after which a step is shown, and between two words of one that goes on.
SHOWN_AFTER_S, SHOWN_EVERY_S = 1.0, 15.0
WIDTH = 100


class Failed(RuntimeError):
    """A step of the test cannot go on, with what is to be said of it."""


#: Of the steps that go on, the last is the one to be told of.
_steps: list[str] = []


def main() -> int:
    lacking = lacks(os.geteuid(), Path("/etc/os-release")) or lacks_space(FOLDER)
    if lacking:
        tell(lacking)
    return 1 if lacking else 0


def lacks(user: int, release: Path) -> str:
    """Why this cannot run here, or nothing. user: its number; release: where the system says what it is."""
    named = release.read_text().splitlines() if release.exists() else []
    if user == 0 and "ID=debian" in named:
        return ""
    who = "root" if user == 0 else f"user {user}"
    system = next(
        (line.removeprefix("PRETTY_NAME=").strip('"') for line in named if line.startswith("PRETTY_NAME=")), ""
    )
    return (
        f"this test runs containers, which needs root on Debian; here is {who} on {system or 'an unknown system'}. "
        f"There it installs {', '.join(PACKAGES.values())} by apt where they lack, needs {NEEDED / 1e9:.0f} GB of disk "
        "the first time, Debian's archive and a Python package index, and keeps what it makes in .containers."
    )


def lacks_space(folder: Path) -> str:
    """Why it cannot be kept in this folder, or nothing. What an earlier run has left there counts."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free, kept = shutil.disk_usage(there).free, _bytes_in(folder)
    wanted = max(NEEDED - kept, LEAST_FREE)
    if free >= wanted:
        return ""
    return (
        f"{free / 1e9:.1f} GB are free for {folder}, where {kept / 1e9:.1f} GB lie already; {wanted / 1e9:.0f} GB more "
        "are needed while images are built and run. Make room, or keep them elsewhere: "
        ".venv-containers/bin/python -m tests.containers --folder FOLDER"
    )


def install() -> None:
    """Debian's packages, as far as they lack."""
    wanted = [package for shown, package in PACKAGES.items() if shutil.which(shown) is None]
    if wanted:
        run(["apt-get", "update"], told="asking Debian's archive")
        quietly = {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "--no-install-recommends", *wanted]
        run(install, told=f"installing {', '.join(wanted)}", env=quietly)


def tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


@contextmanager
def shown(step: str, last: Callable[[], str] = str) -> Iterator[None]:
    """Say that it goes on, once it has for a second and then from time to time, and in the end how long it took.

    last: asked for what it does just now. Of steps within each other the innermost is told of.
    """
    began, over, depth = time.monotonic(), threading.Event(), "  " * len(_steps)

    def follow() -> None:
        if over.wait(SHOWN_AFTER_S):
            return
        tell(f"{depth}{step} ...")
        while not over.wait(SHOWN_EVERY_S):
            if _steps[-1] == step:
                tell(f"{depth}  {step}, {time.monotonic() - began:.0f} s: {last()[:WIDTH]}".rstrip(": "))

    follower = threading.Thread(target=follow, name=step)
    _steps.append(step)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()
        _steps.pop()
    if (took_s := time.monotonic() - began) >= SHOWN_AFTER_S:
        tell(f"{depth}{step}: {took_s:.0f} s")


def run(
    command: Sequence[str | Path],
    *,
    told: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
    limit_s: float = 900.0,
    fails: bool = False,
) -> str:
    """What it writes on its standard output. told: what it is called while it takes long; without, nothing is said.

    fails: it may; what it has written is given all the same. Raises Failed with its last words.
    """
    words = [str(word) for word in command]
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        (stdin or Path(os.devnull)).open("rb") as given,
    ):
        # A group of its own: Ctrl-C is ours to hear, and it is ended whole.
        process = subprocess.Popen(
            words,
            stdin=given,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            with shown(told, lambda: _last_line(out.fileno(), err.fileno())) if told else nullcontext():
                process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise Failed(f"{told or shlex.join(words)}: not ended after {limit_s:.0f} s") from None
        except BaseException:
            _end(process)
            raise
        written, complaints = _whole(out.fileno()), _whole(err.fileno())
    if process.returncode and not fails:
        last = "\n".join((written + complaints).strip().splitlines()[-15:])
        raise Failed(f"{shlex.join(words)} ended with {process.returncode}:\n{last}")
    return written


def until(holds: object, what: str, patience_s: float) -> None:
    """Wait for a condition, a function. Raises Failed naming it."""
    assert callable(holds)
    began = time.monotonic()
    with shown(f"waiting for {what}"):
        while not holds():
            if time.monotonic() - began > patience_s:
                raise Failed(f"{what}: not within {patience_s:.0f} s")
            time.sleep(0.3)


# ----------------------------------------------------------------------------------------------- below


def _bytes_in(folder: Path) -> int:
    """What its files take; those that go meanwhile take nothing."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.lstat(f"{path}/{name}").st_blocks * 512
    return found


def _last_line(*written: int) -> str:
    """Of the first of the files that has one."""
    return next((lines[-1].strip() for number in written if (lines := _whole(number).splitlines())), "")


def _whole(number: int) -> str:
    size = os.fstat(number).st_size
    return os.pread(number, size, 0).decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
