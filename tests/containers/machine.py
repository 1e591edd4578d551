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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

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
#: Bytes that must be free where nothing is built yet: packages and an image that has them, of 7 GB each, written twice.
FREE = 35e9
#: Seconds after which a step is shown, and between two words of one that goes on.
SHOWN_AFTER_S, SHOWN_EVERY_S = 1.0, 15.0
WIDTH = 100


class Failed(RuntimeError):
    """A step of the test cannot go on, with what is to be said of it."""


def main() -> int:
    lacking = lacks(os.geteuid(), Path("/etc/os-release"))
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
        f"There it installs {', '.join(PACKAGES.values())} by apt where they lack, needs {FREE / 1e9:.0f} GB of disk "
        "the first time, Debian's archive and a Python package index, and keeps what it makes in .containers."
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
def shown(step: str) -> Iterator[None]:
    """Say how long it took, where it took a second."""
    began = time.monotonic()
    yield
    if (took_s := time.monotonic() - began) >= SHOWN_AFTER_S:
        tell(f"{step}: {took_s:.0f} s")


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
            with shown(told) if told else _silence():
                _wait(process, told, limit_s, [out.fileno(), err.fileno()])
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
    began = said = time.monotonic()
    while not holds():
        now = time.monotonic()
        if now - began > patience_s:
            raise Failed(f"{what}: not within {patience_s:.0f} s")
        if now - said > SHOWN_EVERY_S:
            said = now
            tell(f"  waiting for {what}, {now - began:.0f} s")
        time.sleep(0.3)


# ----------------------------------------------------------------------------------------------- below


@contextmanager
def _silence() -> Iterator[None]:
    yield


def _wait(process: subprocess.Popen[bytes], told: str, limit_s: float, written: Sequence[int]) -> None:
    began = time.monotonic()
    pause_s = SHOWN_EVERY_S if told else limit_s
    while True:
        try:
            process.wait(min(pause_s, limit_s))
            return
        except subprocess.TimeoutExpired:
            took_s = time.monotonic() - began
            if took_s > limit_s:
                raise Failed(f"{told or 'it'}: not ended after {limit_s:.0f} s") from None
            last = next((lines[-1] for number in written if (lines := _whole(number).splitlines())), "")
            tell(f"  {told}, {took_s:.0f} s: {last.strip()[:WIDTH]}")


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
