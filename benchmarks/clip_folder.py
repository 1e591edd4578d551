"""A checkpoint of open_clip's ViT-B-32 in the forms that encoder_peers.py's packages load, so that all have the same
weights: a folder as transformers keeps CLIP models, and ONNX files with the inputs that the ONNX ones ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import open_clip
import torch
from safetensors.torch import load_file, save_file

from benchmarks.encoder_peers import FOLDER, IMGBEDDINGS, RCLIP
from worker.encoder.exported import INT8_SEVEN_BITS, int8_file
from worker.encoder.tower import quantize

#: What rclip calls a model's input and output.
INPUT, OUTPUT = "input", "output"
#: What open_clip's tower calculates with, and transformers does not unless it is told: the rest are its own defaults.
_GELU = {"hidden_act": "gelu"}
_MARKS = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
_FILES: dict[str, Any] = {
    "config.json": {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "torch_dtype": "float32",
        "vision_config": _GELU | {"model_type": "clip_vision_model"},
        "text_config": _GELU | {"model_type": "clip_text_model"},
    },
    "preprocessor_config.json": {
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
    },
    "tokenizer_config.json": _MARKS | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
    "special_tokens_map.json": _MARKS,
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CLIPModel"}],
}
#: What stands in open_clip's names and, in this order, becomes what stands in transformers'.
_NAMES = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "transformer.resblocks": "text_model.encoder.layers",
    ".attn.": ".self_attn.",
    ".ln_": ".layer_norm",
    ".c_fc": ".fc1",
    ".c_proj": ".fc2",
}


def write(checkpoint: Path, root: Path) -> None:
    """Write FOLDER, RCLIP and IMGBEDDINGS below `root`. checkpoint: safetensors, named after its architecture."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    save_file(_renamed(load_file(checkpoint)), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in _FILES.items():
        (folder / name).write_text(json.dumps(content))
    words = open_clip.tokenizer.SimpleTokenizer()
    tokens = [*list(words.encoder)[:-2], _MARKS["bos_token"], _MARKS["eos_token"]]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    merges = "\n".join(map(" ".join, words.bpe_ranks))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    model = open_clip.create_model(checkpoint.stem, pretrained=str(checkpoint), precision="fp32", device="cpu").eval()
    _export(model.visual, root / RCLIP)
    quantize(root / RCLIP, root / IMGBEDDINGS, seven_bits=int8_file() == INT8_SEVEN_BITS)
    _rename(root / IMGBEDDINGS, {INPUT: "pixel_values", OUTPUT: "embeddings"})


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's names and shapes to those of transformers' CLIPModel."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        if ".in_proj_" in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace(".in_proj_", f".{part}_proj.")] = third
        else:
            renamed[name] = tensor.T if name.endswith("_projection.weight") else tensor
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def _rename(path: Path, names: dict[str, str]) -> None:
    """Give the inputs and outputs of an ONNX file other names."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    onnx.save(model, path)


def _export(visual: Any, path: Path) -> None:
    """float32 [n, 3, side, side], normalised, to float32 [n, d] of any length."""
    # Attention's fast path is one opaque operator that no exporter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    side = visual.image_size[0]
    with torch.inference_mode():
        torch.onnx.export(
            visual,
            (torch.zeros(2, 3, side, side),),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("photos")},),
        )
    torch.backends.mha.set_fastpath_enabled(True)
