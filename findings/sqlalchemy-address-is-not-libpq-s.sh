#!/bin/bash
# What one would guess: an address of Postgres as SQLAlchemy writes it is one that libpq reads, as psql and pg_dump do.
# What happens: not where a parameter has a blank: SQLAlchemy writes it as a plus and reads it so again, as forms do;
# libpq knows `%20` alone, and looks for a socket in a folder with a plus in its name.
# Versions and source: SQLAlchemy 2.1.9, libpq 17 of psycopg2-binary 2.9.13; the PostgreSQL manual on connection URIs,
# RFC 3986.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check sqlalchemy==2.1.9 psycopg2-binary==2.9.13
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL, make_url

folder = "/srv/my data"
written = URL.create("postgresql", "me", database="photos", query={"host": folder}).render_as_string()
by_sqlalchemy, by_libpq = make_url(written).query["host"], parse_dsn(written)["host"]
mended = parse_dsn(written.replace("+", "%20"))["host"]
libpq = psycopg2.extensions.libpq_version() // 10000
said = (
    f"SQLAlchemy {version('sqlalchemy')} writes {written}; the folder in it is {by_sqlalchemy!r} to itself, {by_libpq!r} "
    f"to libpq {libpq}, with %20 {mended!r}"
)
holds = by_sqlalchemy == mended == folder and by_libpq == "/srv/my+data"
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
