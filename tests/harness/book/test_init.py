"""``harness init``: any folder of notebooks becomes a book, and nothing in it is changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from notebooks import RECORD, write_notebook

from harness.archive.folder import find_run
from harness.book.claims import load_all_claims
from harness.book.config import load_book
from harness.book.lint import lint
from harness.book.yaml_file import read_yaml
from harness.cli.app import main
from harness.errors import ExitCode
from harness.files import read_json
from harness.site.build import check_site

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with an awkward name, which is also the current one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "我的 book: #1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def init(capsys, *arguments: str) -> str:
    """What ``harness init`` prints; it must succeed."""
    assert main(["init", *arguments]) == ExitCode.OK, capsys.readouterr().err
    return capsys.readouterr().out


def chapters(folder: Path) -> list[str]:
    """The chapters that the written configuration describes; its claim files must fit them."""
    book = load_book(folder)
    load_all_claims(book.claims_dir, [c.stem for c in book.chapters], tuple(book.profiles))
    return [c.relative_to(folder).as_posix() for c in book.chapters]


def toc(folder: Path, *entries: object, root: str = "intro") -> None:
    (folder / f"{root}.md").write_text("# Intro")
    text = json.dumps({"format": "jb-book", "root": root, "chapters": list(entries)})
    (folder / "_toc.yml").write_text(text)


def test_an_empty_folder_becomes_a_book_whose_claims_pass(folder, capsys):
    out = init(capsys)
    assert "wrote harness.yml" in out and "harness run --seeds 3" in out
    assert chapters(folder) == ["chapters/01-first-measurement.ipynb"]
    assert load_book(folder).title == "我的 book: #1"
    assert lint(folder / "chapters" / "01-first-measurement.ipynb") == []
    for arguments, outcome in (
        (["run"], "inconclusive"),
        (["run", "--profile", "smoke"], "pass"),
        (["run", "--seeds", "3"], "inconclusive"),
        (["bless"], None),
        (["run"], "pass"),
        (["run", "--seeds", "3,4,5"], "pass"),
    ):
        assert main(arguments) == ExitCode.OK, capsys.readouterr().err
        if outcome:
            verdicts = read_json(find_run(folder) / "result.json")["verdicts"]
            assert [v["outcome"] for v in verdicts] == [outcome], arguments


def test_a_folder_that_does_not_exist_is_made(folder, capsys):
    out = init(capsys, "new/deep")
    assert "next: cd new/deep" in out
    assert chapters(folder / "new" / "deep") == ["chapters/01-first-measurement.ipynb"]


def test_notebooks_of_one_folder(folder, capsys):
    write_notebook(folder / "notebooks" / "b.ipynb", f"{RECORD}\nrecord('x', seed)", parameters="seed = 0")
    write_notebook(folder / "notebooks" / "a.ipynb", "1")
    for hidden in ("notebooks/.ipynb_checkpoints/a-checkpoint", "_build/jobs/out", "env/lib/c", ".x/d"):
        write_notebook(folder / f"{hidden}.ipynb", "1")
    (folder / "env" / "pyvenv.cfg").touch()
    before = contents(folder)
    out = init(capsys)
    assert chapters(folder) == ["notebooks/a.ipynb", "notebooks/b.ipynb"]
    assert "runs the 2 chapter(s)" in out and "--seeds 3" in out
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"harness.yml", "notebooks/claims/b.yml", ".gitignore"}
    assert main(["run", "--quiet"]) == ExitCode.OK


def test_notebooks_beside_the_configuration(folder, capsys):
    write_notebook(folder / "a.ipynb", "1")
    out = init(capsys)
    assert chapters(folder) == ["a.ipynb"] and (folder / "claims" / "a.yml").is_file()
    assert "seed = 0" in out  # nothing takes a seed yet, so --seeds alone would be no advice
    assert main(["run", "--quiet"]) == ExitCode.OK
    toc(folder)
    (folder / "_config.yml").write_text("title: x")
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    check_site(load_book(folder))


def test_notebooks_of_several_folders(folder, capsys):
    for name in ("top", "part one/x", "第二/y"):
        write_notebook(folder / f"{name}.ipynb", "1")
    init(capsys)
    assert chapters(folder) == ["top.ipynb", "part one/x.ipynb", "第二/y.ipynb"]
    assert (folder / "claims" / "top.yml").is_file()


def test_notebooks_of_one_name(folder, capsys):
    for name in ("a/intro", "b/intro", "b/more"):
        write_notebook(folder / f"{name}.ipynb", "1")
    out = init(capsys)
    assert chapters(folder) == ["a/intro.ipynb", "b/more.ipynb"]
    assert "left out b/intro.ipynb: a chapter has this name already; rename it" in out


def test_a_jupyter_book_whose_chapters_lie_elsewhere(folder, capsys):
    for name in ("lectures/b", "lectures/a", "lab/one", "lab/two", "draft"):
        write_notebook(folder / f"{name}.ipynb", "1")
    toc(folder, {"file": "lectures/b", "sections": [{"glob": "lab/*"}]}, {"url": "https://example.org"},
        {"file": "lectures/a.ipynb"})  # fmt: skip
    (folder / "_config.yml").write_text("title: 一本书\nsphinx: {config: {x: !!python/name:a.b }}")
    before = contents(folder)
    out = init(capsys)
    assert chapters(folder) == [
        "lectures/b.ipynb",
        "lab/one.ipynb",
        "lab/two.ipynb",
        "lectures/a.ipynb",
    ]
    assert "not chapters, as _toc.yml does not name them: draft.ipynb" in out
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert main(["run", "--quiet"]) == ExitCode.OK


def test_the_title_of_a_jupyter_book(folder, capsys):
    write_notebook(folder / "a.ipynb", "1")
    (folder / "_config.yml").write_text('title: "A: b # c"')
    init(capsys)
    assert load_book(folder).title == "A: b # c"


@pytest.mark.parametrize("notebooks", [(), ("x/a", "y/b")])
def test_a_table_of_contents_without_notebooks(folder, capsys, notebooks):
    toc(folder)
    for name in notebooks:
        write_notebook(folder / f"{name}.ipynb", "1")
    init(capsys)
    wanted = [f"{name}.ipynb" for name in notebooks]
    assert chapters(folder) == (wanted or ["chapters/01-first-measurement.ipynb"])


def without_comments(path: Path, first: str) -> None:
    """Make the commented example that begins with the line *first* count."""
    head, _, example = path.read_text(encoding="utf-8").partition(f"# {first}\n")
    assert example
    lines = [first, *(re.sub("^# ?", "", line) for line in example.splitlines())]
    path.write_text(head.replace(f"{first} []\n", "") + "\n".join(lines), encoding="utf-8")


def test_the_example_of_a_claim_is_one(folder, capsys, tmp_path):
    write_notebook(folder / "a.ipynb", "1")
    init(capsys)
    without_comments(folder / "claims" / "a.yml", "claims:")
    (claims,) = load_all_claims(folder / "claims", ["a"], ("smoke", "full")).values()
    assert [claim.name for claim in claims.claims] == ["mean_error"]


def test_a_claim_is_proposed_for_each_number_that_a_chapter_records(folder, capsys):
    cell = """%matplotlib inline
record("slope", float(np.round(fit[0], 3)), n=len(x), unit="m/s")
# record("old", 1)
harness.record('residual', r); say(f"record it, {unit}")
glue("test-score", 0.5)
record(f"loss_{i}", 1)
"""
    write_notebook(folder / "nb" / "silent.ipynb", "1")
    write_notebook(folder / "nb" / "fit.ipynb", cell)
    write_notebook(folder / "nb" / "more.ipynb", "record('drift', 1, unit=\"%\")")
    out = init(capsys)
    assert "claim in nb/claims/fit.yml what the chapter records" in out
    assert sorted(path.name for path in (folder / "nb" / "claims").iterdir()) == ["fit.yml", "more.yml"]
    chapters(folder)  # as they are written they can be read, and claim nothing
    for name in ("fit", "more"):
        without_comments(folder / "nb" / "claims" / f"{name}.yml", "claims:")
    found = load_all_claims(folder / "nb" / "claims", ["silent", "fit", "more"], ("smoke", "full"))
    claims = {claim.name: claim.unit for one in found.values() for claim in one.claims}
    assert claims == {"slope": "m/s", "residual": "", "test_score": "", "drift": "%"}


def test_the_example_of_parameters_is_of_the_notebooks(folder, capsys):
    parameters = "num_points: int = 5000\nstep = 0.5\nseed = 0\nname = 'x'\nverbose = True"
    write_notebook(folder / "nb" / "a.ipynb", "1")
    write_notebook(folder / "nb" / "b.ipynb", "1", parameters=parameters)
    init(capsys)
    assert load_book(folder).parameters == {}
    without_comments(folder / "harness.yml", "parameters:")
    assert load_book(folder).parameters == {"b": {"smoke": {"num_points": 5000, "step": 0.5}}}
    assert main(["list", "--profile", "smoke"]) == ExitCode.OK


@pytest.mark.parametrize("name", ["harness.yml", "claims.yml", "first-claims.yml", "first-chapter.ipynb"])
def test_the_templates_are_of_no_field(name):
    text = (ROOT / "harness" / "book" / "templates" / name).read_text(encoding="utf-8")
    assert not re.search(r"(?i)hugging|epoch|accura|train|model|hub\b", text)


def test_a_configuration_without_parameters_shows_an_example(folder, capsys):
    write_notebook(folder / "a.ipynb", "1")
    init(capsys)
    assert "none has such a cell yet" in (folder / "harness.yml").read_text(encoding="utf-8")
    without_comments(folder / "harness.yml", "parameters:")
    assert load_book(folder).parameters == {"a": {"smoke": {"n": 10}}}


def test_claims_and_gitignore_that_exist_stay(folder, capsys):
    write_notebook(folder / "nb" / "a.ipynb", "1")
    (folder / "nb" / "claims").mkdir()
    (folder / "nb" / "claims" / "a.yml").write_text("chapter: a\nclaims: []\n")
    (folder / ".gitignore").write_bytes(b"*.log\n\xff")  # no line end, no UTF-8
    out = init(capsys)
    assert "claims/a.yml" not in out.split("next:")[0]
    assert read_yaml(folder / "nb" / "claims" / "a.yml") == {"chapter": "a", "claims": []}
    assert (folder / ".gitignore").read_bytes() == b"*.log\n\xff\n_build/\n"
    (folder / "harness.yml").unlink()
    assert ".gitignore" not in init(capsys)
    assert (folder / ".gitignore").read_bytes() == b"*.log\n\xff\n_build/\n"


def _a_book(folder):
    (folder / "harness.yml").write_text("book: x")


def _a_book_below(folder):
    (folder / "docs").mkdir()
    toc(folder / "docs")


def _a_broken_toc(folder):
    (folder / "_toc.yml").write_text("chapters: [")


def _a_toc_with_a_missing_page(folder):
    toc(folder, {"file": "gone"})


def _a_stranger_among_the_claims(folder):
    (folder / "chapters" / "claims").mkdir(parents=True)
    (folder / "chapters" / "claims" / "x.yml").write_text("chapter: x\nclaims: []\n")


def _a_file_called_chapters(folder):
    (folder / "chapters").write_text("")


def _a_file_called_claims(folder):
    write_notebook(folder / "a.ipynb", "1")
    (folder / "claims").write_text("")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_a_book, "harness.yml exists; this is a book already"),
        (_a_book_below, "_toc.yml is in .*docs; run `harness init` there"),
        (_a_broken_toc, r"_toc\.yml:1: not valid YAML"),
        (_a_toc_with_a_missing_page, "no file for 'gone'"),
        (_a_stranger_among_the_claims, r"x\.yml: no chapter is called 'x'"),
        (_a_file_called_chapters, "a file is in the way of the folder .*chapters; rename it"),
        (_a_file_called_claims, "claims is a file where the claims' folder would be"),
    ],
)
def test_what_is_in_the_way_is_one_line_and_nothing_is_written(folder, capsys, prepare, words):
    prepare(folder)
    before = contents(folder)
    assert main(["init"]) in (ExitCode.USAGE, ExitCode.INFRASTRUCTURE)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(words, err), err
    assert contents(folder) == before


def test_the_folder_is_a_file(folder, capsys):
    (folder / "x").write_text("")
    assert main(["init", "x"]) == ExitCode.USAGE
    assert "x is a file; name a folder" in capsys.readouterr().err
