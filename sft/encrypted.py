"""Rows on disk that only a key can read: JSON lines, encrypted and signed by Fernet (AES-128-CBC with HMAC-SHA256).

The key is not written here. Who trains must have it, and holds the text in the open while training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft.packaged import DataError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


def write_encrypted(rows: Iterable[Mapping[str, Any]], path: Path, key: bytes) -> None:
    """Write rows so that no character of them can be read in the file; the whole is held in memory.

    Raises:
        DataError: the key is none of Fernet's.
    """
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(_fernet(key).encrypt(lines.encode("utf-8")))


def read_encrypted(path: Path, key: bytes) -> list[dict[str, Any]]:
    """The rows of a file by :func:`write_encrypted`.

    Raises:
        DataError: there is no such file, the key is another, or a byte of the file was changed.
    """
    from cryptography.fernet import InvalidToken

    if not path.is_file():
        raise DataError(f"{path}：没有这个文件")
    try:
        text = _fernet(key).decrypt(path.read_bytes()).decode("utf-8")
    except InvalidToken:
        raise DataError(f"{path}：打不开，钥匙不对，或者文件被改过") from None
    return [json.loads(line) for line in text.split("\n") if line]  # not splitlines: texts hold U+2028


def _fernet(key: bytes) -> Fernet:
    from cryptography.fernet import Fernet  # sft.setup.LATER: only chapter 9.6 needs it

    try:
        return Fernet(key)
    except ValueError:
        raise DataError("钥匙要用 Fernet.generate_key() 造：32 个字节的 base64") from None
