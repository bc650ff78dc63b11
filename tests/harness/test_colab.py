"""Links to Colab and set-up cells: written where they are missing, held to the configuration where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from notebooks import write_book

from harness import staging
from harness.cli import main
from harness.colab import badge, differences, read_place, setup_cell, write
from harness.config import load_book
from harness.errors import ExitCode, HarnessError

CONFIG = """\
repository: {url: https://github.com/someone/their-book, branch: v1.0, path_to_book: book}
sphinx: {config: {language: en}}
"""
LINK = "[Open in Colab](https://colab.research.google.com/github/someone/their-book/blob/v1.0/book/chapters/01-a.ipynb)"


@pytest.fixture
def book(tmp_path, monkeypatch):
    settings = {"install": ["evaluate", "scikit-learn"], "install_no_deps": ["data-package"]}
    write_book(tmp_path, {"01-a": ["x = 1", "x + 1"], "02-b": ["y = 2"]}, colab=settings)
    (tmp_path / "_config.yml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("# pins\nevaluate==0.4.6\ndata-package==2.0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def sources(path):
    return ["".join(cell["source"]) for cell in cells(path)]


def test_writes_link_and_set_up_cell_once(book, capsys):
    chapter = book / "chapters" / "01-a.ipynb"
    before = sources(chapter)
    assert main(["colab"]) == ExitCode.USAGE
    assert "chapters/02-b.ipynb: no set-up cell" in capsys.readouterr().out
    assert main(["colab", "--write"]) == ExitCode.OK
    after = sources(chapter)
    assert (after[0], after[2:]) == (LINK, before)
    assert 'REPOSITORY, VERSION = "https://github.com/someone/their-book", "v1.0"' in after[1]
    assert 'NEEDED = ("evaluate==0.4.6", "scikit-learn")\nDATA_ONLY = ("data-package==2.0",)' in after[1]
    assert [cell["cell_type"] for cell in cells(chapter)[:2]] == ["markdown", "code"]
    assert len({cell["id"] for cell in cells(chapter)}) == len(after)
    assert main(["colab", "--check"]) == ExitCode.OK
    assert write(load_book(book)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("_config.yml", "v1.0", "v1.1", "link to Colab, line 1: "),
        ("_config.yml", "someone", "another", "set-up cell, line 7: "),
        ("constraints.txt", "0.4.6", "0.4.7", "set-up cell, line 8: "),
    ],
)
def test_a_changed_configuration_is_noticed_and_written(book, file, old, new, told):
    write(load_book(book))
    (book / file).write_text((book / file).read_text().replace(old, new))
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


def test_the_cell_runs_where_the_book_is_at_hand(book, tmp_path):
    cell = setup_cell(read_place(book), [], [], "")
    assert "pip" not in cell
    done = subprocess.run(
        [sys.executable, "-c", f"{cell}\nprint(sys.path[0])"],
        cwd=book / "chapters",
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path), "")


def test_alone_in_a_folder_it_fetches_the_book_at_that_version(book, tmp_path_factory):
    origin, empty = tmp_path_factory.mktemp("origin"), tmp_path_factory.mktemp("empty")
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (origin / "book").mkdir()
    for version in ("v1.0", "v1.1"):
        (origin / "book" / "harness.yml").write_text(f"book: {version}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", version], check=True)
        subprocess.run([*git, "tag", version], check=True)
    environment = os.environ | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/someone/their-book",
    }
    cell = setup_cell(read_place(book), [], [], "")
    for _ in range(2):  # the second time it is there
        done = subprocess.run(
            [sys.executable, "-c", f"{cell}\nprint(root)"],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == str(empty / "their-book" / "book"), done.stderr
    assert (empty / "their-book" / "book" / "harness.yml").read_text() == "book: v1.0\n"


def test_lines_stay_narrow(book):
    cell = setup_cell(read_place(book), [f"package-{i}" for i in range(12)], ["other"], "")
    assert max(map(len, cell.splitlines())) <= 88
    compile(cell, "cell", "exec")


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
    assert main(["colab"]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "colab", [["evaluate"], {"packages": ["evaluate"]}, {"install": "evaluate"}, {"install": ["a b"]}]
)
def test_a_configuration_that_means_nothing_is_refused(tmp_path, colab):
    write_book(tmp_path, {"01-a": ["1"]}, colab=colab)
    with pytest.raises(HarnessError, match=r"harness\.yml: (colab takes install, |install must be a list)"):
        load_book(tmp_path)


def test_the_site_leaves_the_link_out(book):
    chapter = book / "chapters" / "01-a.ipynb"
    write(load_book(book))
    staged = staging.stage(json.loads(chapter.read_text()), None, None)
    assert not any("Open in Colab" in cell["source"] for cell in staged["cells"])
    assert len(staged["cells"]) == len(cells(chapter))  # the box took the link's place


def test_pins_that_are_no_text_are_one_line(book, capsys):
    (book / "constraints.txt").write_bytes(b"\xff\xfe")
    assert main(["colab"]) == ExitCode.USAGE
    assert "constraints.txt: not UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["sphinx: [a]\n", "sphinx: {config: x}\n", "launch_buttons: none\n"])
def test_a_configuration_of_another_shape_is_passed_over(tmp_path, more):
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/a/b.git}\n" + more)
    place = read_place(tmp_path)
    assert (place.repository, place.revision, place.chinese) == ("https://github.com/a/b", "main", False)
