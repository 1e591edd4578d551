"""A backend that makes its client at import and forks afterwards, and a worker that answers it at once.

    python -m tests.forked WHAT     what of this page; test_fork.py has them all

The client asks for the vector of a number as text, and the worker answers [number]: who hears another's reply sees it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any

from celery import Celery
from kombu.transport.redis import Channel

from producer_client import Sightline, contract
from producer_client.contract import TaskName

REDIS = os.environ.get("FORKED_REDIS", "redis://127.0.0.1:1/5")
#: Calls at a time, and in all, of every process here.
AT_ONCE = 8
CALLS = 32
CHILDREN = 4

client = Sightline(REDIS, timeout_s=20.0)


def ask(number: int, by: Sightline = client) -> int:
    """The same number, by way of the queue."""
    (answered,) = by.embed_text(str(number)).vector
    return int(answered)


def ask_many(numbers: Iterable[int]) -> list[int]:
    """By threads, and then all of them awaited."""
    numbers = list(numbers)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        waited = list(threads.map(ask, numbers))
    return [*waited, *asyncio.run(await_many(numbers))]


async def await_many(numbers: Iterable[int]) -> list[int]:
    async def awaited(number: int) -> int:
        (answered,) = (await client.submit_embed_text(str(number))).vector
        return int(answered)

    return await asyncio.gather(*(awaited(number) for number in numbers))


def numbers_of(child: int) -> range:
    return range(1000 * (child + 1), 1000 * (child + 1) + CALLS)


def right(child: int) -> None:
    numbers = list(numbers_of(child))
    assert [ask(number) for number in numbers[:AT_ONCE]] == numbers[:AT_ONCE]
    assert ask_many(numbers) == numbers * 2


def in_child(what: Callable[[], object]) -> int:
    """Fork, do it, end without the parent's clean-up; returns the child's id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        what()
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def held_by_another(lock: Any) -> Iterator[None]:
    """By a thread that no child has."""
    is_held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    yield
    over.set()
    thread.join()


def codes(children: Iterable[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


# ---------------------------------------------------------------------------------------------- what is run


def threads() -> None:
    """Children are forked while threads of the parent send and wait, which they go on to do."""
    right(98)
    ended = threading.Event()

    def go_on(start: int) -> int:
        for number in count(start, AT_ONCE):
            assert ask(number) == number
            if ended.is_set():
                return number
        raise AssertionError

    with ThreadPoolExecutor(AT_ONCE) as pool:
        busy = [pool.submit(go_on, 100_000 + n) for n in range(AT_ONCE)]
        try:
            assert codes([in_child(partial(right, child)) for child in range(CHILDREN)]) == [0] * CHILDREN
        finally:
            ended.set()
        for one in busy:
            one.result()


def join_and_ask() -> None:
    client.join(7)
    right(0)


def held() -> None:
    """A child is forked while every lock is held and every sender is taken, and nobody there will give them back."""
    right(98)
    asyncio.run(await_many(range(4)))
    line = client._line()
    taken = [line._producers.acquire(block=True) for _ in range(10)]
    # For all connections of a process: what kombu and Celery compute once.
    computed = vars(Channel)["client"], vars(Celery)["amqp"]
    with client._opening, client._session._lock, ExitStack() as held_by_others:
        for one in computed:
            held_by_others.enter_context(held_by_another(one.lock))
        child = in_child(join_and_ask)
    for producer in taken:
        producer.release()
    assert codes([child]) == [0]
    right(97)


def handles() -> None:
    """What the parent has sent is waited for in a child, and by the parent too."""
    sent = [client.submit_embed_text(str(number)) for number in range(AT_ONCE)]

    def wait() -> None:
        assert [int(handle.wait().vector[0]) for handle in sent] == list(range(AT_ONCE))

    assert codes([in_child(wait) for _ in range(2)]) == [0, 0]
    wait()


def pool(method: str) -> None:
    """multiprocessing's pool of a start method."""
    right(98)
    with multiprocessing.get_context(method).Pool(CHILDREN) as workers:
        assert workers.map(ask, range(CALLS)) == list(range(CALLS))
        assert workers.starmap(ask, [(number, client) for number in range(4)]) == list(range(4)), "a client goes along"
        right(97)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """For gunicorn: /NUMBER is answered with the number and the process."""
    number = ask(int(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{number} {os.getpid()}".encode()]


backend = Celery("backend", broker=REDIS, backend=REDIS, set_as_current=False)
backend.conf.update(task_default_queue="forked", broker_connection_retry_on_startup=True)


@backend.task(name="forked.relay")
def relay(number: int) -> tuple[int, int]:
    """For Celery's prefork pool: a task of the backend's own that asks. Its client was used before the fork."""
    return ask(number), os.getpid()


def own_worker() -> None:
    right(98)
    backend.worker_main(["worker", "-P", "prefork", "-c", str(CHILDREN), "-Q", "forked", "-l", "WARNING"])


def echo() -> None:
    """The other side."""
    from worker.app import create_app
    from worker.settings import Settings

    app = create_app(Settings(broker_url=REDIS))
    app.conf.imports = []

    @app.task(name=TaskName.EMBED_TEXT.value)
    def embed_text(wire: dict[str, Any]) -> dict[str, Any]:
        return contract.ok(contract.TextVector([float(contract.EmbedText.from_wire(wire).text)], "echo@1"))

    app.worker_main(["worker", "-P", "threads", "-c", "8", "-Q", "interactive", "-l", "WARNING"])


WHAT: dict[str, Callable[..., None]] = {
    "threads": threads,
    "held": held,
    "handles": handles,
    "pool": pool,
    "own_worker": own_worker,
    "echo": echo,
}

if __name__ == "__main__":
    # By its own name, or what other processes unpickle would be of another module.
    from tests import forked

    forked.WHAT[sys.argv[1]](*sys.argv[2:])
