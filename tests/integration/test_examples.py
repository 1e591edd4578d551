"""The recipes of examples/, as they stand there, over real HTTP and with a real second Celery worker."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import numpy as np
import psutil
import pytest
import uvicorn
from itsdangerous import URLSafeTimedSerializer
from PIL import Image
from sqlalchemy import Engine, Row, create_engine, text
from werkzeug.serving import make_server

from demo.scenes import place_names, render, viewpoints
from examples import answers, celery_chain, upload_fastapi, upload_flask
from producer_client import Provenance, Sightline
from producer_client.contract import Code, Hit, failed
from tests.conftest import Scene
from tests.waiting import until
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
#: Seconds that anything may take here before the test fails.
PATIENCE_S = 60.0
SECRET = "only for tests"
#: A backend over HTTP; its client of Sightline, if it is to be another one than the stack's, is given.
Serve = Callable[..., AbstractContextManager[httpx2.Client]]


@contextmanager
def flask_server(sightline: Sightline, **settings: Any) -> Iterator[str]:
    app = upload_flask.create_app(sightline, **settings)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        with app.app_context():
            upload_flask.db.engine.dispose()


@contextmanager
def fastapi_server(sightline: Sightline, **settings: Any) -> Iterator[str]:
    app = upload_fastapi.create_app(sightline, **settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "uvicorn listens")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(params=[flask_server, fastapi_server], ids=["flask", "fastapi"])
def serve(request: pytest.FixtureRequest, stack: Stack, client: Sightline, uploads: Path) -> Serve:
    @contextmanager
    def serving(sightline: Sightline = client) -> Iterator[httpx2.Client]:
        settings = {"database_url": stack.settings.database_url, "photo_folder": uploads, "secret_key": SECRET}
        with request.param(sightline, **settings) as url, httpx2.Client(base_url=url, timeout=PATIENCE_S) as http:
            yield http

    return serving


@pytest.fixture
def backend(serve: Serve) -> Iterator[httpx2.Client]:
    with serve() as http:
        yield http


@pytest.fixture
def nowhere() -> Iterator[Sightline]:
    """A client whose Redis is away."""
    with Sightline("redis://127.0.0.1:1/0") as client:
        yield client


@pytest.fixture
def uploads(photo_root: Path) -> Path:
    folder = photo_root / "uploads"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def engine(stack: Stack) -> Iterator[Engine]:
    engine = create_engine(stack.settings.database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def street(photo_root: Path) -> list[Scene]:
    """Views of a place that no other test uses, without EXIF: as from a messenger, which strips it."""
    folder = photo_root / "examples"
    folder.mkdir()
    name = place_names()[-1]
    views = [view for view in viewpoints(places=len(place_names()), views=6) if view.place == name]
    scenes = [Scene(folder / f"{view.number}.jpg", name, view.lat, view.lon) for view in views]
    for view, scene in zip(views, scenes, strict=True):
        render(view).save(scene.path, "JPEG", quality=95)
    return scenes


#: Plain JSON, which kombu's own would read as a type that it does not know, wherever a reply has it.
NOTES = {"a": {"__type__": "thing", "__value__": 1}}


@pytest.fixture(scope="module")
def neighbours(stack: Stack, street: list[Scene]) -> Iterator[set[int]]:
    """Ids of the surveyed photos around the one that is uploaded. They go when these tests end: clients of the former
    release, which other tests run on this stack, cannot read their metadata."""
    with stack.client() as client:
        stored = [
            client.add_to_index(path=str(s.path), lat=s.lat, lon=s.lon, provenance="surveyed", metadata=NOTES)
            for s in street
            if s is not asked_about(street)
        ]
        # The recipes' clients are others: they may lag a second behind, and here they must not.
        client.search(path=str(street[0].path))
    ids = {s.photo_id for s in stored}
    yield ids
    with stack.client() as client:
        client.remove(ids)


def asked_about(street: list[Scene]) -> Scene:
    """From the middle of the street, so that it has neighbours on both sides."""
    return street[2]


@contextmanager
def paused_worker(stack: Stack) -> Iterator[None]:
    """Nobody answers meanwhile, so that a test can do something before the answer."""
    (worker,) = [process for process in stack.processes if process.name == "worker"]
    process = psutil.Process(worker.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def upload(http: httpx2.Client, content: bytes, name: str = "photo.jpg") -> dict[str, Any]:
    return answer_of(http.post("/photos", files={"photo": (name, content, "image/jpeg")}), 202)


def answer_of(response: httpx2.Response, code: int) -> dict[str, Any]:
    assert response.status_code == code, response.text
    answer: dict[str, Any] = response.json()
    return answer


def polled(http: httpx2.Client, asked: dict[str, Any]) -> dict[str, Any]:
    """What the status says when it has left `waiting`."""

    def final() -> dict[str, Any] | None:
        state: dict[str, Any] = http.get(asked["status_url"]).json()
        return None if state["status"] == "waiting" else state

    found: dict[str, Any] = until(final, f"an answer about photo {asked['photo_id']}")
    return found


def row_of(engine: Engine, photo_id: int) -> Row[Any]:
    with engine.connect() as connection:
        return connection.execute(text("SELECT * FROM photos WHERE id = :id"), {"id": photo_id}).one()


def set_by_hand(engine: Engine, photo_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE photos SET lat = 1.5, lon = 2.5, location_method = 'manual' WHERE id = :id"), {"id": photo_id}
        )


def found(client: Sightline, scene: Scene, photo_id: int) -> Hit | None:
    """The photo as a search by a similar one finds it now."""
    reply = client.search(path=str(scene.path), threshold=-1.0, top_k=500, min_seq=client.stats().seq)
    return next((hit for hit in reply.hits if hit.photo_id == photo_id), None)


def indexed_as(client: Sightline, scene: Scene, photo_id: int, provenance: Provenance) -> Hit:
    def so() -> Hit | None:
        hit = found(client, scene, photo_id)
        return hit if hit is not None and hit.provenance is provenance else None

    hit: Hit = until(so, f"photo {photo_id} is in the index as {provenance}")
    return hit


# ------------------------------------------------------------------------------------------------ uploads


def test_an_upload_is_located_and_its_row_and_the_index_call_it_derived(
    backend: httpx2.Client, client: Sightline, engine: Engine, street: list[Scene], neighbours: set[int]
) -> None:
    scene = asked_about(street)

    asked = upload(backend, scene.path.read_bytes())
    before = until(lambda: found(client, street[0], asked["photo_id"]), "it is in the index before anybody looks")
    state = polled(backend, asked)

    row = row_of(engine, asked["photo_id"])
    assert (before.lat, before.provenance) == (None, None)
    assert (asked["status"], state["status"], state["success"]) == ("waiting", "located", True)
    assert state["coordinates"]["latitude"] == pytest.approx(scene.lat, abs=1e-3)
    assert (row.lat, row.lon) == (state["coordinates"]["latitude"], state["coordinates"]["longitude"])
    assert row.location_method == "derived"
    hit = indexed_as(client, street[0], asked["photo_id"], Provenance.DERIVED)
    assert (hit.lat, hit.lon) == (row.lat, row.lon)
    evidence = client.locate(path=str(street[0].path), min_seq=client.stats().seq).answer.evidence
    assert {hit.photo_id for hit in evidence} <= neighbours, "and what is derived is evidence for nobody"


def test_the_event_stream_keeps_alive_and_ends_with_what_the_status_says(
    backend: httpx2.Client, stack: Stack, street: list[Scene], neighbours: set[int]
) -> None:
    with ExitStack() as pause:
        pause.enter_context(paused_worker(stack))
        asked = upload(backend, asked_about(street).path.read_bytes())
        with backend.stream("GET", asked["events_url"]) as response:
            events = read_events(response)
            first, second = next(events), next(events)
            pause.close()
            *waiting, (name, last) = events

    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert first == second == ("waiting", {"photo_id": asked["photo_id"], "status": "waiting"})
    assert all(event == first for event in waiting)
    assert name == last["status"] == "located"
    assert last == backend.get(asked["status_url"]).json()


def test_an_upload_that_is_no_image_is_refused_with_its_code_and_the_next_one_is_answered(
    backend: httpx2.Client, engine: Engine, street: list[Scene], neighbours: set[int]
) -> None:
    text_file = upload(backend, b"dear diary", name="../../diary.jpg")
    photo = upload(backend, asked_about(street).path.read_bytes())

    refused = polled(backend, text_file)

    assert (refused["status"], refused["code"]) == ("refused", "not_an_image")
    assert "JPEG" in refused["message"]
    assert row_of(engine, text_file["photo_id"]).lat is None
    assert polled(backend, photo)["status"] == "located"


def test_the_file_gets_a_name_of_our_own(
    backend: httpx2.Client, engine: Engine, uploads: Path, street: list[Scene]
) -> None:
    content = asked_about(street).path.read_bytes()

    asked = upload(backend, content, name="../../../evil.jpg")

    path = Path(row_of(engine, asked["photo_id"]).file_path)
    assert path.parent == uploads
    assert "evil" not in path.name
    assert path.read_bytes() == content


def test_coordinates_that_a_person_set_meanwhile_survive(
    backend: httpx2.Client,
    client: Sightline,
    stack: Stack,
    engine: Engine,
    street: list[Scene],
    neighbours: set[int],
) -> None:
    with paused_worker(stack):
        asked = upload(backend, asked_about(street).path.read_bytes())
        set_by_hand(engine, asked["photo_id"])
    state = polled(backend, asked)

    row = row_of(engine, asked["photo_id"])
    assert state["status"] == "located"
    assert (row.lat, row.lon, row.location_method) == (1.5, 2.5, "manual")
    assert indexed_as(client, street[0], asked["photo_id"], Provenance.CONFIRMED).lat == 1.5
    client.remove(asked["photo_id"])  # it says that this street lies elsewhere


def test_the_position_that_the_camera_wrote_is_kept_and_can_be_trusted(
    backend: httpx2.Client, client: Sightline, engine: Engine, scenes: list[Scene]
) -> None:
    with_gps = scenes[0]

    asked = upload(backend, with_gps.path.read_bytes() + b"camera")
    polled(backend, asked)

    row = row_of(engine, asked["photo_id"])
    assert (row.lat, row.lon) == pytest.approx((with_gps.lat, with_gps.lon), abs=1e-6)
    assert row.location_method == "exif_gps"
    indexed_as(client, scenes[1], asked["photo_id"], Provenance.EXIF_GPS)
    client.remove(asked["photo_id"])  # other tests count the evidence of this place


def test_a_photo_that_looks_like_none_is_not_located_and_still_found(
    backend: httpx2.Client, client: Sightline, engine: Engine, neighbours: set[int]
) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")

    asked = upload(backend, file.getvalue())
    state = polled(backend, asked)

    row = row_of(engine, asked["photo_id"])
    assert (state["status"], state["reason"], state["coordinates"]) == ("abstained", "nothing_similar", None)
    assert (row.lat, row.location_method) == (None, None)
    vector = client.embed(photo_id=asked["photo_id"], return_vector=True).vector
    hits = until(
        lambda: client.search(vector=vector, threshold=0.99, min_seq=client.stats().seq).hits, "the photo is found"
    )
    assert [(hit.lat, hit.provenance) for hit in hits] == [(None, None)] * len(hits)
    assert asked["photo_id"] in {hit.photo_id for hit in hits}


def test_a_photo_that_was_removed_does_not_come_back_by_another_look_at_its_status(
    backend: httpx2.Client, client: Sightline, street: list[Scene], neighbours: set[int]
) -> None:
    asked = upload(backend, asked_about(street).path.read_bytes())
    state = polled(backend, asked)
    indexed_as(client, street[0], asked["photo_id"], Provenance.DERIVED)
    client.remove(asked["photo_id"])

    with patch.object(client, "submit_add_to_index", wraps=client.submit_add_to_index) as adds:
        again = polled(backend, asked)

    assert again == state
    adds.assert_not_called()
    assert found(client, street[0], asked["photo_id"]) is None


def test_an_upload_while_redis_is_away_is_kept_and_asked_about_later(
    serve: Serve, nowhere: Sightline, engine: Engine, street: list[Scene], neighbours: set[int]
) -> None:
    content = asked_about(street).path.read_bytes()

    with serve(nowhere) as backend:
        kept = upload(backend, content)
        again = backend.post(kept["locate_url"])
    with serve() as backend:
        asked = answer_of(backend.post(kept["locate_url"]), 202)
        state = polled(backend, asked)

    assert (kept["status"], kept["code"]) == ("try_again", "unavailable")
    assert Path(row_of(engine, kept["photo_id"]).file_path).read_bytes() == content
    assert (again.status_code, again.headers["retry-after"], again.json()["status"]) == (503, "10", "try_again")
    assert (asked["photo_id"], state["status"]) == (kept["photo_id"], "located")
    assert row_of(engine, kept["photo_id"]).location_method == "derived"


def test_the_status_while_redis_is_away_is_to_be_asked_again(
    serve: Serve, nowhere: Sightline, street: list[Scene], neighbours: set[int]
) -> None:
    with serve() as backend:
        asked = upload(backend, asked_about(street).path.read_bytes())
    with serve(nowhere) as backend:
        away = backend.get(asked["status_url"])
        with backend.stream("GET", asked["events_url"]) as response:
            events = list(read_events(response))
    with serve() as backend:
        state = polled(backend, asked)

    assert (away.status_code, away.headers["retry-after"]) == (503, "10")
    assert [name for name, _ in events] == ["try_again"]
    assert events[0][1] == away.json()
    assert state["status"] == "located"


def test_a_request_that_no_worker_came_to_in_time_is_to_be_made_again(
    backend: httpx2.Client,
    stack: Stack,
    street: list[Scene],
    neighbours: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with paused_worker(stack), monkeypatch.context() as impatient:
        impatient.setattr(answers, "PATIENCE_S", 0.001)
        asked = upload(backend, asked_about(street).path.read_bytes())
    late = polled(backend, asked)
    anew = answer_of(backend.post(f"/photos/{asked['photo_id']}/locate"), 202)

    assert (late["status"], late["code"]) == ("try_again", "timed_out")
    assert polled(backend, anew)["status"] == "located"


def test_an_answer_about_one_photo_settles_no_other(
    backend: httpx2.Client, engine: Engine, street: list[Scene], neighbours: set[int]
) -> None:
    other = upload(backend, b"dear diary")["photo_id"]
    asked = upload(backend, asked_about(street).path.read_bytes())
    polled(backend, asked)

    forged = URLSafeTimedSerializer("not the secret", salt="requests").dumps([other, asked["request"]])
    status = backend.get(f"/photos/requests/{forged}/status")
    events = backend.get(f"/photos/requests/{forged}/events")

    assert (status.status_code, events.status_code) == (404, 404)
    assert row_of(engine, other).lat is None
    assert backend.post("/photos/999999999/locate").status_code == 404


def read_events(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    for event in httpx2.EventSource(response):
        yield event.event, event.json()


# ------------------------------------------------------------------------------------------- Celery chain


@pytest.fixture
def chain_log(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The log of the backend's own worker, a process beside those of the stack."""
    # What this process sends goes to the same Redis.
    monkeypatch.setitem(celery_chain.app.conf, "broker_url", stack.settings.broker_url)
    log = tmp_path / "backend.log"
    environment = {
        **os.environ,
        "SIGHTLINE_BROKER_URL": stack.settings.broker_url,
        "DATABASE_URL": stack.settings.database_url,
    }
    words = ["-A", "examples.celery_chain", "worker", "-Q", "backend", "--pool=prefork", "-c1", "--loglevel=INFO"]
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", *words], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    yield log
    worker.terminate()
    try:
        worker.wait(PATIENCE_S)
    finally:
        worker.kill()
        celery_chain.app.close()


def new_row(engine: Engine, path: Path) -> int:
    with engine.begin() as connection:
        inserted = connection.execute(
            text("INSERT INTO photos (file_path) VALUES (:path) RETURNING id"), {"path": str(path)}
        )
        return int(inserted.scalar_one())


def copied(folder: Path, scene: Scene, name: str) -> Path:
    path = folder / name
    path.write_bytes(scene.path.read_bytes())
    return path


def test_a_chain_locates_a_photo_and_the_backends_own_task_settles_it(
    chain_log: Path, client: Sightline, engine: Engine, uploads: Path, street: list[Scene], neighbours: set[int]
) -> None:
    scene = asked_about(street)
    photo_id = new_row(engine, copied(uploads, scene, "chained"))

    celery_chain.locate_photo(photo_id).delay()
    hit = indexed_as(client, street[0], photo_id, Provenance.DERIVED)

    row = row_of(engine, photo_id)
    assert (row.lat, row.lon) == pytest.approx((scene.lat, scene.lon), abs=1e-3)
    assert (row.lat, row.lon, row.location_method) == (hit.lat, hit.lon, "derived")


def test_a_refused_photo_and_a_broken_task_stop_no_chain_after_them(
    chain_log: Path, client: Sightline, engine: Engine, uploads: Path, street: list[Scene], neighbours: set[int]
) -> None:
    diary = uploads / "diary"
    diary.write_bytes(b"dear diary")
    refused, broken, good = (
        new_row(engine, path)
        for path in (diary, copied(uploads, asked_about(street), "a"), copied(uploads, asked_about(street), "b"))
    )
    with table_that_refuses(engine, broken):
        for photo_id in (refused, broken, good):
            celery_chain.locate_photo(photo_id).delay()
        indexed_as(client, street[0], good, Provenance.DERIVED)

        until(lambda: f"photo {refused} was not located" in chain_log.read_text(), "the refusal is in the log")
        until(lambda: f"photo {broken} was not settled" in chain_log.read_text(), "the failure is in the log")
    assert "[not_an_image]" in chain_log.read_text()
    assert [row_of(engine, photo_id).location_method for photo_id in (refused, broken, good)] == [None, None, "derived"]


def test_a_service_that_could_not_answer_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, dict[str, Any]]] = []

    class Sent:
        def __init__(self, photo_id: int) -> None:
            self.photo_id = photo_id

        def apply_async(self, **options: Any) -> None:
            asked.append((self.photo_id, options))

    monkeypatch.setattr(celery_chain, "locate_photo", Sent)

    celery_chain.store_location(failed(Code.UNAVAILABLE, "no worker"), 7)

    assert asked == [(7, {"countdown": celery_chain.RETRY_S})]


def test_a_chain_leaves_the_coordinates_that_a_person_set_meanwhile(
    chain_log: Path,
    client: Sightline,
    stack: Stack,
    engine: Engine,
    uploads: Path,
    street: list[Scene],
    neighbours: set[int],
) -> None:
    photo_id = new_row(engine, copied(uploads, asked_about(street), "by hand"))

    with paused_worker(stack):
        celery_chain.locate_photo(photo_id).delay()
        set_by_hand(engine, photo_id)
    indexed_as(client, street[0], photo_id, Provenance.CONFIRMED)
    client.remove(photo_id)  # it says that this street lies elsewhere

    row = row_of(engine, photo_id)
    assert (row.lat, row.lon, row.location_method) == (1.5, 2.5, "manual")


@contextmanager
def table_that_refuses(engine: Engine, photo_id: int) -> Iterator[None]:
    """Coordinates of this one photo break the task that writes them."""
    with engine.begin() as connection:
        connection.execute(
            text(f"ALTER TABLE photos ADD CONSTRAINT refuses CHECK (id <> {photo_id} OR lat IS NULL) NOT VALID")
        )
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE photos DROP CONSTRAINT refuses"))
