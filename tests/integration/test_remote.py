"""Generations that are published at a URL: every host keeps a verified copy, and the URL is what counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from producer_client.contract import Code
from tests.integration.test_index import DIM, KEY, MARK, exchange, numbered, publish, put, vectors
from worker.errors import BadGeneration, Permanent, Transient
from worker.index.folder import GenerationFolder
from worker.index.live import FaissLiveIndex
from worker.storage.objects import ObjectFolder
from worker.storage.store import PostgresStore


@pytest.fixture
def host(tmp_path: Path) -> Callable[[str], GenerationFolder]:
    """Folders of several hosts that share one URL."""
    url = f"file://{tmp_path}/shared"
    return lambda name: GenerationFolder(tmp_path / name, remote=ObjectFolder(url))


def test_what_one_host_publishes_another_serves(host: Callable[[str], GenerationFolder], store: PostgresStore) -> None:
    rows = vectors(5)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(5)]
    number = publish(store, host("builder"))
    live = FaissLiveIndex(store.log, host("reader"), model_key=KEY, dimension=DIM)

    live.settle()

    assert live.generation == number
    assert live.search(rows[2], 1).ids.tolist() == [ids[2]]


def test_a_copy_that_was_damaged_is_fetched_again(host: Callable[[str], GenerationFolder]) -> None:
    host("builder").write(1, numbered(50), model_key=KEY, dimension=DIM)
    reader = host("reader")
    reader.open(1, model_key=KEY)
    (reader.path(1) / "index.faiss").write_bytes(b"torn")

    assert host("reader").open(1, model_key=KEY).manifest.count == 50


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "manifest.json"])
def test_what_is_damaged_at_the_url_is_refused_and_leaves_no_copy(
    host: Callable[[str], GenerationFolder], tmp_path: Path, name: str
) -> None:
    host("builder").write(1, numbered(50), model_key=KEY, dimension=DIM)
    (tmp_path / "shared" / "000001" / name).write_bytes(b"torn")

    with pytest.raises(BadGeneration):
        host("reader").open(1, model_key=KEY)

    assert list((tmp_path / "reader").iterdir()) == []


def test_what_was_exchanged_at_the_url_is_not_even_fetched_and_an_exchanged_copy_is_fetched_again(
    host: Callable[[str], GenerationFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = host("builder").write(1, numbered(50), model_key=KEY, dimension=DIM)
    reader = host("reader")
    fetched: list[str] = []
    really_get = ObjectFolder.get

    def get(self: ObjectFolder, name: str, files: Sequence[str], into: Path) -> None:
        fetched.extend(files)
        really_get(self, name, files, into)

    monkeypatch.setattr(ObjectFolder, "get", get)
    reader.open(1, model_key=KEY, sha256=built.manifest_sha256)
    exchange(reader, 1)
    again = reader.open(1, model_key=KEY, mark=MARK, sha256=built.manifest_sha256)
    assert again.manifest.count == 50
    fetched.clear()

    exchange(GenerationFolder(tmp_path / "shared"), 1)
    with pytest.raises(BadGeneration, match="as it was published"):
        host("another").open(1, model_key=KEY, mark=MARK, sha256=built.manifest_sha256)

    assert fetched == ["manifest.json"]
    assert list((tmp_path / "another").iterdir()) == []


def test_an_upload_that_was_broken_off_is_no_generation(
    host: Callable[[str], GenerationFolder], tmp_path: Path
) -> None:
    host("builder").write(1, numbered(50), model_key=KEY, dimension=DIM)
    (tmp_path / "shared" / "000001" / "manifest.json").unlink()

    with pytest.raises(BadGeneration, match="not at file://"):
        host("reader").open(1, model_key=KEY)


def test_dropped_generations_go_at_the_url_and_from_every_host(
    host: Callable[[str], GenerationFolder], store: PostgresStore, tmp_path: Path
) -> None:
    rows = vectors(4)
    builder, reader = host("builder"), host("reader")
    live = FaissLiveIndex(store.log, reader, model_key=KEY, dimension=DIM)
    for i in range(4):
        put(store, f"p{i}", rows[i])
        number = store.generations.reserve()
        with store.log.snapshot(KEY, DIM) as snapshot:
            built = builder.write(number, snapshot, model_key=KEY, dimension=DIM)
            mark = snapshot.mark
        builder.keep_only(store.generations.publish(number, KEY, mark, built, keep=2), everywhere=True)
        live.settle()
    live.settle()
    live.catch_up()

    def kept(name: str) -> list[int]:
        return sorted(int(p.name) for p in (tmp_path / name).iterdir())

    assert kept("shared") == kept("builder") == [number - 1, number]
    assert set(kept("reader")) <= {number - 1, number}


def test_a_url_that_cannot_be_reached_leaves_the_running_generation_serving(
    host: Callable[[str], GenerationFolder], store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = vectors(3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(2)]
    first = publish(store, host("builder"))
    live = FaissLiveIndex(store.log, host("reader"), model_key=KEY, dimension=DIM)
    live.settle()
    ids.append(put(store, "p2", rows[2])[0])
    second = publish(store, host("builder"))

    def away(*_: object) -> None:
        raise Transient(Code.UNAVAILABLE, "the object store is away")

    with monkeypatch.context() as gone:
        gone.setattr(ObjectFolder, "get", away)
        live.settle()
        assert live.generation == first
        assert sorted(live.search(rows[0], 5).ids.tolist()) == ids

    live.settle()
    assert live.generation == second


def test_a_scheme_that_nobody_knows_is_said_with_its_setting(tmp_path: Path) -> None:
    folder = GenerationFolder(tmp_path / "here", remote=ObjectFolder("nosuch://bucket/index"))

    with pytest.raises(Permanent, match="SIGHTLINE_INDEX_URL") as caught:
        folder.write(1, numbered(50), model_key=KEY, dimension=DIM)

    assert caught.value.code is Code.NOT_READY
    assert "nosuch:// is not known here" in caught.value.message


def test_names_at_an_empty_url_are_none(tmp_path: Path) -> None:
    assert ObjectFolder(f"file://{tmp_path}/nothing").names() == []
