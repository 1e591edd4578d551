"""Pixels and texts to unit vectors: the models that ship, how they are named, and what is refused before a start.

ViT-B-32 is built three times here, with random weights: they cannot be downloaded, and its code is what is tested.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image, ImageOps

from producer_client.contract import Code
from worker.core.ports import Encoder
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder import clip, packaged
from worker.encoder.base import (
    PACKAGED,
    PACKAGED_LARGER,
    ModelEncoder,
    Preprocessing,
    batch_that_fits,
    file_sha256,
    model_key,
)
from worker.encoder.images import decode
from worker.encoder.load import best_available, check_name, choose_device, load_encoder
from worker.encoder.tower import TorchModel, TorchRun, Tower
from worker.errors import EncoderUnavailable, Permanent

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def pictures() -> list[Pixels]:
    """Five pictures of different shapes that look nothing like each other."""
    across = np.linspace(0, 255, 320, dtype=np.uint8)
    stripes = np.zeros((224, 224, 3), dtype=np.uint8)
    stripes[::16] = 255
    return [
        np.random.default_rng(1).integers(0, 255, (240, 320, 3), dtype=np.uint8),
        np.ascontiguousarray(np.broadcast_to(across[None, :, None], (200, 320, 3))),
        stripes,
        np.full((448, 300, 3), (200, 30, 30), dtype=np.uint8),
        np.random.default_rng(2).integers(0, 60, (16, 500, 3), dtype=np.uint8),
    ]


def cosines(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    return found


def is_unit(vectors: Vectors, shape: tuple[int, int]) -> bool:
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors.dtype == np.float32 and vectors.shape == shape and bool(np.allclose(lengths, 1.0, atol=1e-5))


def why_not(name: str, **options: Any) -> str:
    with pytest.raises(EncoderUnavailable) as caught:
        load_encoder(name, threads=1, **options)
    assert caught.value.code is Code.ENCODER_UNAVAILABLE
    return caught.value.message


# -------------------------------------------------------------------------------------- packaged encoder


def test_photos_become_unit_vectors(encoder: Encoder) -> None:
    assert is_unit(encoder.encode_images(pictures()), (5, 1280))
    assert (encoder.dimension, encoder.input_side, encoder.has_text) == (1280, 224, False)


def test_no_photos_become_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_images([]).shape == (0, 1280)


def test_a_batch_gives_the_vectors_of_its_photos_one_by_one_in_order(encoder: Encoder) -> None:
    together = encoder.encode_images(pictures())
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])

    assert cosines(together, alone).min() > 0.9999
    every_pair = together @ alone.T
    assert list(every_pair.argmax(axis=1)) == [0, 1, 2, 3, 4]
    assert every_pair[~np.eye(5, dtype=bool)].max() < 0.99


def test_a_batch_larger_than_one_pass_keeps_its_order(encoder: Encoder) -> None:
    in_twos = load_encoder(PACKAGED, device="cpu", threads=2, batch=2)

    assert cosines(in_twos.encode_images(pictures()), encoder.encode_images(pictures())).min() > 0.9999


def test_a_photo_is_most_similar_to_itself_made_smaller(encoder: Encoder) -> None:
    picture = np.kron(pictures()[2], np.ones((2, 2, 1), dtype=np.uint8))

    same, other = encoder.encode_images([picture, pictures()[0]])

    original = encoder.encode_images([pictures()[2]])[0]
    assert original @ same > 0.9
    assert original @ same > original @ other


def test_text_is_refused_by_a_model_that_reads_none(encoder: Encoder) -> None:
    with pytest.raises(Permanent, match="no text encoder") as caught:
        encoder.encode_texts(["a red door"])

    assert caught.value.code is Code.NO_TEXT_ENCODER


def test_the_key_of_the_packaged_model_is_the_same_every_time(encoder: Encoder) -> None:
    assert encoder.name == PACKAGED
    assert encoder.model_key == packaged.load(PACKAGED, device="cpu").spec.model_key
    assert encoder.model_key.startswith("efficientnet-lite0@")


# ---------------------------------------------------------------------------------------- preprocessing

#: Of 255, mean over a photo's square: what decoding at 1/2, 1/4 or 1/8 size may change.
REDUCED_TOLERANCE = 1.5
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(
    "size", [(640, 480), (481, 640), (613, 817), (224, 500), (225, 224), (100, 90), (90, 1500), (224, 224)]
)
def test_the_model_sees_what_the_transform_of_open_clip_makes(
    size: tuple[int, int], resize: Any, interpolation: Any
) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    preprocessing = Preprocessing(side=224, mean=MEAN, std=STD, resize=resize, interpolation=interpolation)
    theirs = open_clip.transform.image_transform(
        224, is_train=False, mean=MEAN, std=STD, resize_mode=resize, interpolation=interpolation
    )(Image.fromarray(pixels))

    square = preprocessing.square(pixels)

    tower = Tower(torch.nn.Identity(), lambda _, photos: photos, preprocessing)
    seen = tower(torch.from_numpy(square.copy())[None])
    assert square.shape == (224, 224, 3)
    assert preprocessing.square(square) is square
    steps = 255 * (seen[0] - theirs).abs() * torch.tensor(STD).view(3, 1, 1)
    assert float(steps.max()) < 1.01, "one step of 255 at the most"
    assert float(steps.mean()) < 0.01, "in hardly a pixel"


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (1800, 1400)])
def test_decoding_at_reduced_size_changes_little_of_what_the_model_sees(size: tuple[int, int]) -> None:
    assert seen_otherwise(drawn_photo(size)) < REDUCED_TOLERANCE


@pytest.mark.real_photos
def test_decoding_at_reduced_size_changes_little_of_real_photos(real_photos: Path) -> None:
    differences = [seen_otherwise(path.read_bytes()) for path in sorted(real_photos.glob("*/*.jpg"))]

    assert len(differences) > 50
    assert max(differences) < REDUCED_TOLERANCE


def drawn_photo(size: tuple[int, int]) -> bytes:
    """A JPEG with edges of every direction and some noise."""
    width, height = size
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    rings = 127 + 90 * np.sign(np.sin(np.hypot(across - width / 3, down - height / 2) / (width / 60)))
    noise = np.random.default_rng(4).normal(0, 12, (height, width, 3))
    pixels = np.clip(rings[..., None] * (1.0, 0.8, 0.6) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def seen_otherwise(content: bytes) -> float:
    """Mean difference, of 255, between our square and that of the photo decoded whole."""
    preprocessing = Preprocessing(side=224, mean=MEAN, std=STD)
    whole = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    ours = preprocessing.square(decode(content, side=224, max_megapixels=100).pixels)
    return float(np.abs(ours.astype(int) - preprocessing.square(whole)).mean())


def test_a_model_whose_input_is_no_square_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = open_clip.get_model_config("ViT-B-32")
    wide = config | {"vision_cfg": config["vision_cfg"] | {"image_size": [224, 448], "layers": 1}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", wide)

    assert "only models that see a square" in why_not("open_clip/ViT-B-32/random", device="cpu")


# ------------------------------------------------------------------------------------------- model keys

FACTS = {"name": "m", "weights_sha256": "w", "preprocessing": "p", "pooling": "q"}


def test_a_model_key_is_a_name_and_a_fingerprint() -> None:
    name, _, fingerprint = model_key("m", weights_sha256="w", preprocessing="p", pooling="q").partition("@")

    assert name == "m"
    assert len(fingerprint) == 16
    assert int(fingerprint, 16)


@pytest.mark.parametrize("fact", FACTS)
def test_whatever_changes_a_vector_changes_the_key(fact: str) -> None:
    changed = model_key(**FACTS | {fact: "another"})

    assert changed.partition("@")[2] != model_key(**FACTS).partition("@")[2]


def test_the_fingerprint_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")

    assert file_sha256(tmp_path / "weights") == hashlib.sha256(b"weights").hexdigest()


# ---------------------------------------------------------------------------------- refused at the start


@pytest.mark.parametrize(
    "name",
    [
        "",
        "clip",
        "packaged",
        "packaged/other",
        "open_clip",
        "open_clip/ViT-B-32",
        "open_clip//openai",
        "random",
        "x/y/z",
    ],
)
def test_an_unknown_name_is_refused_with_the_names_that_there_are(name: str) -> None:
    message = why_not(name)

    assert "SIGHTLINE_ENCODER" in message
    assert "open_clip/<model>/<tag or file>" in message
    assert PACKAGED in message


def test_an_unknown_model_is_refused_with_those_that_are_spelt_like_it() -> None:
    message = why_not("open_clip/ViT-B-33/openai")

    assert "ViT-B-32" in message
    assert "list_models" in message


@pytest.mark.parametrize("name", ["clip", "open_clip/ViT-Z-99/openai", "open_clip/ViT-B-32/no_such_tag"])
def test_a_name_that_there_is_not_is_known_without_loading_anything(name: str) -> None:
    with pytest.raises(EncoderUnavailable) as said:
        check_name(name)

    assert said.value.message == why_not(name)
    for known in (PACKAGED, "open_clip/ViT-B-32/openai", "open_clip/ViT-B-32/random", f"open_clip/ViT-B-32/{__file__}"):
        check_name(known)


def test_an_unknown_tag_is_refused_with_the_tags_of_the_model() -> None:
    message = why_not("open_clip/ViT-B-32/no_such_tag")

    assert "no_such_tag" in message
    assert "laion2b_s34b_b79k" in message


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "nor a checkpoint file" in why_not(f"open_clip/ViT-B-32/{tmp_path}/absent.pt", sha256="0" * 64)


def test_a_checkpoint_without_its_sha256_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"weights")

    assert "set SIGHTLINE_ENCODER_SHA256" in why_not(f"open_clip/ViT-B-32/{tmp_path}/weights.pt")


def test_a_checkpoint_with_another_sha256_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"swapped")

    message = why_not(f"open_clip/ViT-B-32/{tmp_path}/weights.pt", sha256=hashlib.sha256(b"weights").hexdigest())

    assert hashlib.sha256(b"swapped").hexdigest() in message
    assert "SIGHTLINE_ENCODER_SHA256" in message


def test_the_checkpoint_of_a_tag_is_held_to_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pt").write_bytes(b"swapped")
    monkeypatch.setattr(clip, "cached_checkpoint", lambda *_: tmp_path / "weights.pt")

    message = why_not("open_clip/ViT-B-32/openai", sha256=hashlib.sha256(b"weights").hexdigest())

    assert hashlib.sha256(b"swapped").hexdigest() in message
    # With the right one it is read.
    read = why_not("open_clip/ViT-B-32/openai", sha256=hashlib.sha256(b"swapped").hexdigest())
    assert "cannot be loaded as weights" in read


@pytest.mark.parametrize("name", [PACKAGED, PACKAGED_LARGER])
def test_weights_of_a_wheel_that_are_not_their_authors_are_refused_unread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"swapped")
    monkeypatch.setattr(packaged, "_weights", lambda _: tmp_path / "weights.pth")

    assert "not the file that its author has published" in why_not(name)


def test_a_checkpoint_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    other, torn = tmp_path / "other.pt", tmp_path / "torn.pt"
    torch.save({"weight": torch.zeros(3)}, other)
    torn.write_bytes(b"not a checkpoint")

    for path in (other, torn):
        assert "cannot be loaded" in why_not(f"open_clip/ViT-B-32/{path}", sha256=file_sha256(path))


@no_cuda
def test_a_device_that_is_not_there_is_refused() -> None:
    assert "SIGHTLINE_DEVICE=cuda" in why_not(PACKAGED, device="cuda")
    assert choose_device("auto") == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:1", "", "CPU"])
def test_an_unknown_device_is_refused(device: str) -> None:
    assert "auto, cpu, cuda" in why_not(PACKAGED, device=device)


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Hugging Face cache with nothing in it, on a machine without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for module in ("constants", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", str(tmp_path), raising=False)
    return tmp_path


def test_weights_that_cannot_be_downloaded_are_refused_with_what_to_do(empty_hub: Path) -> None:
    message = why_not("open_clip/ViT-B-32/openai")

    for advice in ("HF_HOME", "SIGHTLINE_ENCODER_SHA256", PACKAGED):
        assert advice in message


def test_without_clip_weights_the_demo_takes_the_packaged_encoder(empty_hub: Path) -> None:
    assert clip.cached_checkpoint("ViT-B-32", "openai") is None
    assert best_available() == PACKAGED


def test_clip_weights_in_the_local_cache_are_found_and_preferred_by_the_demo(empty_hub: Path) -> None:
    repository = empty_hub / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (snapshot / "open_clip_model.safetensors").touch()

    assert clip.cached_checkpoint("ViT-B-32", "openai") == snapshot / "open_clip_model.safetensors"
    assert best_available() == "open_clip/ViT-B-32/openai"


# ----------------------------------------------------------------------------------------------- CLIP

TEXTS = ["a church with two towers", "a red door", ""]


@dataclass(frozen=True)
class Clip:
    """ViT-B-32 with random weights, and a checkpoint file of them."""

    model: TorchModel
    encoder: ModelEncoder
    images: Vectors
    checkpoint: Path
    sha256: str


@pytest.fixture(scope="module")
def random_clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clip]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = clip.load("ViT-B-32", "random", sha256="", device="cpu")
    loaded = in_torch(model)
    checkpoint = tmp_path_factory.mktemp("clip") / "weights.pt"
    torch.save(model.tower.model.state_dict(), checkpoint)
    yield Clip(model, loaded, loaded.encode_images(pictures()), checkpoint, file_sha256(checkpoint))
    checkpoint.unlink()
    torch.set_num_threads(threads)


def in_torch(model: TorchModel) -> ModelEncoder:
    return ModelEncoder(
        model.spec, TorchRun(model.tower, backend="torch", device="cpu"), device="cpu", batch=2, texts=model.texts
    )


def test_clip_turns_photos_and_texts_into_vectors_of_one_space(random_clip: Clip) -> None:
    encoder = random_clip.encoder

    assert is_unit(random_clip.images, (5, 512))
    assert is_unit(encoder.encode_texts(TEXTS), (3, 512))
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, 512)
    assert (encoder.dimension, encoder.input_side, encoder.has_text) == (512, 224, True)


def test_clip_keeps_the_order_over_several_passes(random_clip: Clip) -> None:
    texts = random_clip.encoder.encode_texts(TEXTS)

    for number, picture in enumerate(pictures()):
        assert cosines(random_clip.encoder.encode_images([picture]), random_clip.images[[number]])[0] > 0.9999
    for number, text in enumerate(TEXTS):
        assert cosines(random_clip.encoder.encode_texts([text]), texts[[number]])[0] > 0.9999


def test_random_weights_are_asked_for_by_name_and_named_so(random_clip: Clip) -> None:
    assert random_clip.encoder.name == "open_clip/ViT-B-32/random"
    assert random_clip.encoder.model_key.startswith("ViT-B-32-random@")


def test_a_local_checkpoint_gives_the_vectors_of_the_model_it_came_from(random_clip: Clip) -> None:
    name = f"open_clip/ViT-B-32/{random_clip.checkpoint}"

    loaded = load_encoder(name, sha256=random_clip.sha256.upper(), device="cpu", threads=1)

    np.testing.assert_allclose(loaded.encode_images(pictures()), random_clip.images, atol=1e-5)
    np.testing.assert_allclose(loaded.encode_texts(TEXTS), random_clip.encoder.encode_texts(TEXTS), atol=1e-5)
    assert loaded.name == "open_clip/ViT-B-32/weights.pt"
    assert loaded.model_key.startswith("ViT-B-32@")
    assert loaded.model_key != random_clip.encoder.model_key


def test_weights_trained_with_quick_gelu_are_run_with_it(random_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip #771: the tag `openai` needs another activation than the model's name says."""
    plain, other = (open_clip.get_model_config(name) for name in ("ViT-B-32", "ViT-B-32-quickgelu"))
    assert other == plain | {"quick_gelu": True}
    monkeypatch.setattr(clip, "cached_checkpoint", lambda model, tag: random_clip.checkpoint)

    loaded = load_encoder("open_clip/ViT-B-32/openai", device="cpu", threads=1)

    images, texts = loaded.encode_images(pictures()), loaded.encode_texts(TEXTS)
    assert np.abs(images - random_clip.images).max() > 1e-4
    tower = copy.deepcopy(random_clip.model.tower)
    quick: Any = with_quick_gelu(tower.model)
    reference = in_torch(replace(random_clip.model, tower=tower))
    np.testing.assert_allclose(images, reference.encode_images(pictures()), atol=1e-5)
    with torch.inference_mode():
        expected = quick.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True)
    np.testing.assert_allclose(texts, expected, atol=1e-5)
    assert loaded.model_key.startswith("ViT-B-32-openai@")


def with_quick_gelu(model: torch.nn.Module) -> torch.nn.Module:
    """The same weights with x * sigmoid(1.702 x) for every GELU, which is all that ViT-B-32-quickgelu changes."""
    replaced = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.GELU):
                setattr(module, name, QuickGELU())
                replaced += 1
    assert replaced == 24  # 12 blocks of the image tower, 12 of the text tower
    return model.eval()


# ----------------------------------------------------------------------------------------------- CUDA


@pytest.mark.parametrize(
    ("most", "free_bytes", "photo_bytes", "batch"),
    [(256, 2000, 1, 256), (256, 511, 1, 128), (256, 512, 1, 256), (100, 100, 10, 4), (32, 1, 10, 1), (1, 0, 1, 1)],
)
def test_a_pass_takes_half_of_the_free_memory_at_most(most: int, free_bytes: int, photo_bytes: int, batch: int) -> None:
    assert batch_that_fits(most, free_bytes=free_bytes, photo_bytes=photo_bytes) == batch


@pytest.mark.gpu
@cuda
def test_a_gpu_has_memory_for_some_photos_and_not_for_any_number() -> None:
    encoder = load_encoder("open_clip/ViT-B-32/random", device="cuda", threads=1, batch=10_000_000)

    assert isinstance(encoder, ModelEncoder)
    assert 32 <= encoder.batch < 10_000_000


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("name", [PACKAGED, "open_clip/ViT-B-32/random"])
def test_half_precision_on_cuda_gives_the_vectors_of_the_cpu(name: str) -> None:
    on_cpu = load_encoder(name, device="cpu", threads=1)
    on_cuda = load_encoder(name, device="auto", threads=1)

    vectors = on_cuda.encode_images(pictures())

    assert on_cuda.device == "cuda"
    assert is_unit(vectors, (5, on_cpu.dimension))
    assert cosines(vectors, on_cpu.encode_images(pictures())).min() > 0.999
    assert on_cuda.model_key == on_cpu.model_key
    if on_cuda.has_text:
        assert cosines(on_cuda.encode_texts(TEXTS), on_cpu.encode_texts(TEXTS)).min() > 0.999
