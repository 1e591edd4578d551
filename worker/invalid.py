"""What pydantic finds wrong with a setting or an argument, in sentences of ours: its own are for programmers, and are
others with its next release. Knows no command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from producer_client.errors import quoted, short

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def fault(error: ErrorDetails) -> str:
    """In English. What is written is repeated only where it can be no address, which may have a password in it."""
    field = str(error["loc"][0]) if error["loc"] else ""
    return _sentence(error["type"], field, quoted(short(str(error["input"]))), error.get("ctx", {}))


# ---------------------------------------------------------------------------------------------- below


def _sentence(kind: str, field: str, given: str, of: Mapping[str, Any]) -> str:
    """kind: pydantic's name of the fault, which is part of its interface. of: its limits."""
    if kind == "value_error":
        return short(str(of["error"]))  # our own, or typer's
    if kind in ("int_parsing", "int_parsing_size", "int_from_float", "int_type"):
        return f"it must be a whole number, not {given}"
    if kind in ("float_parsing", "float_type", "finite_number"):
        return f"it must be a number, not {given}"
    if kind in ("bool_parsing", "bool_type"):
        return f"it must be true or false, not {given}"
    if kind in ("greater_than_equal", "greater_than"):
        least = of.get("ge", of.get("gt"))
        return (
            f"it must be {least} or more, not {given}" if "ge" in of else f"it must be more than {least}, not {given}"
        )
    if kind in ("less_than_equal", "less_than"):
        most = of.get("le", of.get("lt"))
        return f"it must be {most} or less, not {given}" if "le" in of else f"it must be less than {most}, not {given}"
    if kind in ("enum", "literal_error"):
        words = str(of["expected"]).replace(" or ", ", ")
        return f"it must be one of {words}, not {given}"
    forms = {
        "rebuild_at": f"it must be a time of the day as 03:00, not {given}",
        "photos_table": f"it must be the name of a table, as photos or schema.photos, not {given}",
        "db_schema": f"it must be the name of a schema, of letters, digits and _, not {given}",
        "key_prefix": f"it must be letters, digits and _ . : - with one of the latter at its end, not {given}",
    }
    if field in forms:
        return forms[field]
    return "it cannot be read as what it should be"
