"""What lies between a worker and its servers, as a test can hold it or cut it: bytes pass through, or nobody hears."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

#: Bytes that are passed on at once.
CHUNK = 65_536


class Proxy:
    """Passes on what comes to a port of loopback, or to a socket in a folder, to a server of the same kind.

    `silence` holds all bytes both ways and closes nothing, as a network that drops packets: new connections are taken
    and not heard. `reset` closes every connection.
    """

    def __init__(self, *, to_port: int = 0, to_socket: Path | None = None, at_socket: Path | None = None) -> None:
        self._to_port, self._to_socket, self._at_socket = to_port, to_socket, at_socket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._passes = asyncio.Event()
        self._passes.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def silence(self) -> None:
        self._loop.call_soon_threadsafe(self._passes.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._passes.set)

    def reset(self) -> None:
        self._loop.call_soon_threadsafe(self._abort)

    async def _listen(self) -> None:
        if self._at_socket is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._at_socket)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._passes.set()
        self._abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            await self._passes.wait()
            if self._to_socket is not None:
                there = await asyncio.open_unix_connection(self._to_socket)
            else:
                there = await asyncio.open_connection("127.0.0.1", self._to_port)
            self._open.add(there[1])
            try:
                await asyncio.gather(self._pass_on(reader, there[1]), self._pass_on(there[0], writer))
            finally:
                self._open.discard(there[1])
                there[1].transport.abort()
        except OSError:
            pass  # the server is away: whoever came is sent away, too
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(CHUNK):
            await self._passes.wait()
            writer.write(some)
            await writer.drain()
        # The other end is heard no longer than this one.
        await self._passes.wait()
        with suppress(OSError):
            writer.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
