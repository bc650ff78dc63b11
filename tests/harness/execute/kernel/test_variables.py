"""What a kernel sees of the caller's environment, and what is never written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from notebooks import outputs_of, write_book

from harness.archive.folder import find_run
from harness.book.config import load_book
from harness.cli.app import main
from harness.execute.kernel.variables import job_environment, mask, secrets
from harness.model import Job, Limits

JOB = Job("job", Path("n.ipynb"), None, "smoke", None, {}, Limits(), network=False)


def test_what_is_on_the_list_passes_and_nothing_else():
    given = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "HF_HOME": "/hf",
        "MY_DATA": "/data",
        "MY_PLACE": "x",
        "RANDOM": "1",
    }
    assert set(given) & set(job_environment(JOB, given=given)) == {"PATH", "LC_ALL", "HF_HOME"}
    assert "MY_DATA" in job_environment(JOB, given=given, patterns=["MY_DATA"])
    assert {"MY_DATA", "MY_PLACE"} <= set(job_environment(JOB, given=given, patterns=["MY_*"]))


def test_threads_are_divided_unless_the_caller_did_it():
    assert "OMP_NUM_THREADS" not in job_environment(JOB, given={})
    assert job_environment(JOB, given={}, threads=3)["MKL_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in job_environment(JOB, given={"OMP_NUM_THREADS": "8"}, threads=3)


def test_one_job_sees_one_gpu():
    assert job_environment(JOB, given={}, gpu="2")["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in job_environment(JOB, given={})


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("HF_TOKEN", "hf_abcdefgh", True),
        ("AWS_SECRET_ACCESS_KEY", "abcd/efgh+ijkl", True),
        ("DB_PASSWORD", "correct horse", True),
        ("OPENAI_API_KEY", "sk-123456789", True),
        ("PIP_INDEX_URL", "https://me:hunter2hunter2@mirror.example/simple", True),
        ("TOKENIZERS_PARALLELISM", "false", False),  # short, and a switch
        ("GOOGLE_APPLICATION_CREDENTIALS", "/keys/key.json", False),  # a path, not the credential
        ("MAX_TOKENS", "100000000", False),
        ("AUTHOR", "somebody with a name", False),
        ("HF_TOKEN", "short", False),
    ],
)
def test_secrets_are_known_by_their_names(name, value, is_secret):
    assert bool(secrets({name: value})) == is_secret


def test_the_hubs_stored_token_is_one(tmp_path):
    (tmp_path / "token").write_text("hf_stored_token\n")
    assert secrets({"HF_HOME": str(tmp_path)}) == ["hf_stored_token"]


def test_masking_reaches_every_string_and_no_key():
    document = {"hf_abcdefgh": ["a hf_abcdefgh b", {"text": "hf_abcdefgh"}, 3, None]}
    assert mask(document, ["hf_abcdefgh"]) == {"hf_abcdefgh": ["a *** b", {"text": "***"}, 3, None]}


def test_a_token_reaches_no_file_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    monkeypatch.setenv("CI_DEPLOY_TOKEN", "glpat-0123456789")
    cells = [
        "import os\nprint(os.environ['HF_TOKEN'], os.environ.get('CI_DEPLOY_TOKEN'))",
        "import os, sys, subprocess\nos.write(2, os.environ['HF_TOKEN'].encode())\n"
        "subprocess.run([sys.executable, '-c', 'import os, sys; sys.__stderr__.write(os.environ[\"HF_TOKEN\"])'])",
        "from IPython.display import HTML\nHTML('<b>' + os.environ['HF_TOKEN'] + '</b>')",
        "raise ValueError('401 for ' + os.environ['HF_TOKEN'])",
    ]
    write_book(tmp_path, {"01-a": cells})
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--quiet"]) == 2
    folder = find_run(tmp_path)
    for file in folder.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            assert b"0123456789abcdef" not in text, file
            assert b"glpat" not in text, file
    out = next(folder.glob("jobs/*/out.ipynb"))
    assert "*** None" in json.dumps(outputs_of(out))  # the second is not passed at all


def test_a_book_names_variables_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", "/data")
    monkeypatch.setenv("OTHER", "x")
    cells = ["import os\nassert os.environ['MY_DATA'] == '/data'\nassert 'OTHER' not in os.environ"]
    write_book(tmp_path, {"01-a": cells}, environment=["MY_*"])
    monkeypatch.chdir(tmp_path)
    assert load_book().environment == ("MY_*",)
    assert main(["run", "--quiet"]) == 0
    assert main(["run", "--quiet"]) == 0  # cached
    monkeypatch.setenv("MY_DATA", "/elsewhere")  # part of the key
    assert main(["run", "--quiet"]) == 2


def test_so_does_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER", "x")
    write_book(tmp_path, {"01-a": ["import os\nassert os.environ['OTHER'] == 'x'"]})
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--quiet", "--env", "OTHER"]) == 0
    assert main(["run", "--quiet", "--no-cache"]) == 2
    assert os.environ["OTHER"] == "x"
