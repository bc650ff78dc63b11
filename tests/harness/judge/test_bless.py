"""Blessing: what is written to a file of references, what is refused, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.book.claims import claim_path, load_claims
from harness.book.references import references_path, references_text
from harness.errors import HarnessError, InfrastructureError
from harness.files import write_json
from harness.judge.bless import bless, drop, write_references
from harness.model import JobResult, JobState, Metric, ReferenceRun

CLAIMS = """\
# what chapter 5 measures
chapter: 05-a
claims:
  # the number the chapter is about
  - name: accuracy    # as recorded
    title: 准确率
    unit: fraction
    direction: higher
    margin: 0.020
    smoke: {bounds: {low: 0.3, high: 1.0}}

  # how fast
  - name: speed
    title: "加速"
    unit: ratio
    direction: none
    margin: 1e-1
    full: {published: {value: 3, citation: "somebody, a: b"}}

  - name: loss
    title: 损失
    direction: lower
    margin: 0.1
    offline: {bounds: {high: 2}}
# the end
"""
OLD = ReferenceRun(0.8, 9, "abc1234", "2026-11-01", "cpu", {"torch": "2.12.0"})
ENVIRONMENT = {"hardware": "cpu-x86_64-bf16", "versions": {"torch": "2.13.0", "numpy": "2.4"}}
BEFORE = references_text({"accuracy": {"offline": (OLD,)}})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def book(tmp_path):
    root = tmp_path / "书 book"
    (root / "claims").mkdir(parents=True)
    claim_path(root / "claims", "05-a").write_text(CLAIMS, encoding="utf-8")
    write_references(references_path(root / "claims", "05-a"), BEFORE)
    profiles = {"smoke": None, "offline": None, "full": None}
    return SimpleNamespace(
        root=root, claims_dir=root / "claims", profiles=profiles, parameters={}, chapters=()
    )


def metrics(accuracy=0.81234567, **more) -> tuple[Metric, ...]:
    return tuple(Metric(name, value) for name, value in {"accuracy": accuracy, **more}.items())


def job(seed=0, **changes) -> JobResult:
    made = JobResult(
        f"05-a-offline-seed{seed}", "chapters/05-a.ipynb", "05-a", "offline", seed, JobState.COMPLETED,
        metrics=metrics(), started="2026-11-24T01:30:00+00:00",
    )  # fmt: skip
    return replace(made, **changes)


def write_run(book, *jobs: JobResult, name="run-1", finished=True, **manifest):
    folder = book.root / "_build" / "runs" / name
    base = {
        "run": name,
        "profile": "offline",
        "started": "2026-11-24T01:30:00+00:00",
        "commit": COMMIT,
        "dirty": False,
        "environment": ENVIRONMENT,
        "jobs": [j.id for j in jobs],
    }
    for one in jobs:
        (folder / "jobs" / one.id).mkdir(parents=True, exist_ok=True)
        write_json(folder / "jobs" / one.id / "result.json", one)
    write_json(folder / "manifest.json", {**base, "jobs": [j.id for j in jobs], **manifest})
    if finished:
        write_json(folder / "result.json", {})
    return folder


def run_bless(book, folder, chapters=None, **options):
    said: list[str] = []
    files = bless(book, folder, chapters=chapters, **{"replace": False, "say": said.append, **options})
    return files, said


def text_of(book) -> str:
    """The file of references; that of the claims never changes."""
    assert claim_path(book.claims_dir, "05-a").read_text(encoding="utf-8") == CLAIMS
    return references_path(book.claims_dir, "05-a").read_text(encoding="utf-8")


def commit_all(book) -> None:
    git = "git -c user.name=a -c user.email=a@b.c"
    command = f"[ -d .git ] || {git} init -q; {git} add -A && {git} commit -qm x"
    subprocess.run(command, shell=True, check=True, cwd=book.root)


def blessed(book, index=0, profile="offline") -> tuple[ReferenceRun, ...]:
    claims = load_claims(book.claims_dir, "05-a")
    assert claims is not None
    return claims.claims[index].blessed[profile]


def test_all_seeds_are_added_with_where_they_came_from(book):
    files, _ = run_bless(book, write_run(book, job(0), job(1, metrics=metrics(0.83))))
    assert files == [references_path(book.claims_dir, "05-a")]
    assert [run.seed for run in blessed(book)] == [9, 0, 1]
    assert blessed(book)[1] == ReferenceRun(
        0.81234567, 0, "0123456789", "2026-11-24", "cpu-x86_64-bf16", {"torch": "2.13.0", "numpy": "2.4"}
    )


def test_a_seed_is_one_line_and_no_line_that_was_there_changes(book):
    run_bless(book, write_run(book, job(0, metrics=metrics(speed=3.25))))
    added = [json.loads(line) for line in text_of(book).splitlines() if line not in BEFORE.splitlines()]
    assert [line for line in text_of(book).splitlines() if line in BEFORE.splitlines()] == BEFORE.splitlines()
    assert [line.get("versions") for line in added] == [ENVIRONMENT["versions"], None]
    assert added[1]["values"] == {"accuracy": 0.81234567, "speed": 3.25}
    assert (added[1]["seed"], added[1]["commit"], added[1]["date"]) == (0, "0123456789", "2026-11-24")


def test_a_profile_without_blessed_runs_gets_its_own(book):
    run_bless(book, write_run(book, job(0, metrics=metrics(speed=3.25), profile="full")))
    assert [run.value for run in blessed(book, 0, "full")] == [0.81234567]
    assert [run.value for run in blessed(book, 1, "full")] == [3.25]
    assert blessed(book) == (OLD,)


def test_the_first_run_that_is_blessed_makes_the_file(book):
    shutil.rmtree(book.claims_dir / "blessed")
    assert run_bless(book, write_run(book, job(0)))[0] == [references_path(book.claims_dir, "05-a")]
    assert [run.seed for run in blessed(book)] == [0]


def test_replace_drops_the_old_runs(book):
    run_bless(book, write_run(book, job(0)), replace=True)
    assert [run.seed for run in blessed(book)] == [0]
    assert "2.12.0" not in text_of(book)  # nor do the versions of runs that are gone stay


def test_a_claim_that_came_later_is_blessed_by_later_runs_only(book):
    run_bless(book, write_run(book, job(0)))
    run_bless(book, write_run(book, job(0, metrics=metrics(0.9, speed=2.0)), name="run-2", commit="f" * 40))
    assert len(blessed(book)) == 3 and [run.commit for run in blessed(book, 1)] == ["f" * 10]


def test_values_that_nobody_claims_any_more_are_dropped_and_named(book):
    references = {"accuracy": {"offline": (OLD,)}, "gone": {"offline": (OLD,)}}
    write_references(references_path(book.claims_dir, "05-a"), references_text(references))
    assert '"gone"' in text_of(book) and blessed(book) == (OLD,)  # until then nobody sees them
    _, said = run_bless(book, write_run(book, job(0)))
    assert "05-a: blessed values of gone dropped: nobody claims it" in said
    assert '"gone"' not in text_of(book) and blessed(book)[0] == OLD


def test_values_can_be_taken_away_for_bounds_to_judge(book):
    references = {"accuracy": {"offline": (OLD,)}, "speed": {"offline": (OLD,)}}
    path = references_path(book.claims_dir, "05-a")
    book.chapters = (Path("05-a.ipynb"), Path("06-b.ipynb"))
    write_references(path, references_text(references))
    assert drop(book, ["speed"], chapters=None) == [path] and text_of(book) == BEFORE
    with pytest.raises(HarnessError, match="no blessed value of speed, acuracy there"):
        drop(book, ["speed", "acuracy", "accuracy"], chapters=["05-a"])
    assert text_of(book) == BEFORE
    drop(book, ["accuracy"], chapters=None)
    assert not path.exists()


def test_blessing_twice_is_refused_without_replace(book):
    folder = write_run(book, job(0))
    run_bless(book, folder)
    before = text_of(book)
    with pytest.raises(HarnessError, match=r"already has a blessed run of seed 0, commit 0123456789"):
        run_bless(book, folder)
    assert text_of(book) == before
    run_bless(book, folder, replace=True)
    assert [run.seed for run in blessed(book)] == [0]


def test_one_seed_twice_in_a_run_is_refused(book):
    with pytest.raises(HarnessError, match="already has a blessed run of seed 0"):
        run_bless(book, write_run(book, job(0), job(0, id="05-a-offline-seed0-2")))
    assert text_of(book) == BEFORE


def test_the_same_seed_on_other_hardware_or_of_another_commit_is_no_duplicate(book):
    run_bless(book, write_run(book, job(0)))
    run_bless(book, write_run(book, job(0), name="run-2", environment={"hardware": "cuda-NVIDIA-H100"}))
    run_bless(book, write_run(book, job(0), name="run-3", commit="f" * 40))
    assert len(blessed(book)) == 4


def test_a_run_with_changes_that_no_commit_holds_is_refused_or_says_so(book):
    folder = write_run(book, job(0), dirty=True)
    with pytest.raises(
        HarnessError, match=r"job 05-a-offline-seed0 of run run-1 .*\(0123456789-dirty\); commit"
    ):
        run_bless(book, folder)
    assert text_of(book) == BEFORE
    run_bless(book, folder, allow_dirty=True)
    assert blessed(book)[-1].commit == "0123456789-dirty"


def test_a_cached_job_of_such_a_run_is_refused_too(book):
    write_run(book, job(0), name="run-0", dirty=True)
    folder = write_run(book, job(0, state=JobState.SKIPPED, cached_from="run-0"), name="run-1")
    with pytest.raises(HarnessError, match="run it again with --no-cache, or take it with --allow-dirty"):
        run_bless(book, folder)
    assert text_of(book) == BEFORE


@pytest.mark.parametrize("name", ["harness.yml", "claims/05-a.yml", "new.py"])
def test_a_tree_with_changes_is_refused_or_the_references_say_so(book, name):
    """Not only the run's: what is claimed, and under which parameters, stands in the tree."""
    (book.root / ".gitignore").write_text("_build/\n", encoding="utf-8")
    (book.root / "harness.yml").touch()
    commit_all(book)
    with (book.root / name).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    folder = write_run(book, job(0))
    with pytest.raises(
        HarnessError, match=rf"has changes that no commit holds \({name}\); commit them first"
    ):
        run_bless(book, folder)
    run_bless(book, folder, allow_dirty=True)
    assert load_claims(book.claims_dir, "05-a").claims[0].blessed["offline"][-1].commit == "0123456789-dirty"


def test_what_bless_itself_writes_is_no_change(book):
    """Chapter by chapter, and again after a mistake."""
    (book.root / ".gitignore").write_text("_build/\n", encoding="utf-8")
    commit_all(book)
    folder = write_run(book, job(0))
    run_bless(book, folder)
    run_bless(book, folder, replace=True)
    assert [run.commit for run in blessed(book)] == ["0123456789"]


def test_a_dirty_run_and_a_clean_one_of_one_commit_are_not_two_measurements(book):
    run_bless(book, write_run(book, job(0), dirty=True), allow_dirty=True)
    with pytest.raises(HarnessError, match="already has a blessed run of seed 0"):
        run_bless(book, write_run(book, job(0), name="run-2"))


def test_outside_git_the_commit_is_unknown(book):
    run_bless(book, write_run(book, job(0), commit=""))
    assert blessed(book)[-1].commit == "unknown"


def test_a_commit_that_looks_like_a_number_stays_text(book):
    run_bless(book, write_run(book, job(0), commit="12345e67890"))
    assert blessed(book)[-1].commit == "12345e6789"


@pytest.mark.parametrize("value", [0.0, -1e-12, 1e-5, 123456789.0, 1e300, 0.1 + 0.2])
def test_values_of_any_size_can_be_read_back(book, value):
    run_bless(book, write_run(book, job(0, metrics=metrics(value))))
    assert blessed(book)[-1].value == value


def test_a_cached_job_keeps_the_origin_of_its_run(book):
    write_run(
        book, job(0), name="run-0", commit="a" * 40, environment={"hardware": "cpu-old", "versions": {}}
    )
    run_bless(book, write_run(book, job(0, state=JobState.SKIPPED, cached_from="run-0"), name="run-1"))
    assert (blessed(book)[-1].commit, blessed(book)[-1].hardware) == ("a" * 10, "cpu-old")


def test_a_cached_job_whose_run_is_gone_takes_this_run(book):
    run_bless(book, write_run(book, job(0, state=JobState.SKIPPED, cached_from="run-gone")))
    assert blessed(book)[-1].commit == "0123456789"


def test_bounds_only_claims_and_unclaimed_metrics_are_left_and_named(book):
    _, said = run_bless(book, write_run(book, job(0, metrics=metrics(loss=0.4, extra=1.0))))
    assert "05-a: claim loss: judged by bounds under offline; left as it is" in said
    assert "05-a: claim speed: the run recorded no such metric; left as it is" in said
    assert "05-a: metric extra has no claim in 05-a.yml; not blessed" in said
    assert "loss" not in text_of(book) and "extra" not in text_of(book)


def test_a_smoke_run_changes_nothing_where_smoke_is_judged_by_bounds(book):
    files, said = run_bless(book, write_run(book, job(0, profile="smoke")))
    assert files == [] and text_of(book) == BEFORE
    assert any("judged by bounds under smoke" in line for line in said)


def test_a_metric_in_another_unit_is_left_and_named(book):
    _, said = run_bless(book, write_run(book, job(0, metrics=(Metric("accuracy", 81.0, "percent"),))))
    assert any("recorded in percent, claimed in fraction" in line for line in said)
    assert text_of(book) == BEFORE


def test_a_chapter_without_claim_file_is_named(book):
    other = job(0, id="06-b-offline", chapter="06-b")
    files, said = run_bless(book, write_run(book, job(0), other))
    assert len(files) == 1 and any(line.startswith("06-b: has no claim file") for line in said)


def test_only_the_chapters_asked_for(book):
    broken = job(0, id="06-b-offline", chapter="06-b", state=JobState.FAILED)
    folder = write_run(book, job(0), broken)
    assert len(run_bless(book, folder, ["05-a"])[0]) == 1
    with pytest.raises(HarnessError, match="no chapter '07-c'"):
        run_bless(book, folder, ["07-c"])


@pytest.mark.parametrize("state", [s for s in JobState if s not in (JobState.COMPLETED, JobState.SKIPPED)])
def test_a_job_that_did_not_complete_is_refused(book, state):
    folder = write_run(book, job(0), job(1, state=state))
    with pytest.raises(
        HarnessError, match=rf"05-a-offline-seed1 of run run-1 ended as {state.value}; only completed"
    ):
        run_bless(book, folder)
    assert text_of(book) == BEFORE


def test_a_run_under_other_parameters_is_refused(book):
    book.parameters = {"05-a": {"offline": {"epochs": 3}}}
    settings = {"seed": 0, "device": "cpu", "profile": "offline"}
    with pytest.raises(HarnessError, match=r"ran with epochs = 1, but harness.yml says 3 for offline"):
        run_bless(book, write_run(book, job(0, parameters={**settings, "epochs": 1})))
    with pytest.raises(HarnessError, match=r"ran with lr = 2, but harness.yml says None"):
        run_bless(book, write_run(book, job(0, parameters={**settings, "epochs": 3, "lr": 2})))
    assert run_bless(book, write_run(book, job(0, parameters={**settings, "epochs": 3})))[0]


def test_a_run_that_has_not_finished_is_refused(book):
    with pytest.raises(HarnessError, match="not a finished run"):
        run_bless(book, write_run(book, job(0), finished=False))


def test_a_mistake_in_a_claim_file_is_named_and_nothing_is_written(book):
    broken = CLAIMS.replace("margin: 0.1\n", "margin: -1\n")
    claim_path(book.claims_dir, "05-a").write_text(broken, encoding="utf-8")
    with pytest.raises(HarnessError, match=r"05-a\.yml:23: margin -1 is negative"):
        run_bless(book, write_run(book, job(0)))
    assert references_path(book.claims_dir, "05-a").read_text(encoding="utf-8") == BEFORE


def test_a_damaged_file_of_references_is_named_and_stays(book):
    path = references_path(book.claims_dir, "05-a")
    damaged = BEFORE.replace("0.8", "0.9")
    path.write_text(damaged, encoding="utf-8")
    with pytest.raises(HarnessError, match=r"05-a\.jsonl:3: not as `harness bless` wrote it"):
        run_bless(book, write_run(book, job(0)), replace=True)
    assert path.read_text(encoding="utf-8") == damaged


def test_an_interrupted_write_leaves_the_old_file(book, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    folder = write_run(book, job(0))
    monkeypatch.setattr("os.replace", full_disk)
    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(InfrastructureError, match="disk is full"):
        run_bless(book, folder)
    assert text_of(book) == BEFORE
    assert sorted(p.name for p in book.claims_dir.rglob("*")) == ["05-a.jsonl", "05-a.yml", "blessed"]


def test_what_is_blessed_passes_when_judged_again(book):
    from harness.judge.check import judge

    results = [job(s, metrics=metrics(0.80 + s / 100)) for s in range(5)]
    run_bless(book, write_run(book, *results), replace=True)
    claims = load_claims(book.claims_dir, "05-a")
    assert claims is not None
    verdict = judge(claims, results, profile="offline", hardware=ENVIRONMENT["hardware"])[0]
    assert verdict.outcome == "pass" and "identical" in verdict.message


def test_what_a_claim_is_not_made_for_is_never_blessed(book):
    text = CLAIMS.replace(
        "    unit: fraction\n", "    unit: fraction\n    parameters: {source: [packaged]}\n", 1
    )
    path = claim_path(book.claims_dir, "05-a")
    path.write_text(text, encoding="utf-8")
    book.parameters = {"05-a": {"offline": {"source": "hub"}}}  # the book's own value: no --param
    made = job(parameters={"source": "hub"}, metrics=metrics(loss=1.0))
    files, said = run_bless(book, write_run(book, made))
    assert files == [] and path.read_text(encoding="utf-8") == text
    assert references_path(book.claims_dir, "05-a").read_text(encoding="utf-8") == BEFORE
    assert (
        "05-a: claim accuracy: not applicable, measured with source = 'hub', claimed for source = 'packaged';"
        " left as it is"
    ) in said
