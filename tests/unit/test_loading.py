"""What a process begins with before the rest of it is imported: decoders, models, and a word that it starts."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worker import loading
from worker.commands.terminal import NO_MODEL
from worker.core.starting import uncollected
from worker.errors import EncoderUnavailable
from worker.joined import join
from worker.loading import Loading
from worker.pulse import read
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, encoder="first", next_encoder="second", sandbox="off")


def prepared(monkeypatch: pytest.MonkeyPatch, build: Callable[[str], Any]) -> list[str]:
    """The names of the models that were asked for; build: by a thread."""
    asked: list[str] = []

    def prepare(settings: Settings, name: str, sha256: str, **_: Any) -> Callable[[], Any]:
        asked.append(name)
        return lambda: build(name)

    monkeypatch.setattr(loading, "prepare", prepare)
    return asked


def test_models_are_opened_side_by_side_while_others_go_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    both, go_on = threading.Barrier(3), threading.Event()

    def build(name: str) -> str:
        both.wait(10)
        assert go_on.wait(10)
        return name

    asked, begun = prepared(monkeypatch, build), Loading(settings)

    begun.begin()
    begun.begin()
    both.wait(10)
    go_on.set()

    assert list(map(str, begun.encoders())) == ["first", "second"]
    assert asked == ["first", "second"]


def test_a_model_that_cannot_be_opened_is_said_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [EncoderUnavailable("not what was exported")]

    def build(name: str) -> str:
        if name == "second" and faults:
            raise faults.pop()
        return name

    prepared(monkeypatch, build)
    begun = Loading(settings)
    begun.begin()

    with pytest.raises(EncoderUnavailable, match="not what was exported"):
        begun.encoders()

    assert list(map(str, begun.encoders())) == ["first", "second"]


def test_a_worker_is_known_before_it_looks_for_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may measure for a minute what can run the model, and a probe must not take it for gone."""
    known: list[str] = []

    def begin(self: Loading) -> None:
        known.extend(found.said["role"] for found in read(tmp_path) if found.lives)
        raise EncoderUnavailable("none")

    monkeypatch.setattr(Loading, "begin", begin)
    monkeypatch.setenv("SIGHTLINE_DATA_DIR", str(tmp_path))

    ended = CliRunner().invoke(join("worker"), ["worker"])

    assert (ended.exit_code, known) == (NO_MODEL, ["serve"])


def test_garbage_is_looked_for_again_after_imports_also_those_that_fail() -> None:
    def load() -> None:
        with uncollected():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        load()

    assert gc.isenabled()
