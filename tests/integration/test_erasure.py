"""A purge kept to its word: every file, every table and every key is searched for the photo's bytes; and what `where`
says of what there is."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import redis
from PIL import Image
from sqlalchemy import Engine, create_engine, text

from producer_client import Sightline
from producer_client.contract import Provenance, Purged
from tests.conftest import server_dir, until
from tests.entries import new_entry
from tests.integration.test_restore import Programs
from worker import naming
from worker.commands import where
from worker.core.audit import Question
from worker.core.generations import Built
from worker.core.shot import Shot
from worker.core.vectors import Vector, unit_rows
from worker.embedded import EmbeddedServers, dumps
from worker.index.folder import GenerationFolder
from worker.parking import Parking
from worker.place.gate import Baseline
from worker.place.paired import Outcome
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore
from worker.storage.tables import metadata
from worker.unfit import bad_entry

#: Of the backend's row: one whose digits are nothing else's.
PHOTO_ID = 6_917_529_031_187_463_113
LAT, LON = 12.345678912, -45.678912345
SECRET = "shown to nobody but grandmother"

Needles = Mapping[str, tuple[bytes, ...]]


def picture(path: Path, seed: int) -> None:
    """Blocks in colours of their own: with corners, and like no other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((640, 480), Image.Resampling.NEAREST).save(path, quality=90)


def needles_of(engine: Engine, schema: str, path: Path) -> Needles:
    """By which this photo is known, as what keeps it may write it."""
    query = text(f"""
        SELECT content_sha256, vector, hash, keypoints FROM {schema}.entries
        JOIN {schema}.embeddings USING (content_sha256) JOIN {schema}.pictures USING (content_sha256)
        JOIN {schema}.keypoints USING (content_sha256) WHERE path = :path
    """)
    with engine.connect() as connection:
        content, vector, picture_hash, keypoints = connection.execute(query, {"path": str(path)}).one()
    floats = np.frombuffer(vector, dtype="<f4")
    halves = floats.astype("<f2").tobytes()
    middle = bytes(keypoints)[len(keypoints) // 2 :][:24]
    return {
        "id": (str(PHOTO_ID).encode(), np.int64(PHOTO_ID).tobytes()),
        "path": (str(path).encode(), path.name.encode()),
        "content": (content.encode(), bytes.fromhex(content)),
        "vector": (bytes(vector)[:40], bytes(vector)[:40].hex().encode()),
        "vector in halves": (halves[:40], halves[:40].hex().encode()),
        "picture hash": (bytes(picture_hash), bytes(picture_hash).hex().encode()),
        "keypoints": (middle, middle.hex().encode()),
        "position": (str(LAT).encode(), np.float64(LAT).tobytes(), str(LON).encode(), np.float64(LON).tobytes()),
        "metadata": (SECRET.encode(),),
    }


def told(content: bytes, needles: Needles) -> set[str]:
    return {name for name, forms in needles.items() if any(form in content for form in forms)}


def in_files(folder: Path, needles: Needles) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file() and (names := told(path.read_bytes(), needles)):
                found[str(path.relative_to(folder))] = names
        except FileNotFoundError:
            continue
    return found


def in_redis(url: str, needles: Needles) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            match client.type(key):
                case b"string":
                    kept = [client.get(key)]
                case b"list":
                    kept = client.lrange(key, 0, -1)
                case b"hash":
                    kept = [part for pair in client.hgetall(key).items() for part in pair]
                case b"zset":
                    kept = client.zrange(key, 0, -1)
                case b"set":
                    kept = list(client.smembers(key))
                case b"none":
                    # It has gone since.
                    kept = []
                case kind:
                    raise AssertionError(f"{key} is a {kind}")
            content = b"\n".join([key, *(part or b"" for part in kept), client.dump(key) or b""])
            if names := told(content, needles):
                found[key.decode()] = names
    return found


def in_tables(dump: bytes, needles: Needles) -> dict[str, set[str]]:
    """By table, of what pg_dump writes: rows as COPY has them, bytea in hex."""
    found: dict[str, set[str]] = {}
    for part in dump.split(b"\nCOPY ")[1:]:
        if names := told(part.partition(b"\n\\.\n")[0], needles):
            found[part.split(b" ", 1)[0].decode()] = names
    return found


def is_through(client: Sightline) -> bool:
    """Whether the rebuild is done that a purge has asked for."""
    stats = client.stats()
    return stats.purges_pending == 0 and stats.last_rebuild is not None and stats.last_rebuild.state == "done"


def the_id(settings: Settings) -> dict[str, set[str]]:
    """What a purge leaves in tables."""
    return {f"{settings.db_schema}.{name}": {"id"} for name in ("changes", "entries", "purges")}


def kept_of(*names: str, settings: Settings) -> list[dict[str, Any]]:
    """As `sightline where --json` has it."""
    said = io.StringIO()
    with patch.object(where, "load_settings", lambda: settings), redirect_stdout(said):
        where.where(list(names), as_json=True)
    photos: list[dict[str, Any]] = json.loads(said.getvalue())["photos"]
    return photos


def kinds(photo: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    return Counter((kept["kind"], kept["until"]) for kept in photo["kept"])


def test_a_purge_leaves_no_byte_of_a_photo_in_tables_index_files_and_redis(
    stack: Stack, client: Sightline, photo_root: Path, tmp_path: Path
) -> None:
    settings = stack.settings
    path = photo_root / "grandmother-at-home.jpg"
    picture(path, 7)
    engine = create_engine(settings.database_url, isolation_level="AUTOCOMMIT")
    with closing(PostgresStore(settings)) as store, engine.connect() as connection:
        programs = Programs(store)
        row = {"id": PHOTO_ID, "path": str(path)}
        connection.execute(text("INSERT INTO photos (id, file_path) VALUES (:id, :path)"), row)
        client.add_to_index(photo_id=PHOTO_ID, lat=LAT, lon=LON, provenance="surveyed", metadata={"k": SECRET})
        needles = needles_of(engine, settings.db_schema, path)
        client.locate(path=str(path))
        generation = client.rebuild_index().generation
        index = settings.generations_dir
        tables, files, keys = (
            in_tables(programs._run("pg_dump"), needles),
            in_files(index, needles),
            in_redis(settings.broker_url, needles),
        )
        (known,) = kept_of(str(path), settings=settings)

        unadded = f"INSERT INTO {settings.db_schema}.embeddings VALUES (:c, 'm', '', now() - interval '8 days')"
        connection.execute(text(unadded), {"c": CONTENT})
        (purged,) = client.purge([PHOTO_ID]).outcomes
        until(lambda: is_through(client), 60)
        connection.execute(text("DELETE FROM photos WHERE id = :id"), {"id": PHOTO_ID})

        assert isinstance(purged, Purged)
        assert set().union(*tables.values()) >= needles.keys() - {"vector in halves"}, "the test would see them"
        # Those of more photos are halves: which these are depends on how many other tests have left.
        assert {name.removesuffix(" in halves") for name in set().union(*files.values())} == {
            "id",
            "position",
            "vector",
        }
        assert {f"{index}/{generation:06d}"} == {k["place"] for k in known["kept"] if k["kind"] == "generation"}
        assert set().union(*keys.values()) >= {"id", "content", "position"}

        whole = programs._run("pg_dump", "--statistics")
        assert in_tables(whole, needles) == the_id(settings)
        assert told(whole, needles) == {"id"}
        assert in_files(index, needles) == {}
        assert CONTENT.encode() not in whole, "embedded long ago and never added: rebuilds erase it"

        left = in_redis(settings.broker_url, needles)
        (after,) = kept_of(str(PHOTO_ID), known["content_sha256"], settings=settings)
        expiring = {k["place"] for photo in (known, after) for k in photo["kept"] if k["until"] == "expires"}
        with redis.Redis.from_url(settings.broker_url) as keys_of:
            assert left.keys() <= expiring, "replies, which `where` names"
            assert all(0 < keys_of.ttl(key) <= settings.result_expires_s for key in left)
            # As an hour does.
            for key in left:
                keys_of.delete(key)
        log = settings.data_dir / "valkey"
        assert in_files(log, needles), "all that it ever held"
        stack.servers.forget()
        until(lambda: not in_files(log, needles), 20)

        others = {name.split("/")[0] for name in in_files(settings.data_dir, needles)}
        assert others <= {"postgres"}, "whose pages keep deleted bytes until others take their place"
        dumps.dump(settings.database_url, tmp_path / "backup", lambda: None)
    with server_dir() as folder, EmbeddedServers(folder, with_valkey=False) as fresh:
        dumps.restore(tmp_path / "backup", fresh.database_url, lambda: None)
        fresh.stop_postgres()
        found = in_files(folder, needles)
    assert set().union(*found.values()) == {"id"}, "restored, Postgres has nothing but it"
    engine.dispose()


# ------------------------------------------------------------------------------------------------- table by table


KEY, DIM, PATH = "test-model@1", 64, "/photos/grandmother.jpg"
#: Tables that have nothing of a photo.
NEVER = {"deliveries", "examined", "fillers", "generations", "rebuilds", "reconciled", "schedule", "serving"}
CONTENT, FORMER = sha256(b"now").hexdigest(), sha256(b"before").hexdigest()
BUILT = Built("a" * 64, count=1, kind="exact", parameters={}, recall_at_10=1.0, index_bytes=100)


def row_of(seed: int) -> Vector:
    row: Vector = unit_rows(np.random.default_rng(seed).normal(size=(1, DIM)))[0]
    return row


def put(store: PostgresStore, name: str, seed: int, **changed: Any) -> int:
    hashed = np.random.default_rng(seed).bytes(32)
    facts: dict[str, Any] = {"picture_hash": hashed, "shot": Shot(np.random.default_rng(seed).bytes(16), float(seed))}
    (written,) = store.entries.put_many([new_entry(name, row_of(seed), **(facts | changed))], KEY)
    return written.entry.photo_id


def publish(store: PostgresStore) -> None:
    with store.log.snapshot(KEY, DIM) as snapshot:
        store.generations.publish(store.generations.reserve(), KEY, snapshot.mark, BUILT, keep=2)


def run(store: PostgresStore, statement: str, **values: Any) -> list[Any]:
    with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        done = connection.execute(text(statement), values)
        return [row[0] for row in done] if done.returns_rows else []


@pytest.fixture
def known(store: PostgresStore, settings: Settings) -> int:
    """A photo of which something is in each table that may have any, and others, so that Postgres counts values."""
    schema = settings.db_schema
    run(store, f"INSERT INTO {settings.photos_table} (id, file_path) VALUES (:id, :path)", id=PHOTO_ID, path=PATH)
    about: dict[str, Any] = {"path": PATH, "photo_id": PHOTO_ID, "metadata": {"k": SECRET}}
    put(store, "a", 1, content_sha256=FORMER, given=(LAT, LON, Provenance.SURVEYED), **about)
    others = [put(store, f"b{seed}", seed) for seed in range(3, 40)]
    publish(store)
    put(store, "a", 2, content_sha256=CONTENT, given=(LAT, LON, Provenance.SURVEYED), **about)
    run(store, f"INSERT INTO {schema}.keypoints VALUES (:c, 1, :k)", c=CONTENT, k=row_of(2).tobytes())
    run(store, f"INSERT INTO {schema}.refusals VALUES (:id, 'not_found', :path, now())", id=PHOTO_ID, path=PATH)
    run(store, f"INSERT INTO {schema}.lacking VALUES (:id, now(), 1, now())", id=PHOTO_ID)
    for content, path in ((CONTENT, None), (FORMER, PATH)):
        row = "(:c, 'gone', true, NULL, :path, 'task', NULL, NULL, now())"
        run(store, f"INSERT INTO {schema}.attempts VALUES {row}", c=content, path=path)
    columns = "(photo_id, content_sha256, lat, lon, doubt, other_ids, other_lat, other_lon, state, found_at)"
    for photo_id, other in ((PHOTO_ID, others[0]), (others[0], PHOTO_ID)):
        row = f"(:id, :c, :lat, 13, 'neighbours', ARRAY[{other}], {LAT}, {LON}, 'open', now())"
        content, lat = (CONTENT, LAT) if photo_id == PHOTO_ID else ("sha-b3", 55.0)
        run(store, f"INSERT INTO {schema}.conflicts {columns} VALUES {row}", id=photo_id, c=content, lat=lat)
    of_it = Question(answer="located", photo_id=PHOTO_ID, content_sha256=CONTENT, lat=LAT, lon=LON, told=(PHOTO_ID,))
    for question in (of_it, Question(answer="located", content_sha256="sha-b3", lat=LAT, lon=LON, told=(PHOTO_ID,))):
        store.audit.record(question, days=30)
    asked = [Outcome(photo_id, True, 1, True, True) for photo_id in (PHOTO_ID, others[1])]
    store.generations.freeze(KEY, Baseline(1, "2026-11-29", 100.0, (), tuple(asked)).to_json())
    run(store, "ANALYZE")
    return PHOTO_ID


@pytest.fixture
def bytes_of() -> Needles:
    vectors = [row_of(seed).astype("<f4").tobytes() for seed in (1, 2)]
    hashes = [np.random.default_rng(seed).bytes(32) for seed in (1, 2)]
    return {
        "id": (str(PHOTO_ID).encode(),),
        "path": (PATH.encode(),),
        "content": (CONTENT.encode(),),
        "former content": (FORMER.encode(),),
        "vector": (vectors[1].hex().encode(),),
        "former vector": (vectors[0].hex().encode(),),
        "picture hash": (hashes[1].hex().encode(),),
        "former picture hash": (hashes[0].hex().encode(),),
        "position": (str(LAT).encode(), str(LON).encode()),
        "metadata": (SECRET.encode(),),
    }


def test_no_table_and_no_statistics_of_postgres_have_anything_of_a_purged_photo_but_its_id(
    known: int, store: PostgresStore, settings: Settings, bytes_of: Needles
) -> None:
    programs, schema = Programs(store), settings.db_schema
    arguments = ("--statistics", f"--schema={schema}")
    before = programs._run("pg_dump", *arguments)

    store.entries.purge_many([known])
    at_once = in_tables(programs._run("pg_dump", *arguments), bytes_of)
    publish(store)
    after = programs._run("pg_dump", *arguments)

    of_photos = {table.name for table in metadata.tables.values()} - NEVER
    assert in_tables(before, bytes_of).keys() == {f"{schema}.{name}" for name in of_photos - {"purges"}}, (
        "all are tried"
    )
    assert told(before, bytes_of) >= bytes_of.keys() - {"former vector", "former picture hash"}
    assert told(re.sub(rb"\nCOPY .*?\n\\\.\n", b"", before, flags=re.DOTALL), bytes_of) >= {"id", "path", "content"}
    assert at_once == the_id(settings)
    assert told(after, bytes_of) == {"id"}


def test_of_a_file_that_was_replaced_nothing_stays(known: int, store: PostgresStore, bytes_of: Needles) -> None:
    dump = Programs(store)._run("pg_dump", f"--schema={store.settings.db_schema}")

    found = in_tables(dump, bytes_of)

    assert found.pop(f"{store.settings.db_schema}.attempts") >= {"former content"}, "a process died with it"
    assert not set().union(*found.values()) & {"former content", "former vector", "former picture hash"}


def test_what_was_embedded_and_never_added_stays_for_a_week(store: PostgresStore, settings: Settings) -> None:
    looked = {name: (np.random.default_rng(9).bytes(32), Shot(b"", 0.0)) for name in (CONTENT, FORMER)}
    store.vectors.keep({CONTENT: row_of(1), FORMER: row_of(2)}, KEY, looked=looked)
    put(store, "a", 3)
    old = "UPDATE {}.embeddings SET created_at = now() - interval '8 days' WHERE content_sha256 <> :c"
    run(store, old.format(settings.db_schema), c=CONTENT)
    (waits,) = kept_of(CONTENT, settings=settings)

    swept = store.vectors.sweep()

    assert kinds(waits) == Counter({("vector", "unadded"): 1, ("picture", "unadded"): 1})
    assert swept == 1
    assert store.vectors.known([CONTENT, FORMER, "sha-a"], KEY).keys() == {CONTENT, "sha-a"}
    assert run(store, f"SELECT content_sha256 FROM {settings.db_schema}.pictures ORDER BY 1") == [CONTENT, "sha-a"]


def test_how_rebuilds_went_is_forgotten_after_a_month(store: PostgresStore, settings: Settings) -> None:
    for days in (40, 20):
        store.runs.finish(store.runs.start(), summary=None, error=f"{days} days ago")
        age = f"UPDATE {settings.db_schema}.rebuilds SET finished_at = now() - interval '{days} days' WHERE error = :e"
        run(store, age, e=f"{days} days ago")

    store.runs.start()

    assert run(store, f"SELECT error FROM {settings.db_schema}.rebuilds ORDER BY run_id") == ["20 days ago", None]


# ------------------------------------------------------------------------------------------------- what is said of it


def test_where_names_what_the_tables_keep_and_when_it_goes(
    known: int, store: PostgresStore, settings: Settings
) -> None:
    (by_path,) = kept_of(PATH, settings=settings)
    (by_content,) = kept_of(CONTENT, settings=settings)
    store.entries.purge_many([known])
    (waiting,) = kept_of(str(known), settings=settings)
    publish(store)
    (erased,) = kept_of(str(known), settings=settings)
    run(store, f"DELETE FROM {settings.photos_table}")
    (bare,) = kept_of(str(known), settings=settings)

    assert (by_path["photo_id"], by_path["state"], by_path["content_sha256"]) == (known, "indexed", CONTENT)
    assert by_content["kept"] == by_path["kept"]
    assert kinds(by_path) == Counter(
        {
            ("row", "backend"): 1,
            ("entry", "purge"): 1,
            ("vector", "purge"): 1,
            ("picture", "purge"): 1,
            ("keypoints", "purge"): 1,
            ("attempt", "taken"): 3,
            ("refusal", "taken"): 1,
            ("conflict", "purge"): 1,
            ("contradicts", "purge"): 1,
            ("baseline", "baseline"): 1,
            ("change", "log"): 1,
            ("question", "expires"): 1,
        }
    )
    assert [kept["says"] for kept in by_path["kept"] if kept["kind"] == "question"] == ["2"]
    stays = Counter({("row", "backend"): 1, ("tombstone", "stays"): 1, ("change", "log"): 1})
    assert (waiting["state"], kinds(waiting)) == ("purged", stays + Counter([("purge", "rebuild")]))
    assert (erased["state"], kinds(erased)) == ("purged", stays + Counter([("purge", "stays")]))
    assert ("row", "backend") not in kinds(bare)


def test_where_says_that_another_photo_has_the_same_content(store: PostgresStore, settings: Settings) -> None:
    first, second = (put(store, name, 1, content_sha256=CONTENT) for name in ("a", "b"))

    photos = kept_of(CONTENT, settings=settings)
    store.entries.purge_many([first])
    left = kept_of(CONTENT, settings=settings)

    assert [photo["photo_id"] for photo in photos] == [first, second]
    assert all(("vector", "shared") in kinds(photo) for photo in photos)
    assert [photo["photo_id"] for photo in left] == [second]
    assert ("vector", "purge") in kinds(left[0])


def test_where_names_messages_on_their_way_and_parked_ones_whatever_they_call_the_photo(
    store: PostgresStore, settings: Settings
) -> None:
    path = "/photos/бабушка дома.jpg"
    photo_id = put(store, "a", 1, path=path, content_sha256=CONTENT)
    other = put(store, "b", 2)
    prefix = f"{settings.db_schema}:"
    settings = settings.model_copy(update={"key_prefix": prefix})
    bodies = {
        "its path": {"photo": {"path": path}},
        "its id": {"photo_id": photo_id},
        "among ids": {"photo_ids": [9_000, photo_id, 9_001]},
        "its bytes": {"photo": {"inline": base64.b64encode(b"now").decode()}},
        "its hash": {"content_sha256": CONTENT},
        "others": {"photo_ids": [other, photo_id * 10], "photo": {"path": f"{path}.bak"}, "lat": photo_id},
    }
    with redis.Redis.from_url(settings.broker_url) as client:
        for name, body in bodies.items():
            wrapped = base64.b64encode(json.dumps([[body], {}, {}]).encode()).decode()
            client.lpush(f"{prefix}{name}", json.dumps({"body": wrapped}))
        parking = Parking(client, prefix=prefix)
        parked = parking.park("bulk", client.lindex(f"{prefix}its id", 0), bad_entry())
        client.set(f"{prefix}{naming.REPLY}1", json.dumps({"result": {"ref": f"photo {photo_id}"}}), ex=100)

        (photo,) = kept_of(str(photo_id), settings=settings)
        client.delete(*client.scan_iter(f"{prefix}*"))

    found = {kept["place"].removeprefix(prefix): kept for kept in photo["kept"] if kept["place"].startswith(prefix)}
    assert found.keys() == {*bodies, "parked", f"{naming.REPLY}1"} - {"others"}
    assert {found[name]["until"] for name in bodies if name in found} == {"answered"}
    assert (found["parked"]["until"], found["parked"]["says"]) == ("dropped", parked.id)
    left_s = datetime.fromisoformat(found[f"{naming.REPLY}1"]["at"]) - datetime.now(UTC)
    assert 0 < left_s.total_seconds() <= 100


def test_where_names_the_generations_whose_files_have_the_photo(store: PostgresStore, settings: Settings) -> None:
    folder = GenerationFolder(settings.generations_dir)
    first, _ = put(store, "a", 1), write(store, folder)
    second, newest = put(store, "b", 2), write(store, folder)

    places = {
        photo_id: [
            k["place"] for k in kept_of(str(photo_id), settings=settings)[0]["kept"] if k["kind"] == "generation"
        ]
        for photo_id in (first, second)
    }

    assert [len(found) for found in places.values()] == [2, 1]
    assert places[second] == [str(folder.path(newest))]


def write(store: PostgresStore, folder: GenerationFolder) -> int:
    number = store.generations.reserve()
    with store.log.snapshot(KEY, DIM) as snapshot:
        built = folder.write(number, snapshot, model_key=KEY, dimension=DIM)
        store.generations.publish(number, KEY, snapshot.mark, built, keep=2)
    return number


def test_where_says_that_nothing_is_kept(store: PostgresStore, settings: Settings) -> None:
    assert kept_of("404", "/photos/none.jpg", "0" * 64, settings=settings) == []
