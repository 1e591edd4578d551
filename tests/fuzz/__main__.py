"""`make fuzz`: what tests/unit/test_fuzz.py does, for longer and from a seed of its own.

Each target has a process of its own, so that one that is killed is a find like any other: its last input is kept.
Where Atheris is, half of the time is led by which code an input reaches. Progress goes to standard error, JSON to
standard output; exit code 1 with a find.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.fuzz.inputs import BY_TARGET

#: Seconds that a process may take longer than it was told: for its start, and for its last input.
GRACE_S = 60.0
#: Characters that are told of what a process said at its end, and bytes of its last input.
TOLD = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Give the contract and the decoder odd bytes.")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", type=Path, default=Path("nowhere"), help="an environment with Atheris")
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="folder of last inputs and of found ones")
    given = parser.parse_args()
    atheris = next(given.peer.absolute().glob("lib/python3*/site-packages/atheris"), None)
    jobs: list[tuple[str, str, list[str]]] = [("unguided", target, []) for target in BY_TARGET]
    if atheris is None:
        print("Atheris is not there: no input is led by what it reaches", file=sys.stderr)
    else:
        # What a structure is of bytes, a message is.
        jobs += [("guided", target, [str(atheris.parent)]) for target in BY_TARGET if target != "structure"]

    each_s = given.seconds / len(jobs)
    runs = [run(how, target, more, each_s, given.seed, given.keep) for how, target, more in jobs]

    finds = sum(len(one["finds"]) for one in runs)
    print(json.dumps({"seconds": given.seconds, "seed": given.seed, "finds": finds, "runs": runs}))
    return 1 if finds else 0


def run(how: str, target: str, more: list[str], seconds: float, seed: int, keep: Path) -> dict[str, Any]:
    """One target for some time."""
    folder = (keep / f"{how}-{target}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{target}, {how}, {seconds:.0f} s ...", file=sys.stderr)
    started = time.monotonic()
    ended = subprocess.Popen(
        [sys.executable, "-m", f"tests.fuzz.{how}", target, str(seconds), str(seed), str(folder), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        written, said = ended.communicate(timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        ended.kill()
        written, said = ended.communicate()
    # libFuzzer says something there, too.
    reports = [json.loads(line) for line in written.splitlines() if line.startswith('{"inputs"')]
    one: dict[str, Any] = {"finds": [], **(reports[-1] if reports else {"inputs": 0})}
    if ended.returncode:
        last = folder / "last"
        content = base64.b64encode(last.read_bytes()[:TOLD]).decode() if last.exists() else ""
        one["finds"].append({"error": f"ended with {ended.returncode}: {said[-TOLD:]}", "input": content})
    print(f"{target}, {how}: {one['inputs']} inputs, {len(one['finds'])} finds", file=sys.stderr)
    return {"target": target, "how": how, "took_s": round(time.monotonic() - started, 1), **one}


if __name__ == "__main__":
    sys.exit(main())
