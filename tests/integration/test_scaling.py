"""What KEDA counts in Redis to scale workers by (deploy/kubernetes/keda), with the rights that it is given there."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import kombu
import pytest
import redis
import yaml

from worker.embedded import EmbeddedServers
from worker.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
#: As KEDA's scaler of lists does it: one script for each key, whatever the key is.
COUNT = """
local kind = redis.call('type', KEYS[1]).ok
if kind == 'hash' then return redis.call('hlen', KEYS[1]) end
return redis.call('llen', KEYS[1])
"""


def test_keda_counts_what_waits_and_what_is_in_hand_and_may_do_no_more(valkey: EmbeddedServers) -> None:
    [rule] = re.findall(r"^    (user keda .*)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    scaled = next(yaml.safe_load_all((FOLDER / "keda" / "worker-cpu.yaml").read_text()))
    keys = [t["metadata"]["listName"] for t in scaled["spec"]["triggers"] if t["type"] == "redis"]
    prefix = Settings.model_fields["key_prefix"].default
    address = f"redis://keda:known@127.0.0.1:{urlsplit(valkey.broker_url).port}"
    with redis.Redis.from_url(valkey.broker_url) as server:
        server.execute_command(
            "ACL", "SETUSER", *rule.replace("SHA256_OF_KEDA", sha256(b"known").hexdigest()).split()[1:]
        )
        server.set(f"{prefix}other", "secret")
    with (
        kombu.Connection(valkey.broker_url, transport_options={"global_keyprefix": prefix}) as connection,
        redis.Redis.from_url(address, db=5) as keda,
    ):
        empty = [keda.eval(COUNT, 1, key) for key in keys]
        queues = {name: connection.SimpleQueue(name) for name in ("interactive", "bulk")}
        for name, count in (("interactive", 3), ("bulk", 2)):
            for _ in range(count):
                queues[name].put({})
        taken = queues["interactive"].get(timeout=10)

        counted = dict(zip(keys, (keda.eval(COUNT, 1, key) for key in keys), strict=True))

        taken.ack()
        for queue in queues.values():
            queue.clear()
        for forbidden in (["GET", f"{prefix}other"], ["LRANGE", keys[0], 0, -1], ["DEL", keys[0]], ["KEYS", "*"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                keda.execute_command(*forbidden)
    assert empty == [0, 0, 0]
    assert counted == {f"{prefix}interactive": 2, f"{prefix}bulk": 2, f"{prefix}unacked": 1}
