"""Addresses of Redis and Postgres in settings and in the client: taken, or a sentence that shows no password."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from producer_client import BadRequest, Sightline
from producer_client.compat import CLIPSimilarityService
from worker.settings import Settings
from worker.storage.database import Database
from worker.words import in_language

ROOT = Path(__file__).parents[2]
#: None of them is to be seen in a message.
SECRET = "s3cr"

BROKERS = [
    ("redis://h:1/5", "redis://h:1/5"),
    ("rediss://:pa%23ss@h/5?ssl_cert_reqs=required", "rediss://:pa%23ss@h/5?ssl_cert_reqs=required"),
    (" REDIS://h\n", "redis://h"),
    ("redis+socket:///run/redis.sock?virtual_host=5", "redis+socket:///run/redis.sock?virtual_host=5"),
    ("redis://a:1/5;redis://b:2/5", "redis://a:1/5;redis://b:2/5"),
    ("redis://[::1]:6379/5", "redis://[::1]:6379/5"),
    ("rediss://h/5?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/a", "rediss://h/5?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/a"),
]
NO_BROKERS = [
    ("amqp://me:s3cret@h:5672//", "amqp:// is not spoken here, but redis://"),
    ("http://me:s3cret@h:80/", "http:// is not spoken here"),
    ("valkey://:s3cret@h:80/", "valkey:// is not spoken here"),
    ("sentinel://:s3cret@h:26379", "sentinel:// is not spoken here"),
    ("unix:///run/redis.sock", "redis+socket://"),
    ("redis://a:1/5;mysql://b:2/5", "mysql:// is not spoken here"),
    ("localhost:6379", "it is no address"),
    ("", "is empty"),
    ("   ", "is empty"),
    ("redis://:s3cr#et@h:1/5", "%23"),
    ("redis://:s3cr/et@h:1/5", "%2F"),
    ("redis://h:s3cret/5", "is no port"),
    ("redis://h:1/photos", "no number of a database"),
    ("redis+socket://", "lacks the socket's path"),
    ("rediss://:s3cret@h:1/5", "?ssl_cert_reqs=required"),
    ("redis://a;rediss://:s3cret@h:1/5?ssl_cert_reqs=s3cret", "?ssl_cert_reqs=required"),
    ("redis://:s3cret@h:1/5?socket_timeout=5", "socket_timeout cannot stand behind"),
    ("redis://:s3cret@h:1/5?ssl_cert_reqs=none", "ssl_cert_reqs cannot stand behind"),
    ("rediss://:s3cret@h:1/5?ssl_cert_reqs=none&heartbeat=5", "heartbeat cannot stand behind"),
    ("redis+socket:///run/redis.sock?virtual_host=5&password=s3cret", "password cannot stand behind"),
    ("redis+socket:///run/redis.sock?virtual_host=s3cret", "virtual_host behind its question mark has no value"),
    ("rediss://:s3cret@h:1/5?ssl_cert_reqs=none&ssl_nonsense=1", "ssl_nonsense cannot stand behind"),
]
NO_DATABASES = [
    ("mysql://me:s3cret@h/db", "mysql:// is not spoken here, but postgresql://"),
    ("sqlite:///s3cret.db", "sqlite:// is not spoken here"),
    ("postgresql+psycopg://me:s3cret@h/db", "postgresql+psycopg2://"),
    ("h:5432/s3cret", "it is no address"),
    ("", "it is no address"),
    ("postgresql://me:s3cr#et@h/db", "%23"),
]


@pytest.mark.parametrize(("given", "taken"), BROKERS)
def test_an_address_of_redis_is_taken(given: str, taken: str) -> None:
    assert Settings(broker_url=given, result_backend=given).replies_url == taken
    assert Settings(broker_url=given).broker_url == taken
    assert Sightline(given)._broker_url == Sightline("redis://x", result_backend=given)._replies_url == taken


@pytest.mark.parametrize(
    "option", ["s3cret=5", "timeout=5", "kwargs=5", "ssl_cert_reqs=none", "credential_provider=a.B"]
)
def test_an_option_for_replies_that_their_driver_does_not_know_is_told_before_anything_starts(option: str) -> None:
    with pytest.raises(ValidationError, match=f"{option.partition('=')[0]} cannot stand behind its question mark"):
        Settings(result_backend=f"redis://h:1/5?{option}")


@pytest.mark.parametrize("option", ["socket_timeout=s3cret", "max_connections=1.5"])
def test_an_option_for_replies_that_has_no_such_value_is_told_before_anything_starts(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(ValidationError, match=f"{name} behind its question mark has no value") as told:
        Settings(result_backend=f"redis://h:1/5?{option}")
    assert "s3cret" not in str(told.value.errors()[0]["msg"])


@pytest.mark.parametrize(("given", "said"), NO_BROKERS)
def test_another_address_of_a_broker_is_a_sentence(given: str, said: str) -> None:
    with pytest.raises(ValidationError) as in_settings:
        Settings(broker_url=given)
    with pytest.raises(BadRequest) as in_client:
        Sightline(given)

    for raised in (in_settings, in_client):
        assert said in str(raised.value)
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize(("given", "said"), NO_BROKERS)
def test_what_is_said_of_an_address_is_said_in_russian(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest) as raised:
        Sightline(given)
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    russian = in_language(raised.value.message.removeprefix("broker_url: "))

    assert re.search("[а-я]{3}", russian)
    assert not re.search("[a-z]{2,} [a-z]{2,}", russian), russian


def test_no_text_at_all_is_no_address() -> None:
    for nothing in (None, 6379, b"redis://h"):
        with pytest.raises(BadRequest, match="broker_url: it is empty or no text"):
            Sightline(nothing)  # type: ignore[arg-type]


def test_the_class_of_before_says_the_same() -> None:
    with pytest.raises(BadRequest, match="broker_url: amqp:// is not spoken here"):
        CLIPSimilarityService(broker_url="amqp://h")
    with pytest.raises(BadRequest, match="result_backend: http:// is not spoken here"):
        CLIPSimilarityService(broker_url="redis://h", result_backend="http://h")


@pytest.mark.parametrize(("given", "said"), NO_DATABASES)
def test_another_address_of_a_database_is_a_sentence(given: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=given)

    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_command_says_which_setting_and_no_password(tmp_path: Path) -> None:
    wrong = {
        "SIGHTLINE_BROKER_URL": "amqp://me:s3cret@h",
        "SIGHTLINE_RESULT_BACKEND": "http://me:s3cret@h",
        "SIGHTLINE_DATABASE_URL": "mysql://me:s3cret@h/db",
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "stats"],
        env={**os.environ, **wrong, "SIGHTLINE_DATA_DIR": str(tmp_path), "COLUMNS": "300"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 2
    assert all(name in done.stderr for name in wrong)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("folder", ["/srv/sightline/postgres", "/дом/a b & 100% #1/x+y?=z"])
def test_the_folder_of_a_socket_is_shown_as_a_path_and_the_address_stays_one(folder: str) -> None:
    address = f"postgresql://me:{SECRET}@/db?port=5432&host={quote(folder)}"

    with closing(Database(Settings(database_url=address))) as database:
        shown = make_url(database.address)

    assert SECRET not in database.address
    assert "%2F" not in database.address
    assert folder.split()[0] in database.address
    assert shown.query["host"] == folder
    assert shown.query["port"] == "5432"
