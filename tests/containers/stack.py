"""docker-compose.yml, run by podman-compose: started, looked at, stopped. Knows processes, not what they do."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.containers.engine import Engine
from tests.containers.machine import Failed, run, shown, until

HERE = Path(__file__).parent
SERVERS, WORKERS = ("redis", "postgres"), ("worker-cpu", "worker-serve")
OURS = (*WORKERS, "index", "beat")
#: Of this machine alone, and no other server's.
ADDRESS = "127.18.10.1"
#: Seconds after which what a killed worker had in hand is handed out again: 900 unless set.
VISIBILITY_S = 20
READY_S = 240.0


class Stack:
    """tree: whose docker-compose.yml and deploy/ are run, out of a copy that is ours to write deploy/env into.

    image: that runs instead of the file's own.
    """

    def __init__(self, engine: Engine, tree: Path, photos: Path, passwords: dict[str, str], *, image: str = "") -> None:
        self._engine = engine
        self.tree = tree
        self.passwords = passwords
        #: How many of each there are to be.
        self.workers = {"worker-cpu": 1, "worker-serve": 0}
        self.folder = engine.folder / "project"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copy(tree / "docker-compose.yml", self.folder)
        shutil.copytree(tree / "deploy", self.folder / "deploy", ignore=shutil.ignore_patterns("env", "secrets"))
        values = {
            "PHOTOS_DIR": str(photos),
            "BIND_ADDRESS": ADDRESS,
            **passwords,
            # As deploy/README.md has it for workers without torch.
            "COMPOSE_PROFILES": "serve",
            "SIGHTLINE_ENCODER": "packaged/efficientnet-lite0",
            "SIGHTLINE_MODEL_THREADS": "1",
            "SIGHTLINE_CONCURRENCY": "4",
            "SIGHTLINE_VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
        }
        # In quotes, as deploy/env.example says of what has more than letters and digits.
        (self.folder / "deploy/env").write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
        files = [self.folder / "docker-compose.yml", self.folder / "override.yml"]
        files[1].write_text(override(yaml.safe_load(files[0].read_text())["services"]))
        if image:
            files.append(self.folder / "image.yml")
            files[-1].write_text(yaml.safe_dump({"services": {name: {"image": image} for name in ("migrate", *OURS)}}))
        #: As README's `dc`.
        self.dc = [
            str(Path(sys.executable).with_name("podman-compose")),
            *(word for file in files for word in ("-f", str(file))),
            "--env-file",
            "deploy/env",
        ]

    @property
    def broker_url(self) -> str:
        return f"redis://:{self.passwords['REDIS_PASSWORD']}@{ADDRESS}:6379/5"

    def compose(self, *command: str, told: str = "", stdin: Path | None = None, fails: bool = False) -> str:
        return run([*self.dc, *command], told=told, env=self._engine.env, cwd=self.folder, stdin=stdin, fails=fails)

    def up(self) -> None:
        """Servers, migrations, the rest: as `depends_on` has it."""
        with shown("starting the servers"):
            self.compose("up", "-d", "--no-build", *SERVERS)
            for name in SERVERS:
                until(lambda name=name: self.is_well(self.name(name)), f"{name} to be healthy", READY_S)
        with shown("migrating"):
            self.compose("up", "-d", "--no-build", "migrate")
            migrate = self.name("migrate")
            until(lambda: not self.inspected(migrate)["State"]["Running"], "the migrations", READY_S)
            if code := self.inspected(migrate)["State"]["ExitCode"]:
                raise Failed(f"migrate ended with {code}:\n{self.log(migrate)}")
        with shown("starting workers, index process and beat"):
            self.compose("up", "-d", "--no-build", "index", "beat")
            self.scale(**self.workers)

    def scale(self, **workers: int) -> None:
        """So many of each kind: podman-compose takes one number a call, and leaves containers that are too many."""
        self.workers = {name.replace("_", "-"): count for name, count in workers.items()}
        for service, count in self.workers.items():
            for name in self.names(service)[count:]:
                self._engine.podman("rm", "--force", "--time", "60", name, told=f"ending {name}")
            if count:
                self.compose("up", "-d", "--no-build", "--scale", f"{service}={count}", service)
        self.wait_well()

    def stop(self, *services: str) -> None:
        """All of their containers, as Docker's `compose stop` does; podman-compose knows the first of each."""
        with shown(f"stopping {', '.join(services)}"):
            self._engine.podman("stop", "--time", "60", *self.names(*services))

    def start(self, service: str) -> datetime:
        """The first of its containers, stopped before; when its first process has begun."""
        name = self.name(service)
        self._engine.podman("start", name)
        began: str = self.inspected(name)["State"]["StartedAt"]
        return datetime.fromisoformat(began)

    def down(self) -> None:
        self.compose("down", "--remove-orphans", told="stopping all containers")

    def names(self, *services: str) -> list[str]:
        """Containers that were made of these services, of all but the migrations unless named."""
        wanted = services or (*SERVERS, *OURS)
        return sorted(
            container["Names"][0]
            for container in self._engine.containers()
            if container["Labels"].get("com.docker.compose.service") in wanted
        )

    def name(self, service: str) -> str:
        return self.names(service)[0]

    def inspected(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self._engine.podman("container", "inspect", name))
        return found[0]

    def is_well(self, name: str) -> bool:
        """What its health check says now; that it runs, where it has none. podman asks by timers of systemd, which need
        not run here."""
        found = self.inspected(name)
        if not found["Config"].get("Healthcheck"):
            return bool(found["State"]["Running"])
        try:
            self._engine.podman("healthcheck", "run", name)
        except Failed:
            return False
        return True

    def wait_well(self) -> None:
        for name in self.names():
            until(lambda name=name: self.is_well(name), f"{name} to be healthy", READY_S)

    def log(self, name: str) -> str:
        """Its last lines; a container writes on both of its outputs."""
        return run(["sh", "-c", f"podman logs --tail 30 {name} 2>&1"], env=self._engine.env, fails=True)

    def inside(self, name: str, *command: str, stdin: Path | None = None, fails: bool = False) -> str:
        """Of a container by its name: compose knows only the first of those of a service."""
        return self._engine.podman("exec", name, *command, fails=fails)

    def sql(self, query: str) -> list[list[str]]:
        """Rows, each value as text."""
        words = [
            "psql",
            "--username=sightline",
            "--dbname=sightline",
            "--tuples-only",
            "--no-align",
            "--field-separator=\t",
        ]
        written = self.inside(self.name("postgres"), *words, "--command", query)
        return [line.split("\t") for line in written.splitlines()]

    def kill(self, name: str) -> None:
        """As a crash does: the first process of the container goes without a word. `podman kill` would be the wish that
        it stays down."""
        pid = self.inspected(name)["State"]["Pid"]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: self._again(name, pid), f"{name} to be started again", 60.0)
        until(lambda: self.is_well(name), f"{name} to be well again", READY_S)
        if self.inspected(name)["Config"]["Labels"]["com.docker.compose.service"] in OURS:
            until(lambda: self.is_ready(name), f"{name} to be ready again", READY_S)

    def is_ready(self, name: str) -> bool:
        """Whether it says so of itself, as Kubernetes asks it."""
        return bool(self.inside(name, "sh", "-c", "sightline health --ready >/dev/null && echo yes", fails=True))

    def _again(self, name: str, before: int) -> bool:
        state = self.inspected(name)["State"]
        return bool(state["Running"]) and state["Pid"] != before


def passwords() -> dict[str, str]:
    """As an operator may have them; Redis' becomes part of a URL."""
    return {"POSTGRES_PASSWORD": f"p${secrets.token_hex(8)}@:/# x", "REDIS_PASSWORD": secrets.token_hex(12)}


def override(services: Collection[str]) -> str:
    """override.yml for a file that has these services: podman-compose resets nothing of one that it does not know."""
    head, begin, listed = (HERE / "override.yml").read_text().partition("\nservices:\n")
    return (
        head
        + begin
        + "".join(line for line in listed.splitlines(keepends=True) if line.strip().partition(":")[0] in services)
    )
