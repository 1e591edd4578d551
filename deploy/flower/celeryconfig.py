"""What Flower has to know of our queues, as settings of Celery; deploy/README.md has the command.

Needs nothing of Sightline's. Reads SIGHTLINE_BROKER_URL, or SIGHTLINE_BROKER_URL_FILE, and SIGHTLINE_KEY_PREFIX.
"""

import os
from pathlib import Path

from kombu import Queue

broker_url = os.environ.get("SIGHTLINE_BROKER_URL") or Path(os.environ["SIGHTLINE_BROKER_URL_FILE"]).read_text().strip()
broker_transport_options = {
    "global_keyprefix": os.environ.get("SIGHTLINE_KEY_PREFIX", "sightline:"),
    # Whoever listens hands out again what another has had in hand for longer than this (kombu 5.7), Flower after an
    # hour by default. What workers hold is theirs.
    "visibility_timeout": 10 * 365 * 86_400,
}
task_queues = [Queue("interactive"), Queue("bulk"), Queue("index")]
task_default_queue = "interactive"
# Replies are for whoever asked.
result_backend = None
