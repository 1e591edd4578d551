"""What a user would take instead to turn photo files into CLIP's vectors, with the same weights and files.

Asked by benchmarks.encoder in an environment with benchmarks/requirements-NAME.txt; nothing of the service is imported.
Answers with photos a second in batches and one by one, or {"skipped": reason}. Each package decodes and
preprocesses as it does. Where it would ask a model hub for a file, it is given a local one of clip_folder.py.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.measure import Vectors, answer, fastest_s, peak_rss_mb

#: What clip_folder.py writes for them: a folder as transformers has it, whose name one of them has in its code, and the
#: image tower in float32 and in int8.
FOLDER, RCLIP, IMGBEDDINGS = "openai/clip-vit-base-patch32", "rclip.onnx", "imgbeddings.onnx"

#: Paths to float32 [n, d] of any length, in their order.
Encode: TypeAlias = Callable[[Sequence[str]], Vectors]


def sentence_transformers(root: Path, batch: int) -> tuple[Encode, str]:
    model = importlib.import_module("sentence_transformers").SentenceTransformer(str(root / FOLDER), device="cpu")
    how = "float32, SentenceTransformer.encode"
    return lambda paths: model.encode(_opened(paths), batch_size=batch, show_progress_bar=False), how


def infinity_emb(root: Path, batch: int) -> tuple[Encode, str]:
    infinity = importlib.import_module("infinity_emb")
    arguments = infinity.EngineArgs(
        model_name_or_path=str(root / FOLDER),
        engine="torch",
        device="cpu",
        dtype="float32",
        batch_size=batch,
        bettertransformer=False,
        model_warmup=False,
    )
    loop = asyncio.new_event_loop()
    engine = infinity.AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())

    def encode(paths: Sequence[str]) -> Vectors:
        found, _ = loop.run_until_complete(engine.image_embed(images=_opened(paths)))
        return np.array(found, dtype=np.float32)

    return encode, "float32, AsyncEmbeddingEngine.image_embed, its engine for torch"


def rclip(root: Path, batch: int) -> tuple[Encode, str]:
    # Its own model sees 256 pixels.
    vars(importlib.import_module("rclip.utils.preprocess"))["IMAGE_SIZE"] = 224
    vars(importlib.import_module("rclip.model_download"))["download_visual_query_model"] = lambda *_: str(root / RCLIP)
    read = importlib.import_module("rclip.utils.helpers").read_image
    model = importlib.import_module("rclip.model").Model()
    how = "float32, Model.compute_image_features by ONNX Runtime; told of a side of 224 pixels, not 256"
    return lambda paths: model.compute_image_features(list(map(read, paths))), how


def imgbeddings(root: Path, batch: int) -> tuple[Encode, str]:
    # The name of its processor is written in its code, and is a folder here.
    os.chdir(root)
    model = importlib.import_module("imgbeddings").imgbeddings(model_path=str(root / IMGBEDDINGS))
    how = "int8, to_embeddings by ONNX Runtime; it pads photos to squares, so its vectors are others"
    return lambda paths: model.to_embeddings(list(paths), batch_size=len(paths) + 1), how


PEERS = {
    "sentence-transformers": sentence_transformers,
    "infinity-emb": infinity_emb,
    "rclip": rclip,
    "imgbeddings": imgbeddings,
}


def measure(
    *, peer: str, root: str, photos: list[str], threads: int, batch: int, seconds: float, calls: int, vectors: str
) -> dict[str, Any]:
    """root: what clip_folder.write has written. photos: JPEG files. batch: photos of one call. seconds, calls: of each
    measurement, at least. vectors: where those of the photos are saved."""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK"), "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "0"
    if peer in ("sentence-transformers", "infinity-emb"):
        importlib.import_module("torch").set_num_threads(threads)
    encode, how = PEERS[peer](Path(root), batch)
    found = [encode(photos[start : start + batch]) for start in range(0, len(photos), batch)]
    np.save(vectors, np.concatenate(found))

    def photos_a_second(count: int) -> float:
        endless = itertools.cycle(photos)
        took = fastest_s(lambda: encode(list(itertools.islice(endless, count))), seconds=seconds, calls=calls)
        return round(count / took, 2)

    return {
        "version": version(peer),
        "how": how,
        "photos_s": photos_a_second(batch),
        "photos_s_one_by_one": photos_a_second(1),
        "peak_rss_mb": peak_rss_mb(),
    }


def _opened(paths: Sequence[str]) -> list[Any]:
    return list(map(importlib.import_module("PIL.Image").open, paths))


if __name__ == "__main__":
    answer(measure)
