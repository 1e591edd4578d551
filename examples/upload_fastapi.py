"""An upload that is located while its page goes on living: FastAPI, SQLAlchemy, polling or server-sent events.

    app = create_app(
        Sightline(os.environ["SIGHTLINE_BROKER_URL"]),
        database_url="postgresql+psycopg2://...",
        photo_folder=Path("/photos/uploads"),  # below SIGHTLINE_PHOTO_ROOTS of the workers
        secret_key=...,
    )

    POST /photos               the file as `photo`; 202 with status_url and events_url
    GET  status_url            how it stands, now; 503 with Retry-After where it must be asked again
    GET  events_url            the same as events: `waiting` every second, then a last one: close the EventSource.
                               One that has closed by itself, as after a proxy's 502, is to be opened again by the page
    POST /photos/<id>/locate   ask again, about any photo of the table

The row gets its coordinates from whoever looks first, by status or by events. If nobody looks within an hour it stays
without, as celery_chain.py does not. Who may see which photo is for your login.
"""

# No `from __future__ import annotations`: FastAPI reads those inside a function only as they are.
import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import anyio
from fastapi import Depends, FastAPI, HTTPException, Response, UploadFile
from itsdangerous import BadData
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session
from sse_starlette import EventSourceResponse, JSONServerSentEvent

from examples.answers import MAX_PHOTO_BYTES, REPLIES_KEPT_S, PhotoColumns, asked, by_camera, look, tickets
from producer_client import Sightline

#: Seconds between two looks of an event stream. A look takes a thread for a millisecond. `await handle` is for one
#: answer at a time: it takes a thread until the answer is there, and a client has 64 of them.
LOOK_EVERY_S = 1.0


class Base(DeclarativeBase):
    pass


class Photo(PhotoColumns, Base):
    pass


def create_app(sightline: Sightline, *, database_url: str, photo_folder: Path, secret_key: str) -> FastAPI:
    engine = create_engine(database_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(lifespan=lifespan)
    signed = tickets(secret_key)

    def opened(ticket: str) -> tuple[int, str]:
        try:
            photo_id, request_id = signed.loads(ticket, max_age=REPLIES_KEPT_S)
        except BadData as exc:
            raise HTTPException(404, "No such request, or none of the last hour: POST /photos/<id>/locate") from exc
        return photo_id, request_id

    Asked = Annotated[tuple[int, str], Depends(opened)]  # noqa: N806  # a type

    # Plain functions: they run in threads, where sessions and the client may wait.
    @app.post("/photos", status_code=202)
    def upload(photo: UploadFile) -> dict[str, Any]:
        if (photo.size or 0) > MAX_PHOTO_BYTES:
            raise HTTPException(413, f"The limit is {MAX_PHOTO_BYTES} bytes.")
        # A name of our own: the client's may be a path, and without a suffix no web server runs or shows it.
        path = photo_folder / uuid4().hex
        with path.open("xb") as file:
            shutil.copyfileobj(photo.file, file)
        with Session(engine) as session:
            row = Photo(file_path=str(path), **by_camera(path))
            session.add(row)
            session.commit()
            # 202 also where Redis is away: file and row are kept, and sending the file again would make a second photo.
            return asked(sightline, signed, app.url_path_for, row.id)

    @app.post("/photos/{photo_id}/locate", status_code=202)
    def locate(photo_id: int, response: Response) -> dict[str, Any]:
        with Session(engine) as session:
            if session.get(Photo, photo_id) is None:
                raise HTTPException(404)
        return answered(asked(sightline, signed, app.url_path_for, photo_id), response)

    @app.get("/photos/requests/{ticket}/status")
    def status(request: Asked, response: Response) -> dict[str, Any]:
        return answered(looked(*request), response)

    @app.get("/photos/requests/{ticket}/events")
    async def events(request: Asked) -> EventSourceResponse:
        stopping = anyio.Event()

        async def states() -> AsyncIterator[JSONServerSentEvent]:
            while (state := await asyncio.to_thread(looked, *request))["status"] == "waiting":
                yield JSONServerSentEvent(event="waiting", data=state)
                with anyio.move_on_after(LOOK_EVERY_S):
                    await stopping.wait()
                    return  # a stream that ends well is asked for again by the browser
            yield JSONServerSentEvent(event=state["status"], data=state)

        # Not FastAPI's own, nor a StreamingResponse: told to stop, uvicorn waits for these as long as a page listens.
        return EventSourceResponse(states(), shutdown_event=stopping, shutdown_grace_period=3.0)

    def looked(photo_id: int, request_id: str) -> dict[str, Any]:
        with Session(engine) as session:
            return look(sightline, session, photo_id, request_id)

    return app


def answered(state: dict[str, Any], response: Response) -> dict[str, Any]:
    if state["status"] == "try_again":
        response.status_code, response.headers["Retry-After"] = 503, "10"
    return state
