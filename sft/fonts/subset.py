"""Make `SFTBookSans-*.ttf`, the fonts of the book's figures and of its PDF, from Noto Sans CJK.

    python sft/fonts/subset.py /usr/share/fonts/opentype/noto

(the folder of Debian's and Ubuntu's package fonts-noto-cjk; needs fontTools, which matplotlib brings).
A whole collection weighs 19 MB; the book needs the 7,445 characters of GB 2312, the 5,401 that traditional Chinese
uses most, those of the texts and vocabularies that it shows, Latin letters, a few signs.

A glyph of Noto may stand for several characters: 大 and the radical U+2F24. What is copied out of a PDF is then the
lower number, which nobody searches for; so no two characters wanted here share a glyph.
Outlines become TrueType's: Chromium embeds them as a font with a name, those of Noto as hundreds of drawings.

The subsets carry a name of their own, because matplotlib finds fonts by name: "Noto Sans CJK SC" would also
match a collection of the system, of which matplotlib 3.10 reads only the Japanese face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools import subset
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, newTable

FAMILY = "SFT Book Sans"
FOLDER = Path(__file__).resolve().parent
WEIGHTS = ("Regular", "Bold")

SIMPLIFIED_CHINESE_FACE = 2  # its number in NotoSansCJK-*.ttc: JP, KR, SC, TC, HK
SIGNS = (
    "·—–…‘’“”−×÷±°′″‰←↑→↓↔⇒∀∂∃∈∉∏∑√∝∞∠∩∪∫∼≈≠≡≤≥≪≫⊂⊆⊕⊗⊥⌈⌉⌊⌋■□▲△▼▽○●★☆✓✗ℝℕℤℓαβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
)
SHOWN = (  # in texts and vocabularies of the book, and in neither standard
    "䜣乿亶佉佷侀俶倈倓倛倞偁偓偪傒僤僯僲儛儽冏冮凈刼剕劵効劼勅勍勑卄卬厓厸叄叡呪啓啰喆喠嗢嘚噂噣嚈嚬囧囷圏坴"
    "垚埜埵埶塠墈墖墠壄壒壻壿奬妺姮姷娀娖婄婓媍嫚孮宎寃寑寔寘寳屌屼岆岨岪峓峚峣峩峯峲崄崕崚嵒嵓嵕嵚嶒嶱嶲幪幭"
    "弇彧徧忼怢恉恠悮惔惣惪惸愞愬慱憃憆憇憙戁戄扂扆抏抝抺拏拑挐掆掞掦揳搃摋摴摽撝攇攽敚敧斮斾斿旳昉昪昫昬昰昺"
    "昿晧晩晳曃曧曭朼杇杋杘枌柂柈柸栢栱栻桸棃棊棓棨棫椀椇榝槤樕檝櫆櫈欛殽毈歩気毘毞毠毱氄氿沺泝浄涴淩湼溚漴潄潏潬"
    "潱潻澂灋灟炁烜焌焝煴牎牓牕狝猨猭獉玒玙玚玼珓珣珨珰珵珹珺琁琌琤琲琹琻琾瑀瑄瑆瑠瑨璈璠璯璵璶璸瓀瓃瓘瓩甝畉"
    "畮疍疶痗痚痾瘆皁皊皐皜皞盻眃眒眘眴眽睌瞊瞗砞碶磌磟磣礛礳祅祑祫祻祼禋禛禟秂秅秙秠稛穉穨窣竑竔竫笭筁筩筭筳"
    "箉箒箓箘簒籹粔粣糱糷絘絜絶綎続緃緉緑緥緫纁纚纴缾羆羇羑羣翙翚翣翴耡耫聨胊胕胵臜舋舑芵苀苮苽茞茢菑菓萟萯葖"
    "蒱蓂蓇蓏蓺蔾蕅薳薻藌藠藳藴蘠蘤蚮蚹蚿蛂蜋蜐蜑蝏蠏蠝衑衒衖袓袪裏裩裵褔褣襛覌觓觘諵謼讟豖豼貎趂趍趯跂踈踘蹓"
    "蹚蹡躠躥躱躶軆軘輑轪辀迯迻遟邉邨郔鄆鄌鄏鄠鄮酕釚銹鋭鋺録錿鏁鐀鐎鑕鑢铏铚镕镠閕閖閧闿陁雰霅靐靑靬靿鞗鞚韈"
    "韑顗颙飂飅飆飏飐飡餻饆饋饠駞騞驐髆髈髉髎鬪鬬鮦鰕鱻鲀鳣鴈鴶鵀鵰鵴鶒鷞鷟鸂鸤鹔鹠鹢鹥鹻麌麞齉齯齱龂龎龑龢︶"
    "︿﹐﹑﹔﹕﹗﹝﹞﹡"
)
TWINS = "\xad\u2022\u30fb"  # share glyphs with - and ·; the dot of lists comes from DejaVu Sans

_TRUETYPE_LIMITS = (  # of a font without instructions or composed glyphs; fontTools counts points when it saves
    *("TwilightPoints", "Storage", "FunctionDefs", "InstructionDefs", "StackElements", "SizeOfInstructions"),
    *("CompositePoints", "CompositeContours", "ComponentElements", "ComponentDepth", "Points", "Contours"),
)


def gb2312() -> set[str]:
    """The 7,445 characters of GB 2312-1980: ideographs, punctuation, kana, Greek, Cyrillic, box drawing."""
    return _encoded("gb2312", range(0xA1, 0xF8))


def traditional() -> set[str]:
    """The 5,401 ideographs that traditional Chinese uses most: level 1 of Big5."""
    return {character for character in _encoded("big5", range(0xA4, 0xC7)) if "一" <= character <= "\u9fff"}


def _encoded(encoding: str, rows: range) -> set[str]:
    """The characters that *encoding* has in *rows*."""
    characters = set()
    for row in rows:
        for cell in range(0x40, 0xFF):
            try:
                characters.add(bytes((row, cell)).decode(encoding))
            except UnicodeDecodeError:
                continue  # an empty cell
    return {character for character in characters if len(character) == 1}


def wanted() -> set[str]:
    """Every character the fonts are asked for; Noto lacks a few signs, which DejaVu Sans has."""
    latin = {chr(code) for code in (*range(0x20, 0x7F), *range(0xA0, 0x100))}
    return (gb2312() | traditional() | latin | set(SIGNS + SHOWN)) - set(TWINS)


def make(folder: Path, weight: str, destination: Path = FOLDER) -> Path:
    """Write the subset of the simplified Chinese face of that weight to the folder *destination*.

    Raises:
        ValueError: two of its characters share a glyph.
    """
    options = subset.Options(
        hinting=False,  # matplotlib hints by itself
        layout_features=["kern", "halt", "chws"],  # the latter two: punctuation marks that stand close
        name_IDs=["*"],
        name_languages=[0x409],
        notdef_outline=True,
        recalc_timestamp=False,  # same input, same bytes
    )
    options.drop_tables += ["BASE", "GSUB", "VORG", "vhea", "vmtx"]  # vertical text, alternative forms
    collection = folder / f"NotoSansCJK-{weight}.ttc"
    font = TTFont(collection, fontNumber=SIMPLIFIED_CHINESE_FACE, recalcTimestamp=False)
    _narrow(font, "‘’")
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(character) for character in wanted()])
    subsetter.subset(font)
    if shared := twins(font):
        raise ValueError(f"characters that share a glyph, all but one belong into TWINS: {' '.join(shared)}")
    _to_truetype(font)
    _rename(font, weight)
    file = destination / f"{FAMILY.replace(' ', '')}-{weight}.ttf"
    font.save(file)
    return file


def twins(font: TTFont) -> list[str]:
    """The characters of *font* that share a glyph, each set as a text."""
    by_glyph: dict[str, str] = {}
    for code, glyph in sorted(font.getBestCmap().items()):
        by_glyph[glyph] = by_glyph.get(glyph, "") + chr(code).strip()  # spaces are alike
    return [characters for characters in by_glyph.values() if len(characters) > 1]


def _narrow(font: TTFont, characters: str) -> None:
    """Give *characters* their glyphs of Latin width: ’ is an apostrophe here, not half of a pair as wide as 大."""
    table = font["GSUB"].table
    lookups = {
        number
        for record in table.FeatureList.FeatureRecord
        if record.FeatureTag == "pwid"
        for number in record.Feature.LookupListIndex
    }
    subtables = [one for number in lookups for one in table.LookupList.Lookup[number].SubTable]
    narrow: dict[str, str] = {}
    for one in subtables:
        narrow |= getattr(one, "ExtSubTable", one).mapping
    for encoding in font["cmap"].tables:
        for code in map(ord, characters):
            if code in getattr(encoding, "cmap", ()):
                glyph = encoding.cmap[
                    code
                ]  # tables may be one and the same: the second time it is narrow already
                encoding.cmap[code] = narrow.get(glyph, glyph)


def _to_truetype(font: TTFont) -> None:
    """Cubic outlines into quadratic ones, at most one unit of 1,000 away."""
    glyphs, widths = font.getGlyphSet(), font["hmtx"]
    table = newTable("glyf")
    table.glyphOrder, table.glyphs = font.getGlyphOrder(), {}
    for name in table.glyphOrder:
        pen = TTGlyphPen(glyphs)
        glyphs[name].draw(Cu2QuPen(pen, max_err=1, reverse_direction=True))
        table.glyphs[name] = glyph = pen.glyph()
        glyph.recalcBounds(table)
        widths[name] = (widths[name][0], glyph.xMin)
    del font["CFF "]
    font["glyf"], font["loca"] = table, newTable("loca")
    font.sfntVersion = "\0\1\0\0"
    font["post"].formatType = 3  # no names of glyphs
    font["maxp"].tableVersion = 0x00010000
    for name in _TRUETYPE_LIMITS:
        setattr(font["maxp"], f"max{name}", 0)
    font["maxp"].maxZones = 1


def _rename(font: TTFont, weight: str) -> None:
    postscript = f"{FAMILY.replace(' ', '')}-{weight}"
    original = font["name"].getDebugName(4)
    version = font["name"].getDebugName(5)
    names = {
        1: FAMILY,
        3: f"{postscript}; subset of {original}, {version}",
        4: f"{FAMILY} {weight}",
        6: postscript,
        10: f"Subset of {original} made for the figures and the PDF of a book; see sft/fonts/README.md.",
    }
    for identifier, text in names.items():
        font["name"].setName(text, identifier, 3, 1, 0x409)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="where NotoSansCJK-Regular.ttc and NotoSansCJK-Bold.ttc lie"
    )
    folder = parser.parse_args().folder
    for weight in WEIGHTS:
        if not (folder / f"NotoSansCJK-{weight}.ttc").is_file():
            parser.error(
                f"no NotoSansCJK-{weight}.ttc in {folder} (Debian and Ubuntu: package fonts-noto-cjk)"
            )
        file = make(folder, weight)
        present = TTFont(file).getBestCmap()
        missing = "".join(sorted(c for c in wanted() if ord(c) not in present))
        print(f"{file.name}: {file.stat().st_size:,} bytes, {len(present):,} characters; missing: {missing}")


if __name__ == "__main__":
    main()
