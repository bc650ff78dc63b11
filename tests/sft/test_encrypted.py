"""`sft/encrypted.py`: nothing can be read without the key, and a wrong key or a changed byte is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft.encrypted import read_encrypted, write_encrypted
from sft.packaged import DataError

fernet = pytest.importorskip("cryptography.fernet")
ROWS = [{"text": "我住在长安街一号", "label": 1}, {"text": "第二行\n带着换行\u2028和别的", "label": 0}]


@pytest.fixture
def key() -> bytes:
    return fernet.Fernet.generate_key()


def test_the_key_gives_the_rows_back_and_the_file_shows_none_of_them(tmp_path: Path, key: bytes):
    write_encrypted(ROWS, tmp_path / "rows", key)
    assert read_encrypted(tmp_path / "rows", key) == ROWS
    stored = (tmp_path / "rows").read_bytes()
    assert "长安街".encode() not in stored
    assert b"label" not in stored


def test_another_key_is_one_line(tmp_path: Path, key: bytes):
    write_encrypted(ROWS, tmp_path / "rows", key)
    with pytest.raises(DataError, match="钥匙不对") as caught:
        read_encrypted(tmp_path / "rows", fernet.Fernet.generate_key())
    assert "\n" not in str(caught.value)


def test_a_changed_byte_is_noticed(tmp_path: Path, key: bytes):
    write_encrypted(ROWS, tmp_path / "rows", key)
    stored = bytearray((tmp_path / "rows").read_bytes())
    stored[40] = ord("A") if stored[40] != ord("A") else ord("B")
    (tmp_path / "rows").write_bytes(stored)
    with pytest.raises(DataError, match="被改过"):
        read_encrypted(tmp_path / "rows", key)


def test_a_password_is_no_key(tmp_path: Path):
    with pytest.raises(DataError, match="generate_key"):
        write_encrypted(ROWS, tmp_path / "rows", b"123456")


def test_a_missing_file_is_named(tmp_path: Path, key: bytes):
    with pytest.raises(DataError, match="没有这个文件"):
        read_encrypted(tmp_path / "nothing", key)
