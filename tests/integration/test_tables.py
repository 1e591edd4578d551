"""Backends' tables as they are: a column of no use is named with SQL that helps, and what it makes works."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable

import pytest
from rich.console import Console
from sqlalchemy import text

from producer_client.contract import Code, Locate, NewPhoto, Photo, Provenance, Search, Stored
from tests.conftest import Scene
from worker import listed
from worker.commands import terminal
from worker.core.types import NewEntry, PhotoRow
from worker.errors import Permanent, Unprepared
from worker.library import Library
from worker.runtime import Runtime
from worker.settings import Settings
from worker.storage.fitting import Column, misfit
from worker.storage.rows import Place
from worker.storage.store import PostgresStore
from worker.words import told

COMMON = "address_data jsonb, location_method text, created_at timestamptz DEFAULT now()"
#: Columns of a table, what the sentence names, and what stands for 55.5 and 13.25 there.
TABLES = {
    "text coordinates": (
        f"id bigserial PRIMARY KEY, file_path text, lat text, lon text, {COMMON}",
        "column lat",
        "55.5",
        "13,25",
    ),
    "a uuid key": (
        f"id uuid PRIMARY KEY DEFAULT gen_random_uuid(), file_path text, lat numeric, lon real, {COMMON}",
        "column id of {table} is uuid, and must be a whole number",
        "55.5",
        "13.25",
    ),
    "a text key and coordinates": (
        f"id text PRIMARY KEY DEFAULT gen_random_uuid()::text, file_path text, lat varchar(20), lon text, {COMMON}",
        "column id of {table} is text",
        "55,5",
        " 13.25 ",
    ),
    "camels": (
        'id bigserial PRIMARY KEY, "filePath" text, "latitude" float8, "lng" float8, "addressData" jsonb, '
        '"locationMethod" text, "createdAt" timestamptz',
        "lacks file_path, lat, lon",
        "55.5",
        "13.25",
    ),
    "a point": (
        f"id bigserial PRIMARY KEY, file_path text, location point, {COMMON}",
        "lacks lat, lon",
        "55.5",
        "13.25",
    ),
    "partitions with a uuid key": (
        "id uuid DEFAULT gen_random_uuid(), file_path text, lat float8, lon float8, address_data jsonb, "
        "location_method text, created_at timestamptz DEFAULT now()) PARTITION BY RANGE (created_at",
        "column id of {table} is uuid",
        "55.5",
        "13.25",
    ),
    "nothing but files": (
        "id serial PRIMARY KEY, file_path text, lat text, lon text",
        "lacks address_data",
        "55.5",
        "13.25",
    ),
}


def sql_and_settings(sentence: str) -> tuple[list[str], dict[str, object]]:
    """What a reader of the sentence would do."""
    statements = re.findall(r"^  (.*;)$", sentence, re.MULTILINE)
    changed: dict[str, object] = {}
    if found := re.search(r"SIGHTLINE_PHOTOS_TABLE=(\w+(?:\.\w+)?)", sentence):
        changed["photos_table"] = found[1]
    if found := re.search(r"SIGHTLINE_PHOTOS_COLUMNS=([\w=,]+)", sentence):
        changed["photos_columns"] = dict(pair.split("=") for pair in found[1].split(","))
    return statements, changed


@pytest.mark.parametrize("kind", TABLES)
def test_the_sql_that_is_shown_makes_a_table_that_works(
    kind: str,
    settings: Settings,
    make_store: Callable[..., PostgresStore],
    make_library: Callable[..., Library],
    scenes: list[Scene],
) -> None:
    columns, said, lat, lon = TABLES[kind]
    table = f"{settings.photos_table}_theirs"
    engine = make_store().database.engine
    names = {"file": "file_path", "lat": "lat", "lon": "lon"}
    if kind == "camels":
        names = {"file": '"filePath"', "lat": "latitude", "lon": "lng"}
    values = ":file, :lat, :lon"
    if kind == "a point":
        names, values = {"file": "file_path", "point": "location"}, ":file, point(:lon, :lat)"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} ({columns})"))
        if "PARTITION" in columns:
            connection.execute(text(f"CREATE TABLE {table}_1 PARTITION OF {table} DEFAULT"))
        insert = text(f"INSERT INTO {table} ({', '.join(names.values())}) VALUES ({values})")
        for scene in scenes[:2]:
            connection.execute(insert, {"file": str(scene.path), "lat": lat, "lon": lon})
        if "text" in kind:
            connection.execute(insert, {"file": "/odd.jpg", "lat": "abc", "lon": ""})

    store = make_store(photos_table=table)
    with pytest.raises(Unprepared) as caught:
        store.rows.get([1])
    assert said.format(table=table) in caught.value.message
    statements, changed = sql_and_settings(caught.value.message)
    assert "migrate" not in caught.value.message
    assert "…" not in caught.value.message, "errors are cut to a length, and SQL that is cut is none"
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))

    chosen = settings.model_copy(update={"photos_table": table, **changed})
    store = make_store(**{"photos_table": table, **changed})
    rows: list[PhotoRow] = store.rows.after(-1, 10)
    assert [(row.lat, row.lon) for row in rows[:2]] == [(55.5, 13.25)] * 2
    assert all((row.lat, row.lon) == (None, None) for row in rows[2:])
    library = make_library(settings=chosen, store=store)
    added = library.photos.add_many([NewPhoto(str(r.photo_id), Photo(photo_id=r.photo_id)) for r in rows[:2]]).outcomes
    assert all(isinstance(outcome, Stored) for outcome in added), added
    asked = Photo(path=str(scenes[2].path))
    found = library.questions.search(Search(photo=asked, threshold=-1.0))
    assert {hit.photo_id for hit in found.hits} == {row.photo_id for row in rows[:2]}
    answer = library.questions.locate(Locate(photo=asked)).answer
    assert answer.located, "by what the files themselves say: the rows' points count as derived"
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {table} CASCADE"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"location": "point"}, ["lacks lat, lon", "location[1] AS lat", "location[0] AS lon"]),
        ({"geom": "geography(Point,4326)"}, ["ST_Y(geom::geometry) AS lat", "ST_X(geom::geometry) AS lon"]),
        ({"lat": "jsonb", "lon": "double precision"}, ["column lat of photos is jsonb, and must be a number"]),
        ({"lat": "real", "lon": "boolean"}, ["column lon of photos is boolean", "NULL::float8 AS lon"]),
        ({"Lat": "real", "LON": "real"}, ["set SIGHTLINE_PHOTOS_COLUMNS=lat=Lat,lon=LON"]),
        (
            {"lat": "real", "lon": "real", "id": "uuid"},
            ["ALTER TABLE photos ADD COLUMN sightline_id bigint", "id=sightline_id"],
        ),
        ({"lat": "real", "lon": "real", "address_data": "hstore"}, ["to_jsonb(address_data) AS address_data"]),
        ({"lat": "real", "lon": "real", "file_path": "bytea"}, ["column file_path of photos is bytea"]),
    ],
)
def test_the_column_its_type_and_what_to_do_are_said(columns: dict[str, str], said: list[str]) -> None:
    there = {
        "id": "bigint",
        "file_path": "text",
        "address_data": "jsonb",
        "location_method": "text",
        "created_at": "date",
    }

    why = misfit("photos", [Column(*column) for column in (there | columns).items()], {})

    assert why is not None
    assert [words for words in said if words not in why] == []


@pytest.mark.parametrize("lat", ["double precision", "real", "numeric", "numeric(9,6)", "integer"])
@pytest.mark.parametrize("address", ["json", "jsonb", "text", "character varying(300)"])
@pytest.mark.parametrize("key", ["bigint", "integer", "smallint"])
def test_a_table_that_fits_is_used_as_it_is(lat: str, address: str, key: str) -> None:
    types = (key, "character varying", lat, lat, address, "some_enum", "timestamp without time zone")
    names = ("ID", "file", "lat", "lon", "address_data", "location_method", "order")

    theirs = {"id": "ID", "file_path": "file", "created_at": "order"}
    assert misfit("photos", [Column(*pair) for pair in zip(names, types, strict=True)], theirs) is None


NEW = NewEntry(
    ref="new",
    photo_id=None,
    path="/new.jpg",
    spellings=("/new.jpg",),
    content_sha256="",
    vector=None,
    given=(55.5, 13.25, Provenance.SURVEYED),
    exif=None,
    address={"city": "Malmö"},
    metadata=None,
)


@pytest.fixture
def opened(settings: Settings, make_store: Callable[..., PostgresStore]) -> Callable[..., PostgresStore]:
    """A store over a table or view of these columns."""

    def made(statement: str, **changed: object) -> PostgresStore:
        table = f"{settings.photos_table}_theirs"
        store = make_store(**{"photos_table": table, **changed})
        with store.database.engine.begin() as connection:
            for part in statement.format(table=table).split(";"):
                connection.execute(text(part))
        return store

    return made


def written(store: PostgresStore) -> Place:
    with store.database.begin() as connection:
        return store.rows.write(connection, [NEW], store.rows.find(connection, [NEW]))["new"]


def test_domains_count_as_the_type_that_they_are_made_of(opened: Callable[..., PostgresStore]) -> None:
    store = opened(
        "CREATE DOMAIN {table}_number AS float8; CREATE DOMAIN {table}_degrees AS {table}_number CHECK (value < 181);"
        f"CREATE TABLE {{table}} (id bigserial, file_path text, lat {{table}}_degrees, lon {{table}}_degrees, {COMMON})"
    )

    photo_id = written(store).photo_id

    (row,) = store.rows.get([photo_id]).values()
    assert (row.lat, row.lon) == (55.5, 13.25)


@pytest.mark.parametrize(
    "created_at",
    ["text", "bigint DEFAULT 17", "bigint GENERATED ALWAYS AS (id) STORED", "date", "timestamp", "boolean"],
)
def test_a_row_is_made_whatever_its_time_is_kept_as(opened: Callable[..., PostgresStore], created_at: str) -> None:
    store = opened(
        "CREATE TABLE {table} (id bigserial, file_path text, lat numeric, lon numeric, address_data text, "
        f"location_method text, created_at {created_at})"
    )

    assert written(store).path == "/new.jpg"


def test_coordinates_that_a_table_makes_itself_are_read_and_never_called_a_lack_of_the_database(
    opened: Callable[..., PostgresStore],
) -> None:
    store = opened(
        "CREATE TABLE {table} (id bigserial, file_path text, place point, "
        "lat float8 GENERATED ALWAYS AS (place[1]) STORED, lon float8 GENERATED ALWAYS AS (place[0]) STORED, "
        f"{COMMON}); INSERT INTO {{table}} (file_path, place) VALUES ('/a.jpg', point(13.25, 55.5))"
    )

    (row,) = store.rows.after(-1, 9)
    with pytest.raises(Permanent) as caught:
        written(store)

    assert (row.lat, row.lon) == (55.5, 13.25)
    assert caught.value.code is Code.ROW_REJECTED
    assert 'column "lat"' in caught.value.message
    assert "send its photo_id" in caught.value.message


def test_names_that_sql_keeps_for_itself_are_names_of_columns_too(opened: Callable[..., PostgresStore]) -> None:
    store = opened(
        f'CREATE TABLE {{table}} (id bigserial, "user" text, "select" float8, "Order" float8, {COMMON})',
        photos_columns={"file_path": "user", "lat": "select", "lon": "Order"},
    )

    photo_id = written(store).photo_id

    (row,) = store.rows.get([photo_id]).values()
    assert (row.path, row.lat, row.lon) == ("/new.jpg", 55.5, 13.25)


def test_a_view_of_other_keys_is_not_told_to_take_a_column(opened: Callable[..., PostgresStore]) -> None:
    store = opened(
        f"CREATE TABLE {{table}}_below (id uuid, file_path text, lat float8, lon float8, {COMMON});"
        "CREATE VIEW {table} AS SELECT * FROM {table}_below"
    )

    with pytest.raises(Unprepared, match="is a view, so give the table below it a column sightline_id") as caught:
        store.rows.after(-1, 1)

    assert not sql_and_settings(caught.value.message)[0]


def test_names_that_are_set_and_not_needed_are_said_to_be_unset() -> None:
    names = ("id", "file_path", "lat", "lon", "address_data", "location_method", "created_at")
    types = ("bigint", "text", "real", "real", "jsonb", "text", "date")
    columns = [Column(*pair) for pair in zip(names, types, strict=True)]

    why = misfit("photos", columns, {"lat": "latitude"})
    other = misfit("photos", [c if c.name != "id" else Column("id", "uuid") for c in columns], {"id": "sightline_id"})

    assert why is not None
    assert why.endswith("table photos lacks latitude. To do: unset SIGHTLINE_PHOTOS_COLUMNS")
    assert other is not None
    assert "ADD COLUMN sightline_id" in other


def test_coordinates_that_no_cast_is_known_for_have_a_place_in_the_view() -> None:
    columns = [Column("id", "bigint"), Column("file_path", "text"), Column("coordinates", "real[]")]

    assert "NULL::float8 AS lat" in str(misfit("photos", columns, {}))


def test_what_to_do_with_a_table_is_said_in_russian_too(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column("id", "uuid"), Column("file_path", "text"), Column("lat", "text"), Column("lon", "boolean")]
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    said = told(Code.NOT_READY, str(misfit("photos", columns, {})))

    statements = re.findall(r"^  (.*;)$", said, re.MULTILINE)
    assert len(statements) == 2
    for statement in statements:
        said = said.replace(statement, "")
    left = set(re.findall(r"[a-z]{3,}", said))
    names = {"photos", "text", "boolean", "uuid", "bigint", "double", "precision", "file", "lat", "lon", "address"}
    assert left - names <= {"data", "location", "method", "created", "for", "sightline", "float", "photo"}


def test_a_worker_says_at_its_start_that_the_table_is_of_no_use(
    settings: Settings, opened: Callable[..., PostgresStore], caplog: pytest.LogCaptureFixture
) -> None:
    opened(f"CREATE TABLE {{table}} (id uuid, file_path text, lat text, lon text, {COMMON})")
    runtime = Runtime(settings.model_copy(update={"photos_table": f"{settings.photos_table}_theirs"}))

    runtime.start(follow=False)
    runtime.close()

    (line,) = [record.getMessage() for record in caplog.records if "photos table" in record.getMessage()]
    assert "ADD COLUMN sightline_id" in line


WORST = [
    Column("id", "uuid"), Column("file_path", "text"), Column("lat", "character varying(20)"),
    Column("lon", "character varying(20)"), Column("address_data", "bytea"), Column("location_method", "text"),
]  # fmt: skip


@pytest.mark.parametrize("language", ["en", "ru"])
def test_sql_for_a_table_with_many_faults_is_shown_whole_and_on_unbroken_lines(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    monkeypatch.setattr(terminal, "err", Console(file=(page := io.StringIO()), width=60))
    why = str(misfit("gallery.photos_of_our_customers", WORST, {}))

    with pytest.raises(SystemExit):
        terminal.fail(told(Code.NOT_READY, Unprepared(why).message))

    shown = page.getvalue()
    assert sql_and_settings(shown)[0] == sql_and_settings(why)[0]
    assert len(sql_and_settings(shown)[0]) == 2
    assert max(len(line) for line in shown.splitlines() if not line.startswith("  ")) <= 60
    first = {"en": "the photos table cannot be used", "ru": "таблица фото не подходит"}
    assert first[language] in shown


@pytest.mark.parametrize("theirs", ["my lat", "lat's", "lat,deg", "широта"])
def test_a_setting_that_is_shown_can_be_pasted_into_a_shell(theirs: str) -> None:
    columns = [Column(name, kind) for name, kind in (("id", "uuid"), ("file_path", "text"), (theirs, "real"))]
    columns += [Column(name, "text") for name in ("lon_", "address_data", "location_method", "created_at")]

    why = str(misfit("photos", columns, {"lat": theirs, "lon": "lon_", "created_at": "created_at"}))
    only_key = str(
        misfit("photos", [*columns[:3], Column("lon_", "real"), *columns[4:]], {"lat": theirs, "lon": "lon_"})
    )

    (setting,) = re.findall(r"and set (SIGHTLINE_PHOTOS_COLUMNS=.*)\Z", only_key)
    read = subprocess.run(["sh", "-c", f"export {setting}; printenv SIGHTLINE_PHOTOS_COLUMNS"], capture_output=True)
    named = listed.pairs(read.stdout.decode().rstrip("\n"))
    assert named == {"lat": theirs, "lon": "lon_", "id": "sightline_id"}
    assert "set SIGHTLINE_PHOTOS_TABLE=photos_for_sightline SIGHTLINE_PHOTOS_COLUMNS=" in why
