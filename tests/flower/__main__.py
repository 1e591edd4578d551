"""`make flower`: Flower itself on the queues of a running stack, by the command of deploy/README.md.

One line of JSON comes last, on standard output. Ends with 0 where Flower shows what the page says, and nothing that it
was asked for has ended a worker.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from demo.scenes import write_scenes
from producer_client import Sightline
from producer_client.contract import NewPhoto, Photo, Queue
from tests.waiting import until
from worker.settings import PREFIX, Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
#: The smallest that there is: what is tested is not what it sees.
ENCODER = "packaged/efficientnet-lite0"
#: Tasks whose commands of Redis are counted, with events and without.
TASKS = 100
PATIENCE_S = 60.0
LOGIN = ("you", "secret")

Ask = Callable[..., tuple[int, str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.flower", description=__doc__)
    parser.add_argument("--venv", type=Path, required=True, help="an environment with Flower in it")
    arguments = parser.parse_args()
    # Of a short name: Postgres' socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="sightline-flower-"))
    try:
        found = tried(folder, arguments.venv.absolute())
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if all(found["holds"].values()) else 1


def tried(folder: Path, venv: Path) -> dict[str, Any]:
    """What Flower shows of a stack in this folder, and which of what the page says of it holds."""
    photos = folder / "photos"
    write_scenes(photos, places=2, views=3)
    settings = Settings(
        data_dir=folder / "data", encoder=ENCODER, backend="torch-float32", model_threads=2, photo_roots=(photos,)
    )
    with Stack(settings, log_dir=folder / "logs", port=0) as stack, stack.client() as client:
        server = redis.Redis.from_url(stack.settings.broker_url)
        with flower(venv, folder, stack.settings) as ask:
            sending = threading.Thread(target=_send, args=(client, photos))
            sending.start()
            until(lambda: all(server.llen(settings.key_prefix + queue) for queue in Queue), "messages in all queues")
            waiting = _shown(ask)

            telling = stack.start("worker", settings=stack.settings.model_copy(update={"task_events": True}))
            stack.start("worker", "--role", "index")
            stack.wait_ready()
            sending.join()
            until(lambda: len(_online(ask)) == 2, "Flower sees both workers")
            told = _published_a_task(server, client)
            until(lambda: len(_tasks(ask)) > TASKS, "Flower sees the tasks")
            tasks, left = _tasks(ask), _shown(ask)
            by_reader = [_asked_to_end(ask, name) for name in _online(ask)]
        with flower(venv, folder, stack.settings, without="--read-only") as ask:
            until(lambda: len(_online(ask)) == 2, "Flower sees both workers")
            pages = [ask(f"/{page}")[0] for page in ("workers", "tasks", "broker")]
            asked = [_asked_to_end(ask, name) for name in _online(ask)]
        # What Flower would send if it knew them.
        heard = _celery(venv, stack.settings, "control", "--timeout", "3", "shutdown")
        ended = [process.exit_code for process in stack.processes if process.exit_code is not None]

        telling.ask_to_stop()
        telling.wait()
        telling.settings = stack.settings
        stack.start_again(telling)
        stack.wait_ready()
        silent = _published_a_task(server, client)
    return {
        "waiting": waiting,
        "tasks": len(tasks),
        "published_a_task": {"told": told, "silent": silent},
        "holds": {
            "lengths": waiting == dict.fromkeys(Queue, 1) and left == dict.fromkeys(Queue, 0),
            "tasks": {"sightline.stats", "sightline.add_to_index"} <= {task["name"] for task in tasks},
            "pages": pages == [200] * 3,
            "nobody_ended": by_reader == [403] * 2 and asked == [404] * 2 and heard.returncode != 0 and not ended,
            "cost": 0 < told - silent <= 3,
        },
    }


@contextmanager
def flower(venv: Path, folder: Path, settings: Settings, *, without: str = "") -> Iterator[Ask]:
    """Flower by the command of the page, but at another port and without one of its words; what asks it for a page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = re.findall(
        r"^ *.venv-flower/bin/celery (--workdir .*)$", (ROOT / "deploy/README.md").read_text(), re.MULTILINE
    )
    words = [word for word in shlex.split(line) if word != without]
    with (folder / "flower.log").open("w") as log:
        process = subprocess.Popen(
            [str(venv / "bin/celery"), *words, f"--port={port}"],
            cwd=ROOT,
            env=_environment(settings),
            stdout=log,
            stderr=log,
        )
        try:
            ask = partial(_ask, port)
            until(lambda: process.poll() is not None or ask("/healthcheck")[0] == 200, "Flower")
            yield ask
        finally:
            process.terminate()
            process.wait()


def _celery(venv: Path, settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    known = ["--workdir", "deploy/flower", "--config", "celeryconfig"]
    command = [str(venv / "bin/celery"), *known, *words]
    return subprocess.run(command, cwd=ROOT, env=_environment(settings), capture_output=True, text=True, check=False)


def _environment(settings: Settings) -> dict[str, str]:
    """Without what else is set here: a Celery of the machine's own may be meant by it."""
    known = {f"{PREFIX}BROKER_URL": settings.broker_url, f"{PREFIX}KEY_PREFIX": settings.key_prefix}
    return {"PATH": os.environ["PATH"], "FLOWER_BASIC_AUTH": ":".join(LOGIN)} | known


def _ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    basic = base64.b64encode(":".join(LOGIN).encode()).decode()
    data = b"" if method == "POST" else None
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Authorization": f"Basic {basic}"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()
    except OSError:
        return 0, ""


def _send(client: Sightline, photos: Path) -> None:
    """One message for each queue."""
    client.submit_stats()
    client.submit_rebuild_index()
    client.add_many(
        [NewPhoto(ref=str(path), photo=Photo(path=str(path))) for path in sorted(photos.rglob("*.jpg"))],
        timeout_s=PATIENCE_S,
    )


def _shown(ask: Ask) -> dict[str, int]:
    """Messages by queue, as Flower has them."""
    return {queue["name"]: queue["messages"] for queue in json.loads(ask("/api/queues/length")[1])["active_queues"]}


def _online(ask: Ask) -> list[str]:
    return [name for name, lives in json.loads(ask("/api/workers?status=1")[1]).items() if lives]


def _tasks(ask: Ask) -> list[dict[str, Any]]:
    return list(json.loads(ask("/api/tasks")[1]).values())


def _asked_to_end(ask: Ask, name: str) -> int:
    return ask(f"/api/worker/shutdown/{name}", "POST")[0]


def _published_a_task(server: Any, client: Sightline) -> float:
    """PUBLISH is what an event takes, and a reply."""
    before = server.info("commandstats")["cmdstat_publish"]["calls"]
    for _ in range(TASKS):
        client.stats()
    after = server.info("commandstats")["cmdstat_publish"]["calls"]
    return round(float(after - before) / TASKS, 2)


if __name__ == "__main__":
    sys.exit(main())
