"""`make chaos`: a service under load and seeded faults, and whether it kept what it acknowledged.

Progress goes to standard error; one line of JSON comes last, on standard output. `recovery_s` of a fault is counted
from its end (what was stopped goes on, what was killed runs again, what was closed is open) until a search and an add,
both sent after that, were answered; other faults may have come in between, which counts here. Ends with 1 where a
photo was lost, duplicated, given another's vector or resurrected, a generation is torn, or a message, file or process
is left.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.soak import main_tell, soak

#: The smallest that there is: what is tested is not what it sees.
ENCODER = "packaged/efficientnet-lite0"
#: Faults and kinds of them that a soak of this length has at the least.
LEAST_S, LEAST_FAULTS, LEAST_KINDS = 120, 40, 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    arguments = parser.parse_args()
    # What ends it from outside ends what it has started, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Of a short name: Postgres' socket lies in it.
    folder = Path(tempfile.mkdtemp(prefix="sightline-chaos-"))
    began = time.monotonic()
    kept = True
    try:
        outcome = soak(folder, arguments.encoder, seconds=arguments.seconds, seed=arguments.seed, tell=main_tell)
        kept = arguments.keep or not outcome.holds
    finally:
        if not kept:
            shutil.rmtree(folder)
    wrong = {**vars(outcome.verdict), "seen_wrong": outcome.ledger.seen_wrong, "orphans": outcome.orphans}
    for name, sentences in wrong.items():
        for sentence in sentences:
            main_tell(f"{name}: {sentence}")
    main_tell("calls: " + ", ".join(f"{call} {count}" for call, count in sorted(outcome.ledger.calls.items())))
    slowest = sorted(outcome.recoveries, key=lambda one: -(one[1] if one[1] is not None else float("inf")))[:8]
    main_tell("slowest to recover from: " + ", ".join(f"{name}: {took_s} s" for name, took_s in slowest))
    main_tell(f"it took {time.monotonic() - began:.0f} s" + (f"; logs in {folder}" if kept else ""))
    sys.stdout.write(json.dumps(outcome.as_json()) + "\n")
    enough = outcome.faults.total() >= LEAST_FAULTS and len(outcome.faults) >= LEAST_KINDS
    return 0 if outcome.holds and (enough or arguments.seconds < LEAST_S) else 1


if __name__ == "__main__":
    sys.exit(main())
