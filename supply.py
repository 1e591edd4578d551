"""Writes requirements/lock.txt and lock-torch.txt: every package of the image with the SHA-256 of its wheel.

`make lock` calls it with the report of pip, which has resolved and fetched everything (pip's manual, "Installation
Report"). Nothing of where they came from is written: any index that carries the same bytes will do.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "requirements"
#: What an index with another build of torch brings in its place (TORCH_INDEX_URL of deploy/Dockerfile), and what only
#: the CUDA build needs.
OF_TORCH = re.compile(r"(torch|torchvision|triton|(nvidia|cuda)-.+)")
#: What deploy/Dockerfile builds for. Wheels of other machines have other hashes: lock there, for there.
IMAGE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
HEAD = """\
# Made by `make lock`, not to be edited: {what} of what requirements.txt, requirements/cloud.txt and tracing.txt bring,
# with the SHA-256 of each wheel for Python {python_version} on {sys_platform} {platform_machine}.

"""


def locks(report: Mapping[str, Any]) -> dict[str, str]:
    """Report of `pip install --dry-run --report` to the texts of both files, by name.

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
    parts = {
        "lock.txt": ("all but torch's part", [pin for name, pin in pins.items() if not OF_TORCH.fullmatch(name)]),
        "lock-torch.txt": ("torch's part", [pin for name, pin in pins.items() if OF_TORCH.fullmatch(name)]),
    }
    return {file: HEAD.format(what=what, **IMAGE) + "".join(sorted(lines)) for file, (what, lines) in parts.items()}


if __name__ == "__main__":
    for file, text in locks(json.load(sys.stdin)).items():
        (FOLDER / file).write_text(text)
