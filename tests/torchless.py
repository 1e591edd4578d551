"""Python as it is where only the packages of the image that serves are installed: all others cannot be found."""

from __future__ import annotations

import os
import re
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
LACKING = [ROOT / "requirements" / f"{name}.txt" for name in ("lock-models", "lock-torch")]


def lacking_modules() -> list[str]:
    """Modules at the top of packages that the serving image does not have, of those installed here."""
    lines = [line for path in LACKING for line in path.read_text().splitlines()]
    names = {line.partition("==")[0] for line in lines if "==" in line}
    there = packages_distributions()
    return sorted(m for m, of in there.items() if {re.sub(r"[-_.]+", "-", name).lower() for name in of} <= names)


def without_torch(folder: Path) -> dict[str, str]:
    """Variables by which every Python that is started finds none of them. folder: to write into."""
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({lacking_modules()!r}))"]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
