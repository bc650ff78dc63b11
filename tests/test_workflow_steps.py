"""What the workflows do, played on this machine with a small book: from a push or a label to a page or a pull request.

The one step that is not played is `.ci/run`: it is what runs these tests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mini_book
import pytest
import yaml
from notebooks import RECORD
from workflows import ROOT, Play, evaluate, read_workflow

from benchmarks.gpu.__main__ import PARTS
from benchmarks.gpu.page import UNVERIFIED
from benchmarks.gpu.results import SCHEMA, read_results, write_results
from harness.book.references import parse_references

FIRST, SECOND = mini_book.CHAPTER, "06-more"
METRICS = {FIRST: "test_accuracy", SECOND: "bits"}
GPU = {"GPU_IMAGE": "registry.example/a-book-cuda@sha256:0", "GPU_RUNNER": '["self-hosted"]'}
BY_HAND = {"event_name": "workflow_dispatch", "event": {}}
PUSH = {"event_name": "push", "event": {}}


def labelled(label: str, repository: str = "someone/a-book") -> dict[str, Any]:
    request = {"head": {"repo": {"full_name": repository}}}
    return {"event_name": "pull_request", "event": {"label": {"name": label}, "pull_request": request}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A book with two chapters that run in a second, and what the workflows call: a git repository."""
    root = mini_book.write_book(tmp_path_factory.mktemp("我的 书"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".gitignore"):
        shutil.copy2(ROOT / name, root / name)
    for chapter, metric in METRICS.items():
        cells = [
            mini_book.markdown("opening", f"# 第 {chapter[1]} 章 小章"),
            mini_book.code("parameters", "seed = 0", tags=("parameters",)),
            mini_book.code("measure", f"{RECORD}\nrecord('{metric}', 0.5 + seed / 100, unit='fraction')"),
        ]
        mini_book.write_notebook(root / "chapters" / f"{chapter}.ipynb", mini_book.notebook(*cells))
        write_claim(root, chapter)
    entry = f"- file: chapters/{FIRST}"
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    toc = toc.replace(entry, f"{entry}\n      - file: chapters/{SECOND}")
    (root / "_toc.yml").write_text(toc, encoding="utf-8")
    limits = {"cell_timeout": 60, "notebook_timeout": 120}
    profiles = {"smoke": limits, "offline": {**limits, "default": True}, "full": limits}
    settings = {"book": "小书", "chapters": "chapters", "claims": "chapters/claims", "profiles": profiles}
    (root / "harness.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    mini_book.commit(root)
    return root


def write_claim(
    root: Path, chapter: str, low: float = 0.4, profiles: tuple[str, ...] = ("smoke", "offline")
) -> None:
    """What *chapter* claims; in a profile that is not named, nothing is known yet."""
    metric = METRICS[chapter]
    claim = {"name": metric, "title": metric, "unit": "fraction", "direction": "higher", "margin": 0.05}
    claim |= {profile: {"bounds": {"low": low, "high": 1.0}} for profile in profiles}
    path = root / "chapters" / "claims" / f"{chapter}.yml"
    path.write_text(yaml.safe_dump({"chapter": chapter, "claims": [claim]}), encoding="utf-8")


def copy_kit(root: Path) -> None:
    """What the GPU kit is, and the page that it fills."""
    shutil.copytree(ROOT / "benchmarks" / "gpu", root / "benchmarks" / "gpu")
    (root / "benchmarks" / "results").mkdir(exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        ROOT / "sft", root / "sft", ignore=ignored, dirs_exist_ok=True
    )  # the small book's is empty
    (root / "benchmarks" / "__init__.py").touch()
    text = f"# 基准\n\n<!-- gpu-kit -->\n**{UNVERIFIED}**\n<!-- /gpu-kit -->\n"
    (root / "chapters" / "benchmarks.md").write_text(text, encoding="utf-8")


def break_notebook(root: Path, chapter: str) -> None:
    path = root / "chapters" / f"{chapter}.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("record('", "raise ZeroDivisionError('on purpose')  # ('"), encoding="utf-8")


@pytest.fixture
def play(checkout, tmp_path):
    """Makes a start of a workflow on a copy of the book, changed as asked before it is committed."""

    def make(workflow: str, github: dict[str, Any], change=None, kit: str = "skipped", **more: Any) -> Play:
        origin = tmp_path / "origin.git"
        source = checkout
        if change:
            source = tmp_path / "changed"
            shutil.copytree(checkout, source)
            change(source)
            mini_book.commit(source)
        mini_book.git(tmp_path, "clone", "--quiet", "--bare", str(source), str(origin))
        made = Play(workflow, tmp_path / "play", origin, github, **more)
        if workflow == "gpu":
            made.results["kit"] = kit  # it computes for half a minute; one test plays it
        return made

    return make


FULL = ("run", "judge", "bless")
"""The jobs of the full profile."""


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("vars.none || 'other'", "other"),
        ("vars.none == ''", True),
        ("!(vars.word != 'WORD') && 1 == '1'", True),
        ("'it''s' == vars.none || fromJSON('[1]')", [1]),
    ],
)
def test_expressions_follow_the_rules_of_github(expression, value):
    assert evaluate(expression, {"vars": {"word": "word"}, "fromJSON": json.loads}) == value


@pytest.mark.parametrize("expression", ["a b", "(a", "'open", "a ==", "f(", "f(a b)", "a ^ b"])
def test_what_is_no_expression_is_refused(expression):
    with pytest.raises(ValueError):
        evaluate(expression, {"f": str})


@pytest.mark.parametrize(
    ("github", "variables", "starts"),
    [
        (labelled("gpu"), GPU, True),
        (labelled("gpu", "a-fork/a-book"), GPU, False),
        (labelled("documentation"), GPU, False),
        (labelled("gpu"), {}, False),
        ({"event_name": "schedule", "event": {}}, GPU, True),
        ({"event_name": "schedule", "event": {}}, {}, False),
        (BY_HAND, GPU, True),
    ],
)
def test_who_may_start_the_gpu(play, github, variables, starts):
    made = play("gpu", github, variables=variables)
    assert made.starts("run") is made.starts("kit") is starts
    if not starts:
        assert set(made.run().values()) == {"skipped"}


def test_a_gpu_run_in_parts_is_judged_as_one(play):
    def know(root: Path) -> None:
        for chapter in METRICS:
            write_claim(root, chapter, profiles=("full",))

    made = play("gpu", labelled("gpu"), know, variables=GPU)
    assert made.run(*FULL) == {"kit": "skipped", "run": "success", "judge": "success", "bless": "skipped"}, (
        made.logs
    )
    parts = [result_of(made.artifacts / f"part-{i}")["jobs"] for i in (0, 1)]
    assert [len(jobs) for jobs in parts] == [3, 3]
    whole = result_of(made.artifacts / "run")
    assert {(job["chapter"], job["seed"]) for job in whole["jobs"]} == {
        (c, s) for c in METRICS for s in range(3)
    }
    assert not whole["dirty"], "git does not ignore what the workflow writes into its checkout"
    assert FIRST in made.summary


def test_numbers_without_references_are_proposed_as_such_in_a_pull_request(play):
    made = play("gpu", BY_HAND, variables=GPU, inputs={"chapters": "", "seeds": "2", "bless": True})
    made.stand_in("gh")
    assert made.run(*FULL) == {"kit": "skipped", "run": "success", "judge": "failure", "bless": "success"}, (
        made.logs
    )
    assert "no reference yet" in made.logs["judge"]
    proposed = mini_book.git(made.origin, "show", f"bless-42:chapters/claims/blessed/{FIRST}.jsonl")
    references = parse_references(proposed, Path(FIRST))
    assert [run.value for run in references[METRICS[FIRST]]["full"]] == [0.5, 0.51]
    commits = {run.commit for run in references[METRICS[FIRST]]["full"]}
    assert commits == {mini_book.git(made.origin, "rev-parse", "main").strip()[:10]}  # not -dirty
    changed = mini_book.git(made.origin, "diff", "--name-only", "main", "bless-42").split()
    assert changed == [f"chapters/claims/blessed/{name}.jsonl" for name in METRICS]
    assert made.calls == ["gh auth setup-git", "gh pr create --fill --head bless-42 --base main"]


def test_one_chapter_with_one_seed_leaves_a_part_without_jobs(play):
    def know(root: Path) -> None:
        write_claim(root, SECOND, profiles=("full",))

    inputs = {"chapters": SECOND[:2], "seeds": "1", "bless": False}
    made = play("gpu", BY_HAND, know, variables=GPU, inputs=inputs)
    assert made.run(*FULL) == {"kit": "skipped", "run": "success", "judge": "success", "bless": "skipped"}, (
        made.logs
    )
    assert [job["chapter"] for job in result_of(made.artifacts / "run")["jobs"]] == [SECOND]


def test_a_part_whose_machine_went_away_is_told_and_nothing_is_blessed(play):
    inputs = {"chapters": "", "seeds": "1", "bless": True}
    made = play("gpu", BY_HAND, variables=GPU, inputs=inputs, lost={"run-1"})
    made.stand_in("gh")
    assert made.run(*FULL) == {"kit": "skipped", "run": "failure", "judge": "failure", "bless": "skipped"}, (
        made.logs
    )
    states = {job["chapter"]: job["state"] for job in result_of(made.artifacts / "run")["jobs"]}
    assert sorted(states.values()) == ["cancelled", "completed"]
    assert "::error" in made.logs["judge"]
    assert made.calls == []


def test_a_chapter_that_fails_on_the_gpu_fails_the_run_and_leaves_its_part(play):
    made = play("gpu", labelled("gpu"), lambda root: break_notebook(root, SECOND), variables=GPU)
    assert made.run(*FULL) == {"kit": "skipped", "run": "failure", "judge": "failure", "bless": "skipped"}
    states = {job["chapter"]: job["state"] for job in result_of(made.artifacts / "run")["jobs"]}
    assert states == {FIRST: "completed", SECOND: "failed"}
    assert "on purpose" in made.logs["judge"] and "on purpose" in made.summary


@pytest.mark.timeout(1200)  # half a minute of one core, and five processes that import torch
def test_the_kit_is_played_with_tiny_shapes_on_the_processor(play):
    inputs = {"chapters": FIRST, "seeds": "1", "bless": False, "tiny": True}
    made = play("gpu", BY_HAND, copy_kit, variables=GPU, inputs=inputs)
    assert made.run("kit") == {"kit": "success"}, made.logs
    report = read_results(made.artifacts / "kit" / "gpu.json")
    assert {part: told["state"] for part, told in report["parts"].items()} == dict.fromkeys(
        PARTS, "completed"
    )
    assert [job["chapter"] for job in report["parts"]["chapters"]["run"]["chapters"]] == [FIRST]
    assert (report["tiny"], report["card"], report["device"]) == (True, None, "cpu")
    measured = {f"{row['part']}/{row['name']}" for row in report["rows"] if row["median"]}
    assert {
        "encoders/loop",
        "encoders/trainer",
        "decoders/loop packed",
        "decoders/trl",
        "kernels/sdpa",
    } <= measured


def test_a_machine_without_a_card_fails_the_kit_alone(play):
    made = play(
        "gpu", BY_HAND, copy_kit, variables=GPU, inputs={"chapters": SECOND[:2], "seeds": "1", "bless": False}
    )
    assert made.run("kit", "run") == {"kit": "failure", "run": "success"}, made.logs
    assert "没有可用的 CUDA 显卡" in made.logs["kit"]
    assert not (made.artifacts / "kit").exists()


@pytest.mark.parametrize("tiny", [False, True])
def test_what_a_card_did_is_proposed_with_the_references(play, tiny):
    """A kit that was played on the processor is not."""
    inputs = {"chapters": "", "seeds": "1", "bless": True, "tiny": tiny}
    made = play("gpu", BY_HAND, copy_kit, kit="success", variables=GPU, inputs=inputs)
    head = {"schema": SCHEMA, "card": "A card", "driver": "1", "tiny": False, "versions": {}, "seconds": 1.0}
    head |= {"started": "2026-11-27", "peak_bf16_flops": None, "parts": {}, "rows": [], "targets": []}
    write_results(made.artifacts / "kit" / "gpu.json", head)
    made.stand_in("gh")
    assert made.run(*FULL)["bless"] == "success", made.logs
    changed = mini_book.git(made.origin, "diff", "--name-only", "main", "bless-42").split()
    proposed = {"benchmarks/results/gpu.json", "chapters/benchmarks.md"}
    assert proposed.isdisjoint(changed) if tiny else proposed <= set(changed)
    shown = mini_book.git(made.origin, "show", "bless-42:chapters/benchmarks.md")
    assert (UNVERIFIED in shown) is tiny and ("A card" in shown) is not tiny


def test_the_smoke_run_of_a_push_leaves_its_report(play):
    made = play("ci", PUSH)
    assert made.run("smoke") == {"smoke": "success"}, made.logs
    document = result_of(made.artifacts / "smoke")
    assert (document["profile"], document["dirty"]) == ("smoke", False)
    assert "::error" not in made.logs["smoke"]


def test_a_broken_chapter_ends_the_smoke_run_with_an_annotation(play):
    made = play("ci", PUSH, lambda root: break_notebook(root, FIRST))
    assert made.run("smoke") == {"smoke": "failure"}
    assert f"::error file=chapters/{FIRST}.ipynb" in made.logs["smoke"]
    assert (made.artifacts / "smoke" / "result.json").exists()


def test_a_failed_claim_and_a_failed_chapter_are_published_as_such(play):
    def change(root: Path) -> None:
        write_claim(root, FIRST, low=0.9)
        break_notebook(root, SECOND)

    made = play("pages", PUSH, change)
    made.stand_in("sudo")
    assert made.run() == {"run": "success", "build": "success", "deploy": "success"}, made.logs
    site = made.artifacts / "github-pages"
    assert result_of(made.artifacts / "run")["exit_code"] == 2
    first = (site / "chapters" / f"{FIRST}.html").read_text(encoding="utf-8")
    second = (site / "chapters" / f"{SECOND}.html").read_text(encoding="utf-8")
    assert "未通过" in first and "on purpose" in second
    assert {"book.pdf", "book.epub", "book.zip"} <= {path.name for path in site.iterdir()}
    assert made.calls == []  # the PDF needs no font of the machine


def test_a_book_that_cannot_be_run_is_not_published(play):
    def change(root: Path) -> None:
        (root / "harness.yml").write_text("no such setting: 1\n", encoding="utf-8")

    made = play("pages", PUSH, change)
    assert made.run() == {"run": "failure", "build": "skipped", "deploy": "skipped"}
    assert not (made.artifacts / "github-pages").exists()


def test_the_image_is_built_tried_and_pushed_and_its_digest_told(play):
    made = play("images", PUSH, variables={"IMAGE_REGISTRY": "ghcr.example", "TORCH_INDEX": "an index"})
    made.github["repository"] = "Someone/A-Book"
    digest = "ghcr.example/someone/a-book-cuda@sha256:1"
    made.stand_in(
        "docker",
        f"""case $1 in
          build) echo "index: $TORCH_INDEX" >> "$0.log" ;;
          login) printf 'password: %s\\n' "$(cat)" >> "$0.log" ;;
          inspect) echo {digest} ;;
        esac""",
    )
    assert made.run() == {"cuda": "success"}, made.logs
    name = f"ghcr.example/someone/a-book-cuda:{made.github['sha']}"
    build, trial, login, push, inspect = made.calls
    assert build == f"docker build --file docker/cuda.Dockerfile --build-arg TORCH_INDEX --tag {name} ."
    assert trial.startswith("docker run --rm") and trial.endswith(f"{name} python -m harness list")
    assert login == "docker login ghcr.example --username somebody --password-stdin"
    assert push == f"docker push {name}" and inspect.startswith("docker inspect")
    assert (made.commands / "docker.log").read_text() == "index: an index\npassword: a token\n"
    assert made.summary == f"{digest}\n"


def test_no_registry_no_image(play):
    assert play("images", PUSH).run() == {"cuda": "skipped"}


def test_every_job_is_played_but_the_one_that_runs_these_tests():
    jobs = {name: list(read_workflow(name)["jobs"]) for name in ("ci", "gpu", "images", "pages")}
    assert jobs == {
        "ci": ["test", "smoke"],
        "gpu": ["kit", "run", "judge", "bless"],
        "images": ["cuda"],
        "pages": ["run", "build", "deploy"],
    }
