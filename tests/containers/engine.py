"""podman and buildah with images, containers, networks and settings of their own, all in one folder: nothing that the
machine has of its own is used or changed. Knows no service."""

from __future__ import annotations

import fcntl
import hashlib
import json
import resource
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.containers import firewall
from tests.containers.machine import Failed, run, tell

#: What may be opened and started at once; podman's own defaults are more than some machines let even root give.
LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 20_000), "nproc": (resource.RLIMIT_NPROC, 32_768)}
#: What netavark turns on for the whole machine, and we turn off again where it was off.
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
#: What ends the test from outside.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Engine:
    """One at a time for a folder. What an ended one has left running is removed first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Short, as the names of sockets must be, and gone with the machine's next start, as podman wants it.
        self._running = Path("/run") / f"sightline-containers-{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"
        settings = folder / "settings"
        self.env = {
            "CONTAINERS_CONF": str(settings / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(settings / "registries.conf"),
            # Where layers of gigabytes are written while they are made.
            "TMPDIR": str(folder / "tmp"),
        }

    def __enter__(self) -> Self:
        settings = self.folder / "settings"
        settings.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another one runs in {self.folder}") from None
        for name, text in self._settings().items():
            (settings / name).write_text(text)
        self._running.mkdir(exist_ok=True)
        self._before = self._running / "before.json"
        # One that was killed has left it, and with it what it has changed of the machine.
        if not self._before.exists():
            self._before.write_text(json.dumps({"forwarding": FORWARDING.read_text(), "tables": tables()}))
        (self.folder / "tmp").mkdir(exist_ok=True)
        try:
            self.remove_all()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        # From here on it is not ended from outside any more: what it has started would stay.
        ended_by = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        tell("stopping and removing everything: a moment")
        self.remove_all()
        for folder in (self._running, self.folder):
            unmount(folder)
        self._restore()
        shutil.rmtree(self._running)
        shutil.rmtree(self.folder / "tmp")
        self._lock.close()
        for number, handler in ended_by.items():
            signal.signal(number, handler)

    def podman(self, *command: str | Path, told: str = "", stdin: Path | None = None, fails: bool = False) -> str:
        return run(["podman", *command], told=told, env=self.env, stdin=stdin, fails=fails)

    def buildah(self, *command: str | Path, told: str = "") -> str:
        return run(["buildah", *command], told=told, env=self.env, limit_s=3600)

    def has_image(self, name: str) -> bool:
        return self.podman("image", "exists", name, fails=True) == "" and bool(self.podman("images", "-q", name))

    def image_mb(self, name: str) -> int:
        return round(int(self.podman("image", "inspect", "--format", "{{.Size}}", name)) / 1e6)

    def containers(self) -> list[dict[str, Any]]:
        """All that there are, as podman describes them."""
        found: list[dict[str, Any]] = json.loads(self.podman("ps", "--all", "--format", "json") or "[]")
        return found

    def remove_all(self) -> None:
        """Containers, volumes and networks; images stay."""
        self.podman("rm", "--all", "--force", "--time", "2", "--volumes")
        self.podman("volume", "prune", "--force")
        self.podman("network", "prune", "--force")
        self.buildah("rm", "--all")

    def _restore(self) -> None:
        """The machine's own settings, as they were before."""
        before = json.loads(self._before.read_text())
        for name, lines in tables().items():
            program, table = name.split()
            for words in firewall.undone(before["tables"].get(name, []), lines):
                run([program, "--wait", "--table", table, *words])
        FORWARDING.write_text(before["forwarding"])

    def _settings(self) -> dict[str, str]:
        store = self.folder / "storage"
        limits = [f"{name}={most}:{most}" for name, most in _limits()]
        return {
            "containers.conf": "\n".join(
                [
                    "[containers]",
                    f"default_ulimits = {json.dumps(limits)}",
                    f"init_path = {json.dumps(shutil.which('catatonit'))}",
                    "[engine]",
                    'runtime = "runc"',
                    'cgroup_manager = "cgroupfs"',
                    'events_logger = "file"',
                    'lock_type = "file"',
                    'pull_policy = "never"',
                    f'tmp_dir = "{self._running}/tmp"',
                    f'static_dir = "{store}/libpod"',
                    f'volume_path = "{store}/volumes"',
                    "[network]",
                    'network_backend = "netavark"',
                    f'network_config_dir = "{store}/networks"',
                    "",
                ]
            ),
            "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{store}"\nrunroot = "{self._running}/run"\n',
            # Names without a host are ours or a stand-in's; nothing is ever fetched.
            "registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
        }


def tables() -> dict[str, list[str]]:
    """Lines of every table of packets that netavark may write to, by its name; none of one that there is not."""
    return {
        f"{program} {table}": run([program, "--wait", "--table", table, "--list-rules"], fails=True).splitlines()
        for program in firewall.PROGRAMS
        for table in firewall.TABLES
    }


def mounted(folder: Path, mounts: str) -> list[Path]:
    """Where something is mounted below a folder, the innermost first. mounts: as /proc/mounts has them."""
    places = [Path(line.split()[1].encode().decode("unicode_escape")) for line in mounts.splitlines()]
    return sorted((place for place in places if folder in place.parents), reverse=True)


def unmount(folder: Path) -> None:
    """Whatever is mounted below it, so that nothing is deleted through it."""
    for place in mounted(folder, Path("/proc/mounts").read_text()):
        run(["umount", place])


def _limits() -> Sequence[tuple[str, int]]:
    found = []
    for name, (number, most) in LIMITS.items():
        _, hard = resource.getrlimit(number)
        found.append((name, most if hard == resource.RLIM_INFINITY else min(hard, most)))
    return found
