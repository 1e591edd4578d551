"""An upload that is located while its page goes on living: Flask, Flask-SQLAlchemy, polling or server-sent events.

    app = create_app(
        Sightline(os.environ["SIGHTLINE_BROKER_URL"]),
        database_url="postgresql+psycopg2://...",
        photo_folder=Path("/photos/uploads"),  # below SIGHTLINE_PHOTO_ROOTS of the workers
        secret_key=...,
    )

    POST /photos               the file as `photo`; 202 with status_url and events_url
    GET  status_url            how it stands, now; 503 with Retry-After where it must be asked again
    GET  events_url            the same as events: `waiting` every few seconds, then a last one: close the EventSource.
                               One that has closed by itself, as after a proxy's 502, is to be opened again by the page
    POST /photos/<id>/locate   ask again, about any photo of the table

The row gets its coordinates from whoever looks first, by status or by events. If nobody looks within an hour it stays
without, as celery_chain.py does not. An open event stream holds a thread, and for half a minute a gunicorn that is to
stop, unless it is told less: `gunicorn -k gthread --threads 64 --graceful-timeout 3`. Who may see which photo is for
your login.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Flask, Response, abort, request, stream_with_context, url_for
from flask_sqlalchemy import SQLAlchemy
from itsdangerous import BadData
from sqlalchemy.orm import DeclarativeBase

from examples.answers import MAX_PHOTO_BYTES, REPLIES_KEPT_S, PhotoColumns, asked, by_camera, look, tickets
from producer_client import Sightline, SightlineError

#: Seconds between two `waiting` events: shorter than the patience of any proxy.
KEEP_ALIVE_S = 3.0


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Photo(PhotoColumns, db.Model):  # type: ignore[name-defined, misc]  # made at run time (Flask-SQLAlchemy 3.1)
    pass


def create_app(sightline: Sightline, *, database_url: str, photo_folder: Path, secret_key: str) -> Flask:
    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=database_url, MAX_CONTENT_LENGTH=MAX_PHOTO_BYTES)
    db.init_app(app)
    signed = tickets(secret_key)

    @app.post("/photos")
    def upload() -> tuple[dict[str, Any], int]:
        # A name of our own: the client's may be a path, and without a suffix no web server runs or shows it.
        path = photo_folder / uuid4().hex
        request.files["photo"].save(path)
        photo = Photo(file_path=str(path), **by_camera(path))
        db.session.add(photo)
        db.session.commit()
        # 202 also where Redis is away: file and row are kept, and sending the file again would make a second photo.
        return asked(sightline, signed, url_for, photo.id), 202

    @app.post("/photos/<int:photo_id>/locate")
    def locate(photo_id: int) -> tuple[dict[str, Any], int, dict[str, str]]:
        db.get_or_404(Photo, photo_id)
        return answered(asked(sightline, signed, url_for, photo_id), 202)

    @app.get("/photos/requests/<ticket>/status")
    def status(ticket: str) -> tuple[dict[str, Any], int, dict[str, str]]:
        return answered(look(sightline, db.session(), *opened(ticket)), 200)

    @app.get("/photos/requests/<ticket>/events")
    def events(ticket: str) -> Response:
        photo_id, request_id = opened(ticket)

        def stream() -> Iterator[str]:
            handle = sightline.locating(request_id)
            while (state := look(sightline, db.session(), photo_id, request_id))["status"] == "waiting":
                yield event(state)
                with suppress(SightlineError):  # `look` tells what it was
                    handle.wait(KEEP_ALIVE_S)
            yield event(state)

        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Response(stream_with_context(stream()), mimetype="text/event-stream", headers=headers)

    def opened(ticket: str) -> tuple[int, str]:
        try:
            photo_id, request_id = signed.loads(ticket, max_age=REPLIES_KEPT_S)
        except BadData:
            abort(404, "No such request, or none of the last hour: POST /photos/<id>/locate asks again.")
        return photo_id, request_id

    return app


def answered(state: dict[str, Any], code: int) -> tuple[dict[str, Any], int, dict[str, str]]:
    if state["status"] == "try_again":
        return state, 503, {"Retry-After": "10"}
    return state, code, {}


def event(state: dict[str, Any]) -> str:
    return f"event: {state['status']}\ndata: {json.dumps(state)}\n\n"
