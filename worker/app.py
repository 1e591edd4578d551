"""The Celery application: broker, queues, routes, schedule. Every choice has its reason beside it."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.app.amqp import AMQP
from celery.signals import beat_init, setup_logging, worker_init, worker_shutdown
from celery.worker.state import reserved_requests
from kombu import Queue as KombuQueue
from kombu import pools
from kombu.utils.scheduling import round_robin_cycle

from producer_client import contract, serializer
from producer_client.celery_app import PinnedCelery, SigningProducer, keeps_alive
from producer_client.contract import Code, Queue, TaskName
from worker import logs
from worker.alive import Alive
from worker.broker import Connection, InHand, give_back_at_last, pulse_of
from worker.door import Door, door_of
from worker.loading import Loading
from worker.observe.tracing import Tracing
from worker.outage import Outage
from worker.pulse import Pulse
from worker.runtime import Runtime
from worker.settings import IN_MEMORY, Settings

#: How often a reply is tried that Redis does not take, seconds between: a minute in all, about that of a failover.
REPLY_RETRY = {"max_retries": 60, "interval_start": 0, "interval_step": 0.5, "interval_max": 1}

#: A host that is gone is noticed within 20 seconds, in seconds but for the last, which is in milliseconds. Not a Redis
#: that hangs: its system answers for it. Whoever gives that one up loses what it gives away when it goes on, so that is
#: left to kombu, half a minute and more (5.7).
KEEPALIVES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}


class BulkCapped(round_robin_cycle):  # type: ignore[type-arg]  # generic in its stubs alone
    """The queues that a worker asks the broker for next: bulk only while it has less than its share of the threads.

    Otherwise four messages of 64 photos would hold every thread for seconds, and a search would wait for the first of
    them to end, whatever the order at the model. kombu asks again after every message, and after `polling_interval`.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def consume(self, n: int) -> Any:
        """At most n names, in order."""
        queues: list[str] = list(super().consume(n))
        in_hand = sum(
            (request.delivery_info or {}).get("routing_key") == Queue.BULK for request in tuple(reserved_requests)
        )
        # A worker that serves nothing else keeps no thread free.
        return [queue for queue in queues if queue != Queue.BULK or in_hand < self._most or len(queues) == 1]


class WorkerAMQP(AMQP):
    """Takes by the transports of worker.broker, and signs what it sends."""

    Connection = Connection

    @property
    def Producer(self) -> Any:  # type: ignore[override]  # noqa: N802  # of Celery, made anew by each who sends
        return partial(SigningProducer, keys=door_of(self.app).keys)

    @property
    def producer_pool(self: Any) -> Any:
        if self._producer_pool is None:
            connections = pools.connections[self.app.connection_for_write()]
            self._producer_pool = pools.ProducerPool(connections, limit=self.app.pool.limit, Producer=self.Producer)
        return self._producer_pool


class WorkerCelery(PinnedCelery):
    """Celery, by the transports of worker.broker, signing."""

    amqp_cls = "worker.app:WorkerAMQP"


def create_app(
    settings: Settings, role: str = "", *, loading: Loading | None = None, pulse: Pulse | None = None
) -> Celery:
    """The app of one process, with its Runtime as `app.runtime`. Connects to nothing. role: by which probes know it;
    none of whoever only sends. loading, pulse: where they have begun."""
    app = WorkerCelery("sightline", broker=settings.broker_url, backend=settings.replies_url, set_as_current=True)

    def refuse(task_id: str, code: Code, sentence: str, key_id: str | None) -> None:
        replies: Any = app.backend
        replies.refuse(task_id, contract.failed(code, sentence), key_id=key_id)

    app.conf.update(
        imports=[f"worker.tasks.{name}" for name in ("photos", "conflicts", "search", "index", "upkeep")],
        task_queues=[KombuQueue(queue.value) for queue in Queue],
        task_default_queue=Queue.INTERACTIVE.value,
        task_routes={TaskName.TICK.value: {"queue": Queue.INDEX.value}},
        # JSON alone: a pickle on the queue would run whatever it says. What workers send, the next task of a backend's
        # chain among it, is in the JSON that every Celery reads; tasks read it without kombu's types (tasks/base.py).
        task_serializer="json",
        accept_content=[serializer.NAME, "json"],
        result_serializer=serializer.NAME,
        result_accept_content=[serializer.NAME],
        result_expires=settings.result_expires_s,
        # One message per task thread in hand; the others stay where another worker can take them. What Celery counts by
        # itself drifts: it counts up for each message that waits for its time, and anew after each lost connection,
        # whatever the threads still have in hand. Disabled, it asks how many that is (5.7, consumer/tasks.py: of Redis
        # alone, for all queues of the channel).
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        broker_transport_options={
            # Queues, what is in hand of whom, and the lock to hand it out again are ours alone.
            "global_keyprefix": settings.key_prefix,
            "visibility_timeout": settings.visibility_timeout_s,
            # Look for messages of dead workers every few seconds, not every tenth time (kombu 5.7).
            "unacked_restore_throttle": 1,
            # Who looks for them holds a lock for milliseconds. That of one that was killed meanwhile would keep all
            # others from looking for five minutes (kombu 5.7).
            "unacked_mutex_expire": 10,
            "unacked_restore_interval": min(10, settings.visibility_timeout_s // 2),
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "socket_keepalive_options": {
                getattr(socket, name): value for name, value in KEEPALIVES.items() if hasattr(socket, name)
            },
            "health_check_interval": 25,
            "queue_order_strategy": partial(BulkCapped, max(1, settings.concurrency // 2)),
            # Seconds until a bulk thread that has become free is given work.
            "polling_interval": 0.05,
            "in_hand": InHand(),
            "outage": Outage(settings.broker_url),
            "pulse": pulse or Pulse(role, settings.data_dir, stall_s=settings.stall_s),
            "door": Door(
                settings.signing_keys, required=settings.signing_required, prefix=settings.key_prefix, answer=refuse
            ),
        },
        result_backend_transport_options={
            "global_keyprefix": settings.key_prefix,
            "visibility_timeout": settings.visibility_timeout_s,
            "retry_policy": REPLY_RETRY,
        },
        redis_socket_timeout=30,
        redis_socket_connect_timeout=5,
        redis_socket_keepalive=keeps_alive(settings.replies_url),
        redis_backend_health_check_interval=25,
        worker_consumer="worker.consuming:OutlivingConsumer",
        # Whoever can reach the broker could end the worker, or have it stop listening.
        worker_enable_remote_control=False,
        # A task in hand goes on while the broker is away: its write is done, and its reply is kept trying.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # A broker that is away is waited for, at start and later.
        broker_connection_retry_on_startup=True,
        # A prefork process told to stop gives its task this long (commands/service.py); threads: worker.leaving.
        worker_soft_shutdown_timeout=settings.stop_grace_s,
        # A child that loads a model needs longer than the default 4 s before it counts as dead.
        worker_proc_alive_timeout=120.0,
        worker_send_task_events=settings.task_events,
        worker_hijack_root_logger=False,
        timezone="UTC",
        enable_utc=True,
        # Seconds between two looks of the beat at its schedule, by which probes know that it runs.
        beat_max_loop_interval=5,
        # What is due lies in Postgres, by level; the beat only knocks and keeps no file of its own (a pickle).
        beat_scheduler="worker.running:Knocking",
        beat_schedule={
            "tick": {
                "task": TaskName.TICK.value,
                "schedule": settings.tick_every_s,
                "args": [contract.Tick().to_wire()],
                # A knock that nobody heard is worth nothing later.
                "options": {"queue": Queue.INDEX.value, "expires": settings.tick_every_s},
            },
            # To the workers that answer: the index process may be in a rebuild for hours.
            "reconcile": {
                "task": TaskName.RECONCILE.value,
                "schedule": settings.reconcile_s,
                "args": [contract.Reconcile().to_wire()],
                "options": {"queue": Queue.INTERACTIVE.value, "expires": settings.reconcile_s, "ignore_result": True},
            },
        },
    )
    app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "worker.answers:Replies")
    app.runtime = runtime = Runtime(settings, loading)  # type: ignore[attr-defined]  # tasks read it as self.runtime
    if role and urlsplit(settings.broker_url).scheme not in IN_MEMORY:
        pulse_of(app).also = Alive(settings, runtime.condition)

    app.tracing = tracing = Tracing(role)  # type: ignore[attr-defined]  # a beat tells nobody that it ends

    @beat_init.connect(weak=False)
    @worker_init.connect(weak=False)
    def _begin(**_: Any) -> None:
        tracing.begin(forks=role == "index")

    @worker_shutdown.connect(weak=False)
    def _end(**_: Any) -> None:
        # Celery sends this after its pool has ended every task in hand.
        give_back_at_last(app)
        runtime.close()
        pulse_of(app).end()
        tracing.end()

    @setup_logging.connect(weak=False)
    def _own_format(**_: Any) -> None:
        logs.configure(settings.log_level, settings.log_format)

    return app
