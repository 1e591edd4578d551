"""Celery alone, for scale.py: a task that gives back what it gets, by the settings that a worker of ours could not do
without, acknowledged late, replies in Redis.

    celery -A benchmarks.bare worker --pool threads
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

#: The variable that says where Redis is.
URL = "BENCHMARK_BARE_BROKER"

app = Celery("bare", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get(URL, ""),
    result_backend=os.environ.get(URL, ""),
    broker_transport_options={"global_keyprefix": "bare:"},
    result_backend_transport_options={"global_keyprefix": "bare:"},
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bare.same")
def same(vector: list[float]) -> Any:
    return {"vector": vector}
