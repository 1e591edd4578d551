"""What a user would take instead to turn photo files into CLIP's vectors, with the same weights and files.

    python -m benchmarks.encoder_peers NAME REQUEST.json

Run by benchmarks.encoder in an environment with benchmarks/requirements-NAME.txt; nothing of the service is imported.
Prints one JSON object: photos a second in batches and one by one, or {"skipped": reason}. Each package decodes and
preprocesses as it does. Where it would ask a model hub for a file, it is given a local one of clip_folder.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.measure import peak_rss_mb

Vectors: TypeAlias = npt.NDArray[np.float32]
#: Paths to float32 [n, d] of any length, in their order.
Encode: TypeAlias = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Request:
    """root: what clip_folder.write has written. folder, rclip, imgbeddings: paths below it. photos: JPEG files. batch:
    photos of one call. seconds, calls: of each measurement, at least. vectors: where those of the photos are saved."""

    root: str
    folder: str
    rclip: str
    imgbeddings: str
    photos: list[str]
    threads: int
    batch: int
    seconds: float
    calls: int
    vectors: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def sentence_transformers(request: Request) -> tuple[Encode, str]:
    importlib.import_module("torch").set_num_threads(request.threads)
    image = importlib.import_module("PIL.Image")
    model = importlib.import_module("sentence_transformers").SentenceTransformer(request.folder, device="cpu")

    def encode(paths: Sequence[str]) -> Vectors:
        photos = [image.open(path) for path in paths]
        vectors: Vectors = model.encode(photos, batch_size=request.batch, show_progress_bar=False)
        return vectors

    return encode, "float32, SentenceTransformer.encode"


def infinity_emb(request: Request) -> tuple[Encode, str]:
    importlib.import_module("torch").set_num_threads(request.threads)
    image = importlib.import_module("PIL.Image")
    infinity = importlib.import_module("infinity_emb")
    arguments = infinity.EngineArgs(
        model_name_or_path=request.folder,
        engine="torch",
        device="cpu",
        dtype="float32",
        batch_size=request.batch,
        bettertransformer=False,
        model_warmup=False,
    )
    loop = asyncio.new_event_loop()
    engine = infinity.AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())

    def encode(paths: Sequence[str]) -> Vectors:
        photos = [image.open(path) for path in paths]
        found, _ = loop.run_until_complete(engine.image_embed(images=photos))
        return np.array(found, dtype=np.float32)

    return encode, "float32, AsyncEmbeddingEngine.image_embed, its engine for torch"


def rclip(request: Request) -> tuple[Encode, str]:
    download = importlib.import_module("rclip.model_download")
    preprocess = importlib.import_module("rclip.utils.preprocess")
    # Its own model sees 256 pixels.
    vars(preprocess)["IMAGE_SIZE"] = 224
    vars(download)["download_visual_query_model"] = lambda *_: request.rclip
    helpers = importlib.import_module("rclip.utils.helpers")
    model = importlib.import_module("rclip.model").Model()

    def encode(paths: Sequence[str]) -> Vectors:
        vectors: Vectors = model.compute_image_features([helpers.read_image(path) for path in paths])
        return vectors

    return encode, "float32, Model.compute_image_features by ONNX Runtime; told of a side of 224 pixels, not 256"


def imgbeddings(request: Request) -> tuple[Encode, str]:
    # The name of its processor is written in its code, and is a folder here.
    os.chdir(request.root)
    model = importlib.import_module("imgbeddings").imgbeddings(model_path=request.imgbeddings)

    def encode(paths: Sequence[str]) -> Vectors:
        vectors: Vectors = model.to_embeddings(list(paths), batch_size=len(paths) + 1)
        return vectors

    return encode, "int8, to_embeddings by ONNX Runtime; it pads photos to squares, so its vectors are others"


PEERS: dict[str, Callable[[Request], tuple[Encode, str]]] = {
    "sentence-transformers": sentence_transformers,
    "infinity-emb": infinity_emb,
    "rclip": rclip,
    "imgbeddings": imgbeddings,
}


def measure(name: str, request: Request) -> dict[str, Any]:
    encode, how = PEERS[name](request)
    found = [encode(request.photos[start : start + request.batch]) for start in _starts(request)]
    np.save(request.vectors, np.concatenate(found))
    return {
        "version": version(name),
        "how": how,
        "photos_s": _photos_a_second(encode, request, request.batch),
        "photos_s_one_by_one": _photos_a_second(encode, request, 1),
        "peak_rss_mb": peak_rss_mb(),
    }


def _starts(request: Request) -> range:
    return range(0, len(request.photos), request.batch)


def _photos_a_second(encode: Encode, request: Request, count: int) -> float:
    """By the fastest call within the time: whatever else runs on the machine only adds to it."""
    photos = itertools.cycle(request.photos)
    until, fastest, calls = time.perf_counter() + request.seconds, np.inf, 0
    while calls < request.calls or time.perf_counter() < until:
        some = list(itertools.islice(photos, count))
        started = time.perf_counter()
        encode(some)
        fastest, calls = min(fastest, time.perf_counter() - started), calls + 1
    return round(count / float(fastest), 2)


def main() -> None:
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "0",
    }
    name, path = sys.argv[1:]
    # What the packages print goes beside the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = measure(name, Request(**json.loads(Path(path).read_text())))
        except Exception as exc:  # noqa: BLE001  # a package's own, of any kind: the table says why there is no figure
            result = {"skipped": f"{type(exc).__name__}: {exc}"}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # Some leave threads behind that would keep the interpreter.
    os._exit(0)


if __name__ == "__main__":
    main()
