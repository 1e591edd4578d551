"""Whether photos can be read in the folders of SIGHTLINE_PHOTO_ROOTS, for whoever starts something that reads them.

Knows no photo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from rich.markup import escape

from worker.words import reason, say

#: What people put between folders who are used to PATH.
SEPARATED = re.compile(r"[:;\s]+[/~]")


def faults(roots: Iterable[Path]) -> dict[Path, str]:
    """A sentence for each folder that cannot be looked into now, in the language that is set."""
    return {root: fault for root in roots if (fault := _fault(root)) is not None}


def which_folders(roots: Collection[Path], readable: Iterable[Path]) -> str:
    """Where photos come from, as `up` says it, with colours. readable: those of the roots without a fault."""
    if named := ", ".join(map(str, readable)):
        return say("Photos under [cyan]{roots}[/].", roots=escape(named))
    if roots:
        return say("No folder of photos can be read yet: make one, or correct SIGHTLINE_PHOTO_ROOTS and start again.")
    return say("No folder of photos yet: set SIGHTLINE_PHOTO_ROOTS and start again.")


def _fault(root: Path) -> str | None:
    try:
        with os.scandir(root) as entries:
            if next(entries, None) is not None:
                return None
        why = say("it is empty, as where nothing is mounted")
    except FileNotFoundError:
        why = say("it is not there")
    except NotADirectoryError:
        why = say("it is no folder")
    except OSError as exc:
        why = reason(exc)
    fault = say("no photo can be read in {folder} (SIGHTLINE_PHOTO_ROOTS): {why}.", folder=root, why=why)
    if SEPARATED.search(str(root)):
        fault += " " + say("Between two folders stands a comma.")
    return fault
