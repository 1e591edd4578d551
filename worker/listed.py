"""Lists and pairs in one line of a setting: with commas, or as JSON where a part has a comma or a blank at its end."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from producer_client.errors import quoted


def parts(value: object) -> object:
    """The tuple of what is written; what is no text as it is."""
    if not isinstance(value, str):
        return value
    found = _from_json(value, "[")
    return tuple(part.strip() for part in value.split(",") if part.strip()) if found is None else tuple(found)


def pairs(value: object) -> object:
    """The dict of what is written; what is no text as it is. Raises ValueError for a part that is no pair."""
    if not isinstance(value, str):
        return value
    if (found := _from_json(value, "{")) is not None:
        return found
    split = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not separator for _, separator, _ in split):
        raise ValueError(f"{quoted(value)} is not a list of name=value pairs")
    return {name.strip(): meaning.strip() for name, _, meaning in split}


def written(value: Any) -> str:
    """A value of any setting as it is read again."""
    if isinstance(value, tuple):
        items = [str(part) for part in value]
        plain = ",".join(items)
        return plain if parts(plain) == tuple(items) else json.dumps(items, ensure_ascii=False)
    if isinstance(value, dict):
        named = {str(key): str(item) for key, item in value.items()}
        plain = ",".join(f"{key}={item}" for key, item in named.items())
        with suppress(ValueError):  # a name with a comma may be no pair
            if all("=" not in key for key in named) and pairs(plain) == named:
                return plain
        return json.dumps(named, ensure_ascii=False)
    return str(value)


def _from_json(text: str, opening: str) -> Any:
    """What is written as JSON; None for what only begins like it, as a folder called `[final]` does."""
    with suppress(ValueError):
        return json.loads(text) if text.startswith(opening) else None
    return None
