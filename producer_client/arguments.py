"""The arguments of every verb: made plain by their names before anything is sent, or a sentence. Knows no queue."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from producer_client import plain
from producer_client.contract import EmbedItem, Near, NewPhoto, Photo, Refused
from producer_client.errors import BadRequest
from producer_client.words import Code, Policy, Provenance

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item", NewPhoto, EmbedItem)

#: A year: what is longer is a mistake in the unit, and no date can be made of it.
LONGEST_WAIT_S = 366 * 24 * 3600.0


def checked(verb: Callable[P, R]) -> Callable[P, R]:
    """A verb whose arguments are made plain by their names (`TAKEN`). None stands for an argument that is not given.

    Raises BadRequest for a value that is none of its argument, and for names that the verb does not have.
    """
    signature = inspect.signature(verb)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    known = [parameter.name for parameter in own]
    passes_on = len(own) < len(parameters)
    named = verb.__name__.removeprefix("submit_")

    @wraps(verb)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known and not passes_on:
                near = get_close_matches(name, known, 1)
                meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                raise BadRequest(Code.BAD_REQUEST, f"{named} has no argument {plain.shown(name)}: {meant}")
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            by_name = ", ".join(known)
            raise BadRequest(Code.BAD_REQUEST, f"{named}: {exc}. Its arguments, by name: {by_name}") from exc
        for parameter in own:
            name = parameter.name
            if name not in given or name not in TAKEN:
                continue
            if given[name] is not None:
                given[name] = TAKEN[name](given[name])
            elif parameter.default is not None:
                if parameter.default is parameter.empty:
                    raise BadRequest(Code.BAD_REQUEST, f"{named} needs {name}")
                given[name] = parameter.default
        bound = inspect.BoundArguments(signature, given)
        return verb(*bound.args, **bound.kwargs)

    return called


def photo_of(photo_id: int | None, path: str | os.PathLike[str] | None, url: str | None, content: object) -> Photo:
    return Photo(
        photo_id=photo_id,
        path=None if path is None else os.fspath(path),
        url=url,
        inline=None if content is None else plain.inline("content", content),
    )


def provenance_given(given: object) -> Provenance:
    named = plain.text("provenance", given)
    if named not in set(Provenance):
        raise BadRequest(Code.BAD_REQUEST, f"provenance {plain.shown(named)} is not one of {', '.join(Provenance)}")
    return Provenance(named)


def policy_given(given: object) -> Policy:
    named = plain.text("policy", given)
    if named not in set(Policy):
        raise BadRequest(Code.BAD_REQUEST, f"policy {plain.shown(named)} is not one of {', '.join(Policy)}")
    return Policy(named)


def near_of(given: Near | Mapping[str, float] | None) -> Near | None:
    return None if given is None else _near(given)


def read_items(kind: type[Item], given: Iterable[Item]) -> list[Item | Refused]:
    """What a caller gives as many: each made plain and looked at on its own, a bad one becomes its Refused."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise BadRequest(Code.BAD_REQUEST, f"give a list of {kind.__name__}, not {plain.shown(given)}")
    return [_read(kind, number, item) for number, item in enumerate(given)]


# ---------------------------------------------------------------------------------------------- below


def _read(kind: type[Item], number: int, given: object) -> Item | Refused:
    ref = f"item {number}"
    try:
        if not isinstance(given, kind):
            raise BadRequest(Code.BAD_REQUEST, f"it must be a {kind.__name__}, not {plain.shown(given)}")
        ref = plain.label("ref", given.ref) or ref
        item: Item = _fields(kind, given)
        item.check()
    except BadRequest as exc:
        # A file's name that is not UTF-8 can be printed only so.
        return Refused(ref.encode(errors="backslashreplace").decode(), exc.code, exc.message)
    return item


def _fields(kind: type[Any], given: Any) -> Any:
    """The message anew, of plain values."""
    names = kind.__struct_fields__
    needed = names[: len(names) - len(kind.__struct_defaults__)]
    values = {name: getattr(given, name) for name in names}
    return kind(**{n: None if v is None and n not in needed else TAKEN[n](v) for n, v in values.items()})


def _photo(given: object) -> Photo:
    if not isinstance(given, Photo):
        raise BadRequest(Code.BAD_REQUEST, f"photo must be a Photo, as Photo(path=...), not {plain.shown(given)}")
    made: Photo = _fields(Photo, given)
    return made


def _near(given: object) -> Near:
    names = Near.__struct_fields__
    if isinstance(given, Mapping) and set(given) == set(names):
        given = Near(*(given[name] for name in names))
    if not isinstance(given, Near):
        wanted = f"near must be a Near, or a mapping of {', '.join(names)}"
        raise BadRequest(Code.BAD_REQUEST, f"{wanted}, not {plain.shown(given)}")
    fields = zip(names, _OF_NEAR, strict=True)
    near = Near(*(plain.number(f"near.{name}", getattr(given, name), code) for name, code in fields))
    try:
        near.check()
    except BadRequest as exc:
        raise BadRequest(exc.code, f"near: {exc.message}") from exc
    return near


def _patience(given: object) -> float:
    patience_s = plain.number("timeout_s", given)
    if not 0 <= patience_s <= LONGEST_WAIT_S:
        raise BadRequest(Code.BAD_REQUEST, f"timeout_s {patience_s:g} is not within 0 and {LONGEST_WAIT_S:g} seconds")
    return patience_s


def _progress(given: object) -> Any:
    if not callable(given):
        raise BadRequest(Code.BAD_REQUEST, f"progress must be callable, not {plain.shown(given)}")
    return given


_OF_NEAR: Sequence[Code] = (Code.BAD_COORDINATES, Code.BAD_COORDINATES, Code.BAD_REQUEST)
_KINDS: Mapping[Callable[[str, Any], Any], Sequence[str]] = {
    plain.whole: ("photo_id", "top_k", "min_seq", "after_id", "limit"),
    plain.number: ("threshold",),
    partial(plain.number, code=Code.BAD_COORDINATES): ("lat", "lon"),
    plain.flag: (
        "update_row",
        "return_vector",
        "return_vectors",
        "trusted_only",
        "allow_stale",
        "settled",
        "force",
        "forget",
        "dry_run",
        "durable",
    ),
    plain.text: ("url", "text", "model_key"),
    plain.label: ("ref", "task_id"),
    plain.path: ("path",),
    plain.content: ("content",),
    plain.inline: ("inline",),
    plain.vector: ("vector",),
    plain.ids: ("photo_ids",),
    plain.texts: ("contents",),
    plain.json_object: ("address", "metadata", "where"),
}
#: What is made of an argument, by its name in whatever verb or item.
TAKEN: Mapping[str, Callable[[Any], Any]] = {
    **{name: partial(kind, name) for kind, names in _KINDS.items() for name in names},
    "photo": _photo,
    "near": _near,
    "provenance": provenance_given,
    "policy": policy_given,
    "timeout_s": _patience,
    "progress": _progress,
}
