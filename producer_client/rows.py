"""Rows before messages: whoever adds photos durably writes a row of each first, by which workers find those whose
message is lost. Knows no database: the backend writes to its table itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from producer_client.contract import NewPhoto, Photo, Refused
from producer_client.errors import BadRequest, quoted
from producer_client.words import Code

#: Given photos, writes a row of each that has none, commits, and returns the ids of the rows in the same order.
WriteRows: TypeAlias = Callable[[Sequence[NewPhoto]], Sequence[int]]


def needed(write_rows: WriteRows | None) -> WriteRows:
    if write_rows is None:
        raise BadRequest(
            Code.BAD_REQUEST, "durable needs somebody who writes rows: give the client write_rows=, which returns ids"
        )
    return write_rows


def checked(item: NewPhoto) -> NewPhoto:
    """Raises BadRequest for a photo that a row alone would not have embedded."""
    photo, ref = item.photo, quoted(item.ref)
    if photo.inline is not None:
        raise BadRequest(Code.BAD_REQUEST, f"{ref}: durable needs a path or a URL, which a row can hold, not content")
    if photo.photo_id is None and item.lat is None:
        raise BadRequest(
            Code.BAD_REQUEST, f"{ref}: durable needs coordinates: a row without any is not looked for by workers"
        )
    return item


def checked_all(items: Sequence[NewPhoto | Refused]) -> list[NewPhoto | Refused]:
    """The same of many: one that fails is refused, its neighbours are not."""
    return [item if isinstance(item, Refused) else _checked(item) for item in items]


def with_rows(items: Sequence[NewPhoto], write_rows: WriteRows) -> list[NewPhoto]:
    """The same photos, each by the id of its row. What write_rows raises goes up: nothing is sent then."""
    bare = [item for item in items if item.photo.photo_id is None]
    ids = list(write_rows(bare)) if bare else []
    if len(ids) != len(bare) or not all(type(one) is int for one in ids):
        raise BadRequest(
            Code.BAD_REQUEST, f"write_rows must return one id of a row for each of {len(bare)} photos, in their order"
        )
    found = iter(ids)
    return [item if item.photo.photo_id is not None else _by_row(item, next(found)) for item in items]


# ---------------------------------------------------------------------------------------------- below


def _checked(item: NewPhoto) -> NewPhoto | Refused:
    try:
        return checked(item)
    except BadRequest as exc:
        return Refused(item.ref, exc.code, exc.message)


def _by_row(item: NewPhoto, photo_id: int) -> NewPhoto:
    # The path goes along: a worker whose row has another file refuses it.
    names = {name: getattr(item, name) for name in NewPhoto.__struct_fields__}
    return NewPhoto(**names | {"photo": Photo(photo_id=photo_id, path=item.photo.path)})
