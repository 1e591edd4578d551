"""What the recipes share: a photo's request, its answer as JSON, and the row that it settles. Knows no web framework.

Nothing here must be done once only: whoever sees an answer first settles the row, and the others find it settled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import JSON, DateTime, func, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from producer_client import Answer, Code, Provenance, Sightline, SightlineError, TryAgain
from producer_client.compat import to_guide_json
from producer_client.sources import Chain, exif_gps

#: Seconds that a request may wait for a worker before it is dropped. Long: nobody holds a connection open for it.
PATIENCE_S = 900.0
#: Seconds after which a reply is gone (SIGHTLINE_RESULT_EXPIRES_S), so that nobody can tell about its request.
REPLIES_KEPT_S = 3600
#: As SIGHTLINE_MAX_PHOTO_BYTES of the workers.
MAX_PHOTO_BYTES = 50_000_000

#: Never over coordinates that are there: a person or the camera knows better.
SETTLE = text(
    "UPDATE photos SET lat = :lat, lon = :lon, location_method = :method WHERE id = :id AND lat IS NULL RETURNING id"
)


def by_camera(path: Path) -> dict[str, Any]:
    """Columns of a photo into which the camera wrote its position: evidence for others, which a derived one is not."""
    found = Chain([exif_gps()]).locate(path).best
    if found is None:
        return {}
    return {"lat": found.lat, "lon": found.lon, "location_method": Provenance.EXIF_GPS.value}


class PhotoColumns:
    """Your table, as a mixin for the models of SQLAlchemy and of Flask-SQLAlchemy alike."""

    __tablename__ = "photos"

    id: Mapped[int] = mapped_column(primary_key=True)
    file_path: Mapped[str]
    lat: Mapped[float | None]
    lon: Mapped[float | None]
    address_data: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    location_method: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


def tickets(secret_key: str) -> URLSafeTimedSerializer:
    """What addresses carry: [photo id, id of the request]. Signed, or a visitor could have one photo settled with the
    answer about another."""
    return URLSafeTimedSerializer(secret_key, salt="requests")


def asked(
    sightline: Sightline, signed: URLSafeTimedSerializer, url: Callable[..., str], photo_id: int
) -> dict[str, Any]:
    """Ask, and say where the answer will be. url: from the name of a view and its parameters.

    Where Redis is away, photo and row stay as they are, and `locate_url` asks again.
    """
    try:
        request_id = ask(sightline, photo_id)
    except TryAgain as exc:
        locate_url = url("locate", photo_id=photo_id)
        return without_answer(photo_id, "try_again", exc.code, exc.message) | {"locate_url": locate_url}
    ticket = signed.dumps([photo_id, request_id])
    return {
        "photo_id": photo_id,
        "status": "waiting",
        "request": request_id,
        "status_url": url("status", ticket=ticket),
        "events_url": url("events", ticket=ticket),
    }


def ask(sightline: Sightline, photo_id: int) -> str:
    """Take a photo of the table into the index and ask where it was taken. Returns the id of the request.

    Raises TryAgain where Redis is away; asking twice does no harm.
    """
    # At once, so that searches find the photo whatever the answer is and also if nobody ever looks at it.
    sightline.submit_add_to_index(photo_id=photo_id)
    return sightline.submit_locate(photo_id=photo_id, timeout_s=PATIENCE_S).task_id


def look(sightline: Sightline, session: Session, photo_id: int, request_id: str) -> dict[str, Any]:
    """How a request stands, without waiting: `status` is waiting, located, abstained, refused or try_again.

    An answer settles the row and comes in the guide's form. `try_again` may go well when it is asked anew, `refused`
    will not without a change; both say why in `code` and `message`.
    """
    handle = sightline.locating(request_id)
    try:
        # `wait` alone would wait for a second at least, and keep the handles of those who gave up.
        if not handle.ready():
            return {"photo_id": photo_id, "status": "waiting"}
        answer = handle.wait().answer
        if settle(session, photo_id, answer):
            sightline.submit_add_to_index(photo_id=photo_id)
    # TimedOut, which is one, says in a reply that no worker came to the request within PATIENCE_S.
    except TryAgain as exc:
        return without_answer(photo_id, "try_again", exc.code, exc.message)
    except SightlineError as exc:
        return without_answer(photo_id, "refused", exc.code, exc.message)
    return {"photo_id": photo_id, **to_guide_json(answer)}


def without_answer(photo_id: int, status: str, code: Code, message: str) -> dict[str, Any]:
    return {"photo_id": photo_id, "status": status, "code": code.value, "message": message}


def settle(session: Session, photo_id: int, answer: Answer) -> bool:
    """Write a located point into a row without coordinates, as derived; returns whether it did.

    The index learns of it from the row: by an add afterwards, or else by the nightly rebuild.
    """
    if answer.point is None:
        return False
    point = {"lat": answer.point.lat, "lon": answer.point.lon, "method": Provenance.DERIVED.value}
    written = session.execute(SETTLE, {"id": photo_id, **point}).first()
    session.commit()
    return written is not None
