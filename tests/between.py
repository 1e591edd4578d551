"""Stands between a client and a server, and lets them hear each other, or not: a network that fails in every way."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from sqlalchemy import make_url

#: The path of a socket, or host and port.
Address = str | tuple[str, int]


class Between:
    """A server at an address of its own, in front of another one. Only its own process may use it in a `with`."""

    url = ""  #: the server's, by this way

    def __init__(self, to: Address, *, at: Address = ("127.0.0.1", 0)) -> None:
        """at: the path of a socket to be made, or host and port."""
        self._to = to
        #: Set while bytes pass, of the connections that are made now.
        self._passes = threading.Event()
        self._passes.set()
        self._lost: list[threading.Event] = []
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._at = at
        self._listener: socket.socket | None = None
        self.listen()

    @property
    def port(self) -> int:
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    def listen(self) -> None:
        """Take connections again, at the same address."""
        listener = socket.socket(socket.AF_UNIX if isinstance(self._at, str) else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._at)
        listener.listen(64)
        if not isinstance(self._at, str):
            self._at = listener.getsockname()
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    @property
    def listens(self) -> bool:
        return self._listener is not None

    def refuse(self) -> None:
        """Nothing listens there any more, and who is connected is cut off."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            if isinstance(self._at, str):
                Path(self._at).unlink()
        self.cut()

    def cut(self) -> None:
        for end in tuple(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Connections stay open and new ones are taken, and no byte passes."""
        self._passes.clear()

    def go_on(self) -> None:
        self._passes.set()

    def lose(self) -> None:
        """What is connected hears nothing ever after, and is not told so: half open. New connections are served."""
        self._lost.append(self._passes)
        self._passes.clear()
        self._passes = threading.Event()
        self._passes.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for passes in (*self._lost, self._passes):
            passes.set()
        self.refuse()
        for thread in tuple(self._threads):
            thread.join(5)
        assert not self._open

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            serving = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.add(serving)
            serving.start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._to, str) else socket.AF_INET)
        both, passes = {client, server}, self._passes
        self._open |= both
        try:
            passes.wait()
            server.connect(self._to)
            back = threading.Thread(target=_pass_on, args=(server, client, passes), daemon=True)
            back.start()
            _pass_on(client, server, passes)
            back.join()
        except OSError:
            pass  # the server is away: the client is cut off
        finally:
            for end in both:
                end.close()
            self._open -= both
            self._threads.discard(threading.current_thread())


def _pass_on(one: socket.socket, other: socket.socket, passes: threading.Event) -> None:
    with suppress(OSError):
        while content := one.recv(65_536):
            passes.wait()
            other.sendall(content)
    # The other way ends, too.
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def before_postgres(database_url: str, folder: Path) -> Between:
    """In front of an embedded Postgres, at a socket in this folder."""
    url = make_url(database_url)
    name = f".s.PGSQL.{url.query['port']}"
    way = Between(f"{url.query['host']}/{name}", at=f"{folder}/{name}")
    way.url = database_url.replace(quote(str(url.query["host"])), quote(str(folder)))
    return way


def before_redis(redis_url: str) -> Between:
    """In front of a Redis, at a port of its own."""
    parts = urlsplit(redis_url)
    way = Between((str(parts.hostname), int(parts.port or 6379)))
    way.url = redis_url.replace(f":{parts.port}", f":{way.port}")
    return way
