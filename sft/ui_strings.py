"""What programs say to their users, in English and in Chinese: the parallel texts of chapter 6.4.

Programs keep their translations in message catalogues, one ``.mo`` file a language (GNU gettext). Six Python packages
under open licences bring such files; they are read and never imported. :mod:`sft.packaged` finds and verifies them.
"""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft.packaged import PackagedFiles, read_file


@dataclass(frozen=True)
class Pair:
    """A text and its translation."""

    source: str
    target: str
    catalogue: str = ""  # the program that it comes from


CATALOGUES = {
    catalogue.name: catalogue
    for catalogue in (
        PackagedFiles(
            name="jupyterlab",
            package="jupyterlab-language-pack-zh-CN",
            module="jupyterlab_language_pack_zh_CN",
            version="4.5.post3",
            licence="BSD-3-Clause",
            description="JupyterLab and its extensions",
            files={
                "locale/zh_CN/LC_MESSAGES/jupyterlab.mo": (
                    "2d10ab7ac4e81924310da031756b65c706e0b5f569c75ed1eb6d057838e92dc7"
                ),
                "locale/zh_CN/LC_MESSAGES/jupyterlab_git.mo": (
                    "0a15ae99eb1ad1c6122b833d06282d299e362d443ab4128eff3eb75105c208b8"
                ),
                "locale/zh_CN/LC_MESSAGES/jupyterlab_lsp.mo": (
                    "25b6fdc3eb85bd069f13ae45d0b1259c45b5a31969c7062ea7735ffadfd130d2"
                ),
                "locale/zh_CN/LC_MESSAGES/jupyterlab_tour.mo": (
                    "d3276f226f172ea05cacf7a86e18b7f34617ca3203f0d14d760e9393ecebffbc"
                ),
                "locale/zh_CN/LC_MESSAGES/notebook.mo": (
                    "0398f67111d47f2d1ffb958b03f93c1399e56b1ce70e582cdac01eff3772686b"
                ),
                "locale/zh_CN/LC_MESSAGES/jupyter_collaboration.mo": (
                    "d9201699c539a5b5d2a1425b81e9428242a13228b42874867f0b282d7de8479d"
                ),
                "locale/zh_CN/LC_MESSAGES/spellchecker.mo": (
                    "3b3ff518a9f4a619001433b384955d8143d69e31128bd5460b6089f605cc91ce"
                ),
                "locale/zh_CN/LC_MESSAGES/dask_labextension.mo": (
                    "da552d33027f1c54754d4461b52b222ea993e5253b987c07e7e223ed49218a91"
                ),
                "locale/zh_CN/LC_MESSAGES/jupyter_resource_usage.mo": (
                    "4239d1a11951300cadea76029e4bc6ab5d63eb45bfc0cb661c0084606bc33fae"
                ),
                "locale/zh_CN/LC_MESSAGES/nbdime.mo": (
                    "dcba1e758844a50afd39c5d888e42777b47782411a01fe677becf6f1d5bac0c8"
                ),
            },
        ),
        PackagedFiles(
            name="spyder",
            package="spyder",
            module="spyder",
            version="6.1.8",
            licence="MIT",
            description="an editor for Python",
            files={
                "locale/zh_CN/LC_MESSAGES/spyder.mo": (
                    "6d1ba64c8ee7a7752ca1220babd947d2c54e16574308fd518fa59641a0ea2055"
                ),
            },
        ),
        PackagedFiles(
            name="thonny",
            package="thonny",
            module="thonny",
            version="5.0.1",
            licence="MIT",
            description="an editor for beginners",
            files={
                "locale/zh_CN/LC_MESSAGES/thonny.mo": (
                    "d4afd869a9011cc90e6ca55c7fd8102f9acab632345d4f4738241defde6d755a"
                ),
            },
        ),
        PackagedFiles(
            name="django",
            package="Django",
            module="django",
            version="5.2.19",
            licence="BSD-3-Clause",
            description="a web framework with its administration pages",
            files={
                "conf/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "099a8a392f72c616cdd4184d1df7d9749dea13541a78899d5bc5d4a9ee56ddb1"
                ),
                "contrib/admin/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "32a7fed87fd0516dc4c77d27fca496756b9f3ba805518494b01c5d5b8d7c86e3"
                ),
                "contrib/auth/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "6ee0df53ab6117ba37f5e30241a751c4d287a6bafee353cff908dd729f9ada6e"
                ),
                "contrib/admindocs/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "9e03e5c4df39c0638c2a8a3738adf05107a29286b13caa8022c830dbfd28bcde"
                ),
                "contrib/gis/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "36f362470c2eaab98e5aa8a2b98868c53b370976fd66ad3e47fd9856163a9f7e"
                ),
                "contrib/postgres/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "967fe9e8c46ce493ef4c05c5cde8176270822a48be2c4aff6223b0eac2bca0f0"
                ),
            },
        ),
        PackagedFiles(
            name="wagtail",
            package="wagtail",
            module="wagtail",
            version="8.0.1",
            licence="BSD-3-Clause",
            description="a content management system",
            files={
                "locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "35de00fc04e48a2c53b3dd3898cf593501e0e0391f8927c898a5fb35c86a2752"
                ),
                "admin/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "b8aeb2b77f05df6cdc8490012237e270e24ce2460dbd003db476e5962cc41170"
                ),
                "images/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "8cf02c6c0f01858c4ae8cdcb0d66f1c41b7929e869376ecc136107c15439dbae"
                ),
                "users/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "3897b89add50d078d241223f2f9c8a4fe13c2c7b4f7df9ae94f0171267364d75"
                ),
                "documents/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "7ccbbf6b7d89552946d05c2fde5b21d1ced21cc6a5280730a29204c2b90dfc7c"
                ),
                "contrib/redirects/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "dc187d95b664f9a3247c78b22a5b5d887a06ab5e29699ab821aa04f223d2724a"
                ),
                "contrib/forms/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "78cf238410e18910d489068c732492fcea0471d1dacc6cfb3665355225d59f9c"
                ),
                "snippets/locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "5d060ca64ced69ab160c37644b75b6db386dea7796eb37d6cac3cfd2a174f786"
                ),
            },
        ),
        PackagedFiles(
            name="oscar",
            package="django-oscar",
            module="oscar",
            version="4.2.1",
            licence="BSD-3-Clause",
            description="a shop",
            files={
                "locale/zh_Hans/LC_MESSAGES/django.mo": (
                    "bf8ecd946f470f1f9fc54b780606ade26d0eab9573c9ace26d6760315e3d9c52"
                ),
            },
        ),
    )
}

# --- reading -------------------------------------------------------------------------------------------


def read_messages(content: bytes) -> list[tuple[str, str]]:
    """Messages and their translations in a ``.mo`` file, in the file's order (GNU gettext manual, section 10.3).

    Of a message with a plural the plural is taken, as Chinese has one form for both; contexts are left out.

    Raises:
        ValueError: not a ``.mo`` file in the byte order that all of the book's are in.
    """
    if content[:4] != b"\xde\x12\x04\x95" or len(content) < 20:
        raise ValueError(f"not a .mo file: it begins with {content[:4]!r}, expected b'\\xde\\x12\\x04\\x95'")
    count, originals, translations = struct.unpack("<3I", content[8:20])

    def forms(table: int, row: int) -> list[str]:
        length, start = struct.unpack_from("<2I", content, table + 8 * row)
        return content[start : start + length].decode("utf-8").rpartition("\x04")[2].split("\0")

    pairs = ((forms(originals, row), forms(translations, row)) for row in range(count))
    return [
        (said[-1], meant[-1]) for said, meant in pairs if said != [""]
    ]  # the empty message holds the header


def read_ui_strings(names: Iterable[str] = CATALOGUES) -> list[Pair]:
    """All messages of the catalogues ``names`` as they stand in their files.

    Raises:
        DataError: a package is not installed, or a file is not the one that the book was measured on.
    """
    return [
        Pair(source, target, name)
        for name in names
        for path in CATALOGUES[name].files
        for source, target in read_messages(read_file(CATALOGUES[name], path))
    ]


def read_aligned(source_path: str | Path, target_path: str | Path) -> list[Pair]:
    """Two text files of which line n of one is the translation of line n of the other.

    Raises:
        ValueError: the files differ in length, or a line is empty on one side; with the line's number.
    """
    files = [Path(source_path), Path(target_path)]
    sources, targets = ([" ".join(line.split()) for line in _lines(file)] for file in files)
    if len(sources) != len(targets):
        short, long = sorted(zip(map(len, (sources, targets)), files, strict=True))
        raise ValueError(
            f"{long[1].name} has {long[0]} lines and {short[1].name} has {short[0]}: line {short[0] + 1} of "
            f"{long[1].name} has no partner; see that each line stands beside its translation"
        )
    for row, texts in enumerate(zip(sources, targets, strict=True), 1):
        for file, text in zip(files, texts, strict=True):
            if not text:
                raise ValueError(f"{file.name}, line {row} is empty; leave the line out of both files")
    return [Pair(*texts) for texts in zip(sources, targets, strict=True)]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").splitlines()


# --- cleaning ------------------------------------------------------------------------------------------

_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_ACCELERATOR = re.compile(r"&(?=\w)|\s*[(（]&?[A-Z][)）]")  # &File and 文件(&F): the key that opens a menu


def plain(text: str) -> str:
    """A message without HTML and without the marks of its keys, on one line."""
    return " ".join(_ACCELERATOR.sub("", _TAG.sub("", html.unescape(text))).split())


PLACEHOLDER = re.compile(r"%\(\w+\)[sdif]|%(?:\.\d+)?[sdrif]|%\d|\{[^{}\s]*\}")
"""What a program fills in when it speaks: ``%(name)s``, ``%d``, ``%1``, ``{name}``."""

SLOTS = ("⟨0⟩", "⟨1⟩", "⟨2⟩", "⟨3⟩")
"""What stands for the first, second, third and fourth placeholder of a message while it is translated."""


def mask(text: str, names: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """The text with slots for its placeholders, and the placeholders in the slots' order.

    Args:
        names: the placeholders of the text that this one translates; None for that text itself.

    Raises:
        ValueError: more placeholders than there are slots, or one that is not in ``names``.
    """
    found = list(dict.fromkeys(PLACEHOLDER.findall(text)))
    names = found if names is None else list(names)
    if len(names) > len(SLOTS):
        raise ValueError(f"{len(names)} placeholders in {text!r}, at most {len(SLOTS)}")
    if strange := [name for name in found if name not in names]:
        raise ValueError(
            f"{strange[0]!r} in {text!r} is not a placeholder of its source ({', '.join(names)})"
        )
    return PLACEHOLDER.sub(lambda place: SLOTS[names.index(place[0])], text), names


def unmask(text: str, names: Sequence[str]) -> str:
    """The text with the placeholders back in their slots; a slot without one stays."""
    for slot, name in zip(SLOTS, names, strict=False):
        text = text.replace(slot, name)
    return text


def same_wording(text: str) -> str:
    """What is left of a source when case, signs, digits and slots do not count: equal for near repeats."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))
