"""Generations on disk and the live index over a real Postgres: whole or refused, fresh, exact."""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from producer_client.contract import Code, Provenance
from tests.entries import new_entry
from worker.core.generations import Built
from worker.core.types import Chunk, Documents, Facts, Filter, Mark, NewEntry
from worker.core.vectors import Ids, Vectors, unit_rows
from worker.errors import BadGeneration
from worker.index import kinds
from worker.index.building import Build
from worker.index.folder import GenerationFolder
from worker.index.generation import FILES, FORMAT, Generation
from worker.index.live import FaissLiveIndex
from worker.storage.store import PostgresStore

KEY = "test-model@1"
DIM = 16
MARK = Mark(7, "f4f5c0e2-0000-4000-8000-000000000007")


def vectors(count: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, DIM)))


@dataclass
class Rows:
    """A snapshot without a database. What it streams may be another thing than what it is a sample of."""

    ids: Ids
    vectors: Vectors
    mark: Mark = MARK
    stream: Callable[[], Iterator[Chunk]] | None = None

    @property
    def count(self) -> int:
        return len(self.ids)

    def chunks(self, size: int = 7) -> Iterator[Chunk]:
        if self.stream is not None:
            yield from self.stream()
            return
        size = max(size, self.count // 10)
        for start in range(0, self.count, size):
            yield Chunk(self.ids[start : start + size], self.vectors[start : start + size])

    def sample(self, rows: int) -> Chunk:
        # Another one each time, as Postgres draws.
        chosen = np.sort(np.random.default_rng(rows).permutation(self.count)[:rows])
        return Chunk(self.ids[chosen], self.vectors[chosen])

    def facts(self) -> Iterator[Facts]:
        yield from ()

    def documents(self) -> Iterator[Documents]:
        yield from ()


def numbered(count: int, stream: Callable[[], Iterator[Chunk]] | None = None) -> Rows:
    """Photos 10, 20, 30 ..."""
    return Rows(np.arange(1, count + 1, dtype=np.int64) * 10, vectors(count), stream=stream)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder: GenerationFolder, number: int = 1, count: int = 50) -> Path:
    folder.write(number, numbered(count), model_key=KEY, dimension=DIM)
    return folder.path(number)


@pytest.fixture
def folder(tmp_path: Path) -> GenerationFolder:
    return GenerationFolder(tmp_path / "index")


def test_what_is_told_of_a_written_generation_is_what_its_manifest_says(folder: GenerationFolder) -> None:
    built = folder.write(1, numbered(300), model_key=KEY, dimension=DIM)

    manifest = folder.open(1, model_key=KEY).manifest
    assert manifest.recall_at_10_at_least is not None
    assert built == Built(
        manifest_sha256=sha256_of(folder.path(1) / "manifest.json"),
        count=300,
        kind=manifest.kind,
        parameters=dict(manifest.parameters),
        recall_at_10=manifest.recall_at_10,
        index_bytes=manifest.index_bytes,
        recall_at_10_at_least=manifest.recall_at_10_at_least,
    )


def test_a_written_generation_reads_back_as_it_was(folder: GenerationFolder) -> None:
    write(folder)

    opened = folder.open(1, model_key=KEY)

    assert (opened.manifest.count, opened.manifest.dimension, opened.manifest.seq) == (50, DIM, 7)
    assert opened.ids.tolist() == [i * 10 for i in range(1, 51)]
    # Kept as float16.
    assert np.allclose(opened.index.reconstruct_n(0, 50), vectors(50), atol=1e-3)


def test_an_empty_generation_is_a_generation(folder: GenerationFolder) -> None:
    folder.write(1, numbered(0), model_key=KEY, dimension=DIM)

    assert folder.open(1, model_key=KEY).manifest.count == 0


@pytest.mark.parametrize("name", FILES[FORMAT])
@pytest.mark.parametrize("damage", ["flip a bit", "cut the end", "delete", "swap for a pickle"])
def test_a_damaged_file_is_refused_by_name(folder: GenerationFolder, name: str, damage: str) -> None:
    file = write(folder) / name
    content = bytearray(file.read_bytes())
    if damage == "flip a bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut the end":
        file.write_bytes(content[:-3])
    elif damage == "delete":
        file.unlink()
    else:
        file.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.")

    with pytest.raises(BadGeneration, match=name):
        folder.open(1, model_key=KEY)


def exchange(folder: GenerationFolder, number: int, mark: Mark = MARK) -> Path:
    """What whoever can write to that folder can do: another generation of that number and place, whole in itself."""
    shutil.rmtree(folder.path(number))
    forged = Rows(np.arange(1, 4, dtype=np.int64), vectors(3, seed=9), mark)
    GenerationFolder(folder.path(number).parent).write(number, forged, model_key=KEY, dimension=DIM)
    return folder.path(number)


def test_a_generation_that_somebody_has_exchanged_is_refused_before_it_is_read(folder: GenerationFolder) -> None:
    built = folder.write(1, numbered(50), model_key=KEY, dimension=DIM)
    assert folder.open(1, model_key=KEY, sha256=built.manifest_sha256).manifest.count == 50

    forged = exchange(folder, 1)
    (forged / "index.faiss").unlink()

    assert built.manifest_sha256 != sha256_of(forged / "manifest.json")
    with pytest.raises(BadGeneration, match=r"not hold generation 1 as it was published.*SHA-256.*Somebody"):
        folder.open(1, model_key=KEY, mark=MARK, sha256=built.manifest_sha256)


def test_of_a_manifest_without_an_end_only_the_beginning_is_read(folder: GenerationFolder) -> None:
    file = write(folder) / "manifest.json"
    with file.open("ab") as end:
        end.truncate(200_000_000)

    tracemalloc.start()
    with pytest.raises(BadGeneration, match="no readable manifest"):
        folder.open(1, model_key=KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20_000_000


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"format": 1}', "[" * 100_000, None])
def test_a_manifest_that_is_not_ours_is_refused(folder: GenerationFolder, manifest: str | None) -> None:
    file = write(folder) / "manifest.json"
    if manifest is None:
        file.unlink()
    else:
        file.write_text(manifest)

    with pytest.raises(BadGeneration, match="manifest"):
        folder.open(1, model_key=KEY)


def test_a_generation_of_another_model_or_number_is_refused(folder: GenerationFolder) -> None:
    path = write(folder)
    with pytest.raises(BadGeneration, match="other@1"):
        folder.open(1, model_key="other@1")

    path.rename(folder.path(2))
    with pytest.raises(BadGeneration, match="generation 1"):
        folder.open(2, model_key=KEY)


def test_a_manifest_that_lies_about_the_count_is_refused(folder: GenerationFolder) -> None:
    file = write(folder) / "manifest.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"count": 49}))

    with pytest.raises(BadGeneration, match="49"):
        folder.open(1, model_key=KEY)


def test_rows_out_of_order_are_refused_and_leave_nothing(folder: GenerationFolder, tmp_path: Path) -> None:
    mixed = Rows(np.array([2, 1], dtype=np.int64), vectors(2))

    with pytest.raises(BadGeneration, match="rise"):
        folder.write(1, mixed, model_key=KEY, dimension=DIM)

    assert list((tmp_path / "index").iterdir()) == []


def test_a_stream_that_breaks_off_leaves_nothing(folder: GenerationFolder, tmp_path: Path) -> None:
    def broken() -> Iterator[Chunk]:
        yield from numbered(7).chunks()
        raise OSError(errno.EIO, "the connection went away")

    with pytest.raises(OSError, match="went away"):
        folder.write(1, numbered(50, broken), model_key=KEY, dimension=DIM)

    assert list((tmp_path / "index").iterdir()) == []


def test_a_folder_that_a_killed_rebuild_never_published_is_written_over(folder: GenerationFolder) -> None:
    write(folder, number=1, count=3)

    write(folder, number=1, count=5)

    assert folder.open(1, model_key=KEY).manifest.count == 5


def test_an_index_that_was_trained_while_photos_were_embedded_is_filled_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = GenerationFolder(tmp_path / "index", build=Build(kind="ivf", gate=0.5))
    trained = folder.prepare(numbered(1500), dimension=DIM)
    monkeypatch.setattr(kinds, "train", None)

    folder.write(1, numbered(1600), model_key=KEY, dimension=DIM, trained=trained)

    assert folder.open(1, model_key=KEY).manifest.count == 1600


def test_what_a_killed_build_left_is_cleared_by_the_next(folder: GenerationFolder, tmp_path: Path) -> None:
    left = tmp_path / "index" / ".building-000001-99999"
    left.mkdir(parents=True)
    (left / "index.faiss").write_bytes(b"half")

    write(folder, number=2)

    assert [p.name for p in (tmp_path / "index").iterdir()] == ["000002"]


def test_a_disk_that_is_full_leaves_the_old_generation_alone(folder: GenerationFolder, tmp_path: Path) -> None:
    """A file size limit plays the full disk, in a process of its own: FAISS writes short and says nothing useful."""
    write(folder, number=1)
    program = f"""
import resource, signal
import numpy as np
from dataclasses import replace
from pathlib import Path
from tests.integration.test_index import Rows
from worker.core.vectors import unit_rows
from worker.index.folder import GenerationFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rows = unit_rows(np.random.default_rng(0).normal(size=(1000, {DIM})))
some = Rows(np.arange(1000, dtype=np.int64), rows)
folder = GenerationFolder(Path({str(tmp_path / "index")!r}))
try:
    folder.write(2, some, model_key={KEY!r}, dimension={DIM})
except Exception as exc:
    print("refused:", type(exc).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.startswith("refused:")
    assert [p.name for p in (tmp_path / "index").iterdir()] == ["000001"]
    assert folder.open(1, model_key=KEY).manifest.count == 50


# ------------------------------------------------------------------------------------------ the live index


def entry(name: str, vector: Vectors) -> NewEntry:
    return new_entry(name, vector, path=f"/{name}", given=(1.0, 2.0, Provenance.SURVEYED))


def put(store: PostgresStore, name: str, vector: Vectors) -> tuple[int, int]:
    """(photo id, seq) of a stored photo with this vector."""
    (written,) = store.entries.put_many([entry(name, vector)], KEY)
    return written.entry.photo_id, written.seq


def publish(store: PostgresStore, folder: GenerationFolder, keep: int = 2) -> int:
    number = store.generations.reserve()
    with store.log.snapshot(KEY, DIM) as snapshot:
        built = folder.write(number, snapshot, model_key=KEY, dimension=DIM)
        mark = snapshot.mark
    folder.keep_only(store.generations.publish(number, KEY, mark, built, keep))
    return number


def as_of_an_earlier_release(store: PostgresStore) -> None:
    """Nothing says which manifest its generations have."""
    with store.database.begin() as connection:
        connection.execute(text(f"UPDATE {store.database.schema}.generations SET manifest_sha256 = NULL"))


def number_serving(store: PostgresStore, model_key: str = KEY) -> int | None:
    serving = store.generations.serving(model_key)
    return None if serving is None else serving.number


def live_on(store: PostgresStore, folder: GenerationFolder) -> FaissLiveIndex:
    return FaissLiveIndex(store.log, folder, model_key=KEY, dimension=DIM)


def test_an_added_photo_is_found_by_another_process_without_a_rebuild(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    writer, reader = make_store(), make_store()
    live = live_on(reader, folder)
    live.settle()
    row = vectors(1)[0]

    photo_id, seq = put(writer, "a", row)
    reached = live.catch_up()
    found = live.search(row, 5)

    assert reached == seq
    assert found.ids.tolist() == [photo_id]
    assert found.similarities[0] == pytest.approx(1.0, abs=1e-6)
    assert (found.seq, found.generation) == (seq, None)


def test_a_search_over_base_and_delta_equals_brute_force(store: PostgresStore, folder: GenerationFolder) -> None:
    rows = vectors(60, seed=3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(40)]
    live = live_on(store, folder)
    publish(store, folder)
    ids += [put(store, f"p{i}", rows[i])[0] for i in range(40, 60)]
    moved = unit_rows(np.random.default_rng(9).normal(size=(1, DIM)))[0]
    (again,) = store.entries.put_many([replace(entry("p5", moved), content_sha256="sha-new")], KEY)
    assert again.entry.photo_id == ids[5]
    rows[5] = moved
    gone = {3, 45}
    store.entries.remove_many([ids[i] for i in gone])
    live.settle()

    for query in vectors(10, seed=4):
        truth = sorted((-float(rows[i] @ query), ids[i]) for i in range(60) if i not in gone)[:10]
        found = live.search(query, 10)
        assert found.ids.tolist() == [photo_id for _, photo_id in truth]
        assert found.similarities.tolist() == pytest.approx([-score for score, _ in truth], abs=1e-5)
    assert live.count == 58


def test_filter_and_exclude_hold_in_base_and_delta(store: PostgresStore, folder: GenerationFolder) -> None:
    rows = vectors(20)
    new = [replace(entry(f"p{i}", rows[i]), metadata={"only": i in (2, 12)}) for i in range(20)]
    ids = [written.entry.photo_id for written in store.entries.put_many(new[:10], KEY)]
    publish(store, folder)
    ids += [written.entry.photo_id for written in store.entries.put_many(new[10:], KEY)]
    live = live_on(store, folder)
    live.settle()

    only, none = Filter(where={"only": True}), Filter(where={"only": None})
    assert sorted(live.search(rows[0], 20, among=only).ids.tolist()) == [ids[2], ids[12]]
    exclude = np.array([ids[0], ids[11]], dtype=np.int64)
    assert set(ids) - set(live.search(rows[0], 20, exclude=exclude).ids.tolist()) == {ids[0], ids[11]}
    both = np.array([ids[2], ids[12], 999_999], dtype=np.int64)
    assert live.search(rows[0], 20, among=only, exclude=both).ids.tolist() == []
    assert live.search(rows[0], 20, among=none).ids.tolist() == []


def test_a_removed_photo_is_never_found_again(store: PostgresStore, folder: GenerationFolder) -> None:
    rows = vectors(3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(3)]
    publish(store, folder)
    live = live_on(store, folder)
    live.settle()

    store.entries.remove_many([ids[1]])
    live.settle()
    assert ids[1] not in live.search(rows[1], 3).ids

    restarted = live_on(store, folder)
    restarted.settle()
    assert ids[1] not in restarted.search(rows[1], 3).ids

    number = publish(store, folder)
    assert ids[1] not in folder.open(number, model_key=KEY).ids
    live.settle()
    assert live.search(rows[1], 3).generation == number
    assert ids[1] not in live.search(rows[1], 3).ids


def test_a_new_generation_is_taken_over_and_keeps_what_came_after_it(
    store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(4)
    put(store, "a", rows[0])
    live = live_on(store, folder)
    live.settle()
    first = publish(store, folder)
    late_id, _ = put(store, "late", rows[1])

    live.settle()

    assert live.generation == first
    assert (live.count, live.delta_count) == (2, 1)
    assert live.search(rows[1], 1).ids.tolist() == [late_id]


def test_a_process_that_slept_through_many_generations_misses_nothing(
    store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(6)
    ids = [put(store, "p0", rows[0])[0]]
    publish(store, folder, keep=1)
    sleeper = live_on(store, folder)
    sleeper.settle()

    for i in range(1, 6):
        ids.append(put(store, f"p{i}", rows[i])[0])
        publish(store, folder, keep=1)
    sleeper.settle()

    assert sorted(sleeper.search(rows[0], 9).ids.tolist()) == ids


def test_a_generation_that_the_log_no_longer_reaches_is_passed_over(store: PostgresStore, tmp_path: Path) -> None:
    """Two generations are published, and the log is cut behind them, while the one before is still being read."""
    rows = vectors(4)
    ids = [put(store, "p0", rows[0])[0]]

    class Slow(GenerationFolder):
        def open(self, number: int, **which: Any) -> Generation:
            opened = super().open(number, **which)
            if len(ids) == 1:
                for i in range(1, 4):
                    ids.append(put(store, f"p{i}", rows[i])[0])
                    publish(store, GenerationFolder(tmp_path / "index"), keep=1)
            return opened

    publish(store, GenerationFolder(tmp_path / "index"), keep=1)
    live = live_on(store, Slow(tmp_path / "index"))

    live.catch_up()

    assert sorted(live.search(rows[0], 9).ids.tolist()) == ids


def test_a_damaged_generation_is_passed_over_and_everything_is_still_found(
    store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(2)]
    old = publish(store, folder)
    serving = live_on(store, folder)
    serving.settle()
    ids.append(put(store, "p2", rows[2])[0])
    broken = publish(store, folder)
    (folder.path(broken) / "index.faiss").write_bytes(b"torn")

    serving.settle()
    fresh = live_on(store, folder)
    fresh.settle()

    assert serving.generation == old
    assert sorted(serving.search(rows[0], 9).ids.tolist()) == ids
    assert fresh.generation == old
    assert sorted(fresh.search(rows[0], 9).ids.tolist()) == ids


def test_an_exchanged_generation_is_passed_over_said_and_everything_is_still_found(
    store: PostgresStore, folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a process that runs, and of one that starts: an older one serves, and where all are exchanged Postgres."""
    rows = vectors(3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(2)]
    old = publish(store, folder)
    runs = live_on(store, folder)
    runs.settle()
    ids.append(put(store, "p2", rows[2])[0])
    new = publish(store, folder)
    exchange(folder, new, folder.open(new, model_key=KEY).manifest.mark)

    runs.settle()
    starts = live_on(store, folder)
    starts.settle()

    lines = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [(vars(line)["generation"], vars(line)["code"]) for line in lines] == [(new, Code.INTERNAL)] * 2
    assert "another SHA-256 than the database says" in vars(lines[0])["why"]
    for live in (runs, starts):
        assert live.generation == old
        assert sorted(live.search(rows[0], 9).ids.tolist()) == ids

    exchange(folder, old, folder.open(old, model_key=KEY).manifest.mark)
    alone = live_on(store, folder)
    alone.settle()
    assert alone.generation is None
    assert sorted(alone.search(rows[0], 9).ids.tolist()) == ids


def test_a_generation_of_an_earlier_release_serves_until_the_next_is_published(
    store: PostgresStore, folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing says which manifest it has. All of them go then: who breaks the newest would have it fall back to one."""
    put(store, "p0", vectors(1)[0])
    old = [publish(store, folder) for _ in range(2)]
    as_of_an_earlier_release(store)

    live = live_on(store, folder)
    live.settle()

    assert live.generation == old[-1]
    assert ["nothing says which manifest" in record.message for record in caplog.records] == [True]
    new = publish(store, folder, keep=9)
    assert [generation.number for generation in store.generations.kept()] == [new]
    live.settle()
    assert live.generation == new
    assert len(caplog.records) == 1


def test_a_host_without_the_generations_folder_serves_from_postgres(
    store: PostgresStore, folder: GenerationFolder, tmp_path: Path
) -> None:
    rows = vectors(3)
    ids = [put(store, f"p{i}", rows[i])[0] for i in range(3)]
    publish(store, folder)
    elsewhere = live_on(store, GenerationFolder(tmp_path / "another host"))

    elsewhere.settle()

    assert sorted(elsewhere.search(rows[0], 9).ids.tolist()) == ids


def test_searches_go_on_while_generations_and_photos_come_and_go(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, reader = make_store(), make_store()
    rows = vectors(30, seed=5)
    steady_id, _ = put(store, "steady", rows[0])
    live = live_on(reader, folder)
    live.settle()
    stop = threading.Event()
    failures: list[str] = []

    def search() -> None:
        while not stop.is_set():
            live.catch_up()
            found = live.search(rows[0], 3)
            if found.ids[0] != steady_id or len(set(found.ids.tolist())) != len(found.ids):
                failures.append(str(found))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(1, 20):
        photo_id, _ = put(store, f"p{i}", rows[i])
        if i % 3 == 0:
            store.entries.remove_many([photo_id])
        if i % 5 == 0:
            publish(store, folder, keep=1)
    stop.set()
    for thread in threads:
        thread.join()

    assert failures == []


def test_memory_of_the_base_is_mapped_not_copied(folder: GenerationFolder) -> None:
    """40 MB of vectors must not become 40 MB of this process's own memory."""
    rows = unit_rows(np.random.default_rng(1).normal(size=(10_000, 1024)))
    folder.write(1, Rows(np.arange(10_000, dtype=np.int64), rows), model_key=KEY, dimension=1024)
    before = _anonymous_mb()

    opened = folder.open(1, model_key=KEY)
    opened.index.search(rows[:1], 3)

    assert opened.manifest.count == 10_000
    assert _anonymous_mb() - before < 20


def _anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
