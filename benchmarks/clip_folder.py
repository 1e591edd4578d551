"""A checkpoint of open_clip's ViT-B-32 in the forms that encoder_peers.py's packages load, so that all have the same
weights: a folder as transformers keeps CLIP models, and ONNX files with the inputs that the ONNX ones ask for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import onnx
import open_clip
import torch
from safetensors.torch import load_file, save_file

from worker.encoder.tower import quantize

#: Below a peer's working directory, because one of them has this name written in its code.
FOLDER = Path("openai/clip-vit-base-patch32")
#: The image tower in float32 and in int8.
RCLIP, IMGBEDDINGS = "rclip.onnx", "imgbeddings.onnx"
#: What rclip calls a model's input and output.
INPUT, OUTPUT = "input", "output"
#: Characters that stand for the 256 bytes in CLIP's vocabulary: itself where it can be printed.
_PRINTED = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
#: Merges that CLIP uses of those in open_clip's file: 49,408 tokens less 2 x 256 bytes and 2 marks.
_MERGES = 49_408 - 512 - 2


def write(checkpoint: Path, root: Path) -> None:
    """Write FOLDER, RCLIP and IMGBEDDINGS below `root`. checkpoint: safetensors, named after its architecture."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    model = open_clip.create_model(checkpoint.stem, pretrained=str(checkpoint), precision="fp32", device="cpu").eval()
    save_file(_renamed(load_file(checkpoint)), folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in _configuration(model).items():
        (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_merges()) + "\n")
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(_tokens())}))
    _export(model.visual, root / RCLIP)
    quantize(root / RCLIP, root / IMGBEDDINGS)
    _rename(root / IMGBEDDINGS, {INPUT: "pixel_values", OUTPUT: "embeddings"})


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's names and shapes to those of transformers' CLIPModel."""
    renamed = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm"}
    norms["visual.ln_post"] = "vision_model.post_layernorm"
    for tower, theirs in (("transformer", "text_model"), ("visual.transformer", "vision_model")):
        layers = 1 + max(int(name.split(".resblocks.")[1].split(".")[0]) for name in state if name.startswith(tower))
        for layer in range(layers):
            ours, other = f"{tower}.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            norms |= {f"{ours}.ln_1": f"{other}.layer_norm1", f"{ours}.ln_2": f"{other}.layer_norm2"}
            norms |= {f"{ours}.mlp.c_fc": f"{other}.mlp.fc1", f"{ours}.mlp.c_proj": f"{other}.mlp.fc2"}
            norms[f"{ours}.attn.out_proj"] = f"{other}.self_attn.out_proj"
            for kind in ("weight", "bias"):
                thirds = state[f"{ours}.attn.in_proj_{kind}"].chunk(3)
                for part, third in zip("qkv", thirds, strict=True):
                    renamed[f"{other}.self_attn.{part}_proj.{kind}"] = third
    for ours, other in norms.items():
        for kind in ("weight", "bias"):
            renamed[f"{other}.{kind}"] = state[f"{ours}.{kind}"]
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def _configuration(model: Any) -> dict[str, Any]:
    side, mean, std = model.visual.image_size[0], model.visual.image_mean, model.visual.image_std
    shared = {"hidden_act": "gelu", "projection_dim": model.visual.output_dim}
    vision: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    }
    vision |= {"image_size": side, "patch_size": 32, "model_type": "clip_vision_model"}
    text: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
    }
    text |= {"bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 49_407, "model_type": "clip_text_model"}
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    marks |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return {
        "config.json": {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "dtype": "float32",
            "torch_dtype": "float32",
            "projection_dim": model.visual.output_dim,
            "vision_config": vision | shared,
            "text_config": text | shared,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "feature_extractor_type": "CLIPFeatureExtractor",
            "do_resize": True,
            "size": {"shortest_edge": side},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": mean,
            "image_std": std,
            "do_convert_rgb": True,
        },
        "tokenizer_config.json": marks | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
        "special_tokens_map.json": marks,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CLIPModel"},
        ],
    }


def _merges() -> list[str]:
    packed = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    return gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 1 + _MERGES]


def _tokens() -> list[str]:
    rest = [256 + number for number in range(256 - len(_PRINTED))]
    characters = [chr(code) for code in [*_PRINTED, *rest]]
    ended = [f"{character}</w>" for character in characters]
    merged = ["".join(pair.split()) for pair in _merges()]
    return [*characters, *ended, *merged, "<|startoftext|>", "<|endoftext|>"]


def _rename(path: Path, names: dict[str, str]) -> None:
    """Give the inputs and outputs of an ONNX file other names."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                values[number] = names.get(name, name)
    onnx.save(model, path)


def _export(visual: Any, path: Path) -> None:
    """float32 [n, 3, side, side], normalised, to float32 [n, d] of any length."""
    side = visual.image_size[0]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
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
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
