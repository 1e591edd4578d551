"""Everything of a model that a worker without torch needs, made where torch is and compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from producer_client.language import to_say
from worker.core.vectors import unit_rows
from worker.encoder import tower as torch_side
from worker.encoder.base import Spec
from worker.encoder.choice import PARITY_COSINE, PARITY_NEIGHBOURS, REFERENCE, parity, sample_of, vectors_of
from worker.encoder.exported import (
    INT8,
    INT8_SEVEN_BITS,
    TEXTS,
    TRUTH,
    VOCABULARY,
    Export,
    open_run,
    write_truth,
)
from worker.encoder.load import is_graph, torch_model
from worker.encoder.texts import SAMPLE, OnnxTexts, Tokenizer
from worker.encoder.tower import TorchRun, TorchTexts
from worker.errors import EncoderUnavailable

#: What is told as it begins.
STEPS = (
    to_say("the weights"),
    to_say("the image tower"),
    to_say("the image tower in int8"),
    to_say("torch's vectors"),
    to_say("the text tower"),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in `folder`. cosine and texts_cosine: the worst of a drawn picture's and of a text's two vectors, by
    torch and by what was exported; the latter None without a text tower, and no_texts then says why."""

    export: Export
    spec: Spec
    cosine: float
    texts_cosine: float | None
    no_texts: str


def export_model(
    name: str, *, sha256: str, threads: int, models: Path, tell: Callable[[str], None] = lambda step: None
) -> Exported:
    """Make what lacks of an export, and compare all of it with torch in float32.

    Raises EncoderUnavailable where the model cannot be loaded, or its exported image tower gives other vectors.
    """
    if is_graph(name):
        raise EncoderUnavailable(f"{name} runs without torch as it is: there is nothing to export, bring that file")
    export = Export(models, name, sha256)
    with export.locked():
        export.forget_damaged()
        tell(STEPS[0])
        model = torch_model(name, sha256, "cpu", REFERENCE, threads)
        export.describe(model.spec)
        tell(STEPS[1])
        torch_side.add_towers(export, model)
        tell(STEPS[2])
        torch_side.add_towers(export, model, (INT8, INT8_SEVEN_BITS))
        tell(STEPS[3])
        squares = sample_of((), model.spec.preprocessing).squares
        truth = vectors_of(TorchRun(model.tower, backend=REFERENCE, device="cpu"), squares)
        found = vectors_of(open_run(export, "onnxruntime-float32", threads=threads), squares)
        cosine, neighbours = parity(found, truth)
        if not (cosine >= PARITY_COSINE and neighbours >= PARITY_NEIGHBOURS):
            raise EncoderUnavailable(f"{name} cannot be exported: its vectors would be others, cosine {cosine:.4f}")
        export.add(TRUTH, lambda path: write_truth(path, squares, truth))
        texts_cosine, no_texts = None, ""
        if model.texts is not None:
            tell(STEPS[4])
            texts_cosine, no_texts = _add_texts(export, model.texts, threads)
        export.finish(no_texts)
    return Exported(export, model.spec, cosine, texts_cosine, no_texts)


def _add_texts(export: Export, texts: TorchTexts, threads: int) -> tuple[float | None, str]:
    """(the worst cosine of a text's two vectors, why there is no text tower)."""
    try:
        if texts.write_vocabulary is None:
            tokenizer = type(texts.tokenize).__name__
            raise EncoderUnavailable(f"its tokens are made by {tokenizer}, which cannot be had without torch")
        if not export.has(VOCABULARY):
            export.add(VOCABULARY, texts.write_vocabulary)
        if not (Tokenizer(export.file(VOCABULARY))(SAMPLE) == texts.tokenize(list(SAMPLE)).numpy()).all():
            raise EncoderUnavailable("its tokens would be others without torch")
        if not export.has(TEXTS):
            export.add(TEXTS, lambda path: _write_texts(export, texts, threads, path))
        return _worst(export, export.file(TEXTS), texts, threads), ""
    except EncoderUnavailable as exc:
        return None, exc.message


def _write_texts(export: Export, texts: TorchTexts, threads: int, path: Path) -> None:
    """Raises EncoderUnavailable, so that nothing is kept, where its vectors are others."""
    torch_side.export_texts(texts, path)
    worst = _worst(export, path, texts, threads)
    if worst < PARITY_COSINE:
        raise EncoderUnavailable(f"its vectors would be others without torch, cosine {worst:.4f}")


def _worst(export: Export, tower: Path, texts: TorchTexts, threads: int) -> float:
    found = OnnxTexts(tower, export.file(VOCABULARY), threads=threads)(SAMPLE)
    return float(np.einsum("nd,nd->n", unit_rows(found), unit_rows(texts(SAMPLE))).min())
