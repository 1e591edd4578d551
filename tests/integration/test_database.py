"""A database that reads and does not write, lacks something, or is short of something: who waits, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Connection, literal, make_url, select, text

from producer_client import NewPhoto, Photo, Provenance, contract
from producer_client.contract import Code
from tests.between import Between
from tests.conftest import Scene, until
from worker.commands import doctor
from worker.errors import Permanent, Transient, Unprepared, WorkerError
from worker.library import Library
from worker.settings import Settings
from worker.storage import copying, silence
from worker.storage.store import PostgresStore

#: Real errors of a real driver: PL/pgSQL raises any state.
STATES: list[tuple[str, type[WorkerError], Code]] = [
    # Away, or short of something: the same message may succeed later.
    *[
        (state, Transient, Code.UNAVAILABLE)
        for state in (
            "08006",  # connection_failure
            "25006",  # read_only_sql_transaction
            "25P02",  # in_failed_sql_transaction
            "28000",  # invalid_authorization_specification
            "28P01",  # invalid_password
            "40001",  # serialization_failure
            "40P01",  # deadlock_detected
            "53100",  # disk_full
            "53200",  # out_of_memory
            "53300",  # too_many_connections
            "55006",  # object_in_use
            "55P03",  # lock_not_available
            "57014",  # query_canceled: a timeout
            "57P01",  # admin_shutdown
            "57P02",  # crash_shutdown
            "57P03",  # cannot_connect_now
            "57P05",  # idle_session_timeout
            "58030",  # io_error
        )
    ],
    # Until a person has done something.
    *[
        (state, Unprepared, Code.NOT_READY)
        for state in (
            "3D000",  # invalid_catalog_name
            "3F000",  # invalid_schema_name
            "42501",  # insufficient_privilege
            "42703",  # undefined_column
            "42804",  # datatype_mismatch
            "42883",  # undefined_function: a column of another type
            "42P01",  # undefined_table
            "42P10",  # invalid_column_reference: a unique index is gone
            "XX000",  # internal_error
            "XX001",  # data_corrupted
        )
    ],
    # This row never.
    *[
        (state, Permanent, Code.ROW_REJECTED)
        for state in (
            "0A000",  # feature_not_supported: a view
            "22001",  # string_data_right_truncation
            "22P05",  # untranslatable_character
            "23502",  # not_null_violation
            "23505",  # unique_violation
            "23514",  # check_violation
            "27000",  # triggered_data_change_violation
            "38000",  # external_routine_exception: a trigger
            "44000",  # with_check_option_violation: a view
            "54000",  # program_limit_exceeded: a text that is too long for its index
            "55000",  # object_not_in_prerequisite_state: a view
            "P0001",  # raise_exception: a trigger
        )
    ],
]


@pytest.mark.parametrize(("state", "kind", "code"), STATES, ids=[state for state, *_ in STATES])
def test_what_postgres_says_decides_who_waits(
    state: str, kind: type[WorkerError], code: Code, store: PostgresStore
) -> None:
    with pytest.raises(WorkerError) as caught, store.database.begin() as connection:
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{state}'; END $$"))

    assert type(caught.value) is kind
    assert caught.value.code is code
    assert "so" in caught.value.message


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)", Transient),
        ("SET LOCAL transaction_timeout = 10; SELECT pg_sleep(1)", Transient),
        ("SELECT nothing FROM pg_class", Unprepared),
        ("SELECT * FROM nowhere.photos", Unprepared),
        ("SELECT 'a'::text = 1", Unprepared),
        (
            "CREATE TEMP TABLE t (a text); CREATE INDEX ON t (a); INSERT INTO t "
            "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 10000) n",
            Permanent,
        ),
    ],
    ids=["a timeout", "a timeout of a transaction", "a column", "a schema", "a type", "a text too long for an index"],
)
def test_so_do_errors_that_were_not_raised_for_it(sql: str, kind: type[WorkerError], store: PostgresStore) -> None:
    with pytest.raises(WorkerError) as caught, store.database.begin() as connection:
        connection.execute(text(sql))

    assert type(caught.value) is kind


def test_a_connection_that_is_lost_in_an_answer_says_nothing_of_a_row(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As psycopg2 (2.9) has it now and then where a backend ends in the middle of its answer: no subclass, no state."""

    def lost(cursor: Any, *_: Any) -> None:
        cursor.connection.close()
        raise psycopg2.DatabaseError("error with status PGRES_COPY_OUT and no message from the libpq")

    store.models.serving("a@1")
    monkeypatch.setattr(silence._Cursor, "execute", lost)

    with pytest.raises(WorkerError) as caught:
        store.models.serving("a@1")
    monkeypatch.undo()

    assert (type(caught.value), caught.value.code) == (Transient, Code.UNAVAILABLE)


def test_another_database_is_waited_for(settings: Settings) -> None:
    other = settings.model_copy(update={"database_url": settings.database_url.replace("/postgres?", "/elsewhere?")})
    store = PostgresStore(other)
    try:
        with pytest.raises(Transient, match=r"elsewhere.*SIGHTLINE_DATABASE_URL") as caught:
            store.models.serving("a@1")
        assert "Start it" not in caught.value.message, "who said that runs"
    finally:
        store.close()


@pytest.fixture
def read_only(settings: Settings, make_store: Callable[..., PostgresStore]) -> PostgresStore:
    """The same tables by connections that write nothing, as of a standby."""
    make_store()
    joined = "&" if "?" in settings.database_url else "?"
    return make_store(database_url=f"{settings.database_url}{joined}options=-c%20default_transaction_read_only%3Don")


def test_every_question_is_answered_by_a_database_that_only_reads(
    settings: Settings,
    store: PostgresStore,
    library: Library,
    make_library: Callable[..., Library],
    read_only: PostgresStore,
    scenes: list[Scene],
) -> None:
    photos = [NewPhoto(str(s.path), Photo(path=str(s.path)), s.lat, s.lon, Provenance.SURVEYED) for s in scenes[:3]]
    library.photos.add_many(photos)
    library.rebuilding.rebuild()
    store.models.serving(library.model_key)
    reader = make_library(store=read_only)
    path = str(scenes[3].path)

    assert read_only.models.serving(library.model_key) == library.model_key
    assert read_only.models.serving("another@1") == library.model_key
    assert len(reader.questions.search(contract.Search(photo=Photo(path=path), threshold=-1.0)).hits) == 3
    assert reader.questions.locate(contract.Locate(photo=Photo(path=path))).answer is not None
    assert reader.statistics.stats(rss_mb=0.0, next_model_key=None).indexed == 3
    assert len(read_only.generations.kept()) == 1
    asked = settings.model_copy(update={"database_url": read_only.settings.database_url})
    assert "revision" in doctor.database(asked)
    assert "3 photos" in doctor.index(asked)
    with pytest.raises(Transient, match="read-only at the moment") as caught:
        reader.photos.remove_many([1])
    assert caught.value.code is Code.UNAVAILABLE


def test_which_model_serves_is_noted_once_and_then_only_read(store: PostgresStore, read_only: PostgresStore) -> None:
    before = read_only.models.serving("a@1")
    noted = store.models.serving("b@1")

    assert (before, noted) == ("a@1", "b@1")
    assert read_only.models.serving("b@1") == "b@1"
    assert read_only.models.serving("a@1") == "a@1", "nothing of b is stored"
    assert store.models.serving("b@1") == "b@1", "and nobody has noted a"


# ------------------------------------------------------------------------------- a server that does not answer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "LONG_S", 0.3)
    monkeypatch.setattr(silence, "LOOK_EVERY_S", 0.1)
    # The least that libpq knows.
    monkeypatch.setattr(silence, "CONNECT_S", 2)


@pytest.fixture
def far_store(hasty: None, far: Settings, make_store: Callable[..., PostgresStore]) -> PostgresStore:
    make_store()
    return make_store(database_url=far.database_url)


def a_statement(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def a_copy(connection: Connection) -> None:
    list(copying.rows(connection, select(literal(1)), [("n", ">i4")]))


def a_commit(connection: Connection) -> None:
    connection.commit()


@pytest.mark.parametrize("act", [a_statement, a_copy, a_commit])
def test_who_waits_for_a_server_that_hangs_is_cut_off_and_who_comes_is_told_at_once(
    act: Callable[[Connection], None], far_store: PostgresStore, between: Between
) -> None:
    def hang_in_a_transaction() -> None:
        with far_store.database.begin() as connection:
            a_statement(connection)
            between.hang()
            act(connection)

    began = time.monotonic()
    with pytest.raises(Transient) as cut:
        hang_in_a_transaction()
    cut_after_s = time.monotonic() - began
    with pytest.raises(Transient, match="does not answer") as told:
        far_store.models.serving("a@1")
    told_after_s = time.monotonic() - began - cut_after_s

    between.go_on()
    until(lambda: not far_store.database._silence.on)

    assert (cut.value.code, told.value.code) == (Code.UNAVAILABLE, Code.UNAVAILABLE)
    assert cut_after_s < 2 * silence.CONNECT_S
    assert told_after_s < silence.CONNECT_S / 2
    assert far_store.models.serving("a@1") == "a@1"


def test_a_connection_of_the_pool_that_hangs_is_no_reason_to_wait_for_it(
    far_store: PostgresStore, between: Between
) -> None:
    far_store.models.serving("a@1")

    between.hang()
    began = time.monotonic()
    with pytest.raises(Transient):
        far_store.models.serving("a@1")
    waited_s = time.monotonic() - began
    between.go_on()
    until(lambda: not far_store.database._silence.on)

    assert waited_s < 2 * silence.CONNECT_S, "nor for a new one in its place"
    assert far_store.models.serving("a@1") == "a@1"


def test_who_waits_for_a_backend_that_has_ended_without_a_word_is_cut_off(
    far_store: PostgresStore, store: PostgresStore, between: Between
) -> None:
    """Half open, and the server has restarted since: it is there, and knows nothing of who waits."""

    def end_in_a_transaction() -> None:
        with far_store.database.begin() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            between.lose()
            with store.database.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            a_statement(connection)

    with pytest.raises(Transient):
        end_in_a_transaction()

    assert far_store.models.serving("a@1") == "a@1"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What servers are asked about meanwhile."""
    asked: list[list[int]] = []

    class Counted(silence._Question):
        def __init__(self, how: dict[str, Any], pids: list[int]) -> None:
            asked.append(pids)
            super().__init__(how, pids)

    monkeypatch.setattr(silence, "_Question", Counted)
    return asked


def test_a_long_statement_of_a_server_that_answers_others_goes_on(
    hasty: None, asked: list[list[int]], store: PostgresStore
) -> None:
    with store.database.begin() as connection:
        done = connection.execute(text("SELECT 1 FROM pg_sleep(2)")).scalar_one()

    assert done == 1
    assert 1 <= len(asked) < 10, "not at each look"


def test_nobody_asks_about_a_statement_that_is_quick(
    asked: list[list[int]], store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOOK_EVERY_S", 0.05)

    with store.database.begin() as connection:
        connection.execute(text("SELECT pg_sleep(0.3)"))

    assert asked == []


def test_a_server_that_is_not_there_is_not_silent(far_store: PostgresStore, between: Between) -> None:
    between.refuse()

    for _ in range(2):
        with pytest.raises(Transient, match="SIGHTLINE_DATABASE_URL"):
            far_store.models.serving("a@1")
    between.listen()

    assert far_store.models.serving("a@1") == "a@1"


def test_who_connects_to_a_server_that_hangs_is_the_last_to_wait_for_it(
    far_store: PostgresStore, between: Between, caplog: pytest.LogCaptureFixture
) -> None:
    far_store.database.engine.dispose()
    between.hang()

    with pytest.raises(Transient):
        far_store.models.serving("a@1")
    # It is asked once more, and nothing is said of that.
    asked_until = time.monotonic() + silence.CONNECT_S
    began = time.monotonic()
    while time.monotonic() < asked_until:
        with pytest.raises(Transient, match="does not answer"):
            far_store.models.serving("a@1")
    told_after_s = time.monotonic() - began
    between.go_on()

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == silence.__name__]

    # It is over a moment before that is said.
    until(lambda: len(said()) > 1)
    assert said() == ["Postgres does not answer, it is asked until it does", "Postgres answers again"]
    assert not far_store.database._silence.on
    assert told_after_s < 1.5 * silence.CONNECT_S, "or one of them has waited, too"


def test_who_breaks_off_does_not_wait_for_a_server_that_hangs_either(
    far_store: PostgresStore, between: Between
) -> None:
    def break_off() -> None:
        with far_store.database.begin() as connection:
            a_statement(connection)
            between.hang()
            raise ArithmeticError

    began = time.monotonic()
    with pytest.raises((ArithmeticError, Transient)):
        break_off()

    assert time.monotonic() - began < 2 * silence.CONNECT_S
    between.go_on()


def test_an_answer_that_is_only_late_is_waited_for(settings: Settings) -> None:
    """What a server has done within the last second may be on its way."""
    how = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    asking = silence.Silence({"dsn": how})
    with closing(psycopg2.connect(how)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        asking._waiting[0] = 0.0, connection

        late = asking._ask([0])
        time.sleep(1.1)
        lost = asking._ask([0])

        assert (late, lost) == (set(), {connection.info.backend_pid})


def test_each_host_of_an_address_has_its_time_to_answer_and_no_question_is_left(monkeypatch: Any) -> None:
    waited: list[float] = []
    hung_up: list[bool] = []

    class Asked:
        """Is never answered."""

        def __init__(self, *_: Any) -> None: ...

        def start(self) -> None: ...

        def is_alive(self) -> bool:
            return True

        def join(self, timeout: float) -> None:
            waited.append(timeout)

        def hang_up(self) -> None:
            hung_up.append(True)

    monkeypatch.setattr(silence, "_Question", Asked)

    assert silence.Silence({"host": "one,other"})._ask([7]) is None
    assert (waited, hung_up) == ([2 * silence.CONNECT_S - 0.5], [True])


def test_who_has_had_its_answer_or_is_gone_is_not_cut_off(settings: Settings) -> None:
    how = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    asking = silence.Silence({})
    closed = psycopg2.connect(how)
    closed.close()
    asking._waiting[0] = 0.0, closed

    asking._cut([0, 1], None)


def test_nobody_looks_at_a_server_that_is_closed_or_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(silence, "LOOK_EVERY_S", 0.1)
    closed, forgotten = silence.Silence({}), silence.Silence({})
    for one in (closed, forgotten):
        with one.waiting(None):
            pass
    looking, still = closed._thread, forgotten._thread
    assert looking is not None
    assert still is not None

    closed.close()
    ended = not looking.is_alive()
    del one, forgotten

    assert ended
    until(lambda: not still.is_alive())
