"""What runs the image tower: the fastest backend whose vectors are those of torch in float32."""

from __future__ import annotations

import io
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from worker import loading
from worker.commands import backends
from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.encoder import choice as choice_module
from worker.encoder import load, tower
from worker.encoder.base import PACKAGED, Preprocessing, Spec
from worker.encoder.choice import (
    LEAST_SAMPLE,
    NEIGHBOURS,
    REFERENCE,
    SAMPLE,
    Choice,
    Measured,
    Sample,
    drawn_pictures,
    measure,
    parity,
    sample_of,
)
from worker.encoder.exported import FLOAT32, Export
from worker.encoder.load import load_encoder
from worker.encoder.tower import TorchModel, Tower
from worker.errors import EncoderUnavailable
from worker.settings import Settings

SIDE, DIMENSION = 32, 24
PREPROCESSING = Preprocessing(side=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
SPEC = Spec("small", "small@1", DIMENSION, PREPROCESSING, has_text=False)
EXPORTED = ("onnxruntime-float32", "openvino-float32")


class Small(torch.nn.Module):
    """A model of milliseconds. noise: what its weights are off by."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.seen = torch.nn.Linear(3 * SIDE * SIDE, 64)
        self.said = torch.nn.Linear(64, DIMENSION)
        with torch.no_grad():
            self.said.weight += noise * torch.randn_like(self.said.weight)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.said(torch.nn.functional.gelu(self.seen(photos.flatten(1))))
        return said


def small(noise: float = 0.0) -> Tower:
    return Tower(Small(noise).eval(), lambda model, photos: model(photos), PREPROCESSING)


@contextmanager
def small_model() -> Iterator[list[str]]:
    """The small model in place of a real one; the backends that it was loaded by torch for."""
    asked: list[str] = []

    def torch_model(name: str, sha256: str, device: str, backend: str, threads: int) -> TorchModel:
        asked.append(backend)
        return TorchModel(SPEC, small())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "torch_model", torch_model)
        yield asked


@pytest.fixture
def loads() -> Iterator[list[str]]:
    with small_model() as asked:
        yield asked


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    with small_model():
        table(folder)
    return folder


@pytest.fixture
def models(measured_once: Path, tmp_path: Path) -> Path:
    """A folder in which the small model lies exported and measured, with drawn pictures."""
    return Path(shutil.copytree(measured_once, tmp_path / "models"))


def table(models: Path, known: Sequence[Pixels] = ()) -> Choice:
    return load.table("small", device="cpu", threads=1, models=models, known_photos=lambda side: known)


def row(choice: Choice, backend: str) -> Measured:
    (found,) = [row for row in choice.rows if row.backend == backend]
    return found


@pytest.mark.usefixtures("loads")
def test_every_backend_that_is_accepted_gives_the_vectors_of_torch(models: Path) -> None:
    choice = table(models)
    photos = drawn_pictures(5)
    expected = load_encoder("small", device="cpu", threads=1).encode_images(photos)

    for backend in EXPORTED:
        assert row(choice, backend).why is None
        encoder = load_encoder("small", device="cpu", threads=1, backend=backend, models=models)
        assert encoder.backend == backend
        assert encoder.model_key == SPEC.model_key
        np.testing.assert_allclose(encoder.encode_images(photos), expected, atol=1e-5)
        np.testing.assert_allclose(encoder.encode_images(photos[:1]), expected[:1], atol=1e-5)


@pytest.mark.usefixtures("loads")
def test_a_broken_export_is_refused_and_torch_runs_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = tower.export
    monkeypatch.setattr(tower, "export", lambda right, side, path: export(small(noise=0.05), side, path))

    choice = table(tmp_path)

    for backend in EXPORTED:
        assert "its vectors are others" in (row(choice, backend).why or "")
        assert row(choice, backend).ms_alone is not None
        with pytest.raises(EncoderUnavailable, match=r"its vectors are others.*Use auto"):
            load_encoder("small", device="cpu", threads=1, backend=backend, models=tmp_path)
    # In bfloat16 perhaps, on a CPU that computes it.
    assert load_encoder("small", device="cpu", threads=1, backend="auto", models=tmp_path).backend.startswith("torch-")


def test_a_model_is_exported_and_measured_once(tmp_path: Path, loads: list[str]) -> None:
    first = table(tmp_path)
    loads.clear()

    again = table(tmp_path)

    assert again.rows == first.rows
    assert loads == []


def test_an_export_that_has_changed_on_disk_is_made_again(models: Path, loads: list[str]) -> None:
    path = Export(models, "small", "").file(FLOAT32)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    choice = table(models)

    assert loads != []
    assert row(choice, EXPORTED[0]).why is None
    made_again = Export(models, "small", "")
    made_again.check()
    assert made_again.file(FLOAT32).stat().st_size == len(content)


def test_drawn_pictures_give_way_to_photos_once_there_are_enough(models: Path, loads: list[str]) -> None:
    pictures = drawn_pictures(LEAST_SAMPLE)
    assert table(models).known_photos == 0
    assert table(models, pictures[1:]).known_photos == 0
    assert loads == []
    assert table(models, pictures).known_photos == LEAST_SAMPLE
    loads.clear()
    assert table(models).known_photos == LEAST_SAMPLE
    assert loads == []


def test_times_are_measured_once_and_vectors_compared_again_on_photos(
    models: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start of a worker, which knows photos then, does not take the minute of the first."""
    drawn = table(models)
    monkeypatch.setattr(choice_module, "_timed", lambda run, squares: pytest.fail("timed again"))
    monkeypatch.setattr(tower, "export", lambda right, side, path: pytest.fail("exported again"))
    compared = choice_module.parity
    refused = iter([(0.5, 1.0)])
    monkeypatch.setattr(choice_module, "parity", lambda *vectors: next(refused, None) or compared(*vectors))

    again = table(models, drawn_pictures(SAMPLE))

    def times(choice: Choice) -> list[tuple[str, float | None, float | None]]:
        return [(row.backend, row.ms_alone, row.ms_in_batch) for row in choice.rows]

    assert times(again) == times(drawn)
    changed = [row for row, before in zip(again.rows, drawn.rows, strict=True) if row.why != before.why]
    assert [row.cosine for row in changed] == [0.5], "what photos show to be other vectors is refused from now on"
    assert "its vectors are others: cosine 0.5" in (changed[0].why or "")
    untouched = [row for row in drawn.rows if row.cosine is None]
    assert all(row in again.rows for row in untouched)
    assert table(models).rows == again.rows


@pytest.mark.usefixtures("loads")
def test_doctor_shows_the_table_that_a_worker_has_chosen_from(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, encoder="small", device="cpu", backend="auto", model_threads=1)
    assert backends.backends(settings) == []
    chosen = loading.load(settings)

    rows = backends.backends(settings)

    assert rows == table(settings.exports_dir).rows
    assert chosen.backend == min((row for row in rows if row.why is None), key=lambda row: row.cost).backend
    shown = io.StringIO()
    Console(file=shown, width=200).print(backends.backends_table(rows))
    for row in rows:
        (line,) = [line for line in shown.getvalue().splitlines() if row.backend in line]
        assert ("no" if row.why else "ok") in line.split()
    assert list(backends.backend_lines(rows)) == [f"{row.backend}: {row.why}" for row in rows if row.why]


@pytest.mark.usefixtures("loads")
def test_known_photos_are_read_once_for_a_measurement(models: Path) -> None:
    asked: list[int] = []

    def known_photos(side: int) -> list[Pixels]:
        asked.append(side)
        return drawn_pictures(LEAST_SAMPLE)

    choice = load.table("small", device="cpu", threads=1, models=models, known_photos=known_photos)

    assert choice.known_photos == LEAST_SAMPLE
    assert asked == [SIDE]


@pytest.mark.usefixtures("loads")
def test_a_backend_that_does_not_exist_is_refused_with_those_that_do(models: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="SIGHTLINE_BACKEND='abacus' is not one of auto, torch-float32"):
        load_encoder("small", device="cpu", threads=1, backend="abacus", models=models)


def test_a_worker_whose_model_lies_exported_starts_without_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = f"{PACKAGED!r}, device='cpu', threads=1, backend='onnxruntime-float32', models=Path({str(tmp_path)!r})"
    load_encoder(PACKAGED, device="cpu", threads=1, backend="onnxruntime-float32", models=tmp_path)
    code = f"""
import sys
from pathlib import Path
import numpy as np
from worker.encoder.load import load_encoder
encoder = load_encoder({options})
assert encoder.encode_images([np.full((300, 400, 3), 90, dtype=np.uint8)]).shape == (1, 1280)
print([name for name in ("torch", "torchvision", "open_clip") if name in sys.modules])
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
    (int8,) = [
        row for row in Choice(Export(tmp_path, PACKAGED, ""), device="cpu", threads=1).rows if "int8" in row.backend
    ]
    assert int8.why == "hardly a layer of this model has an int8 form", "convolutions stay in float32"
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == [], "nor does the quantiser ask for what is done"


# ------------------------------------------------------------------------------------------------ parity


class Fake:
    """A backend that gives these vectors, photo by photo, by the number in the photo's first pixel."""

    def __init__(self, backend: str, vectors: Vectors, fails: bool = False) -> None:
        self.backend = backend
        self._vectors = vectors
        self._fails = fails

    def __call__(self, squares: Pixels) -> Vectors:
        if self._fails:
            raise ValueError("out of order")
        return self._vectors[squares[:, 0, 0, 0]]


def vectors(count: int = 40) -> Vectors:
    return unit_rows(np.random.default_rng(0).normal(size=(count, 8)))


def judged(**fakes: Callable[[], Fake]) -> dict[str, Measured]:
    numbers = np.zeros((len(vectors()), 1, 1, 3), dtype=np.uint8)
    numbers[:, 0, 0, 0] = np.arange(len(vectors()))
    made: dict[str, Any] = {REFERENCE: lambda: Fake(REFERENCE, vectors())} | fakes
    rows = measure([REFERENCE, *fakes], lambda backend: made[backend](), Sample(numbers, known=True))
    return {row.backend: row for row in rows}


def test_vectors_are_the_same_only_with_themselves() -> None:
    cosine, neighbours = parity(vectors(), vectors())

    assert cosine == pytest.approx(1.0)
    assert neighbours == 1.0


def test_one_photo_that_is_off_is_seen_among_many() -> None:
    off = vectors()
    off[17] = unit_rows(off[17:18] + 0.03)[0]

    cosine, _ = parity(off, vectors())

    assert cosine == pytest.approx(float(off[17] @ vectors()[17]))
    assert cosine < 0.999


def test_neighbours_that_differ_are_counted() -> None:
    truth = unit_rows(np.eye(NEIGHBOURS + 2, 64) + 0.01 * np.arange(NEIGHBOURS + 2)[:, None])
    swapped = truth.copy()
    swapped[[0, 5]] = swapped[[5, 0]]

    assert parity(swapped, truth)[1] < 1.0


def test_a_backend_is_refused_for_other_neighbours_even_with_a_good_cosine() -> None:
    near = unit_rows(np.ones((40, 8)) + 1e-3 * np.random.default_rng(1).normal(size=(40, 8)))
    numbers = np.zeros((40, 1, 1, 3), dtype=np.uint8)
    numbers[:, 0, 0, 0] = np.arange(40)
    other = unit_rows(near + 1e-3 * np.random.default_rng(2).normal(size=(40, 8)))
    made = {REFERENCE: Fake(REFERENCE, near), "other": Fake("other", other)}

    (_, found) = measure([REFERENCE, "other"], made.__getitem__, Sample(numbers, known=True))

    assert found.cosine is not None
    assert found.cosine > 0.999
    assert "of the neighbours are the same" in (found.why or "")


def test_a_backend_that_fails_is_refused_with_what_it_said() -> None:
    def lacking() -> Fake:
        raise EncoderUnavailable("no such library")

    rows = judged(
        fails=lambda: Fake("fails", vectors(), fails=True), lacks=lacking, right=lambda: Fake("right", vectors())
    )

    assert rows["fails"].why == "ValueError: out of order"
    assert rows["lacks"].why == "no such library"
    assert rows["right"].why is None


def test_a_backend_whose_vectors_are_no_numbers_is_refused() -> None:
    nowhere = np.full_like(vectors(), np.nan)

    assert "no vectors" in (judged(nan=lambda: Fake("nan", nowhere))["nan"].why or "")


def test_auto_takes_the_fastest_of_those_that_are_accepted(tmp_path: Path) -> None:
    export = Export(tmp_path, "any", "")
    with export.locked():
        choice = Choice(export, device="cpu", threads=1)
        rows = [
            Measured(REFERENCE, 9.0, 8.0, 1.0, 1.0),
            Measured("wrong", 1.0, 1.0, 0.9, 0.5, why="its vectors are others"),
            Measured("fast", 4.0, 3.0, 1.0, 1.0),
            Measured("absent", why="not installed"),
        ]
        choice.keep(rows, Sample(np.zeros((30, 1, 1, 3), dtype=np.uint8), known=True))

    kept = Choice(export, device="cpu", threads=1)

    assert kept.backend("auto") == "fast"
    assert kept.backend(REFERENCE) == REFERENCE
    assert kept.known_photos == 30
    assert Choice(export, device="cpu", threads=2).rows == [], "another number of threads is another machine"


def test_too_few_photos_to_compare_on_are_replaced_by_drawn_ones() -> None:
    few = drawn_pictures(LEAST_SAMPLE - 1)

    assert not sample_of(few, PREPROCESSING).known
    enough = sample_of([*few, few[0]], PREPROCESSING)
    assert enough.known
    assert enough.squares.shape == (LEAST_SAMPLE, SIDE, SIDE, 3)
