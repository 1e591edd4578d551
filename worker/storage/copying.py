"""What a query finds, by binary COPY: rows become arrays, and no row is ever a Python object."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import psycopg2
from sqlalchemy import Connection, Select
from sqlalchemy.exc import OperationalError

from worker.core.observing import carried, stage

#: Before the first row: signature, flags, length of an extension (PostgreSQL manual, COPY, "Binary Format").
HEADER_BYTES = 19
#: After the last row: a field count of -1.
TRAILER = b"\xff\xff"
#: Rows that are read at a time.
CHUNK_ROWS = 10_000


def rows(
    connection: Connection, query: Select[Any], fields: Sequence[tuple[str, str]], *, at_once: int = CHUNK_ROWS
) -> Iterator[npt.NDArray[Any]]:
    """Arrays with these fields, of up to `at_once` rows. fields: name and dtype of every column, none of which is ever
    NULL; their types in Postgres have one length, and are big-endian."""
    parts: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        parts += [(f"size_{name}", ">i4"), (name, kind)]
    row = np.dtype(parts)
    with copied(connection, query) as stream:
        while True:
            content = stream.read(at_once * row.itemsize)
            whole = len(content) // row.itemsize
            if whole:
                yield np.frombuffer(content, dtype=row, count=whole)[[name for name, _ in fields]]
            if whole < at_once:
                return


def whole_rows(connection: Connection, query: Select[Any]) -> Iterator[list[memoryview]]:
    """The fields of each row, none of which is ever NULL, in their binary form; all rows are in memory at once.

    Of bytea a cursor would have Postgres write, and read, two digits for each byte. Raises OperationalError.
    """
    stream = io.BytesIO()
    try:
        _copy(connection, query, stream)
    except psycopg2.Error as exc:
        raise OperationalError("COPY", None, exc) from exc
    content, at = stream.getbuffer(), HEADER_BYTES
    while (count := int.from_bytes(content[at : at + 2], signed=True)) >= 0:
        at += 2
        row = []
        for _ in range(count):
            size = int.from_bytes(content[at : at + 4])
            row.append(content[at + 4 : at + 4 + size])
            at += 4 + size
        yield row


@contextmanager
def copied(connection: Connection, query: Select[Any]) -> Iterator[BinaryIO]:
    """The stream of a binary COPY, behind its header. A thread feeds it from the connection meanwhile.

    Raises OperationalError when the block ends and COPY broke off, unless the block itself did.
    """
    reading, writing = os.pipe()
    failure: list[BaseException] = []
    feeder = threading.Thread(
        target=carried(_feed), args=(connection, query, writing, failure), name="copy", daemon=True
    )
    feeder.start()
    try:
        with os.fdopen(reading, "rb", buffering=1 << 20) as stream:
            stream.read(HEADER_BYTES)
            yield stream
    finally:
        # A reader that gave up has closed its end: COPY then breaks off.
        feeder.join()
    if failure:
        raise OperationalError("COPY", None, failure[0])


def _feed(connection: Connection, query: Select[Any], writing: int, failure: list[BaseException]) -> None:
    try:
        with os.fdopen(writing, "wb", buffering=1 << 20) as pipe:
            _copy(connection, query, pipe)
    except (psycopg2.Error, OSError) as exc:
        failure.append(exc)


def _copy(connection: Connection, query: Select[Any], into: IO[bytes]) -> None:
    raw: Any = connection.connection.dbapi_connection
    options = connection.get_execution_options()
    compiled = query.compile(
        connection.engine,
        schema_translate_map=options.get("schema_translate_map"),
        render_schema_translate=True,
        compile_kwargs={"render_postcompile": True},
    )
    with stage("copy"), raw.cursor() as cursor:
        statement = cursor.mogrify(str(compiled), compiled.params).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT binary)", into)
