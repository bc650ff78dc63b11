"""What travels to a node."""

from __future__ import annotations

import io
import sys
import tarfile

import pytest
from notebooks import write_notebook

from harness.cli.app import main
from harness.errors import HarnessError
from harness.execute.ray.executor import pack


def names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return set(tar.getnames())


def test_what_is_made_again_stays_behind_and_links_are_followed(tmp_path):
    root, data = tmp_path / "书 {b}", tmp_path / "data"
    for name in (
        "chapters/一.ipynb",
        "lib/a.py",
        "_build/big",
        ".git/x",
        "lib/__pycache__/a.pyc",
        "env/pyvenv.cfg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    data.mkdir()
    (data / "d.csv").write_text("1")
    (root / "data").symlink_to(data)
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert names(pack(root, "book")) == {"book/chapters/一.ipynb", "book/lib/a.py", "book/data/d.csv"}


def test_a_folder_that_is_too_large_is_told(tmp_path):
    (tmp_path / "weights").write_bytes(b"x" * 2**20)
    assert names(pack(tmp_path, limit=2**20)) == {"weights"}
    (tmp_path / "more").write_bytes(b"x")
    with pytest.raises(HarnessError, match="holds more than 1 MB, too much to send to the nodes"):
        pack(tmp_path, limit=2**20)


def run(tmp_path, monkeypatch, capsys, *options) -> tuple[int, str]:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "a.ipynb", "1")
    code = main(["run", "a.ipynb", *options])
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and not (tmp_path / "_build").exists()
    return code, error


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, error = run(tmp_path, monkeypatch, capsys, "--executor", "ray")
    assert code == 3 and "pip install ray" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "x:1"], "--address and --shared belong to --executor ray"),
        (["--shared"], "--address and --shared belong to --executor ray"),
        (["--executor", "ray", "--memory", "4"], "--memory and --gpus are of this machine"),
        (["--executor", "dask"], "dask"),
    ],
)
def test_options_that_do_not_go_together_are_told(tmp_path, monkeypatch, capsys, options, said):
    code, error = run(tmp_path, monkeypatch, capsys, *options)
    assert code == 3 and said in error
