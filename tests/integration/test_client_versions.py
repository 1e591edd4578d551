"""The client with releases of celery, kombu and redis that backends have, each in an environment of its own.

`make test` takes two of them, `make test-client-matrix` all. An environment, .venv-client-NAME beside the project's
own, is made once by tests/client_versions/NAME.txt and `pip install .`, which so prove to go together.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Scene
from tests.integration.test_fork import running
from worker.embedded import EmbeddedServers
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests" / "client_versions"
NAMES = sorted(path.stem for path in PINS.glob("*.txt"))
#: The others are asked for.
ALWAYS = {"oldest", "old-backend"}
ALL = bool(os.environ.get("CLIENT_MATRIX"))
PATIENCE_S = 60.0

#: Runs with the stack's real worker. What the caller's Celery is told by the environment must not move the client.
VERBS = """
import os, sys
os.environ["CELERY_BROKER_URL"] = os.environ["CELERY_RESULT_BACKEND"] = "redis://127.0.0.1:1/0"
from producer_client import NewPhoto, Photo, PhotoRefused, Refused, Sightline, Unreachable
from producer_client.compat import CLIPSimilarityService
url, path = sys.argv[1:]
with Sightline(url) as client:
    known = NewPhoto("ё", Photo(path=path), metadata={"город": "Орёл"})
    stored, refused = client.add_many([known, NewPhoto("b", Photo(path="/none"))])
    assert isinstance(refused, Refused), refused
    asked = client.submit_locate(path=path)
    assert client.locating(asked.task_id).wait(30) == asked.wait()
    try:
        client.embed(path="/etc/passwd")
        raise AssertionError
    except PhotoRefused as exc:
        assert exc.code == "outside_roots"
    client.submit_stats()  # nobody waits for it
    assert client.stats().seq >= stored.seq
service = CLIPSimilarityService(broker_url=url)
assert service.get_statistics()["total_images"] >= 1
service.close()
with Sightline("redis://:secret@127.0.0.1:1/5") as away:
    for call in (away.stats, away.locating("id").wait, away.locating("id").ready):
        try:
            call()
            raise AssertionError
        except Unreachable as exc:
            assert "127.0.0.1:1" in exc.message and "nothing listens there" in exc.message
            assert "secret" not in exc.message
"""


@pytest.fixture(params=NAMES, scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment."""
    name: str = request.param
    if not (ALL or name in ALWAYS):
        pytest.skip("in `make test-client-matrix`")
    pins = PINS / f"{name}.txt"
    stamp = hashlib.sha256(pins.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    folder = ROOT / f".venv-client-{name}"
    made = folder / f".made-{stamp}"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        # A pip of its own takes as long as many a release.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE_S)
        pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(pins), str(ROOT)], check=True, timeout=300)
        made.touch()
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def redis_url(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of its own, and a worker of ours that answers there."""
    url = re.sub(r"/\d+$", "/8", servers.broker_url)
    with running(tmp_path_factory.mktemp("echo") / "log", "-m", "tests.forked", "echo", redis_url=url):
        yield url


@pytest.fixture
def run(python: Path, redis_url: str) -> Callable[..., None]:
    """Run something with that interpreter: warnings are errors, and it says nothing, also not at its end."""

    def done(*command: str) -> None:
        said = subprocess.run(
            [str(python), "-W", "error", *command],
            cwd=ROOT,
            env={**os.environ, "FORKED_REDIS": redis_url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert (said.returncode, said.stdout, said.stderr) == (0, "", ""), said.stderr

    return done


@pytest.mark.slow
def test_its_verbs_work_with_a_real_worker(run: Callable[..., None], stack: Stack, scenes: list[Scene]) -> None:
    run("-X", "dev", "-c", VERBS, stack.settings.broker_url, str(scenes[0].path))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["threads", "held", "handles", "pool fork"])
def test_every_reply_reaches_who_asked_in_threads_and_in_forked_children(run: Callable[..., None], what: str) -> None:
    run("-m", "tests.forked", *what.split())
