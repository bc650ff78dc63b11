"""Finding a book and reading its configuration."""

from __future__ import annotations

import json
import sys

import pytest
from notebooks import write_book, write_notebook

from harness.book.config import load_book, toc_pages
from harness.errors import HarnessError


def test_found_from_a_folder_below_with_all_its_parts(tmp_path):
    root = write_book(
        tmp_path / "书 book", {"02-b": ["1"], "01-a": ["1"]}, parameters={"01-a": {"smoke": {"n": 3}}}
    )
    book = load_book(root / "chapters")
    assert book.root == root and book.title == "小书" and book.packages == ("lib",)
    assert [c.stem for c in book.chapters] == ["01-a", "02-b"]
    assert book.profile(None).name == "offline" and book.profile("smoke").limits.cell == 30
    assert book.parameters["01-a"]["smoke"] == {"n": 3}
    assert book.chapter_of(root / "chapters" / ".." / "chapters" / "01-a.ipynb") == "01-a"
    assert book.chapter_of(tmp_path / "01-a.ipynb") is None


def test_order_comes_from_the_table_of_contents(tmp_path):
    root = write_book(tmp_path, {"01-a": ["1"], "02-b": ["1"], "draft": ["1"]})
    (root / "chapters" / "index.md").write_text("# 前言")
    toc = {
        "format": "jb-book",
        "root": "chapters/index",
        "parts": [
            {
                "caption": "一",
                "chapters": [{"file": "chapters/02-b", "sections": [{"file": "chapters/01-a.ipynb"}]}],
            }
        ],
    }
    (root / "_toc.yml").write_text(json.dumps(toc))
    assert [c.stem for c in load_book(root).chapters] == ["02-b", "01-a"]
    toc["parts"][0]["chapters"].append({"file": "chapters/03-c"})
    (root / "_toc.yml").write_text(json.dumps(toc))
    with pytest.raises(HarnessError, match="no file for 'chapters/03-c'"):
        load_book(root)


def test_the_number_of_a_split_chapter_chooses_all_its_parts(tmp_path):
    book = load_book(write_book(tmp_path, {name: ["1"] for name in ("05-1-core", "05-2-more", "06-x")}))
    assert [c.stem for c in book.select(["05"])] == ["05-1-core", "05-2-more"]
    assert [c.stem for c in book.select(["05-2"])] == ["05-2-more"]
    with pytest.raises(HarnessError, match=r"'0' fits several"):
        book.select(["0"])


def test_a_number_chooses_the_chapter_that_bears_it_before_those_below_it(tmp_path):
    book = load_book(write_book(tmp_path, {name: ["1"] for name in ("06-2-text", "06-2-2-more", "06-3-x")}))
    assert [c.stem for c in book.select(["06-2"])] == ["06-2-text"]
    assert [c.stem for c in book.select(["06-2-2"])] == ["06-2-2-more"]
    assert book.select(["06"]) == book.chapters


def test_chapters_are_chosen_by_unique_beginnings(tmp_path):
    book = load_book(write_book(tmp_path, {"05-fine-tuning": ["1"], "06-x": ["1"], "06-y": ["1"]}))
    assert [c.stem for c in book.select(["06-y", "05"])] == ["05-fine-tuning", "06-y"]
    assert book.select(None) == book.chapters
    with pytest.raises(HarnessError, match=r"'06' fits several: 06-x, 06-y"):
        book.select(["06"])
    with pytest.raises(
        HarnessError, match=r"no chapter begins with '07'; chapters: 05-fine-tuning, 06-x, 06-y"
    ):
        book.select(["07"])


def test_the_variable_that_a_books_own_loader_follows_is_one_that_kernels_see(tmp_path):
    write_book(tmp_path, {"01-a": ["1"]}, environment=["MY_DATA"], hub="MY_HUB", requires=["scikit-learn"])
    book = load_book(tmp_path)
    assert (book.hub, book.environment, book.requires) == ("MY_HUB", ("MY_DATA", "MY_HUB"), ("scikit-learn",))


def test_no_book(tmp_path):
    with pytest.raises(HarnessError, match=r"no harness\.yml at or above"):
        load_book(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a", "expected keys"),
        ("chapters: [", "not valid YAML"),
        ("chapter: x", "unknown key 'chapter'"),
        ("profiles: {a: {cell_timeout: -1}}", "cell_timeout of profile 'a'"),
        ("profiles: {a: {timeout: 1}}", "profile 'a' takes"),
        ("profiles: {a: {default: true}, b: {default: true}}", "more than one profile"),
        ("packages: sft", "list of folder names"),
        ("parameters: {01-a: {}}", "no chapter of this book"),
        ("chapter: x", "keys: book, chapters, claims, packages, profiles, parameters"),
        ("profiles: {a: {cell_timeout: .nan}}", "cell_timeout of profile 'a'"),
        ("profiles: {a: {cell_timeout: .inf}}", "cell_timeout of profile 'a'"),
        ("profiles: {a/b: {}}", "a profile's name consists of"),
        ("profiles: {5: {}}", "a profile's name consists of"),
        ("profiles: {a: []}", "profile 'a' takes"),
        ("profiles: {a: {}}\nprofiles: {b: {}}", r"harness\.yml:2: .*'profiles' stands here twice"),
        ("profiles: {a: {cell_timeout: 1, cell_timeout: 2}}", "'cell_timeout' stands here twice"),
        ("claims: harness.yml", "is a file"),
        ("chapters: 5", "chapters must be a folder inside the book"),
        ("chapters: /etc", "chapters must be a folder inside the book"),
        ("chapters: ..", "chapters must be a folder inside the book"),
        ("chapters: kapitel", "there is no folder .*kapitel"),
        ("packages: [../..]", "folder names inside the book"),
        ("packages: [.]", "folder names inside the book"),
        ("book: 2020-13-45", "not valid YAML: month must be in 1..12"),
        ("book: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("[" * 3000, "not valid YAML: .*recursion"),
        ("book:", "book must be the title, not None"),
        ("book: [a]", "book must be the title, not"),
        ("hub: [A, B]", "hub must name one environment variable such as MY_HUB, not"),
        ("hub: MY_*", "hub must name one environment variable such as MY_HUB, not"),
        ("requires: numpy", "requires must be a list of names such as numpy or scikit-learn, not 'numpy'"),
        ("requires: [numpy>=2]", "requires must be a list of names such as numpy or scikit-learn, not"),
    ],
)
def test_mistakes_are_one_line_with_the_file(tmp_path, text, complaint):
    (tmp_path / "harness.yml").write_text(text)
    with pytest.raises(HarnessError, match=complaint) as caught:
        load_book(tmp_path)
    assert "harness.yml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- file: chapters/01-a", "root: 5", "format: jb-book"])
def test_a_table_of_contents_without_a_first_page(tmp_path, text):
    write_book(tmp_path, {"01-a": ["1"]})
    (tmp_path / "_toc.yml").write_text(text)
    with pytest.raises(HarnessError, match=r"_toc\.yml: expected keys such as format, root"):
        load_book(tmp_path)


def test_two_chapters_of_one_name_share_claims_and_parameters_so_they_are_refused(tmp_path):
    write_book(tmp_path, {"01-a": ["1"]})
    write_notebook(tmp_path / "more" / "01-a.ipynb", "1")
    (tmp_path / "_toc.yml").write_text("root: chapters/01-a\nchapters: [{file: more/01-a}]")
    with pytest.raises(HarnessError, match=r"_toc\.yml: two chapters are called '01-a'"):
        load_book(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/x"])
def test_a_table_of_contents_that_leaves_the_book(tmp_path, name):
    write_book(tmp_path / "book", {"01-a": ["1"]})
    write_notebook(tmp_path / "x.ipynb", "1")
    (tmp_path / "book" / "_toc.yml").write_text(f"root: chapters/01-a\nchapters: [{{file: {name}}}]")
    with pytest.raises(HarnessError, match=r"_toc\.yml: .* lies outside the book"):
        load_book(tmp_path / "book")


def test_a_list_of_folders_and_notebooks_is_the_order_of_the_chapters(tmp_path):
    for name in ("z", "x", "top"):
        write_notebook(tmp_path / ("more" if name != "top" else ".") / f"{name}.ipynb", "1")
    write_book(tmp_path, {"01-a": ["1"]})
    (tmp_path / "harness.yml").write_text("chapters: [more/z.ipynb, chapters, ., more]")
    (tmp_path / "_toc.yml").write_text("root: chapters/01-a")  # the list says more than the site shows
    assert [c.stem for c in load_book(tmp_path).chapters] == ["z", "01-a", "top", "x"]
    write_notebook(tmp_path / "other" / "z.ipynb", "1")
    (tmp_path / "harness.yml").write_text("chapters: [more, other]")
    with pytest.raises(HarnessError, match=r"harness\.yml: two chapters are called 'z'"):
        load_book(tmp_path)


@pytest.mark.parametrize("entry", ["gone", "harness.yml", "../x", "/etc", 5, None, ["chapters"], ""])
def test_a_list_of_chapters_with_a_mistake(tmp_path, entry):
    write_book(tmp_path, {"01-a": ["1"]})
    (tmp_path / "harness.yml").write_text(json.dumps({"chapters": ["chapters", entry]}))
    with pytest.raises(HarnessError, match=r"harness\.yml: chapters: .* is no folder and no notebook inside"):
        load_book(tmp_path)


def test_the_notebooks_beside_the_configuration(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1")
    (tmp_path / "harness.yml").write_text("chapters: .")
    assert [c.stem for c in load_book(tmp_path).chapters] == ["a"]


@pytest.mark.parametrize("pattern", ["chapters/*", "**/*", "chapters/0*.ipynb"])
def test_a_pattern_in_the_table_of_contents(tmp_path, pattern):
    write_book(tmp_path, {"02-b": ["1"], "01-a": ["1"]})
    for folder in ("_build/x", "chapters/.ipynb_checkpoints"):
        write_notebook(tmp_path / folder / "old.ipynb", "1")
    (tmp_path / "chapters" / "page.md").write_text("# Page")
    (tmp_path / "_toc.yml").write_text(f"root: chapters/page\nchapters: [{{glob: '{pattern}'}}]")
    assert [c.stem for c in load_book(tmp_path).chapters] == ["01-a", "02-b"]
    pages = [page.stem for page in toc_pages(tmp_path / "_toc.yml")]
    assert pages[0] == "page" and {"01-a", "02-b"} <= {*pages} <= {"page", "01-a", "02-b"}


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="from Python 3.13 on ** beside a letter is a pattern")
def test_a_pattern_that_is_none(tmp_path):
    write_book(tmp_path, {"01-a": ["1"]})
    (tmp_path / "_toc.yml").write_text("root: chapters/01-a\nchapters: [{glob: 'a**b'}]")
    with pytest.raises(HarnessError, match=r"_toc\.yml: glob 'a\*\*b': "):
        load_book(tmp_path)


def test_parameters_of_an_unknown_profile(tmp_path):
    write_book(tmp_path, {"01-a": ["1"]}, parameters={"01-a": {"huge": {}}})
    with pytest.raises(HarnessError, match="unknown profile 'huge'"):
        load_book(tmp_path)


def test_unknown_profile_names_the_known_ones(tmp_path):
    with pytest.raises(HarnessError, match="unknown profile 'gpu'; profiles: smoke, offline"):
        load_book(write_book(tmp_path, {"01-a": ["1"]})).profile("gpu")


def test_network_is_a_property_of_the_profile(tmp_path):
    (tmp_path / "harness.yml").write_text("profiles: {quick: {network: false}, hub: {}}\n", encoding="utf-8")
    profiles = load_book(tmp_path).profiles
    assert (profiles["quick"].network, profiles["hub"].network) == (False, True)


def test_network_must_be_a_truth_value(tmp_path):
    (tmp_path / "harness.yml").write_text("profiles: {quick: {network: 'no'}}\n", encoding="utf-8")
    with pytest.raises(HarnessError, match="network is true or false"):
        load_book(tmp_path)


def test_data_of_the_book_and_of_a_chapter(tmp_path):
    for name in ("data/a/x.csv", "data/y.csv", "models/m.bin", "models/in/n.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    book = load_book(write_book(tmp_path, {"01-a": ["1"]}, data=["data/**/*.csv"]))
    names = [path.relative_to(tmp_path).as_posix() for path in book.data_files("01-a")]
    assert names == ["data/a/x.csv", "data/y.csv"]
    data = {"01-a": ["models", str(tmp_path / "data" / "y.csv")]}
    book = load_book(write_book(tmp_path, {"01-a": ["1"], "02-b": ["1"]}, data=data))
    names = [path.relative_to(tmp_path).as_posix() for path in book.data_files("01-a")]
    assert names == ["data/y.csv", "models/in/n.bin", "models/m.bin"]
    assert book.data_files("02-b") == [] and book.data_files(None) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("x.csv", "data must be a list of files such as data/**/*.csv, or map chapter -> list, not 'x.csv'"),
        ([1], "data: 1 is no file"),
        ([" "], "data: ' ' is no file"),
        ({"09": ["x"]}, "data given for '09', which is no chapter"),
        ({"01-a": "x.csv"}, "data of 01-a must be a list of files"),
        ({"01-a": [None]}, "data of 01-a: None is no file"),
    ],
)
def test_data_that_is_none(tmp_path, data, message):
    root = write_book(tmp_path, {"01-a": ["1"]}, data=data)
    with pytest.raises(HarnessError) as caught:
        load_book(root)
    assert message in str(caught.value) and "harness.yml" in str(caught.value)
    assert "\n" not in str(caught.value)
