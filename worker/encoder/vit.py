"""open_clip's vision transformer with the same weights, in fewer steps: what is exported and what runs on CPUs.

The function is the same, and `choice.py` compares its vectors with the original's before any of them is used. Measured
on 2 cores with AMX, ViT-B/32, a batch of 8: ONNX Runtime in int8 takes 0.76 times as long, OpenVINO in bfloat16 0.75.

- The mean and deviation of the channels go into the patches' weights, and the convolution over patches that do not
  overlap is one product of matrices.
- Queries, keys and values are three products whose rows are laid out for the attention at once. torch's own layer
  moves them around several times, which was a sixth of the time.
- Of the last block's result only the class token is computed, unless it is the others that are pooled.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

from worker.encoder.base import Preprocessing

#: Of the generalised mean over patches, as over feature maps (Radenovic, Tolias and Chum, 2018).
GEM_P = 3.0
#: Taken off pixels, so that they lie around 0: products in bfloat16 lose less. Both it and the difference are exact.
MIDDLE = 128


def has_patches(visual: Any) -> bool:
    """Whether the tower is a plain vision transformer, whose patches have a normalised token each."""
    return type(visual) is VisionTransformer and visual.attn_pool is None and not visual.final_ln_after_pool


def patches_pooled(visual: Any, photos: torch.Tensor) -> torch.Tensor:
    """Normalised input [n, 3, side, side] to [n, width], of a tower that `has_patches`."""
    visual.output_tokens = True
    _, tokens = visual(photos)
    return generalised_mean(tokens.float())


def generalised_mean(tokens: torch.Tensor, p: float = GEM_P) -> torch.Tensor:
    """[n, tokens, width] to [n, width]. The power keeps the sign, and so does the root: tokens have both signs, which
    feature maps have not. p = 1 is the mean; the larger p, the nearer to what is largest either way."""
    powers: torch.Tensor = tokens.sign() * tokens.abs().pow(p)
    mean = powers.mean(dim=1)
    pooled: torch.Tensor = mean.sign() * mean.abs().pow(1.0 / p)
    return pooled


def lean(visual: Any, preprocessing: Preprocessing, *, gem: bool = False) -> LeanVision | None:
    """gem: its patches' tokens, pooled. None for an open_clip tower of another kind, which then runs as it is."""
    known = (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and (gem or (visual.pool_type == "tok" and visual.proj is not None))
        and isinstance(visual.patch_dropout, torch.nn.Identity)
        and all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
    )
    return LeanVision(visual, preprocessing, gem=gem) if known else None


class LeanVision(torch.nn.Module):
    """uint8 [n, side, side, 3] to float32 [n, dimension] of any length."""

    def __init__(self, visual: VisionTransformer, preprocessing: Preprocessing, *, gem: bool = False) -> None:
        super().__init__()
        self.gem = gem
        weight = visual.conv1.weight.detach()
        self.patch: int = weight.shape[-1]
        self.grid: int = visual.grid_size[0]
        mean = 255 * torch.tensor(preprocessing.mean, dtype=torch.float64).view(1, 3, 1, 1)
        std = 255 * torch.tensor(preprocessing.std, dtype=torch.float64).view(1, 3, 1, 1)
        folded = weight.double() / std
        self.embed = _linear(
            # Pixels lie row by row with their channels together, [patch, patch, 3].
            folded.permute(0, 2, 3, 1).flatten(1),
            ((MIDDLE - mean) * folded).sum(dim=(1, 2, 3)),
            weight.dtype,
        )
        # open_clip leaves these two in float32 where the weights of products are in half.
        position = visual.positional_embedding.detach()
        start = visual.class_embedding.detach() + position[0]
        self.start: torch.Tensor
        self.position: torch.Tensor
        self.proj: torch.Tensor
        self.register_buffer("start", start.view(1, 1, -1).to(weight.dtype))
        self.register_buffer("position", position[1:].unsqueeze(0).to(weight.dtype))
        self.ln_pre, self.ln_post = visual.ln_pre, visual.ln_post
        *first, last = visual.transformer.resblocks
        self.blocks = torch.nn.ModuleList([*map(_Block, first), _Block(last, only_first=not gem)])
        self.dtype = weight.dtype
        self.register_buffer("proj", None if gem else visual.proj.detach())
        self.eval()

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        count, grid, patch = squares.shape[0], self.grid, self.patch
        patches = squares.reshape(count, grid, patch, grid, patch, 3).permute(0, 1, 3, 2, 4, 5)
        pixels = patches.reshape(count, grid * grid, patch * patch * 3).to(self.dtype) - MIDDLE
        tokens = torch.cat([self.start.expand(count, -1, -1), self.embed(pixels) + self.position], dim=1)
        tokens = self.ln_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        if self.gem:
            return generalised_mean(self.ln_post(tokens[:, 1:]).float())
        vectors: torch.Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return vectors.float()


class _Block(torch.nn.Module):
    """ResidualAttentionBlock. only_first: the result is that of the first token alone."""

    def __init__(self, block: ResidualAttentionBlock, *, only_first: bool = False) -> None:
        super().__init__()
        self.only_first = only_first
        attention = block.attn
        self.heads: int = attention.num_heads
        weights = attention.in_proj_weight.detach().double().chunk(3)
        biases = attention.in_proj_bias.detach().double().chunk(3)
        # Attention's division by the root of a head's width goes into the queries; a power of two for most.
        shrink = 1 / math.sqrt(attention.embed_dim // self.heads)
        dtype = attention.in_proj_weight.dtype
        self.queries = _linear(weights[0] * shrink, biases[0] * shrink, dtype)
        self.keys, self.values = (_linear(w, b, dtype) for w, b in zip(weights[1:], biases[1:], strict=True))
        self.out = attention.out_proj
        self.ln_1, self.ls_1 = block.ln_1, block.ls_1
        self.ln_2, self.mlp, self.ls_2 = block.ln_2, block.mlp, block.ls_2

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = self.ln_1(tokens)
        asking = seen[:, :1] if self.only_first else seen
        tokens = tokens[:, :1] if self.only_first else tokens
        # In this order of axes OpenVINO takes the whole attention for one operation.
        queries = self._by_head(self.queries(asking)).permute(0, 2, 1, 3)
        keys = self._by_head(self.keys(seen)).permute(0, 2, 3, 1)
        values = self._by_head(self.values(seen)).permute(0, 2, 1, 3)
        heard = torch.softmax(queries @ keys, dim=-1) @ values
        tokens = tokens + self.ls_1(self.out(heard.permute(0, 2, 1, 3).flatten(2)))
        changed: torch.Tensor = tokens + self.ls_2(self.mlp(self.ln_2(tokens)))
        return changed

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(*rows.shape[:2], self.heads, -1)


def _linear(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    layer.requires_grad_(False)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer
