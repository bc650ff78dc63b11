"""Shards of a run: which jobs they take, and the whole that is made of them. The runs are real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import find_run
from harness.archive.merge import plan_merger
from harness.archive.recorded import read_manifest, read_result
from harness.archive.shard import parse_shard, take_shard
from harness.book.claims import load_claims
from harness.book.config import load_book
from harness.book.plan import Request, plan
from harness.book.references import references_path, references_text
from harness.cli.app import GENERATED, main
from harness.errors import ExitCode, HarnessError
from harness.files import read_json, write_json
from harness.judge.bless import write_references
from harness.model import ReferenceRun, to_json
from harness.report.write import SCHEMA_PATH
from harness.site.build import stage_tree

ROOT = Path(__file__).parents[3]
GPU = "cuda-NVIDIA-T4"
CLAIM = {"name": "acc", "title": "准确率", "unit": "fraction", "direction": "higher", "margin": 0.05}


def blessed(values, hardware):
    return [ReferenceRun(v, s, "c", "2026-11-24", hardware) for s, v in enumerate(values)]


def write_claims(root: Path, *runs: ReferenceRun) -> None:
    claim = CLAIM if runs else {**CLAIM, "smoke": {"bounds": {"low": 0.4, "high": 0.6}}}
    text = json.dumps({"chapter": "01-a", "claims": [claim]}, ensure_ascii=False)
    folder = root / "chapters" / "claims"
    (folder / "01-a.yml").write_text(text, encoding="utf-8")
    write_references(references_path(folder, "01-a"), references_text({"acc": {"smoke": runs}}))


def make_book(root: Path) -> Path:
    """Two chapters, of which the first measures something that depends on the seed."""
    source = f"{RECORD}\nrecord('acc', 0.5 + seed / 100, unit='fraction', per_example=[1, 0])"
    write_notebook(root / "chapters" / "01-a.ipynb", source, parameters="seed = 0")
    write_notebook(root / "chapters" / "02-b.ipynb", "print('b')")
    write_book(root, {})
    (root / "chapters" / "claims").mkdir()
    write_claims(root)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book with one whole run of four jobs and the same run in two shards."""
    root = make_book(tmp_path_factory.mktemp("shards") / "我的 书")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(root)
        command = ["run", "--profile", "smoke", "--seeds", "3", "--no-cache", "--quiet"]
        assert main([*command, "--out", "whole"]) == ExitCode.OK
        assert main([*command, "--out", "s2", "--shard", "2/2"]) == ExitCode.OK
        assert main([*command, "--out", "s1", "--shard", "1/2"]) == ExitCode.OK
    return root


@pytest.fixture
def book(made, tmp_path, monkeypatch):
    """A copy that the test may spoil."""
    root = tmp_path / "书"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return root


def one_error(capsys) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err, err
    return err


def change(path: Path, **values) -> None:
    write_json(path, {**read_json(path), **values})


def change_environment(folder: Path, **values) -> None:
    manifest = read_manifest(folder)
    change(folder / "manifest.json", environment={**manifest.environment, **values})


# -- the split --------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3, 7, 30])
def test_every_job_is_in_exactly_one_shard_and_shares_are_even(tmp_path, of):
    book = load_book(make_book(tmp_path))
    planned = plan(book, book.chapters, Request("smoke", seeds=tuple(range(6))))
    shards = [take_shard(planned, i, of) for i in range(1, of + 1)]
    found = [entry.job.id for _, mine in shards for entry in mine]
    assert sorted(found) == sorted(entry.job.id for entry in planned) and len(found) == 7
    sizes = [len(mine) for _, mine in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(shard.jobs == tuple(entry.job.id for entry in mine) for shard, mine in shards)
    assert len({shard.digest for shard, _ in shards}) == 1


def test_the_digest_of_a_plan_knows_parameters_and_code(tmp_path):
    def digest(root, **request):
        book = load_book(root)
        return take_shard(plan(book, book.chapters, Request("smoke", **request)), 1, 2)[0].digest

    root, other = make_book(tmp_path / "a"), make_book(tmp_path / "b")
    assert digest(root) == digest(other)
    assert digest(root) != digest(root, texts={"seed": "1"})
    write_notebook(other / "chapters" / "02-b.ipynb", "print('c')")
    assert digest(root) != digest(other)


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "1/99999999", "１/２"]
)
def test_what_is_no_shard(text):
    with pytest.raises(HarnessError, match="give i/n with 1 <= i <= n"):
        parse_shard(text)
    assert parse_shard(" 2/4 ") == (2, 4)


def test_an_empty_shard_says_so_and_is_no_run(book, capsys):
    assert main(["run", "--profile", "smoke", "--shard", "3/3", "--out", "s3"]) == ExitCode.OK
    assert "shard 3/3 is empty: the run has 2 job(s)" in capsys.readouterr().out
    assert not Path("s3").exists()


@pytest.mark.parametrize("option", ["--strict", "--book"])
def test_a_shard_takes_no_option_of_the_whole(book, capsys, option):
    assert main(["run", "--shard", "1/2", option]) == ExitCode.USAGE
    assert "a shard judges nothing" in one_error(capsys)


def test_a_shard_whose_only_notebook_cannot_run_is_recorded(book, capsys):
    """Unlike a whole run of which nothing can run: the merge must see what became of the job."""
    (book / "chapters" / "02-b.ipynb").write_text("{", encoding="utf-8")
    assert main(["run", "--profile", "smoke", "--shard", "2/2", "--out", "bad", "--quiet"]) == ExitCode.USAGE
    assert [job["state"] for job in read_json(Path("bad/result.json"))["jobs"]] == ["invalid"]


# -- one shard --------------------------------------------------------------------------------------


def test_a_shard_is_recorded_and_judges_nothing(book, capsys):
    manifest, document = read_manifest(Path("s2")), read_json(Path("s2/result.json"))
    assert (manifest.shard.index, manifest.shard.of) == (2, 2)
    assert manifest.shard.plan == read_manifest(Path("whole")).jobs
    assert manifest.jobs == ("01-a-smoke-seed1", "02-b-smoke")
    assert document["verdicts"] == [] and document["shard"] == {"index": 2, "of": 2}
    jsonschema.validate(document, read_json(SCHEMA_PATH))
    for name, words in (("report.md", "这只是一次运行的一个分片"), ("report.en.md", "one shard of a run")):
        text = Path("s2", name).read_text(encoding="utf-8")
        assert words in text and "Nothing was claimed" not in text and "没有声明" not in text
    assert main(["report", "s2"]) == ExitCode.OK


@pytest.mark.parametrize("command", ["check", "bless", "site"])
def test_what_needs_the_whole_refuses_a_shard(book, capsys, command):
    if command == "site":
        with pytest.raises(HarnessError, match="s2 is shard 2/2 of a run, and the site needs the whole"):
            stage_tree(load_book(), read_result(Path("s2")), Path("site"), GENERATED)
        return
    assert main([command, "s2"]) == ExitCode.USAGE
    assert "s2 is shard 2/2 of a run" in (err := one_error(capsys)) and "report --merge" in err


# -- the whole --------------------------------------------------------------------------------------


def essence(folder: str) -> dict:
    """What a run found out, without times and machines."""
    document = read_json(Path(folder, "result.json"))
    for job in document["jobs"]:
        for metric in job["metrics"]:
            del metric["time"]
        job["cells"] = [(cell["id"], cell["state"]) for cell in job["cells"]]
        for key in ("seconds", "started", "peak_rss_mb"):
            del job[key]
    return {
        key: document[key]
        for key in ("profile", "exit_code", "commit", "dirty", "jobs", "verdicts", "environment")
    }


def test_two_shards_are_the_whole_run(book, capsys):
    assert main(["report", "--merge", "s2", "s1", "--out", "merged"]) == ExitCode.OK
    assert essence("merged") == essence("whole")
    document = read_json(Path("merged/result.json"))
    assert len(document["jobs"]) == 4 and [v["outcome"] for v in document["verdicts"]] == ["pass"]
    assert len(document["verdicts"][0]["observed"]) == 3
    assert [(s["index"], s["run"]) for s in document["shards"]] == [(1, "s1"), (2, "s2")]
    jsonschema.validate(document, read_json(SCHEMA_PATH))
    seconds = [read_json(Path(s, "result.json"))["seconds"] for s in ("s1", "s2")]
    assert document["seconds"] == max(seconds)
    for name in ("junit.xml", "report.md", "report.en.md", "events.jsonl"):
        assert Path("merged", name).stat().st_size > 0
    for job in document["jobs"]:
        for name in ("out.ipynb", "result.json", "log.txt", "job.json"):
            assert Path("merged", "jobs", job["id"], name).is_file()
    events = [
        json.loads(line) for line in Path("merged/events.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    assert sum(e["event"] == "job_end" for e in events) == 4
    assert main(["check", "merged"]) == ExitCode.OK
    assert essence("merged") == essence("whole")


def test_the_merged_run_is_the_latest_and_can_be_blessed(book, capsys):
    write_claims(book, *blessed([0.5, 0.51, 0.52], "old"))
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.OK
    assert find_run(book).name.split("-")[1] == "smoke" and (find_run(book) / "result.json").is_file()
    change_environment(Path("s2"), hardware=GPU)
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.OK
    assert main(["bless", "--replace"]) == ExitCode.OK
    (claim,) = load_claims(book / "chapters" / "claims", "01-a").claims
    assert [(run.seed, run.value, run.hardware == GPU) for run in claim.blessed["smoke"]] == [
        (0, 0.5, False),
        (1, 0.51, True),
        (2, 0.52, False),
    ]


def test_the_exit_code_is_that_of_the_whole(book, capsys):
    write_claims(book, *blessed([0.8, 0.81, 0.82], read_manifest(Path("s1")).environment["hardware"]))
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.CLAIM_FAILED
    write_claims(book, *blessed([0.3, 0.5, 0.7], read_manifest(Path("s1")).environment["hardware"]))
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.OK
    assert main(["report", "--merge", "s1", "s2", "--strict"]) == ExitCode.INCONCLUSIVE
    job = Path("s2/jobs/02-b-smoke/result.json")
    change(job, state="failed", reason="cell 1 raised")
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.NOTEBOOK_FAILED


def test_the_names_of_machines_that_differ_stand_in_the_document(book, capsys):
    """Seeds 0 and 2 ran here, seed 1 there: two verdicts, each against its own references."""
    here = read_manifest(Path("s1")).environment["hardware"]
    write_claims(book, *blessed([0.5, 0.51, 0.52], here), *blessed([0.8, 0.81, 0.82], GPU))
    change_environment(Path("s2"), hardware=GPU, gpu="NVIDIA T4", cores=999)
    assert main(["report", "--merge", "s1", "s2", "--out", "merged"]) == ExitCode.CLAIM_FAILED
    document = read_json(Path("merged/result.json"))
    jsonschema.validate(document, read_json(SCHEMA_PATH))
    environment = document["environment"]
    assert environment["hardware"] == f"{here} / {GPU}" and environment["cores"] is None
    assert [(s["index"], s["hardware"]) for s in document["shards"]] == [(1, here), (2, GPU)]
    first, second = document["verdicts"]
    assert (first["hardware"], first["outcome"], first["observed"]) == (here, "pass", [0.5, 0.52])
    assert (second["hardware"], second["outcome"], second["observed"]) == (GPU, "fail", [0.51])
    assert second["reference_hardware"] == GPU and second["reference"] == pytest.approx(0.81)
    assert f"the 1 of 3 runs on {GPU}, judged apart" in second["message"]
    assert f"3 次运行中在 {GPU} 上的 1 次" in second["message_zh"]
    junit = Path("merged/junit.xml").read_text(encoding="utf-8")
    assert f'name="acc [prediction interval] on {GPU}"' in junit
    assert f"shard 2**: `s2`, `{GPU}`" in Path("merged/report.en.md").read_text(encoding="utf-8")
    assert main(["check", "merged"]) == ExitCode.CLAIM_FAILED
    assert read_json(Path("merged/result.json")) == document


def test_notebooks_without_a_book(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in "ab":
        write_notebook(tmp_path / f"{name}.ipynb", f"{RECORD}\nrecord('x', 1)")
    for i in (1, 2):
        command = ["run", "--shard", f"{i}/2", "--out", f"s{i}", "--quiet", "a.ipynb", "b.ipynb"]
        assert main(command) == ExitCode.OK
    assert main(["report", "--merge", "s1", "s2", "--out", "all"]) == ExitCode.OK
    jobs = read_json(tmp_path / "all" / "result.json")["jobs"]
    assert [(j["state"], j["metrics"][0]["value"]) for j in jobs] == [("completed", 1.0)] * 2


# -- what does not fit ------------------------------------------------------------------------------


def test_missing_shards_are_named(book, capsys):
    assert main(["report", "--merge", "s1"]) == ExitCode.USAGE
    assert "missing: shard 2/2, given 1 of 2" in one_error(capsys)
    assert main(["report", "--merge", "s1", "--allow-missing", "--out", "part"]) == ExitCode.INFRASTRUCTURE
    assert "2 of 4 planned jobs have no result (01-a-smoke-seed1, 02-b-smoke)" in one_error(capsys)
    document = read_json(Path("part/result.json"))
    assert [job["state"] for job in document["jobs"]] == ["completed", "cancelled", "completed", "cancelled"]
    assert [v["outcome"] for v in document["verdicts"]] == ["pass", "missing"] and document["exit_code"] == 4


def test_a_shard_that_is_absent_because_it_is_empty_is_not_missing(book, monkeypatch, capsys):
    for i in (1, 2, 3):
        assert (
            main(["run", "--profile", "smoke", "--shard", f"{i}/3", "--out", f"t{i}", "--quiet"])
            == ExitCode.OK
        )
    assert not Path("t3").exists()
    assert main(["report", "--merge", "t1", "t2"]) == ExitCode.OK


def test_a_shard_that_was_killed_and_run_again(book, capsys):
    shutil.copytree("s2", "s2-killed")
    shutil.rmtree("s2-killed/jobs/02-b-smoke")
    Path("s2-killed/result.json").unlink()
    assert main(["report", "--merge", "s1", "s2-killed"]) == ExitCode.INFRASTRUCTURE
    assert "1 of 4 planned jobs have no result (02-b-smoke)" in capsys.readouterr().err
    for order in (["s2-killed", "s2"], ["s2", "s2-killed"]):
        assert main(["report", "--merge", "s1", *order, "--out", "merged"]) == ExitCode.OK
        assert essence("merged")["jobs"] == essence("whole")["jobs"]


def test_the_same_job_twice_counts_once_unless_it_tells_other_things(book, capsys):
    shutil.copytree("s2", "again")
    job = Path("again/jobs/01-a-smoke-seed1/result.json")
    change(job, seconds=9.0, started="2026-11-25T00:00:00+00:00")
    assert main(["report", "--merge", "s1", "s2", "again", "s1", "--out", "merged"]) == ExitCode.OK
    assert essence("merged")["jobs"] == essence("whole")["jobs"]
    capsys.readouterr()
    metrics = read_json(job)["metrics"]
    for other in ({"metrics": [{**metrics[0], "value": 0.9}]}, {"key": "k"}, {"state": "failed"}):
        shutil.copyfile("s2/jobs/01-a-smoke-seed1/result.json", job)
        change(job, **other)
        assert main(["report", "--merge", "s1", "s2", "again"]) == ExitCode.USAGE
        err = one_error(capsys)
        assert "the job 01-a-smoke-seed1 is in" in err and "s2 (" in err and "again (" in err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"profile": "offline"}, "another profile than"),
        ({"commit": "f00"}, "another commit than"),
        ({"schema": 2}, "has schema 2, this harness writes 1"),
        ({"shard": 5}, "not what the harness writes"),
        ({"shard": {"index": 9, "of": 2, "plan": [], "digest": ""}}, "no shard 9 of 2"),
        ({"shard": {"index": 1, "of": 2, "plan": [1], "digest": ""}}, "list of job ids"),
        ({"shard": {"index": 1, "of": 2, "plan": ["../../x"], "digest": ""}}, "list of job ids"),
        ({"jobs": []}, "does not hold the jobs of shard 2/2"),
        ({"shards": [1]}, "not what the harness writes"),
    ],
)
def test_shards_that_do_not_belong_together(book, capsys, values, words):
    change(Path("s2/manifest.json"), **values)
    before = find_run(book) if Path("_build/runs/latest").exists() else None
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.USAGE
    assert words in (err := one_error(capsys)) and "s2" in err
    assert before is None and not Path("_build/runs").exists()


def test_shards_of_other_plans(book, capsys):
    shard = to_json(read_manifest(Path("s2")).shard)
    change(Path("s2/manifest.json"), shard={**shard, "digest": "other"})
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.USAGE
    assert "planned from other notebooks, parameters or seeds" in one_error(capsys)
    change(Path("s2/manifest.json"), shard={**shard, "of": 3})
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.USAGE
    assert "does not hold the jobs of shard 2/3" in one_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--merge"], "--merge needs the run folders"),
        (["--merge", "whole", "s1"], "whole is no shard of a run"),
        (["--merge", "nowhere", "s1"], "no run 'nowhere'"),
        (["--merge", "s1", ""], "the run's name is empty"),
        (["--merge", "s1", "s2", "--out", ""], "--out is empty"),
        (["--merge", "s1", "s2", "--out", "s1"], "would replace the shard"),
        (["s1", "s2"], "give one run, or --merge"),
        (["s1", "--out", "x"], "belong to --merge"),
        (["s1", "--allow-missing"], "belong to --merge"),
        (["s1", "--strict"], "belong to --merge"),
    ],
)
def test_mistakes_on_the_command_line(book, capsys, arguments, words):
    assert main(["report", *arguments]) == ExitCode.USAGE
    assert words in one_error(capsys)
    assert Path("s1/result.json").is_file() and Path("s2/result.json").is_file()


@pytest.mark.parametrize("name", ["manifest.json", "result.json", "jobs/01-a-smoke-seed1/result.json"])
@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_damaged_shard_is_told_with_its_file(book, capsys, name, text):
    Path("s2", name).write_text(text, encoding="utf-8")
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.USAGE
    assert f"s2/{name}" in one_error(capsys)
    assert not Path("_build/runs").exists()


@pytest.mark.parametrize("values", [{"shard": 5}, {"shard": {"index": "x", "of": 2}}, {"shards": [{}]}])
def test_a_damaged_document_of_a_shard(book, capsys, values):
    change(Path("s2/result.json"), **values)
    assert main(["report", "s2"]) == ExitCode.USAGE
    assert "s2/result.json is not what the harness writes" in one_error(capsys)


def test_a_folder_that_cannot_be_copied_leaves_no_half_run(book, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.INFRASTRUCTURE
    assert "the disk is full" in one_error(capsys)
    assert not list(Path("_build/runs").glob("2*"))


def test_files_that_cannot_be_copied_are_told_in_one_line(book, monkeypatch, capsys):
    def refuse(source, target, **options):
        raise shutil.Error([(str(source), str(target), "[Errno 13] Permission denied: 'x'")] * 9)

    monkeypatch.setattr(shutil, "copytree", refuse)
    assert main(["report", "--merge", "s1", "s2"]) == ExitCode.INFRASTRUCTURE
    err = one_error(capsys)
    assert "cannot copy the shards to" in err and err.count("Permission denied: 'x'") == 1


def test_nothing_is_written_before_all_is_read(book):
    merger = plan_merger([Path("s2"), Path("s1")])
    assert sorted(merger.home) == sorted(read_manifest(Path("whole")).jobs)
    assert merger.home["02-b-smoke"].folder.name == "s2" and merger.profile == "smoke"
