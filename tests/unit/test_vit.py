"""A vision transformer in fewer steps gives what the original gives, and what is built otherwise is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import convert_weights_to_lp
from open_clip.transformer import LayerNormFp32, QuickGELU, VisionTransformer

from worker.encoder.base import Preprocessing
from worker.encoder.tower import Tower
from worker.encoder.vit import lean

PREPROCESSING = Preprocessing(side=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def visual(**changed: Any) -> VisionTransformer:
    """A small one whose every weight and bias is another number, as after training."""
    given = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 3, "heads": 2, "mlp_ratio": 2, "output_dim": 20}
    torch.manual_seed(1)
    model = VisionTransformer(**(given | changed)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return model


def squares(count: int) -> torch.Tensor:
    rng = np.random.default_rng(2)
    return torch.from_numpy(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def original(model: VisionTransformer, dtype: torch.dtype = torch.float32) -> Tower:
    return Tower(model, lambda visual, photos: visual(photos), PREPROCESSING, dtype=dtype)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"heads": 3, "layers": 1},
        {"act_layer": QuickGELU},
        {"ls_init_value": 0.3},
        {"no_ln_pre": True},
        {"final_ln_after_pool": True},
        {"norm_layer": LayerNormFp32},
        {"pos_embed_type": "sin_cos_2d"},
    ],
    ids=lambda changed: ",".join(changed) or "as ViT-B-32",
)
@pytest.mark.parametrize("count", [1, 5])
def test_fewer_steps_give_the_same_vectors(changed: dict[str, Any], count: int) -> None:
    model = visual(**changed)
    quick = lean(model, PREPROCESSING)
    assert quick is not None

    with torch.inference_mode():
        found, expected = quick(squares(count)), original(model)(squares(count))

    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_half_a_precision_loses_no_more_in_fewer_steps() -> None:
    """Pixels that do not lie around 0 would lose most of theirs in the first product."""
    model = visual()
    with torch.inference_mode():
        truth = original(model)(squares(64))
    half = visual(norm_layer=LayerNormFp32)
    convert_weights_to_lp(half, torch.bfloat16)  # as open_clip loads them
    quick = lean(half, PREPROCESSING)
    assert quick is not None

    with torch.inference_mode():
        lost = (original(half, torch.bfloat16)(squares(64)) - truth).norm()
        lost_in_fewer = (quick(squares(64)) - truth).norm()

    assert lost_in_fewer < 1.2 * lost


@pytest.mark.parametrize(
    "changed",
    [
        {"pool_type": "avg"},
        {"attentional_pool": True, "attn_pooler_heads": 2},
        {"patch_dropout": 0.5},
        {"block_type": "custom", "scale_fc": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_built_otherwise_is_left_as_it_is(changed: dict[str, Any]) -> None:
    assert lean(visual(**changed), PREPROCESSING) is None


def test_what_is_no_vision_transformer_is_left_as_it_is() -> None:
    assert lean(torch.nn.Linear(2, 2), PREPROCESSING) is None
