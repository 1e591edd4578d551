"""`make container-test`: builds the images, runs docker-compose.yml as it stands, and does with it what operators do.

Upgrade from an earlier release, adds, rebuild, locating from the host, workers without torch, a look at what containers
may do, a kill of every container under load, backup and restore, a restart of the whole. In place of Docker's engine:
podman and buildah. Progress goes to standard error; one line of JSON comes last, on standard output. Ends with 1 where
something is lost or open.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.containers import machine
from tests.containers.engine import SIGNALS, Engine
from tests.containers.images import Images
from tests.containers.machine import Failed, tell
from tests.containers.photos import gather
from tests.containers.trial import Trial

STOPPED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.containers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=machine.FOLDER, help="where images and all else are kept")
    folder: Path = parser.parse_args().folder.resolve()
    if lacking := machine.lacks(os.geteuid(), Path("/etc/os-release")) or machine.lacks_space(folder):
        tell(lacking)
        return 1
    # What ends it from outside ends what it has started, too.
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    try:
        machine.install()
        with Engine(folder) as engine:
            images = Images(engine)
            images.base()
            images.stand_ins()
            sizes = images.ours()
            earlier = images.earlier()
            images.prune()
            trial = Trial(engine, gather(engine))
            trial.run(earlier)
    except Failed as exc:
        tell(f"failed: {exc}")
        return 1
    except KeyboardInterrupt:
        tell("stopped; everything that was started is stopped too")
        return STOPPED
    for fault in trial.faults:
        tell(f"wrong: {fault}")
    tell(f"it took {time.monotonic() - began:.0f} s; images are kept in {folder}")
    found = {
        "image_mb": sizes,
        "ready_s": trial.ready_s,
        "located": trial.located,
        "killed": trial.killed,
        "lost": len(trial.lost),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if trial.faults or not trial.located else 0


if __name__ == "__main__":
    sys.exit(main())
