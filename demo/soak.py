"""`make demo-soak`: the demo again and again, under load if asked. Its answers must not depend on who was quicker.

One line for each run, and one of JSON at the end. Ends with 1 where a run failed, did not index all that it added, or
located other photos than the first one or `--located`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.signals import INTERRUPTED, raise_on_signals

#: A neighbour that takes what is left of one core. It ends with the process that it was started by.
BUSY = "import os; os.nice(10); parent = os.getppid()\nwhile os.getppid() == parent: pass"
#: What every run must say alike. Not the errors: a run measures anew which backend is quickest, and may choose another.
OUTCOME = ("added", "indexed", "located", "abstained")


def main() -> int:
    arguments = _arguments()
    raise_on_signals()
    command = [sys.executable, "-m", "demo", "--encoder", arguments.encoder, "--data-dir", str(arguments.data_dir)]
    if arguments.photos is not None:
        command += ["--photos", str(arguments.photos)]
    results: list[dict[str, Any] | None] = []
    try:
        with busy_cores(arguments.load):
            for number in range(1, arguments.runs + 1):
                result, output = run(command)
                results.append(result)
                sys.stdout.write(f"{number:>3} of {arguments.runs}: {said(result) or output[-2000:]}\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    wrong = wrong_runs(results, arguments.located)
    runs = [result for result in results if result is not None]
    summary = {
        "runs": len(results),
        "as_they_should_be": len(results) - len(wrong),
        "wrong": wrong,
        "load": arguments.load,
        "located": [result["located"] for result in runs],
        "abstained": [result["abstained"] for result in runs],
        "seconds": [result["seconds"] for result in runs],
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if wrong else 0


def wrong_runs(results: list[dict[str, Any] | None], located: int | None) -> list[int]:
    """Numbers, from 1, of the runs that failed (None) or came to something else than they should."""
    first = next((outcome(result) for result in results if result is not None), None)
    return [
        number
        for number, result in enumerate(results, 1)
        if result is None
        or outcome(result) != first
        or result["indexed"] != result["added"]
        or located not in (None, result["located"])
    ]


def outcome(result: dict[str, Any]) -> list[Any]:
    return [result[name] for name in OUTCOME]


def said(result: dict[str, Any] | None) -> str:
    return (
        ""
        if result is None
        else ", ".join(f"{name} {result[name]}" for name in (*OUTCOME, "median_error_m", "seconds"))
    )


def run(command: list[str]) -> tuple[dict[str, Any] | None, str]:
    """(what the demo said at its end, None where it failed; all that it printed)."""
    # In a session of its own: Ctrl-C reaches us alone, and the demo once, or it could not stop what it has started.
    demo = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = demo.communicate()
    except KeyboardInterrupt:
        demo.send_signal(signal.SIGINT)
        demo.communicate()
        raise
    return (json.loads(output.splitlines()[-1]) if demo.returncode == 0 else None), output


@contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    """Somebody else wants all cores meanwhile."""
    cores = len(os.sched_getaffinity(0)) if wanted else 0
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--located", type=int, help="photos that every run must locate; as the first one unless given")
    parser.add_argument("--load", action="store_true", help="keep all cores busy meanwhile, by loops that are niced")
    parser.add_argument("--photos", type=Path, help="as the demo's")
    parser.add_argument("--encoder", default="auto", help="as the demo's")
    parser.add_argument("--data-dir", type=Path, default=Path(".sightline/soak"), help="made anew at every run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
