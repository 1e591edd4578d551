"""A worker's start: what it loads, in which order, and that it says so when it is ready."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import until
from tests.torchless import without_torch
from worker.encoder.base import file_sha256
from worker.health import judged
from worker.joined import ROOMS
from worker.pulse import read
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
#: What a worker does without, each some hundredths of a second of every start, or more.
NEEDLESS = {
    "alembic",
    "fsspec",
    "markdown_it",
    "onnx",
    "open_clip",
    "openpyxl",
    "openvino",
    "pillow_heif",
    "prometheus_client",
    "pygments",
    "rich.progress",
    "torch",
    "torchvision",
    "typer.rich_utils",
    "worker.encoder.images",
    "worker.settings_table",
    "worker.stack",
    *(f"worker.commands.{room}" for room in ROOMS.values() if room != "service"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The mean of each colour, as settings."""
    path = tmp_path_factory.mktemp("model") / "means.onnx"
    photos = helper.make_tensor_value_info("photos", TensorProto.FLOAT, ["n", 3, 16, 16])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["photos"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vectors"]),
    ]
    graph = helper.make_graph(nodes, "means", [photos], [vectors])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return {"encoder": f"place/{path}", "encoder_sha256": file_sha256(path)}


@pytest.mark.usefixtures("store")
def test_a_worker_loads_nothing_that_it_does_not_need_and_says_when_it_is_ready(
    settings: Settings, model: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    mine = settings.model_copy(update={**model, "backend": "auto", "model_threads": 1})
    log = tmp_path / "log"
    with log.open("w") as written:
        worker = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "worker.cli", "worker"],
            cwd=ROOT,
            env=os.environ | mine.as_env() | without_torch(tmp_path / "site"),
            stdout=written,
            stderr=written,
        )
    try:
        until(lambda: worker.poll() is not None or judged([one for one in read(tmp_path) if one.lives])[1], 60)
    finally:
        worker.terminate()
        code = worker.wait(30)

    said = log.read_text()
    assert code == 0, said[-3000:]
    loaded = set(re.findall(r"^import time: .*\| +(\S+)$", said, re.MULTILINE))
    assert {"celery", "sqlalchemy", "faiss", "onnxruntime", "worker.library"} <= loaded, "what it does need"
    assert loaded & NEEDLESS == set()
    began, celery = (
        re.search(rf"^import time: .*\| +{name}$", said, re.MULTILINE) for name in ("worker.encoder.load", "celery")
    )
    assert began is not None
    assert celery is not None
    assert began.start() < celery.start(), "models are opened, and decoders start, while the rest is imported"
    (ready,) = [line for line in said.splitlines() if " worker.consuming ready " in line]
    after = {step: float(seconds) for step, seconds in re.findall(r"(\w+)_s=([\d.]+)", ready)}
    assert after.keys() == {"settings", "models", "imports", "database", "decoders", "index", "queue", "took"}
    assert min(after, key=lambda step: after[step]) == "settings"
    assert max(after.values()) == after["took"]
