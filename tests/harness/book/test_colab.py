"""Links to Colab and set-up cells: written where they are missing, held to the configuration where they are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from notebooks import write_book

from harness.book.colab import badge, differences, read_place, setup_cell, write
from harness.book.config import load_book
from harness.cli.app import main
from harness.errors import ExitCode, HarnessError
from harness.site import pages as staging

CONFIG = """\
repository: {url: https://github.com/someone/their-book, branch: v1.0, path_to_book: book}
sphinx: {config: {language: en}}
"""
LINK = "[Open in Colab](https://colab.research.google.com/github/someone/their-book/blob/v1.0/book/chapters/01-a.ipynb)"

CELL = """\
# Fetch the book where it is not at hand, as in Colab; their/helper.py adds missing packages
import os, sys
if not any(map(os.path.exists, ["../harness.yml", "harness.yml", "their-book/book"])):
    os.system("git clone -q --depth 1 -b v1.0 https://github.com/someone/their-book")
sys.path[:0] = filter(os.path.isdir, ["..", ".", "their-book/book"])
import their.helper"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    write_book(tmp_path, {"01-a": ["x = 1", "x + 1"], "02-b": ["y = 2"]}, colab="their.helper")
    (tmp_path / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "their").mkdir()
    (tmp_path / "their" / "helper.py").write_text("print('helped')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def sources(path):
    return ["".join(cell["source"]) for cell in cells(path)]


def test_writes_link_and_set_up_cell_once(book, capsys):
    chapter = book / "chapters" / "01-a.ipynb"
    before = sources(chapter)
    assert main(["lint"]) == ExitCode.USAGE
    assert "chapters/02-b.ipynb: no set-up cell; `harness lint --fix` writes it" in capsys.readouterr().out
    assert main(["lint", "--fix"]) == ExitCode.OK
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{book / 'chapters' / name}.ipynb: rewritten" for name in ("01-a", "02-b")]
    after = sources(chapter)
    assert (after[0], after[2:]) == (LINK, before)
    assert after[1] == CELL
    assert sources(book / "chapters" / "02-b.ipynb")[1] == CELL
    assert [cell["cell_type"] for cell in cells(chapter)[:2]] == ["markdown", "code"]
    assert len({cell["id"] for cell in cells(chapter)}) == len(after)
    assert main(["lint"]) == ExitCode.OK
    assert write(load_book(book)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("_config.yml", "v1.0", "v1.1", "link to Colab, line 1: "),
        ("_config.yml", "someone", "another", "set-up cell, line 4: "),
        ("harness.yml", "helper", "other", "set-up cell, line 1: "),
    ],
)
def test_a_changed_configuration_is_noticed_and_written(book, file, old, new, told):
    write(load_book(book))
    (book / file).write_text((book / file).read_text().replace(old, new))
    (book / "their" / "other.py").touch()
    assert any(told in line and old in line and new in line for line in differences(load_book(book)))
    assert len(write(load_book(book))) == 2
    assert differences(load_book(book)) == []


def edited(change):
    def edit(path):
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document["cells"])
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (edited(lambda c: c.insert(0, c.pop(2))), "link to Colab: there must be one, above all other cells"),
        (edited(lambda c: c.insert(3, c.pop(1))), "set-up cell: there must be one, before all other code"),
        (edited(lambda c: c.append({**c[1], "id": "again"})), "set-up cell: there must be one"),
        (edited(lambda c: c[1]["source"].append("\nimport torch")), "set-up cell, line "),
        (edited(lambda c: c[1]["source"].append("\n")), "set-up cell, line "),
        (edited(lambda c: c.pop(0)), "no link to Colab"),
    ],
)
def test_what_somebody_changed_by_hand_is_told_and_put_right(book, edit, told):
    write(load_book(book))
    chapter = book / "chapters" / "01-a.ipynb"
    right = chapter.read_bytes()
    edit(chapter)
    assert any(line.startswith(f"chapters/01-a.ipynb: {told}") for line in differences(load_book(book)))
    write(load_book(book))
    assert chapter.read_bytes() == right


@pytest.mark.parametrize("style", [{"indent": 4}, {"indent": 1}, {"indent": "\t"}, {}])
def test_the_rest_of_the_file_stays_as_it_is(book, style):
    chapter = book / "chapters" / "01-a.ipynb"
    document = json.loads(chapter.read_text())
    document["cells"][0] |= {"outputs": [{"name": "stdout", "output_type": "stream", "text": "旧"}]}
    chapter.write_text(json.dumps(document, **style))
    write(load_book(book))
    adapted = json.loads(chapter.read_text())
    del adapted["cells"][:2]
    assert adapted == document
    document["cells"] = cells(chapter)
    assert chapter.read_text() == json.dumps(document, **style)


def run_cell(cell, folder, **variables):
    code = f"{cell}\nimport their.helper as h; print(os.path.realpath(h.__file__))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | variables, capture_output=True, text=True
    )
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("folder", ["chapters", "."])
def test_the_cell_runs_where_the_book_is_at_hand(tmp_path_factory, book, folder):
    spaced = tmp_path_factory.mktemp("有 空格") / "my book"
    shutil.copytree(book, spaced)
    nowhere = spaced / "no-git"
    nowhere.mkdir()
    shown, told = run_cell(CELL, spaced / folder, PATH=str(nowhere))
    assert (shown, told) == (["helped", str(spaced / "their" / "helper.py")], "")


def published(folder):
    """A repository with two versions of the book, and variables that lead the book's address to it."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "book" / "their").mkdir(parents=True)
    for version in ("v1.0", "v1.1"):
        (folder / "book" / "their" / "helper.py").write_text(f"print('{version}')\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", version], check=True)
        subprocess.run([*git, "tag", version], check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/someone/their-book",
    }


def test_alone_in_a_folder_it_fetches_the_book_at_that_version(tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    address = published(tmp_path_factory.mktemp("origin"))
    for _ in range(2):  # the second time it is there
        shown, told = run_cell(CELL, empty, **address)
        assert shown == ["v1.0", str(empty / "their-book" / "book" / "their" / "helper.py")], told


def test_where_the_network_came_back_running_the_cell_again_is_enough(tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    address = published(tmp_path_factory.mktemp("origin"))
    (name, value), *rest = address.items()
    again = f"""
import os
os.environ["{name}"] = "0"
try:
    exec({CELL!r})
except ModuleNotFoundError as error:
    print(error)
os.environ["{name}"] = "{value}"
exec({CELL!r})
"""
    offline = {"https_proxy": "http://127.0.0.1:9", "GIT_TERMINAL_PROMPT": "0"}
    shown, told = run_cell(again, empty, **dict(rest), **offline)
    assert shown[:2] == ["No module named 'their'", "v1.0"] and "fatal: " in told


def test_a_book_without_a_helper_is_only_found(book):
    cell = setup_cell(read_place(book), ".", None)
    assert cell.endswith('sys.path[:0] = filter(os.path.isdir, [".", "their-book/book"])')
    assert '["harness.yml", "their-book/book"]' in cell


@pytest.mark.parametrize(("key", "wanted"), [(True, True), (False, False), (None, False)])
def test_only_a_book_that_asks_for_it_has_the_cells(book, capsys, key, wanted):
    write_book(book, {"01-a": ["x = 1"], "02-b": ["y = 2"]}, colab=key)
    assert load_book(book).colab_helper is None
    assert main(["lint", "--fix"]) == ExitCode.OK
    assert main(["lint"]) == ExitCode.OK
    assert (LINK in sources(book / "chapters" / "01-a.ipynb")) == wanted


def test_a_helper_that_is_not_there_is_one_line(book, capsys):
    (book / "their" / "helper.py").unlink()
    assert main(["lint"]) == ExitCode.USAGE
    assert "harness.yml: colab: their/helper.py does not exist" in capsys.readouterr().err


def test_a_path_is_quoted(book):
    assert badge(read_place(book), "第 1 章.ipynb").endswith("/book/%E7%AC%AC%201%20%E7%AB%A0.ipynb)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: x\n", "repository.url must be https://github.com/OWNER/NAME"),
        (
            "repository: {url: https://example.org/a/b}\n",
            "which is what Colab opens, not 'https://example.org/a/b'",
        ),
        (
            "repository: {url: https://github.com/a/b, branch: a b}\n",
            "repository.branch must be a branch or a tag",
        ),
    ],
)
def test_an_address_that_colab_cannot_open_is_one_line(book, capsys, text, words):
    (book / "_config.yml").write_text(text)
    assert main(["lint"]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("colab", [["evaluate"], {"install": ["evaluate"]}, "a b", "sft/setup.py", 1])
def test_a_configuration_that_means_nothing_is_refused(tmp_path, colab):
    write_book(tmp_path, {"01-a": ["1"]}, colab=colab)
    with pytest.raises(HarnessError, match=r"harness\.yml: colab must name a module of the book"):
        load_book(tmp_path)


def test_the_site_leaves_the_link_out(book):
    chapter = book / "chapters" / "01-a.ipynb"
    write(load_book(book))
    staged = staging.stage(json.loads(chapter.read_text()), None, None)
    assert not any("Open in Colab" in cell["source"] for cell in staged["cells"])
    assert len(staged["cells"]) == len(cells(chapter))  # the box took the link's place


@pytest.mark.parametrize("more", ["sphinx: [a]\n", "sphinx: {config: x}\n", "launch_buttons: none\n"])
def test_a_configuration_of_another_shape_is_passed_over(tmp_path, more):
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/a/b.git}\n" + more)
    place = read_place(tmp_path)
    assert (place.repository, place.revision, place.chinese) == ("https://github.com/a/b", "main", False)
