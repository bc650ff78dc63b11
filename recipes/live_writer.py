"""Make the language model that writes in the reader's browser: ``python -m recipes.live_writer``.

mini-gpt-zh as it comes with the book, its matrices in 8 bits, a scale for each row. It is no ONNX file: the network
is a hundred lines of chapter 3, and ``_ext/live/llama.js`` has them again. ``model.json`` tells the page's worker the
rest.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load, save
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from recipes.live import unpack, write_json, write_parts
from sft import data
from sft.hub import locate_model
from sft.language_modeling import bits_per_character

MODEL = "mini-gpt-zh"
OUT = Path(__file__).resolve().parents[1] / "_static" / "live" / MODEL
SCALE = ".scale"  # after the name of a matrix: of its rows
CONTEXT = 512  # tokens; it has learnt from no longer blocks (training_config.json)
TEXTS = 100  # held-out newspaper texts that are measured
PROMPTS = (
    "房间很",
    "酒店的位置",
    "中国",
    "今年以来，",
    "这本书",
    "电脑的屏幕",
    "服务员态度",
    "北京一月",
    "画蛇添足：",
    "我们",
)
GREEDY = 40  # tokens of a continuation


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix (rows, columns) as int8, -127 to 127, and the scale of each row (rows,) that gives it back."""
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def packed_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights by name: matrices in int8 with their scales, vectors in float32; a tied head is left out."""
    packed = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if weight.dim() == 2:
            packed[name], packed[name + SCALE] = quantise(weight.float())
        else:
            packed[name] = weight.float()
    return packed


def unpack_writer(folder: Path) -> LlamaForCausalLM:
    """The model that :func:`make_writer` wrote to *folder*, in float32: what the browser computes with."""
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    content = load(unpack(folder))
    weights = {
        name: weight.float() * content[name + SCALE][:, None] if name + SCALE in content else weight
        for name, weight in content.items()
        if not name.endswith(SCALE)
    }
    model = LlamaForCausalLM(LlamaConfig(**card["config"])).float().eval()
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model


def described(config: LlamaConfig) -> dict[str, Any]:
    """What ``llama.js`` needs to know of the network.

    Raises:
        ValueError: the network is of a kind that it does not compute.
    """
    if config.num_key_value_heads != config.num_attention_heads or config.attention_bias or config.mlp_bias:
        raise ValueError("llama.js knows neither grouped heads nor biases")
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {name: getattr(config, name) for name in names} | {
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }


def continued(model: torch.nn.Module, tokenizer: Any, prompt: str) -> list[int]:
    """The most probable continuation of a prompt, up to `GREEDY` tokens."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]])
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=GREEDY
        )
    return found[0, ids.shape[1] :].tolist()


def make_writer(out: Path) -> dict[str, float]:
    """Write the files of the browser; what 8 bits cost."""
    out.mkdir(parents=True, exist_ok=True)
    location = Path(locate_model(MODEL))
    model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(location)
    card = {"kind": "writer", "context": CONTEXT, "config": described(model.config)}
    card |= write_parts(save(packed_weights(model)), "model.safetensors", out)
    write_json(out / "model.json", card)
    shutil.copyfile(location / "tokenizer.json", out / "tokenizer.json")
    small = unpack_writer(out)
    texts = list(data.load_people_daily()["test"]["text"])[:TEXTS]
    same = [continued(model, tokenizer, one) == continued(small, tokenizer, one) for one in PROMPTS]
    measured = {
        "texts": len(texts),
        "bits_float": bits_per_character(model, texts, tokenizer, context=CONTEXT),
        "bits_packed": bits_per_character(small, texts, tokenizer, context=CONTEXT),
        "prompts": len(PROMPTS),
        "continuations_equal": sum(same),
    }
    write_json(out / "made.json", measured)
    return measured


def main(out: Annotated[Path, typer.Option(help="folder of the files for the browser")] = OUT) -> None:
    """Write mini-gpt-zh for the browser."""
    for name, value in make_writer(out).items():
        print(f"{name:22} {value:.5g}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
