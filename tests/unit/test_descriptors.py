"""Other descriptors of the same photos: patches pooled, a larger packaged network, place-recognition networks.

Weights are random, of a fixed seed: what is tested is the arithmetic, what is read, and what is refused.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
import torchvision

from producer_client.contract import Code
from worker.core.vectors import Vectors, unit_rows
from worker.encoder import clip, place
from worker.encoder.base import GEM, PACKAGED, PACKAGED_LARGER, Preprocessing, file_sha256
from worker.encoder.choice import PARITY_COSINE, REFERENCE, drawn_pictures
from worker.encoder.exported import OnnxRun, OpenVinoRun
from worker.encoder.load import check_name, load_encoder, weights_at_hand
from worker.encoder.tower import TorchRun, export
from worker.encoder.vit import generalised_mean, lean
from worker.errors import EncoderUnavailable, Permanent

PICTURES = drawn_pictures(3)
RANDOM = "open_clip/ViT-B-32/random"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip's own code with two narrow layers, so that it is built in a moment."""
    config = open_clip.get_model_config("ViT-B-32")
    vision = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64}
    text = config["text_cfg"] | {"layers": 1, "width": 32, "heads": 2}
    small = config | {"embed_dim": 48, "vision_cfg": config["vision_cfg"] | vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)


def why_not(name: str, **options: Any) -> str:
    with pytest.raises(EncoderUnavailable) as caught:
        load_encoder(name, device="cpu", threads=1, **options)
    assert caught.value.code is Code.ENCODER_UNAVAILABLE
    return caught.value.message


# ---------------------------------------------------------------------------------------------- GeM


def tokens() -> torch.Tensor:
    return torch.randn(2, 49, 16, generator=torch.Generator().manual_seed(1))


def test_the_generalised_mean_of_power_one_is_the_mean_of_the_tokens() -> None:
    torch.testing.assert_close(generalised_mean(tokens(), 1.0), tokens().mean(dim=1))


def test_with_a_growing_power_it_nears_what_is_largest_either_way() -> None:
    by_size = tokens().abs().argmax(dim=1, keepdim=True)
    largest = tokens().gather(1, by_size).squeeze(1)
    assert (largest < 0).any()
    assert (largest > 0).any()

    away = [float((generalised_mean(tokens(), p) - largest).abs().max()) for p in (1.0, 3.0, 9.0, 60.0)]

    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.25
    torch.testing.assert_close(generalised_mean(tokens().abs(), 60.0), tokens().abs().amax(dim=1), atol=0.25, rtol=0)


def test_patches_that_are_pooled_are_those_of_open_clip_normalised() -> None:
    model = clip.load("ViT-B-32", "random", sha256="", device="cpu", gem=True)
    visual: Any = model.tower.model.visual
    seen: list[torch.Tensor] = []
    visual.ln_post.register_forward_hook(lambda module, given, result: seen.append(result))

    pooled = model.tower(torch.from_numpy(np.stack([model.spec.preprocessing.square(PICTURES[0])])))

    (normalised,) = seen
    assert normalised.shape == (1, 1 + 16, 64)
    powers = normalised[0, 1:].detach().numpy().astype(np.float64) ** 3
    np.testing.assert_allclose(pooled[0].detach().numpy(), np.cbrt(powers.mean(axis=0)), atol=1e-5)


def test_a_pooled_photo_is_of_length_one_and_the_same_in_any_batch() -> None:
    encoder = load_encoder(RANDOM + GEM, device="cpu", threads=1)

    together = encoder.encode_images(PICTURES)

    assert together.shape == (3, encoder.dimension) == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in PICTURES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(PICTURES[::-1]), together[::-1], atol=1e-5)


def test_pooled_patches_have_a_key_of_their_own_and_read_no_text() -> None:
    plain, pooled = (load_encoder(name, device="cpu", threads=1) for name in (RANDOM, RANDOM + GEM))

    assert pooled.model_key != plain.model_key
    assert pooled.model_key == load_encoder(RANDOM + GEM, device="cpu", threads=1).model_key
    assert (plain.has_text, pooled.has_text) == (True, False)
    assert pooled.name == RANDOM + GEM
    with pytest.raises(Permanent) as caught:
        pooled.encode_texts(["a red door"])
    assert caught.value.code is Code.NO_TEXT_ENCODER


def test_the_form_in_fewer_steps_pools_the_same() -> None:
    model = clip.load("ViT-B-32", "random", sha256="", device="cpu", gem=True)
    squares = np.stack([model.spec.preprocessing.square(picture) for picture in PICTURES])
    quick = lean(model.tower.model.visual, model.spec.preprocessing, gem=True)
    assert quick is not None

    vectors = TorchRun(quick, backend="quick", device="cpu")(squares)

    np.testing.assert_allclose(vectors, TorchRun(model.tower, backend=REFERENCE, device="cpu")(squares), atol=1e-4)


def test_exported_pooling_is_that_of_torch(tmp_path: Path) -> None:
    model = clip.load("ViT-B-32", "random", sha256="", device="cpu", gem=True)
    squares = np.stack([model.spec.preprocessing.square(picture) for picture in PICTURES])
    expected = TorchRun(model.tower, backend=REFERENCE, device="cpu")(squares)
    path = tmp_path / "float32.onnx"

    export(model.quick(), model.spec.preprocessing.side, path)

    for run in (
        OnnxRun(path, backend="onnxruntime-float32", threads=1),
        OpenVinoRun(path, backend="openvino-float32", threads=1, precision="f32"),
    ):
        assert parity_cosine(run(squares), expected) > PARITY_COSINE
        np.testing.assert_allclose(run(squares[:1]), run(squares)[:1], atol=1e-4)


def parity_cosine(vectors: Vectors, expected: Vectors) -> float:
    return float((unit_rows(vectors) * unit_rows(expected)).sum(axis=1).min())


def test_a_tower_without_tokens_of_patches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = open_clip.get_model_config("RN50")
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    small = config | {"embed_dim": 48, "vision_cfg": config["vision_cfg"] | vision}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50", small)

    assert "RN50 has no tokens of patches to pool" in why_not("open_clip/RN50/random" + GEM)


def test_a_tag_is_known_with_the_option_behind_it(tmp_path: Path) -> None:
    check_name("open_clip/ViT-B-32/openai" + GEM)
    assert weights_at_hand(RANDOM + GEM)
    assert "no_such_tag" in why_not("open_clip/ViT-B-32/no_such_tag" + GEM)


# -------------------------------------------------------------------------------------------- packaged


def test_the_larger_packaged_network_has_vectors_and_a_key_of_its_own() -> None:
    encoder = load_encoder(PACKAGED_LARGER, device="cpu", threads=1)

    vectors = encoder.encode_images(PICTURES)

    assert (encoder.dimension, encoder.input_side, encoder.has_text) == (1280, 260, False)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_images(PICTURES[1:2]), vectors[1:2], atol=1e-5)
    assert encoder.name == PACKAGED_LARGER
    assert encoder.model_key.startswith("efficientnet-lite2@")


def test_the_key_of_the_smaller_one_is_that_of_the_releases_before() -> None:
    """Another key would have every library embedded again."""
    assert load_encoder(PACKAGED, device="cpu", threads=1).model_key == "efficientnet-lite0@f80535dc638fb539"


# ---------------------------------------------------------------------------------- place recognition


def published(resnet: str = "resnet18", dimension: int = 32) -> dict[str, torch.Tensor]:
    """A state dict as CosPlace's and EigenPlaces's training writes it, with random weights."""
    torch.manual_seed(5)
    layers = list(getattr(torchvision.models, resnet)().children())
    tensors = {f"backbone.{name}": tensor for name, tensor in torch.nn.Sequential(*layers[:-2]).state_dict().items()}
    linear = torch.nn.Linear(layers[-1].in_features, dimension)
    return tensors | {
        "aggregation.1.p": torch.tensor([2.5]),
        "aggregation.3.weight": linear.weight.detach(),
        "aggregation.3.bias": linear.bias.detach(),
    }


def file_of(path: Path, tensors: Any) -> tuple[str, str]:
    """(the encoder's name, SHA-256)"""
    torch.save(tensors, path)
    return f"place/{path}", file_sha256(path)


def test_a_published_network_gives_the_vectors_that_its_parts_give(tmp_path: Path) -> None:
    tensors = published()
    name, sha256 = file_of(tmp_path / "ResNet18_32.pth", tensors)

    encoder = load_encoder(name, sha256=sha256, device="cpu", threads=1)

    assert (encoder.dimension, encoder.input_side, encoder.has_text) == (32, 512, False)
    net = torchvision.models.resnet18()
    backbone = torch.nn.Sequential(*list(net.children())[:-2]).eval()
    backbone.load_state_dict({n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")})
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    square = Preprocessing(512, (0.0,) * 3, (1.0,) * 3, "squash", "bilinear").square(PICTURES[0])
    with torch.inference_mode():
        maps = backbone((torch.from_numpy(square.copy()).permute(2, 0, 1)[None] / 255 - mean) / std)
        maps = maps / maps.norm(dim=1, keepdim=True).clamp(min=1e-12)
        gem = maps.clamp(min=1e-6).pow(2.5).mean(dim=(2, 3)).pow(1 / 2.5)
        expected = gem @ tensors["aggregation.3.weight"].T + tensors["aggregation.3.bias"]
    expected = expected / expected.norm()
    np.testing.assert_allclose(encoder.encode_images(PICTURES[:1]), expected.numpy(), atol=1e-4)


def test_safetensors_give_the_same_vectors_under_a_key_of_their_file(tmp_path: Path) -> None:
    tensors = published()
    name, sha256 = file_of(tmp_path / "net.pth", tensors)
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(tensors, path)

    one = load_encoder(name, sha256=sha256, device="cpu", threads=1)
    other = load_encoder(f"place/{path}", sha256=file_sha256(path), device="cpu", threads=1)

    np.testing.assert_allclose(other.encode_images(PICTURES[:1]), one.encode_images(PICTURES[:1]), atol=1e-5)
    assert one.model_key.startswith("place-resnet18@")
    assert one.model_key != other.model_key
    moved = tmp_path / "moved.pth"
    (tmp_path / "net.pth").rename(moved)
    assert load_encoder(f"place/{moved}", sha256=sha256, device="cpu", threads=1).model_key == one.model_key


@pytest.mark.parametrize("resnet", ["resnet50", "resnet101", "resnet152"])
def test_the_tensors_say_which_network_it_is(tmp_path: Path, resnet: str) -> None:
    with torch.device("meta"):
        tensors = place.PlaceNet(resnet, 64).state_dict()

    found, net = place._network(tmp_path, tensors)

    assert found == resnet
    assert net.aggregation["3"].weight.shape == (64, 2048)


def test_an_exported_place_network_gives_the_same_vectors(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    _, sha256 = file_of(path, published())
    model = place.load(path, sha256=sha256, device="cpu")
    squares = np.stack([model.spec.preprocessing.square(picture) for picture in PICTURES[:2]])

    export(model.quick(), model.spec.preprocessing.side, tmp_path / "net.onnx")

    exported = OnnxRun(tmp_path / "net.onnx", backend="onnxruntime-float32", threads=1)
    expected = TorchRun(model.tower, backend=REFERENCE, device="cpu")(squares)
    np.testing.assert_allclose(exported(squares), expected, atol=1e-4)
    np.testing.assert_allclose(exported(squares[:1]), expected[:1], atol=1e-4)


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["SIGHTLINE_TEST_RAN"],)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setenv("SIGHTLINE_TEST_RAN", str(ran))
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(RunsCode(), protocol=2))
    in_zip, sha256 = file_of(tmp_path / "zip.pth", {"aggregation.3.weight": RunsCode()})

    for name, digest in ((in_zip, sha256), (f"place/{plain}", file_sha256(plain))):
        assert "cannot be read as tensors alone" in why_not(name, sha256=digest)
    assert not ran.exists()


def test_what_is_no_such_network_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torn, other, whole = tmp_path / "torn.pth", tmp_path / "other.pth", tmp_path / "torn.safetensors"
    torn.write_bytes(b"not a checkpoint")
    whole.write_bytes(b"not a checkpoint")
    narrow = published() | {"aggregation.3.weight": torch.zeros(32, 511)}
    for name, digest in (
        (f"place/{torn}", file_sha256(torn)),
        (f"place/{whole}", file_sha256(whole)),
        file_of(other, {"weight": torch.zeros(3)}),
        file_of(tmp_path / "list.pth", [torch.zeros(3)]),
        file_of(tmp_path / "narrow.pth", narrow),
        file_of(tmp_path / "lacks.pth", {name: t for name, t in published().items() if name != "aggregation.1.p"}),
    ):
        message = why_not(name, sha256=digest)
        assert "no state dict of CosPlace or EigenPlaces" in message
        assert "torch.save(model.state_dict(), file)" in message


def test_a_place_network_needs_its_file_and_the_sha256_of_it(tmp_path: Path) -> None:
    name, _ = file_of(tmp_path / "net.pth", published())

    assert "there is no checkpoint file" in why_not(f"place/{tmp_path}/absent.pth")
    with pytest.raises(EncoderUnavailable, match="there is no checkpoint file"):
        check_name(f"place/{tmp_path}/absent.pth")
    check_name(name)
    assert "set SIGHTLINE_ENCODER_SHA256" in why_not(name)
    assert "has SHA-256" in why_not(name, sha256=hashlib.sha256(b"another").hexdigest())


# ------------------------------------------------------------------------------------------ ONNX graphs


class Anything(torch.nn.Module):
    """A network that torch's side does not know: means of channels, mixed."""

    def __init__(self, dimension: int = 7) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.mix = torch.nn.Linear(3, dimension)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mix(photos.mean((2, 3)))
        return mixed


def graph_of(path: Path, module: torch.nn.Module, *, side: int = 48, external: bool = False, **options: Any) -> str:
    """The SHA-256 of the file."""
    photos = torch.zeros(2, 3, side, side)
    options = {"dynamic_shapes": ({0: torch.export.Dim("photos")},)} | options
    torch.onnx.export(module.eval(), (photos,), path, dynamo=True, verbose=False, external_data=external, **options)
    return file_sha256(path)


def test_a_graph_gives_the_vectors_of_the_network_that_it_was_made_of(tmp_path: Path) -> None:
    net, path = Anything(), tmp_path / "megaloc.onnx"
    sha256 = graph_of(path, net)

    encoder = load_encoder(f"place/{path}", sha256=sha256, device="cpu", threads=1, backend="auto")

    assert (encoder.dimension, encoder.input_side, encoder.has_text) == (7, 48, False)
    assert (encoder.backend, encoder.name) == ("onnxruntime-float32", "place/megaloc.onnx")
    assert encoder.model_key.startswith("place-onnx@")
    squares = np.stack([encoder.prepare(picture) for picture in PICTURES]).astype(np.float32) / 255
    normalised = (squares - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.inference_mode():
        expected = net(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images(PICTURES), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(PICTURES[1:2]), expected[1:2], atol=1e-5)


def test_a_graph_that_cannot_take_photos_is_refused_with_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    fixed = graph_of(path, Anything(), dynamic_shapes=None)
    assert "it takes tensor(float) [2, 3, 48, 48] and gives" in why_not(f"place/{path}", sha256=fixed, backend="auto")

    path.write_bytes(b"not a graph")
    message = why_not(f"place/{path}", sha256=file_sha256(path), backend="auto")

    assert f"{path} cannot be used: " in message
    assert "takes float32 [n, 3, side, side]" in message


def test_a_graph_whose_tensors_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    """The SHA-256 would not cover them."""
    path = tmp_path / "net.onnx"
    sha256 = graph_of(path, torch.nn.Sequential(Anything(4000), torch.nn.Linear(4000, 8)), external=True)
    assert (tmp_path / "net.onnx.data").is_file()

    assert "external_data=False" in why_not(f"place/{path}", sha256=sha256, backend="auto")


def test_a_graph_runs_by_onnx_runtime_alone(tmp_path: Path) -> None:
    sha256 = graph_of(tmp_path / "net.onnx", Anything())

    assert "SIGHTLINE_BACKEND=auto" in why_not(
        f"place/{tmp_path}/net.onnx", sha256=sha256, backend="openvino-float32", models=tmp_path
    )
    assert "has SHA-256" in why_not(f"place/{tmp_path}/net.onnx", sha256="0" * 64, backend="auto")
