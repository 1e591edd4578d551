"""What `sightline export` makes, and a stack that serves it without torch: the same key, the same vectors. And what
such processes tell of the recall of their searches: thousands of vectors of this model's 24 numbers are cheap.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import open_clip
import psutil
import pytest
import redis
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from rich.console import Console

from producer_client import Provenance, Sightline
from producer_client.contract import Code, StatsReply
from tests.commands import sightline
from tests.conftest import Scene, server_dir
from tests.entries import new_entry
from tests.integration import test_metrics as metrics
from tests.integration.test_kinds import photos_of_places
from tests.integration.test_metrics import Samples
from tests.torchless import lacking_modules, without_torch
from tests.waiting import until
from worker.commands import exporting
from worker.commands.terminal import NO_MODEL
from worker.core.ports import Encoder
from worker.core.vectors import Vectors
from worker.encoder import choice, tower
from worker.encoder.base import PACKAGED
from worker.encoder.choice import WITHOUT_TORCH, drawn_pictures
from worker.encoder.exported import FILES, FLOAT32, MANIFEST, TEXTS, TRUTH, VOCABULARY, Export, file_of
from worker.encoder.exporting import Exported, export_model
from worker.encoder.images import decode
from worker.encoder.load import load_encoder, table
from worker.encoder.texts import SAMPLE, Tokenizer
from worker.errors import EncoderUnavailable, Permanent
from worker.index.repeating import FEWEST, KEPT, LEAST
from worker.joined import run
from worker.observe import queues
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.objects import ObjectFolder
from worker.storage.store import PostgresStore

#: A CLIP of milliseconds, whose vocabulary and context are those of the real ones.
TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
NAME = "open_clip/sightline-tiny/random"
PHOTOS = drawn_pictures(4)


@pytest.fixture(scope="module", autouse=True)
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("configs") / "sightline-tiny.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Nothing here is about how fast a backend is: three passes do to time it, without half a second of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "TIMED_S", 0.0)
        yield


@pytest.fixture(scope="module")
def made(tiny_model: None, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def models(made: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.export.folder.parent, tmp_path / "models"))


@pytest.fixture
def torchless() -> Iterator[None]:
    """This process takes torch for not installed; what has it already goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        yield


def exported(models: Path) -> Exported:
    return export_model(NAME, sha256="", threads=1, models=models)


def loaded(models: Path, backend: str = "auto", **options: Any) -> Encoder:
    return load_encoder(NAME, device="cpu", threads=1, backend=backend, models=models, **options)


def folder_of(models: Path) -> Path:
    (manifest,) = models.glob(f"*/{MANIFEST}")
    return manifest.parent


def forget(folder: Path, *names: str) -> None:
    """As before these were exported."""
    facts = json.loads((folder / MANIFEST).read_text())
    facts.pop("finished", None)
    for name in names:
        del facts["files"][name]
        (folder / name).unlink()
    (folder / MANIFEST).write_text(json.dumps(facts))


def spoil(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# --------------------------------------------------------------------------------------------- what is made


def test_all_that_a_worker_without_torch_needs_is_made_and_compared_with_torch(made: Exported) -> None:
    assert set(made.export.files()) == set(FILES)
    made.export.check()
    assert made.cosine > 0.9999
    assert made.texts_cosine is not None
    assert made.texts_cosine > 0.9999
    assert made.no_texts == ""


def test_what_is_there_is_not_made_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("export", "export_texts", "quantize"):
        monkeypatch.setattr(tower, name, lambda *of, **options: pytest.fail("made again"))

    assert exported(models).export.is_finished


def test_an_image_tower_that_gives_other_vectors_is_not_exported(
    made: Exported, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(folder_of(models), FLOAT32)
    monkeypatch.setattr(tower, "export", lambda of, side, path: written_off(made.export.file(FLOAT32), path))

    with pytest.raises(EncoderUnavailable, match="its vectors would be others, cosine"):
        exported(models)

    assert not Export(models, NAME, "").is_finished


def test_a_text_tower_that_gives_other_vectors_is_not_kept(
    made: Exported, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(models)
    forget(folder, TEXTS)
    monkeypatch.setattr(tower, "export_texts", lambda texts, path: written_off(made.export.file(TEXTS), path))

    told = exported(models)

    assert told.texts_cosine is None
    assert "its vectors would be others without torch, cosine" in told.no_texts
    assert not (folder / TEXTS).exists()
    assert not told.export.has(TEXTS)


def written_off(path: Path, into: Path) -> None:
    """A tower whose numbers are off by as much as they are large."""
    model, rng = onnx.load(path), np.random.default_rng(1)
    for tensor in model.graph.initializer:
        numbers = numpy_helper.to_array(tensor)
        if numbers.dtype == np.float32 and numbers.ndim == 2:
            off = numbers + numbers.std() * rng.standard_normal(numbers.shape, dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(off, tensor.name))
    onnx.save(model, into)


def test_a_tokenizer_that_needs_torch_is_named_and_the_model_serves_no_text_without(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(folder_of(models), TEXTS, VOCABULARY)

    class Other(open_clip.SimpleTokenizer):  # type: ignore[misc]  # open_clip is untyped
        """As open_clip has it for models of Hugging Face."""

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda model: Other())
    told = exported(models)
    assert (told.texts_cosine, told.export.has(TEXTS)) == (None, False)
    monkeypatch.setitem(sys.modules, "torch", None)

    encoder = loaded(models)

    assert not encoder.has_text
    assert encoder.encode_images(PHOTOS).shape == (len(PHOTOS), 24)
    with pytest.raises(Permanent, match="reads no text without torch: its tokens are made by Other") as refused:
        encoder.encode_texts(["a"])
    assert refused.value.code == Code.NO_TEXT_ENCODER


# ------------------------------------------------------------------------------------------------ tokens


Tokenizers = tuple[Tokenizer, Callable[[list[str]], torch.Tensor]]


@pytest.fixture(scope="module")
def tokenizers(made: Exported) -> Tokenizers:
    """Ours and open_clip's."""
    return Tokenizer(made.export.file(VOCABULARY)), open_clip.get_tokenizer("sightline-tiny")


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_tokens_are_those_of_open_clip(tokenizers: Tokenizers, texts: list[str]) -> None:
    ours, theirs = tokenizers

    np.testing.assert_array_equal(ours(texts), theirs(texts).numpy())


def test_tokens_of_hard_texts_are_those_of_open_clip(tokenizers: Tokenizers) -> None:
    ours, theirs = tokenizers
    texts = [*SAMPLE, "!!<start_of_text>", "\u089f\u0c5c", "a\x00b\x1cc\u3000d", "I'LL it'S we'Ve", "&amp;lt;"]

    np.testing.assert_array_equal(ours(texts), theirs(texts).numpy())


# ------------------------------------------------------------------------------------------ without torch


def test_what_the_serving_image_lacks_is_torch_and_what_comes_with_it() -> None:
    lacking = set(lacking_modules())

    assert {"torch", "torchvision", "open_clip", "onnxscript", "timm", "efficientnet_lite_pytorch"} <= lacking
    assert not {"numpy", "onnxruntime", "openvino", "tokenizers", "regex", "ftfy", "fsspec", "celery"} & lacking


@pytest.mark.usefixtures("torchless")
def test_backends_are_compared_with_what_torch_gave_and_measured_once(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table(NAME, device="auto", threads=1, models=models)
    assert tuple(row.backend for row in first.rows) == WITHOUT_TORCH
    assert first.rows[0].why is None
    monkeypatch.setattr("worker.encoder.load.measure", lambda *of: pytest.fail("measured again"))

    again = table(NAME, device="auto", threads=1, models=models)

    assert again.rows == first.rows
    with pytest.raises(EncoderUnavailable, match="SIGHTLINE_BACKEND='torch-float32' is not one of auto, onnxruntime"):
        loaded(models, backend="torch-float32")


@pytest.mark.usefixtures("torchless")
def test_vectors_that_are_not_those_of_torch_are_refused(models: Path) -> None:
    folder = folder_of(models)
    with np.load(folder / TRUTH) as arrays:
        squares, vectors = arrays["squares"], arrays["vectors"]
    export = Export(models, NAME, "")
    with export.locked():
        export.add(TRUTH, lambda path: _savez(path, squares, np.roll(vectors, 1, axis=0)))

    with pytest.raises(EncoderUnavailable, match=r"nothing here gives the vectors of torch \(onnxruntime-float32: "):
        loaded(models)


def _savez(path: Path, squares: Any, vectors: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, squares=squares, vectors=vectors)


@pytest.mark.usefixtures("torchless")
@pytest.mark.parametrize("name", [FLOAT32, TRUTH])
def test_a_file_that_has_changed_is_not_served(name: str, models: Path) -> None:
    spoil(folder_of(models) / name)

    with pytest.raises(EncoderUnavailable, match=f"{name} is not what was exported. Run `sightline export` where"):
        loaded(models)


@pytest.mark.usefixtures("torchless")
def test_a_file_that_has_changed_since_it_was_measured_is_not_served_either(models: Path) -> None:
    name = file_of(loaded(models).backend)
    spoil(folder_of(models) / name)

    with pytest.raises(EncoderUnavailable, match=f"{name} is not what was exported"):
        loaded(models)


@pytest.mark.usefixtures("torchless")
def test_a_text_tower_that_has_changed_is_seen_with_the_first_text(models: Path) -> None:
    spoil(folder_of(models) / TEXTS)

    encoder = loaded(models)

    with pytest.raises(EncoderUnavailable, match=f"{TEXTS} is not what was exported"):
        encoder.encode_texts(["a"])


@pytest.mark.usefixtures("torchless")
def test_an_export_that_was_cut_off_is_none(models: Path) -> None:
    manifest = folder_of(models) / MANIFEST
    facts = json.loads(manifest.read_text())
    del facts["finished"]
    manifest.write_text(json.dumps(facts))

    with pytest.raises(EncoderUnavailable, match="does not lie exported in"):
        loaded(models)


@pytest.mark.usefixtures("torchless")
def test_a_gpu_is_not_asked_for_without_torch(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.encoder.load.GPU_FILES", ("/dev/null",))

    assert loaded(models).device == "cpu"
    with pytest.raises(EncoderUnavailable, match="SIGHTLINE_DEVICE=cuda, but torch is not installed here"):
        load_encoder(NAME, device="cuda", threads=1, backend="auto", models=models)


def test_with_torch_texts_are_read_by_what_was_exported_too(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(models, backend="onnxruntime-float32")
    monkeypatch.setattr("worker.encoder.load.torch_model", lambda *of: pytest.fail("torch was asked"))

    assert encoder.encode_texts(["a"]).shape == (1, 24)


@pytest.mark.parametrize("command", ["worker", "export"])
def test_what_lacks_is_one_sentence_and_an_exit_code(command: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    settings = {
        "SIGHTLINE_DATA_DIR": str(tmp_path),
        "SIGHTLINE_ENCODER": PACKAGED,
        "SIGHTLINE_BROKER_URL": "redis://127.0.0.1:1/0",
        "SIGHTLINE_DATABASE_URL": "postgresql://127.0.0.1:1/none",
    }

    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", command],
        env=_environ(tmp_path / "site") | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == NO_MODEL, done.stderr
    assert "torch is not installed here" in done.stderr
    assert "`sightline export`" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def _environ(site: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "SIGHTLINE_LANG": "en"} | without_torch(site)


# --------------------------------------------------------------------------------- from one host to another


@pytest.fixture
def remote(made: Exported, tmp_path: Path) -> ObjectFolder:
    folder = ObjectFolder(f"file://{tmp_path / 'store' / 'models'}")
    made.export.put(folder)
    return folder


@pytest.mark.usefixtures("torchless")
def test_what_lies_in_an_object_store_is_fetched_once(remote: ObjectFolder, made: Exported, tmp_path: Path) -> None:
    first = loaded(tmp_path / "models", remote=remote)

    assert first.model_key == made.spec.model_key
    assert first.encode_texts(["a"]).shape == (1, 24)
    again = loaded(tmp_path / "models", remote=ObjectFolder(f"file://{tmp_path / 'nowhere'}"))
    assert again.model_key == made.spec.model_key
    assert [path for path in (tmp_path / "models").iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("torchless")
@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (lambda folder: spoil(folder / TEXTS), "is not what was exported"),
        (lambda folder: (folder / FLOAT32).unlink(), "is not what was exported"),
        (lambda folder: (folder / MANIFEST).unlink(), "does not lie exported in .* or at file://"),
    ],
    ids=["another file", "a file lacks", "it was not put whole"],
)
def test_nothing_is_kept_of_an_export_that_is_not_whole(
    spoilt: Callable[[Path], None], why: str, remote: ObjectFolder, made: Exported, tmp_path: Path
) -> None:
    spoilt(tmp_path / "store" / "models" / made.export.folder.name)

    with pytest.raises(EncoderUnavailable, match=why):
        loaded(tmp_path / "models", remote=remote)

    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.usefixtures("torchless")
def test_a_manifest_does_not_say_where_a_file_goes(remote: ObjectFolder, made: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "models" / made.export.folder.name
    facts = json.loads((folder / MANIFEST).read_text())
    facts["files"]["../../elsewhere"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(facts))
    (folder.parent.parent / "elsewhere").write_text("x")

    loaded(tmp_path / "models", remote=remote)

    assert not (tmp_path / "elsewhere").exists()


# ------------------------------------------------------------------------------------------ the command


def test_the_command_says_what_it_has_made_and_puts_it_where_others_fetch_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    for name, value in {"ENCODER": NAME, "MODELS_DIR": models, "DATA_DIR": tmp_path, "MODEL_THREADS": 1}.items():
        monkeypatch.setenv(f"SIGHTLINE_{name}", str(value))
    monkeypatch.setenv("SIGHTLINE_INDEX_URL", f"file://{store}/")
    monkeypatch.setattr("sys.argv", ["sightline", "export", "--upload", "--json"])

    with pytest.raises(SystemExit) as ended:
        run()

    assert ended.value.code == 0
    (told,) = json.loads(capsys.readouterr().out)["models"]
    folder = folder_of(models)
    assert (told["encoder"], told["folder"], told["url"]) == (NAME, str(folder), f"file://{store}/models/{folder.name}")
    assert set(told["files"]) == set(FILES)
    assert told["texts_cosine"] > 0.9999
    there = {path.name: path.stat().st_size for path in (store / "models" / folder.name).iterdir()}
    assert {name: file["bytes"] for name, file in told["files"].items()}.items() <= there.items()
    assert MANIFEST in there


def test_people_are_shown_the_files_and_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr(exporting, "out", Console(file=page, width=80))

    exporting.print_exports(
        [
            {
                "model_key": "tiny@1",
                "folder": "/models/tiny-1",
                "files": {TEXTS: {"bytes": 2_500_000, "sha256": "ab" * 32}},
                "cosine": 1.0,
                "texts_cosine": None,
                "no_texts": "its tokens would be others without torch",
                "url": None,
            }
        ]
    )

    said = page.getvalue()
    assert "/models/tiny-1\n" in said
    assert "texts.onnx │ 2.5 │ abababababababab…" in said
    assert "its tokens would be others without torch" in " ".join(said.split())


# ------------------------------------------------------------------------------------------ a whole stack


@pytest.fixture(scope="module")
def stack(photo_root: Path, made: Exported) -> Iterator[Stack]:
    """No process finds torch. The one of the index asks nearly nothing of what it builds: it publishes what the worker
    takes for bad."""
    with server_dir() as data_dir:
        chosen = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root,),
            encoder=NAME,
            models_dir=shutil.copytree(made.export.folder.parent, data_dir / "models"),
            backend="auto",
            model_threads=1,
            concurrency=2,
            tick_every_s=1.0,
            reconcile_s=3600.0,
            exam_photos=0,
            metrics_port=0,
        )
        with Stack(chosen, log_dir=data_dir / "logs", port=0) as running:
            heedless = running.settings.model_copy(update={"index_kind": "ivf", "index_recall": 0.01})
            variables = without_torch(data_dir)
            with (data_dir / "sitecustomize.py").open("a") as site:
                # Tests wait for what others need not: on a busy machine the last in line comes to a turn after minutes.
                site.write("\nimport os\nos.setpriority = lambda *of: None\n")
            with patch.dict(os.environ, variables):
                running.start("worker")
                running.start("worker", "--role", "index", settings=heedless)
                running.start("beat")
            running.wait_ready()
            yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[Sightline]:
    with stack.client() as connected:
        yield connected


@pytest.fixture
def worker_s_metrics(stack: Stack) -> Callable[[], Samples]:
    found: dict[str, str] = {}

    def listed() -> bool:
        with redis.Redis.from_url(stack.settings.broker_url) as server:
            found.update(queues.look(server, stack.settings.key_prefix).targets)
        return "serve" in found

    until(listed, "the worker is listed")
    return lambda: metrics.scrape(found["serve"])


def rebuilt(client: Sightline, *, force: bool = False) -> int:
    """The number of a new generation, which serves."""
    number = client.rebuild_index(force=force).generation
    until(lambda: client.stats().generation == number, "it serves")
    return number


def test_a_stack_without_torch_adds_rebuilds_locates_and_reads_texts_as_torch_does(
    stack: Stack, client: Sightline, worker_s_metrics: Callable[[], Samples], scenes: list[Scene]
) -> None:
    with_torch = load_encoder(NAME, device="cpu", threads=1)
    query, *known = scenes[:12]
    for scene in known:
        client.add_to_index(path=scene.path, lat=scene.lat, lon=scene.lon, provenance=Provenance.SURVEYED)
    number = rebuilt(client)
    located = client.locate(path=query.path)
    photo = client.embed(path=query.path, return_vector=True)
    text = client.embed_text("a church by the sea")
    found = client.search(text="a church by the sea", threshold=-1.0, top_k=7)

    assert located.generation == number
    assert located.answer.located, located.answer.message
    assert len(found.hits) == 7
    assert photo.model_key == text.model_key == with_torch.model_key
    pixels = decode(query.path.read_bytes(), side=with_torch.input_side, max_megapixels=100).pixels
    (seen,), (read,) = with_torch.encode_images([pixels]), with_torch.encode_texts(["a church by the sea"])
    assert np.array(photo.vector) @ seen >= 0.999
    assert np.array(text.vector) @ read >= 0.999

    (info,) = [dict(labels) for name, labels in worker_s_metrics() if name == "sightline_process_info"]
    assert info["backend"] in WITHOUT_TORCH
    parents = [psutil.Process(process.pid) for process in stack.processes]
    family = parents + [child for parent in parents for child in parent.children(recursive=True)]
    assert len(family) > 4, "the index process has a child, and the worker decoders"
    loaded = [Path(f"/proc/{process.pid}/maps").read_text() for process in family]
    assert [maps for maps in loaded if "libtorch" in maps or "/open_clip/" in maps] == []
    assert any("onnxruntime" in maps or "openvino" in maps for maps in loaded)


def test_searches_show_the_recall_of_what_serves_and_which_answers_another_generation_changes(
    stack: Stack, client: Sightline, worker_s_metrics: Callable[[], Samples]
) -> None:
    worker = stack.processes[0]
    stored, asked = (
        photos_of_places(count, seed, dimension=TINY["embed_dim"]) for count, seed in ((1_200, 1), (LEAST + 20, 2))
    )
    endless = itertools.cycle(enumerate(asked))
    questions: list[int] = []  #: since the newest generation serves

    def ask(count: int) -> dict[int, int]:
        """So many questions, or of all of them as many as tell the recall; returns the first photo found by each."""
        first: dict[int, int] = {}

        def enough() -> bool:
            for number, query in itertools.islice(endless, count):
                first[number] = client.search(vector=query.tolist(), threshold=-1.0).hits[0].photo_id
                questions.append(number)
            return count < LEAST or metrics.value(worker_s_metrics(), "recall_at_10_at_most") is not None

        until(enough, "enough searches are repeated")
        return first

    def asked_again(force: bool = False) -> StatsReply:
        """Another generation serves, and was asked what was asked of the one before."""
        before = metrics.value(worker_s_metrics(), "answers_compared_total") or 0
        rebuilt(client, force=force)
        until(lambda: (metrics.value(worker_s_metrics(), "answers_compared_total") or 0) > before, "both were asked")
        assert metrics.value(worker_s_metrics(), "answers_compared_total") == before + min(KEPT, len(questions))
        questions.clear()
        return client.stats()

    def store(vectors: Vectors) -> None:
        """Photos without coordinates, of which a rebuild has nothing to learn."""
        new = [new_entry(f"{vector[0]}", vector, given=None) for vector in vectors]
        with closing(PostgresStore(stack.settings)) as postgres:
            postgres.entries.put_many(new, client.stats().model_key)

    def warnings() -> int:
        assert worker.log is not None
        return worker.log.read_text().count("searches find less than the index promises")

    # Too few to train lists on: every photo is compared.
    store(stored[:100])
    rebuilt(client)
    ask(FEWEST)
    same = asked_again(force=True)
    store(stored[100:])
    right = ask(len(asked))
    exact, no_warning, order = client.stats(), warnings(), questions[-KEPT:]
    worse = asked_again()
    found = ask(len(asked))
    low, once = client.stats(), warnings()
    ask(10)
    told = worker_s_metrics()

    assert (exact.kind, exact.live_recall_at_10) == ("exact", 1.0)
    assert same.answers_flipped == 0.0
    assert no_warning == 0
    assert worse.kind == "ivf"
    flipped = sum(right[number] != found[number] for number in order) / len(order)
    assert flipped > 0.05
    assert worse.answers_flipped == pytest.approx(flipped, abs=0.02)
    assert low.live_recall_at_10 is not None
    assert low.live_recall_at_10 < 0.9
    assert metrics.value(told, "recall_at_10") == pytest.approx(low.live_recall_at_10, abs=0.02)
    assert metrics.value(told, "recall_gate") == stack.settings.index_recall
    assert (metrics.value(told, "recall_at_10_at_most") or 1.0) < stack.settings.index_recall
    assert (once, warnings()) == (1, 1)
    said = sightline("stats", "--json", env=stack.settings.as_env())
    assert json.loads(said.stdout)["answers_flipped"] == worse.answers_flipped
    shown = sightline("stats", env=stack.settings.as_env()).stdout
    assert "recall@10 of this worker's searches" in shown
