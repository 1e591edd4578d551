"""From the name in the settings to a model in memory.

Imports torch only where torch runs something: a worker whose model lies exported starts without it, and where torch is
not installed serves what `sightline export` has made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from producer_client.contract import Code
from worker.core.index_ports import RemoteFolder
from worker.core.ports import Encoder
from worker.core.types import Pixels
from worker.encoder import graph
from worker.encoder.base import GEM, PACKAGED, PACKAGED_LARGER, PLACE, ModelEncoder, Run, RunTexts, check_file
from worker.encoder.choice import (
    AUTO,
    LEAST_SAMPLE,
    ON_CPU,
    ON_CUDA,
    REFERENCE,
    WITHOUT_TORCH,
    Choice,
    Measured,
    Sample,
    compare,
    measure,
    sample_of,
)
from worker.encoder.exported import (
    FLOAT32,
    TEXTS,
    VOCABULARY,
    Export,
    computes_bfloat16,
    file_of,
    int8_file,
    open_measured,
    open_run,
    read_truth,
)
from worker.encoder.texts import OnnxTexts
from worker.errors import EncoderUnavailable, Permanent
from worker.extras import has_torch

if TYPE_CHECKING:
    from worker.encoder.tower import TorchModel, TorchRun

log = logging.getLogger(__name__)

P = ParamSpec("P")

#: Device files of which there is one where torch may see CUDA; asking torch itself takes seconds.
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")
#: An input's side in pixels to photos, as `decode` gives them for it.
KnownPhotos = Callable[[int], Sequence[Pixels]]


def prepare(
    name: str,
    *,
    sha256: str = "",
    device: str = "auto",
    threads: int,
    batch: int = 32,
    backend: str = REFERENCE,
    models: Path | None = None,
    known_photos: KnownPhotos | None = None,
    remote: RemoteFolder | None = None,
) -> Callable[[], Encoder]:
    """What builds the encoder called `name` (see SIGHTLINE_ENCODER), in any thread: whatever takes torch, or has to be
    measured, is done when this returns. Both raise EncoderUnavailable with what to do.

    threads: of one forward pass, for the whole process. There is no fallback: what is named is what is loaded.
    backend: what runs the image tower; `auto` takes the fastest here whose vectors are those of torch-float32.
    models: where exports and measurements are kept; needed for every backend but torch-float32.
    known_photos: some to compare backends on, decoded for this side; called at most once, and only where there may be
    something to measure.
    remote: where exports of other machines lie, for one without torch.
    """
    device = choose_device(device)
    if is_graph(name):
        if backend not in (AUTO, graph.BACKEND):
            raise EncoderUnavailable(
                f"{name} is run by ONNX Runtime alone. Set SIGHTLINE_BACKEND={AUTO}, not {backend}"
            )
        return partial(graph.load, Path(name.removeprefix(PLACE)), sha256=sha256, threads=threads, batch=batch)
    if backend == REFERENCE and has_torch():
        encoder = _in_torch(name, sha256, device, REFERENCE, threads=threads, batch=batch)
        return lambda: encoder
    if models is None:
        raise EncoderUnavailable(f"the backend {backend} needs a folder to keep models in")
    choice = table(
        name,
        sha256=sha256,
        device=device,
        threads=threads,
        models=models,
        known_photos=known_photos,
        remote=remote,
    )
    export = Export(models, name, sha256)
    chosen = choice.backend(backend)
    log.info("backend chosen", extra={"backend": chosen, "asked_for": backend})
    if chosen.startswith("torch"):
        in_torch = _in_torch(name, sha256, device, chosen, threads=threads, batch=batch)
        return lambda: in_torch
    spec = export.spec()
    assert spec is not None, "a table is kept for what is exported"
    texts = _text_tower(export, name, sha256, threads) if spec.has_text else None
    if spec.has_text and not has_torch():
        spec = replace(spec, has_text=export.has(TEXTS))

    def build() -> Encoder:
        if not has_torch():  # where it is, the table was for what is checked
            export.check(file_of(chosen))
        return ModelEncoder(spec, open_run(export, chosen, threads=threads), device=device, batch=batch, texts=texts)

    return build


def _at_once(prepare: Callable[P, Callable[[], Encoder]]) -> Callable[P, Encoder]:
    return lambda *args, **options: prepare(*args, **options)()


#: The encoder itself.
load_encoder = _at_once(prepare)


def table(
    name: str,
    *,
    sha256: str = "",
    device: str = "auto",
    threads: int,
    models: Path,
    known_photos: KnownPhotos | None = None,
    remote: RemoteFolder | None = None,
) -> Choice:
    """What every backend can do on this machine: as measured earlier, or now, which takes a minute.

    Measured again when a library has changed. Once there are known photos where drawn pictures had to do, vectors are
    compared again, which takes seconds, and the times stay. Without torch vectors are compared with those that it gave
    of drawn pictures, where the model was exported; raises EncoderUnavailable where none is, neither here nor at
    `remote`.
    """
    device = choose_device(device)
    photos = cache(known_photos or (lambda side: []))
    if not has_torch():
        return _table_without_torch(name, sha256, threads, models, remote)
    export = Export(models, name, sha256)
    with export.locked():
        export.forget_damaged()
        choice = Choice(export, device=device, threads=threads)
        spec = export.spec()
        if spec is None or not choice.rows:
            log.info("measuring what can run the model, once on this machine: a minute", extra={"encoder": name})
            _measure(export, choice, name, sha256, device, threads, photos)
        elif not choice.known_photos and len(photos(spec.preprocessing.side)) >= LEAST_SAMPLE:
            log.info("comparing what can run the model on photos, once: seconds", extra={"encoder": name})
            _measure(export, choice, name, sha256, device, threads, photos)
    return choice


def measured(name: str, *, sha256: str, device: str, threads: int, models: Path) -> list[Measured]:
    """The rows of the table that `load_encoder` has chosen from; none where nothing is measured yet."""
    return Choice(Export(models, name, sha256), device=choose_device(device), threads=threads).rows


def _table_without_torch(name: str, sha256: str, threads: int, models: Path, remote: RemoteFolder | None) -> Choice:
    export = Export(models, name, sha256)
    if not export.is_finished and remote is not None:
        export.fetch(remote)
    if not export.is_finished:
        where = models if remote is None else f"{models} or at {remote.url}"
        raise EncoderUnavailable(
            f"torch is not installed here, and {name} does not lie exported in {where}. Run `sightline export` where "
            "torch is, for the same SIGHTLINE_ENCODER and SIGHTLINE_MODELS_DIR, or with --upload and the same "
            "SIGHTLINE_INDEX_URL; or install requirements/torch.txt here"
        )
    with export.locked():
        choice = Choice(export, device="cpu", threads=threads)
        if not choice.rows:
            # Later, of what is opened alone.
            export.check(FLOAT32, int8_file())
            log.info("measuring what can run the model, once on this machine: seconds", extra={"encoder": name})
            squares, truth = read_truth(export)
            sample = Sample(squares, known=False)
            rows = measure(WITHOUT_TORCH, lambda backend: open_measured(export, backend, threads), sample, truth)
            choice.keep(rows, sample)
    return choice


def _measure(
    export: Export, choice: Choice, name: str, sha256: str, device: str, threads: int, known_photos: KnownPhotos
) -> None:
    from worker.encoder import tower as torch_side

    # In float32 on the CPU, whatever the device: what vectors are is said there.
    model = torch_model(name, sha256, "cpu", REFERENCE, threads)

    def open_backend(backend: str) -> Run:
        library, _, precision = backend.partition("-")
        if precision == "bfloat16" and device == "cpu" and not computes_bfloat16():
            raise EncoderUnavailable("this CPU computes no bfloat16")
        if backend == REFERENCE:
            return torch_side.TorchRun(model.tower, backend=backend, device="cpu")
        if library == "torch":
            return torch_run(name, sha256, device, backend, threads=threads)[1]
        torch_side.add_towers(export, model, [int8_file()] if precision == "int8" else [])
        return open_measured(export, backend, threads)

    export.describe(model.spec)
    sample = sample_of(known_photos(model.spec.preprocessing.side), model.spec.preprocessing)
    if choice.rows:
        rows = compare(choice.rows, open_backend, sample)
    else:
        rows = measure(ON_CPU if device == "cpu" else ON_CUDA, open_backend, sample)
    choice.keep(rows, sample)


def torch_run(name: str, sha256: str, device: str, backend: str, *, threads: int) -> tuple[TorchModel, TorchRun]:
    """A model loaded by torch, and what of it runs as this backend."""
    from worker.encoder.tower import TorchRun

    model = torch_model(name, sha256, device, backend, threads)
    # torch's own attention is made for GPUs; how the quick form does there was never measured.
    as_it_is = backend == REFERENCE or device == "cuda"
    return model, TorchRun(model.tower if as_it_is else model.quick(), backend=backend, device=device)


def _in_torch(name: str, sha256: str, device: str, backend: str, *, threads: int, batch: int) -> ModelEncoder:
    from worker.encoder.tower import batch_on_cuda

    model, run = torch_run(name, sha256, device, backend, threads=threads)
    if device == "cuda":
        batch = batch_on_cuda(run, model.spec.preprocessing.side, batch)
    return ModelEncoder(model.spec, run, device=device, batch=batch, texts=model.texts)


def torch_model(name: str, sha256: str, device: str, backend: str, threads: int) -> TorchModel:
    import torch

    torch.set_num_threads(threads)
    dtype = getattr(torch, backend.partition("-")[2])
    if name in (PACKAGED, PACKAGED_LARGER):
        from worker.encoder import packaged

        return packaged.load(name, device=device, dtype=dtype)
    if name.startswith(PLACE):
        from worker.encoder import place

        return place.load(Path(name.removeprefix(PLACE)), sha256=sha256, device=device, dtype=dtype)
    model, weights, gem = _of_open_clip(name)
    from worker.encoder import clip

    return clip.load(model, weights, sha256=sha256, device=device, dtype=dtype, gem=gem)


def is_graph(name: str) -> bool:
    return name.startswith(PLACE) and name.endswith(graph.SUFFIX)


def _of_open_clip(name: str) -> tuple[str, str, bool]:
    """(model, tag or file, whether its patches are pooled) of a name."""
    family, _, rest = name.partition("/")
    model, _, weights = rest.removesuffix(GEM).partition("/")
    if family == "open_clip" and model and weights:
        return model, weights, rest.endswith(GEM)
    raise EncoderUnavailable(
        f"SIGHTLINE_ENCODER={name!r} is none of open_clip/<model>/<tag or file> (with {GEM} behind it, its patches are "
        f"pooled), {PLACE}<file>, {PACKAGED} and {PACKAGED_LARGER}"
    )


def _text_tower(export: Export, name: str, sha256: str, threads: int) -> RunTexts:
    """Is loaded when the first text is asked for: as it was exported, else with torch.

    Its texts raise Permanent(no_text_encoder) where it was not exported and there is no torch.
    """

    @cache
    def tower() -> RunTexts:
        if export.has(TEXTS):
            export.check(TEXTS, VOCABULARY)
            return OnnxTexts(export.file(TEXTS), export.file(VOCABULARY), threads=threads)
        if not has_torch():
            raise Permanent(Code.NO_TEXT_ENCODER, f"{name} reads no text without torch: {export.no_texts}")
        texts = torch_model(name, sha256, "cpu", REFERENCE, threads).texts
        assert texts is not None
        return texts

    return lambda texts: tower()(texts)


def choose_device(wanted: str) -> str:
    """`auto` to `cuda` where there is one, else `cpu`. Raises EncoderUnavailable for a device that is not there."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise EncoderUnavailable(f"SIGHTLINE_DEVICE={wanted!r} is not one of auto, cpu, cuda")
    if wanted == "cpu" or (wanted == "auto" and not any(Path(file).exists() for file in GPU_FILES)):
        return "cpu"
    if not has_torch():
        if wanted == "cuda":
            raise EncoderUnavailable("SIGHTLINE_DEVICE=cuda, but torch is not installed here; use cpu or auto")
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EncoderUnavailable("SIGHTLINE_DEVICE=cuda, but torch sees no CUDA device; use cpu or auto")
    return "cuda" if available else "cpu"


def check_name(name: str) -> None:
    """Raises EncoderUnavailable, with the names that there are, for one that no encoder has. Loads no weights."""
    if name in (PACKAGED, PACKAGED_LARGER):
        return
    if name.startswith(PLACE):
        check_file(Path(name.removeprefix(PLACE)))
        return
    model, weights, _ = _of_open_clip(name)
    from worker.encoder import clip

    clip.check_name(model, weights)


def weights_at_hand(name: str) -> bool:
    """Whether an encoder can be loaded without a download. Asks no network; an unknown name or file is at hand, too, as
    everything is without torch: loading it says what is wrong."""
    if not has_torch():
        return True
    model, _, tag = name.removeprefix("open_clip/").removesuffix(GEM).partition("/")
    if not name.startswith("open_clip/"):
        return True
    from worker.encoder.clip import cached_checkpoint, is_tag

    return not is_tag(model, tag) or cached_checkpoint(model, tag) is not None


def best_available() -> str:
    """The demo's choice: the default CLIP where its weights are on this machine, else the packaged encoder."""
    default = "open_clip/ViT-B-32/openai"
    return default if weights_at_hand(default) else PACKAGED
