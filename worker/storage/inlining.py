"""Stored vectors that lie beside their table move into it, a few thousand to a transaction, while everything goes on.

Knows where Postgres keeps bytes, and not what a vector is.
"""

from __future__ import annotations

from sqlalchemy import Engine, text

#: Pages of the table that one transaction goes through: some 4,500 rows that have their vectors elsewhere.
PAGES_AT_ONCE = 100


def move_in(engine: Engine, *, schema: str) -> int:
    """Rewrite each row whose vector lies elsewhere and would stay; returns how many there were.

    Broken off, it goes on where it was with the next call. Readers never wait, and a writer at most for a transaction.
    The room of what was moved is given back at the end, so that meanwhile both take it.
    """
    table = f'"{schema}".embeddings'
    with engine.connect() as connection:
        pages, elsewhere = connection.execute(text(_SIZES), {"table": table}).one()
    if not elsewhere:
        return 0
    moved = 0
    # Rows that are written go behind the last of these pages, or are no longer looked for.
    for first in range(0, pages, PAGES_AT_ONCE):
        with engine.begin() as connection:
            places = {"first": f"({first},0)", "end": f"({first + PAGES_AT_ONCE},0)"}
            moved += connection.execute(text(_MOVE.format(table=table)), places).rowcount
    if moved:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM (ANALYZE) {table}"))
    return moved


_SIZES = """
    SELECT pg_relation_size(oid) / current_setting('block_size')::bigint, pg_relation_size(reltoastrelid)
    FROM pg_class WHERE oid = CAST(:table AS regclass)
"""

#: A value in its row has a header of 4 bytes, one elsewhere has none; 64 bytes are what else a row has of headers and
#: padding, with the time. Appending nothing makes Postgres write the bytes anew, where `vector = vector` would keep
#: the pointer to them. A row that somebody deletes at this moment is left to them.
_MOVE = """
    UPDATE {table} AS stored SET vector = stored.vector || ''::bytea
    FROM (
        SELECT ctid FROM {table}
        WHERE ctid >= CAST(:first AS tid) AND ctid < CAST(:end AS tid)
            AND pg_column_size(vector) = octet_length(vector)
            AND octet_length(vector) + octet_length(content_sha256) + octet_length(model_key) + 64 <= 4064
        FOR UPDATE SKIP LOCKED
    ) AS outside
    WHERE stored.ctid = outside.ctid
"""
