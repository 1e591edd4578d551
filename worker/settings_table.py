"""All settings as the table of the README: `python -m worker.settings_table` prints it, or puts it into a page."""

from __future__ import annotations

import sys
from pathlib import Path

from worker import listed
from worker.disclosure import DisclosureSettings
from worker.processes import ProcessSettings
from worker.secrecy import SecretSettings
from worker.settings import PREFIX, Settings

#: Around the generated table in a page.
TABLE_BEGINS, TABLE_ENDS = "<!-- settings begin -->", "<!-- settings end -->"


def as_markdown() -> str:
    """The configuration table of the README."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    # Addresses first, what a process takes, who may ask and what is told last.
    last = {*ProcessSettings.model_fields, *SecretSettings.model_fields, *DisclosureSettings.model_fields}
    fields = sorted(Settings.model_fields.items(), key=lambda field: field[0] in last)
    for name, f in fields:
        default = listed.written(f.default)
        meaning = " ".join((f.description or "").split())
        rows.append(
            f"| `{PREFIX}{name.upper()}` | {f'`{default}`' if default not in ('', 'None') else ''} | {meaning} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.stdout.write(as_markdown())
    else:
        page = Path(sys.argv[1])
        before, _, rest = page.read_text().partition(TABLE_BEGINS)
        _, _, after = rest.partition(TABLE_ENDS)
        page.write_text(before + TABLE_BEGINS + "\n" + as_markdown() + TABLE_ENDS + after)
