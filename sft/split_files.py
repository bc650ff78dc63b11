"""The files of a user's own data: one table, or a folder with a file for each split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, load_from_disk

from sft.packaged import DataError
from sft.repeats import SPLITS
from sft.tables import SUFFIXES, Table, read_table

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "训练", "训练集"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev", "验证", "验证集", "开发集"), "validation"),
    **dict.fromkeys(("test", "testing", "测试", "测试集"), "test"),
}

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class Part:
    """One table and the split that its name gives it, if any."""

    split: str | None
    table: Table


def resolve(path: str | Path) -> Path:
    """A path as the user means it: a relative one from where she is, or from where the program was started.

    A notebook runs in its own folder, and the shell that started it stands in ``PWD``.

    Raises:
        DataError: there is nothing, or something at both.
    """
    given = Path(path).expanduser()
    places = [Path.cwd() / given, Path(os.environ.get("PWD", ".")) / given]
    try:
        found = list(dict.fromkeys(place.resolve() for place in places if place.exists()))
    except PermissionError:
        raise DataError(f"没有权限读 {given}：改它的权限（chmod u+rx），或复制一份到自己的文件夹") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{str(given)[:80]} 不是路径（{error}）：核对路径") from None
    if not found:
        tried = "、".join(dict.fromkeys(map(str, places)))
        raise DataError(f"{given} 不存在：找过 {tried}：核对路径，或写完整的路径")
    if len(found) > 1:
        raise DataError(f"{given} 有两个：{found[0]} 和 {found[1]}：写完整的路径")
    return next(place for place in places if place.exists())


def read_parts(path: Path, *, sheet: str | None = None, names: Sequence[str] = ()) -> list[Part]:
    """The tables of a file, or of a folder with a file for each split.

    Of a folder only its own files count, not those of folders inside it nor hidden ones, and of those only files named
    exactly ``train``, ``validation``, ``test`` (and their synonyms) or ``train-00000-of-00002``.

    Raises:
        DataError: nothing is named so, or two files claim to be the same split.
    """
    if not path.is_dir():
        return [Part(None, read_table(path, sheet=sheet, names=names))]
    if (path / "dataset_dict.json").is_file():
        return _read_saved(path)
    parts = []
    for split, files in _files_of_splits(path).items():
        for file in files:
            asked = [
                *names,
                *(parts[0].table.columns if parts and parts[0].table.header is not False else ()),
            ]
            parts.append(Part(split, read_table(file, sheet=sheet, names=asked)))
    return parts


def _files_of_splits(folder: Path) -> dict[str, list[Path]]:
    try:
        entries = sorted(folder.iterdir())
        files = [
            p for p in entries if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
        ]
    except PermissionError:
        raise DataError(f"没有权限读文件夹 {folder}：改它的权限（chmod u+rx），或复制一份") from None
    except OSError as error:
        raise DataError(f"读不了文件夹 {folder}（{error.strerror}）：检查磁盘") from None
    found: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        split = SPLIT_WORDS.get((shard[1] if shard else file.stem).casefold())
        if split:
            claim = f"{shard[1]}-*-of-{shard[3]}{file.suffix}" if shard else file.name
            found.setdefault(split, {}).setdefault(claim, []).append(file)
    for split, claims in found.items():
        if len(claims) > 1:
            raise DataError(f"{folder}：{'、'.join(claims)} 都像 {split}：只留一个，别的移走")
        claim, shards = next(iter(claims.items()))
        shard = _SHARD.fullmatch(shards[0].stem)
        if shard and len(shards) != int(shard[3]):
            raise DataError(
                f"{folder}：{claim} 应有 {int(shard[3])} 个，只有 {len(shards)} 个：补全，或重新下载"
            )
    if "train" not in found:
        inside = [p.name for p in entries if p.is_dir() and not p.name.startswith(".")]
        have = "、".join(p.name for p in files) or "没有认识的文件"
        hint = f"；还有文件夹 {'、'.join(inside)}，数据在里面就写到它" if inside else ""
        raise DataError(
            f"{folder} 里没有 train.csv 这样的文件（有：{have}{hint}）："
            "写出其中一个文件，或改名成 train、validation、test"
        )
    return {
        split: [p for claims in found[split].values() for p in claims] for split in SPLITS if split in found
    }


def _read_saved(folder: Path) -> list[Part]:
    """A folder made by ``DatasetDict.save_to_disk``."""
    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # the library raises dozens of kinds for a damaged folder
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DataError(f"{folder} 不是完好的 save_to_disk 文件夹（{reason}）：重新存一次") from None
    parts = []
    for name, dataset in saved.items():
        split = SPLIT_WORDS.get(str(name).casefold())
        if split is None:
            raise DataError(f"{folder}：不认识划分 {name}：改名成 train、validation、test 再存")
        plain = dataset.with_format(None)
        names = {k: f.names for k, f in plain.features.items() if isinstance(f, ClassLabel)}
        columns = {column: list(plain[column]) for column in plain.column_names}
        table = Table(folder / str(name), columns, len(plain), "datasets", class_names=names)
        parts.append(Part(split, table))
    return sorted(parts, key=lambda part: SPLITS.index(part.split or "train"))
