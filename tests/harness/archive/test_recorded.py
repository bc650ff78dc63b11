"""The door of the archive: what a run left is decoded once, and what is damaged is told in one line with its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.archive.recorded import read_manifest, read_result, read_run, refuse_shard, result_from_json
from harness.errors import HarnessError
from harness.files import read_json, write_json

RUNS = Path(__file__).parents[1] / "golden" / "runs"
MAIN = "20261124T013000-offline-ab12"


@pytest.mark.parametrize("run", sorted(path.name for path in RUNS.iterdir()))
def test_a_result_survives_the_journey_through_json(run):
    result = read_result(RUNS / run)
    assert result.to_json() == read_json(RUNS / run / "result.json")
    assert result_from_json(json.loads(json.dumps(result.to_json())), result.folder / "result.json") == result
    recorded = read_run(RUNS / run)
    assert recorded.results == result.jobs and recorded.absent == ()
    assert [job.id for job in result.jobs] == list(recorded.manifest.jobs)
    told = ("run", "profile", "started", "environment", "commit", "dirty")
    assert all(getattr(recorded.manifest, name) == getattr(result.manifest, name) for name in told)


def test_the_jobs_of_a_merged_run_know_their_machines():
    manifest = read_manifest(RUNS / "merged")
    first, *others = manifest.jobs
    assert manifest.hardware_by_job == {first: "cpu-x86_64-bf16", **dict.fromkeys(others, "cuda-H100")}
    assert manifest.environment_of(first)["cpu"] == "A | B <C>"
    assert read_manifest(RUNS / MAIN).environment_of("any") == read_manifest(RUNS / MAIN).environment


def test_a_shard_is_refused_by_either_file():
    for manifest in (read_manifest(RUNS / "shard"), read_result(RUNS / "shard").manifest):
        with pytest.raises(HarnessError, match=r"^shard is shard 2/3 of a run, and the site needs the whole"):
            refuse_shard(manifest, "the site")
    refuse_shard(read_manifest(RUNS / "merged"), "the site")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("manifest.json", {"run": 3}, "no usable 'run'"),
        ("manifest.json", {"jobs": [3]}, "no usable 'jobs'"),
        ("manifest.json", {"environment": {"versions": []}}, "no usable 'environment'"),
        ("manifest.json", {"shards": 3}, "no usable 'shards'"),
        (
            "manifest.json",
            {"nodes": [{"node": "n", "environment": {}, "jobs": 3}]},
            "no usable 'environment' and",
        ),
        ("manifest.json", {"shard": {"index": 3, "of": 2, "plan": [], "digest": ""}}, "no shard 3 of 2"),
        ("result.json", {"seconds": "long"}, "no usable 'seconds'"),
        ("result.json", {"exit_code": None}, "no usable 'exit_code'"),
        ("result.json", {"jobs": {}}, "no usable 'jobs'"),
        ("result.json", {"jobs": [{"id": "x"}]}, "KeyError"),
        ("result.json", {"verdicts": [{"outcome": "maybe"}]}, "'maybe' is not a valid Outcome"),
        ("result.json", ("verdicts", "reference", "far"), "no usable 'reference'"),
        ("result.json", ("verdicts", "title", None), "no usable 'title'"),
        ("result.json", ("verdicts", "observed", ["0.5"]), "no usable 'observed'"),
        ("result.json", ("jobs", "seconds", None), "no usable 'seconds'"),
        ("result.json", ("jobs", "parameters", []), "no usable 'parameters'"),
    ],
)
def test_damage_is_one_line_with_the_file(tmp_path, name, change, told):
    run = shutil.copytree(RUNS / MAIN, tmp_path / "run")
    data = read_json(run / name)
    if isinstance(change, tuple):
        part, key, value = change
        data[part][0][key] = value
    else:
        data |= change
    write_json(run / name, data)
    with pytest.raises(HarnessError, match="is not what the harness writes") as error:
        read_manifest(run) if name == "manifest.json" else read_result(run)
    line = str(error.value)
    assert line.startswith(f"{run / name} ") and told in line and "\n" not in line
