"""All settings as the table of the README: `python -m worker.settings_table` prints it, or puts it into a page."""

from __future__ import annotations

import ast
import inspect
import sys
from itertools import pairwise
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
    meanings = _meanings()
    for name, f in fields:
        default = listed.written(f.default)
        meaning = " ".join(meanings[name].split())
        rows.append(
            f"| `{PREFIX}{name.upper()}` | {f'`{default}`' if default not in ('', 'None') else ''} | {meaning} |"
        )
    return "\n".join(rows) + "\n"


def _meanings() -> dict[str, str]:
    """The text below each field. Read here: pydantic's way (use_attribute_docstrings) reads the code whenever it is
    imported, for 40 ms of each start."""
    found = {}
    for part in (Settings, ProcessSettings, SecretSettings, DisclosureSettings):
        (of_class,) = ast.parse(inspect.getsource(part)).body
        assert isinstance(of_class, ast.ClassDef)
        for field, text in pairwise(of_class.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[name] = meaning
    return found


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.stdout.write(as_markdown())
    else:
        page = Path(sys.argv[1])
        before, _, rest = page.read_text().partition(TABLE_BEGINS)
        _, _, after = rest.partition(TABLE_ENDS)
        page.write_text(before + TABLE_BEGINS + "\n" + as_markdown() + TABLE_ENDS + after)
