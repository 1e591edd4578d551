"""What a process in a container may do, asked from within it and of the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.containers.stack import OURS, SERVERS, Stack

USER = "10001"
#: Of every process in a container: whose it is, which rights it has or may get, and whether its calls are filtered.
ASKED = "for f in /proc/[0-9]*/status; do echo; cat $f 2>/dev/null; done"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
#: Where nothing may be written, and where something may, from where nothing may be run.
CLOSED = (
    "/",
    "/etc",
    "/usr/bin",
    "/opt/sightline",
    "/home/sightline",
    "/var/lib/sightline",
    "/photos",
    "/proc/sys/kernel",
)
OPEN = ("/tmp", "/var/lib/sightline/index", "/var/lib/sightline/models")
#: Bits of the rights by which Redis and Postgres become their own user: CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID.
KEPT = sum(1 << bit for bit in (0, 1, 3, 6, 7))


#: What loads models, and what the image that serves has none of.
MODELS = ("torch", "torchvision", "open_clip")
FIND = f"import importlib.util as u; print(*(m for m in {MODELS} if u.find_spec(m)))"


def faults(stack: Stack) -> list[str]:
    return [fault for name in stack.names(*OURS) for fault in _of_ours(stack, name)] + [
        fault for name in stack.names(*SERVERS) for fault in _of_a_server(stack, name)
    ]


def with_models(stack: Stack, service: str) -> list[str]:
    """Which of MODELS a service's image has."""
    return stack.inside(stack.name(service), "python", "-c", FIND).split()


def processes(written: str) -> list[dict[str, str]]:
    """Of what ASKED writes: the fields of each, without what has asked."""
    found = [dict(re.findall(r"^(\w+):\s*(.*)$", part, re.MULTILINE)) for part in written.split("\n\n")]
    return [one for one in found if "CapEff" in one and one["Name"] not in ("sh", "cat")]


def locked_down(process: dict[str, str], *, user: str, bounds: int) -> Iterator[str]:
    """What is wrong with it. user: whose it must be, anybody's but root's where empty. bounds: rights that it may come
    by at the most."""
    who = f"{process['Name']} ({process['Pid']})"
    for field in ("Uid", "Gid"):
        numbers = set(process[field].split())
        if "0" in numbers or (user and numbers != {user}):
            yield f"{who} has {field} {process[field]}"
    for field in SETS:
        allowed = bounds if field == "CapBnd" else 0
        if (rights := int(process[field], 16)) & ~allowed:
            yield f"{who} has {field} {rights:#x}"
    if process["NoNewPrivs"] != "1":
        yield f"{who} may get new rights"
    if process["Seccomp"] != "2":
        yield f"{who} has no filter of calls"


def _of_ours(stack: Stack, name: str) -> Iterator[str]:
    running = processes(stack.inside(name, "sh", "-c", ASKED))
    if len(running) < 2:
        yield f"{name} has {len(running)} processes: init and ours were to be seen"
    for process in running:
        yield from (f"{name}: {fault}" for fault in locked_down(process, user=USER, bounds=0))
    for folder in CLOSED:
        if stack.inside(name, "sh", "-c", f"touch {folder}/written 2>/dev/null && echo yes", fails=True):
            yield f"{name} can write to {folder}"
    for folder in OPEN:
        tried = f"touch {folder}/written && rm {folder}/written && echo yes"
        if not stack.inside(name, "sh", "-c", tried, fails=True):
            yield f"{name} cannot write to {folder}"
    run = "cp /bin/true /tmp/run && /tmp/run && echo yes; rm -f /tmp/run"
    if stack.inside(name, "sh", "-c", run, fails=True):
        yield f"{name} runs what lies in /tmp"


def _of_a_server(stack: Stack, name: str) -> Iterator[str]:
    running = processes(stack.inside(name, "sh", "-c", ASKED))
    if not running:
        yield f"{name} has no process"
    for process in running:
        yield from (f"{name}: {fault}" for fault in locked_down(process, user="", bounds=KEPT))
    if stack.inside(name, "sh", "-c", "touch /written 2>/dev/null && echo yes", fails=True):
        yield f"{name} can write to /"
