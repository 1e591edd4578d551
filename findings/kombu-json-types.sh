#!/bin/bash
# What one would guess: a dictionary of strings and numbers that is sent as JSON comes back as it was.
# What happens: kombu's JSON has types of its own, which it marks by a key: a dictionary that happens to have
# `__type__` and `__value__` comes back as a datetime, or its message cannot be read at all.
# Versions and source: kombu 5.7.0, kombu/utils/json.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check kombu==5.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

from kombu.exceptions import DecodeError
from kombu.serialization import dumps, loads


def back(sent):
    kind, encoding, body = dumps(sent, serializer="json")
    try:
        return loads(body, kind, encoding)
    except DecodeError as exc:
        return f"DecodeError: {exc.args[0]}"


date, other = {"__type__": "datetime", "__value__": "2026-11-28"}, {"__type__": "tree", "__value__": 3}
came = back({"a": date}), back({"a": other}), back({"a": {"type": "tree", "value": 3}})
for sent, seen in zip((date, other), came):
    print(f"{sent} -> {seen!r}")
said = f"kombu {version('kombu')}: {date} came back as {came[0]!r}, {other} as {came[1]!r}"
holds = (
    type(came[0]["a"]).__name__ == "datetime"
    and "Unsupported type" in str(came[1])
    and came[2] == {"a": {"type": "tree", "value": 3}}
)
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
