"""`make observe-test`: a stack under a real Prometheus, with the rules and dashboards of deploy/.

Progress goes to standard error; one line of JSON comes last, on standard output. Ends with 1 where a metric that a rule
or a dashboard names is exported by nobody, a rule or a query is not taken, or the alert of a stuck queue does not come.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from demo.scenes import write_scenes
from tests.monitored import program
from tests.observe.observed import main_tell, observe
from worker.encoder.choice import REFERENCE
from worker.settings import Settings
from worker.stack import Stack

#: The smallest that there is: what is tested is not what it sees.
ENCODER = "packaged/efficientnet-lite0"


def main() -> int:
    if program("prometheus") is None:
        main_tell("no Prometheus here; `make prometheus`")
        return 1
    # Of a short name: Postgres' socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="sightline-observe-"))
    kept = True
    try:
        write_scenes(folder / "photos", places=3, views=3)
        settings = Settings(
            data_dir=folder / "data",
            photo_roots=(folder / "photos",),
            encoder=ENCODER,
            backend=REFERENCE,
            model_threads=2,
            tick_every_s=2.0,
            metrics_port=0,
        )
        with Stack(settings, log_dir=folder / "logs", port=0) as stack:
            stack.start_all()
            outcome = observe(folder, stack, folder / "photos", main_tell)
        kept = not outcome.holds
    except AssertionError as exc:
        main_tell(f"{exc}; logs in {folder}")
        return 1
    finally:
        if not kept:
            shutil.rmtree(folder)
    sys.stdout.write(outcome.as_json() + "\n")
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
