"""A teacher of a few thousand weights, written in the layout of the real one's 4-bit copy."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

HIDDEN, LAYERS, HEADS, INNER, POSITIONS, TYPES = 32, 3, 2, 64, 64, 2
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = ["▁", *"房间干净服务好坏电脑书很不太我喜欢吃苹果的了，。", "房间", "服务", "query", ":", "<mask>"]
PIECES = [*SPECIAL, *WORDS]


def quantise(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Q4_0 blocks of the values, and the values that these blocks stand for."""
    blocks = values.reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / 7).astype("<f2")
    nibbles = np.clip(np.round(blocks / scales.astype(np.float32)) + 8, 0, 15).astype(np.uint8)
    packed = b"".join(
        scale.tobytes()
        + bytes(int(low) | int(high) << 4 for low, high in zip(row[:16], row[16:], strict=True))
        for scale, row in zip(scales, nibbles, strict=True)
    )
    return packed, ((nibbles.astype(np.float32) - 8) * scales.astype(np.float32)).reshape(values.shape)


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the file's names, float32."""
    rng = np.random.default_rng(seed)
    vocabulary = len(PIECES)
    shapes = {
        "emb.word": (vocabulary, HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (TYPES, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for i in range(LAYERS):
        for part in ("q", "k", "v", "ao"):
            shapes |= {f"l{i}.{part}.w": (HIDDEN, HIDDEN), f"l{i}.{part}.b": (HIDDEN,)}
        shapes |= {f"l{i}.fi.w": (INNER, HIDDEN), f"l{i}.fi.b": (INNER,)}
        shapes |= {f"l{i}.fo.w": (HIDDEN, INNER), f"l{i}.fo.b": (HIDDEN,)}
        for part in ("aln", "oln"):
            shapes |= {f"l{i}.{part}.w": (HIDDEN,), f"l{i}.{part}.b": (HIDDEN,)}
    values = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: 1 + value if name.endswith("ln.w") else value for name, value in values.items()}


def is_quantised(name: str) -> bool:
    return name == "emb.word" or (name.endswith(".w") and "ln" not in name)


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the file; returns the weights that a reader should find."""
    header = b"E5S1" + struct.pack("<I", 1)
    header += struct.pack("<7i", HIDDEN, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, TYPES)
    header += struct.pack("<fi", 1e-12, 32)
    blob = [piece.encode() for piece in PIECES]
    offsets = np.cumsum([0, *map(len, blob)]).astype("<u4")
    # a longer piece must beat the characters it is made of
    scores = np.array([-3.0 if len(piece) == 1 else -2.0 for piece in PIECES], "<f4")
    header += struct.pack("<5i", len(PIECES), 0, 2, 1, 3) + struct.pack("<Q", sum(map(len, blob)))
    header += offsets.tobytes() + scores.tobytes() + b"".join(blob) + struct.pack("<iI", 2, 5) + b"12345"
    found, parts, entries = {}, [], []
    for name, value in tensors(seed).items():
        raw, found[name] = quantise(value) if is_quantised(name) else (value.tobytes(), value)
        entries.append((name.encode(), is_quantised(name), value.size, len(raw)))
        parts.append(raw)
    directory_size = 4 + sum(2 + len(name) + 1 + 4 + 8 + 8 for name, *_ in entries)
    offset = len(header) + directory_size
    directory = struct.pack("<i", len(entries))
    for name, quantised, count, size in entries:
        directory += (
            struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", quantised, count, offset, size)
        )
        offset += size
    path.write_bytes(header + directory + b"".join(parts))
    return found
