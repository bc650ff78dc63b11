"""Make `SFTBookSans-Regular.otf`, the font of the book's figures, from Noto Sans CJK.

    python sft/fonts/subset.py /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc

(the collection of Debian's and Ubuntu's package fonts-noto-cjk; needs fontTools, which matplotlib brings).
The whole collection weighs 19 MB; figures need the 7,445 characters of GB 2312, Latin letters, a few signs.

The subset carries a name of its own, because matplotlib finds fonts by name: "Noto Sans CJK SC" would also
match a collection of the system, of which matplotlib 3.10 reads only the Japanese face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

FAMILY = "SFT Book Sans"
FONT = Path(__file__).resolve().with_name("SFTBookSans-Regular.otf")

SIMPLIFIED_CHINESE_FACE = 2  # its number in NotoSansCJK-*.ttc: JP, KR, SC, TC, HK
SIGNS = (
    "·—–…‘’“”•−×÷±°′″‰←↑→↓↔⇒∀∂∃∈∉∏∑√∝∞∠∩∪∫∼≈≠≡≤≥≪≫⊂⊆⊕⊗⊥⌈⌉⌊⌋■□▲△▼▽○●★☆✓✗ℝℕℤℓαβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
)


def gb2312() -> set[str]:
    """The 7,445 characters of GB 2312-1980: ideographs, punctuation, kana, Greek, Cyrillic, box drawing."""
    characters = set()
    for row in range(0xA1, 0xF8):
        for cell in range(0xA1, 0xFF):
            try:
                characters.add(bytes((row, cell)).decode("gb2312"))
            except UnicodeDecodeError:
                continue  # an empty cell
    return characters


def wanted() -> set[str]:
    """Every character the font is asked for; Noto lacks a few signs, which DejaVu Sans has."""
    latin = {chr(code) for code in (*range(0x20, 0x7F), *range(0xA0, 0x100))}
    return gb2312() | latin | set(SIGNS)


def make(collection: Path, destination: Path = FONT) -> None:
    """Write the subset of the collection's simplified Chinese face."""
    options = subset.Options(
        hinting=False,  # matplotlib hints by itself
        layout_features=["kern"],
        name_IDs=["*"],
        name_languages=[0x409],
        notdef_outline=True,
        recalc_timestamp=False,  # same input, same bytes
    )
    options.drop_tables += ["BASE", "GSUB", "VORG", "vhea", "vmtx"]  # vertical text, alternative forms
    font = TTFont(collection, fontNumber=SIMPLIFIED_CHINESE_FACE, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(character) for character in wanted()])
    subsetter.subset(font)
    _rename(font)
    font.save(destination)


def _rename(font: TTFont) -> None:
    postscript = FONT.stem
    original = font["name"].getDebugName(4)
    version = font["name"].getDebugName(5)
    names = {
        1: FAMILY,
        3: f"{postscript}; subset of {original}, {version}",
        4: f"{FAMILY} Regular",
        6: postscript,
        10: f"Subset of {original} made for the figures of a book; see sft/fonts/README.md.",
    }
    for identifier, text in names.items():
        font["name"].setName(text, identifier, 3, 1, 0x409)
    table = font["CFF "].cff
    table.fontNames = [postscript]
    table.topDictIndex[0].FullName = names[4]
    table.topDictIndex[0].FamilyName = FAMILY


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", type=Path, help="NotoSansCJK-Regular.ttc")
    collection = parser.parse_args().collection
    if not collection.is_file():
        parser.error(f"no such file: {collection} (Debian and Ubuntu: package fonts-noto-cjk)")
    make(collection)
    present = TTFont(FONT).getBestCmap()
    missing = "".join(sorted(c for c in wanted() if ord(c) not in present))
    print(f"{FONT.name}: {FONT.stat().st_size:,} bytes, {len(present):,} characters; missing: {missing}")


if __name__ == "__main__":
    main()
