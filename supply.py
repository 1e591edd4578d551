"""Writes requirements/lock*.txt: every package of the images with the SHA-256 of its wheel.

`make lock` calls it with the report of pip, which has resolved and fetched everything (pip's manual, "Installation
Report"). Nothing of where they came from is written: any index that carries the same bytes will do.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent
#: What the image that serves has; the whole one has torch.txt's, too.
SERVE = (ROOT / "requirements.txt", *(ROOT / "requirements" / f"{name}.txt" for name in ("cloud", "tracing")))
FOLDER = ROOT / "requirements"
#: What an index with another build of torch brings in its place (TORCH_INDEX_URL of deploy/Dockerfile), and what only
#: the CUDA build needs.
OF_TORCH = re.compile(r"(torch|torchvision|triton|(nvidia|cuda)-.+)")
#: What deploy/Dockerfile builds for. Wheels of other machines have other hashes: lock there, for there.
IMAGE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
HEAD = """\
# Made by `make lock`, not to be edited: {what},
# with the SHA-256 of each wheel for Python {python_version} on {sys_platform} {platform_machine}.

"""


def locks(report: Mapping[str, Any], serve: Iterable[Requirement]) -> dict[str, str]:
    """Report of `pip install --dry-run --report` to the texts of the three files, by name.

    serve: what the image that serves is asked to have.

    Raises ValueError where it was made on another platform than the image's, or something in it is no wheel with a
    SHA-256: a source archive would be built with packages that nobody has locked.
    """
    made_on = {name: report["environment"][name] for name in IMAGE}
    if made_on != IMAGE:
        raise ValueError(f"the image has {IMAGE}, and this was resolved on {made_on}")
    pins = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        archive = item["download_info"]
        sha256 = archive.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256 or not archive["url"].endswith(".whl"):
            raise ValueError(f"{name} is no wheel with a SHA-256, so it cannot be locked")
        pins[name] = f"{name}=={item['metadata']['version']} --hash=sha256:{sha256}\n"
    needed = {item["metadata"]["name"]: item["metadata"].get("requires_dist", []) for item in report["install"]}
    serving = closure(serve, {canonicalize_name(name): lines for name, lines in needed.items()})
    of_torch = {name for name in pins if OF_TORCH.fullmatch(name)} - serving
    parts = {
        "lock.txt": ("what requirements.txt, requirements/cloud.txt and tracing.txt bring", serving),
        "lock-models.txt": (
            "what requirements/torch.txt brings beside that, but for torch's part",
            pins.keys() - serving - of_torch,
        ),
        "lock-torch.txt": ("torch's part of what requirements/torch.txt brings", of_torch),
    }
    return {
        file: HEAD.format(what=what, **IMAGE) + "".join(sorted(pins[name] for name in names if name in pins))
        for file, (what, names) in parts.items()
    }


def closure(wanted: Iterable[Requirement], needed: Mapping[str, Iterable[str]]) -> set[str]:
    """Names of what is wanted and of all that comes with it on this machine. needed: what each one says it needs."""
    found: set[tuple[str, str]] = set()
    open_ends = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    while open_ends:
        requirement, extra = open_ends.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for further in map(Requirement, needed.get(name, ())):
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                open_ends += [(further, more) for more in ("", *further.extras)]
    return {str(name) for name, _ in found}


def pinned(path: Path) -> list[Requirement]:
    """The pins of a file of requirements."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


if __name__ == "__main__":
    for file, text in locks(json.load(sys.stdin), [pin for path in SERVE for pin in pinned(path)]).items():
        (FOLDER / file).write_text(text)
