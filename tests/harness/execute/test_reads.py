"""Whatever a chapter read: once it changed, the chapter runs again and gives the new value; else it does not run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
from notebooks import outputs_of, write_book, write_notebook

from harness.archive.folder import find_run
from harness.book.notebook import read_notebook
from harness.cli.app import main
from harness.execute import reads as reads_module
from harness.execute.kernel import opened
from harness.execute.kernel.opened import NOTES
from harness.execute.reads import Unsettled, changes, named_by, settle, write_reads
from harness.files import read_json

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Kind:
    """One way to read something: files, cells that print its value, and a change that makes 1 become 2."""

    cells: tuple[str, ...]
    files: dict[str, str]  # by their paths from the notebook's folder
    change: Change | str  # or the one file that is written anew
    tells: str = ""  # what `run --why` names; the changed file by default


def anew(name: str, text: str) -> Change:
    return lambda folder: (folder / name).parent.mkdir(exist_ok=True) or (folder / name).write_text(text)


def gone(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def other_target(folder: Path) -> None:
    (folder / "x.txt").unlink()
    (folder / "x.txt").symlink_to("two.txt")


def same_size_and_time(folder: Path) -> None:
    before = (folder / "x.txt").stat()
    (folder / "x.txt").write_text("2")
    os.utime(folder / "x.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


V = "V = 1\n"
PRINT = "print(open('x.txt').read())"
SQLITE = "import sqlite3\nprint(sqlite3.connect('x.db').execute('select v from t').fetchone()[0])"
EXTENSION = "from deeper import V\ndef load_ipython_extension(shell):\n    print(V)\n"
READ = "print(open('x.' + 'txt').read())"


def new_row(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "x.db")) as database, database:
        database.execute("update t set v = 2")


KINDS = {
    "helper": Kind(("import helper", "print(helper.V)"), {"helper.py": V}, "helper.py"),
    "transitive": Kind(
        ("import helper\nprint(helper.V)",), {"helper.py": "from deeper import V", "deeper.py": V}, "deeper.py"
    ),
    "deepest": Kind(
        ("import a\nprint(a.V)",),
        {"a.py": "from b import V", "b.py": "from c.d import V", "c/__init__.py": "", "c/d.py": "from e import V",
         "e.py": V},
        "e.py",
    ),
    "beside-eval": Kind(("import sib\nprint(eval('sib.V'))",), {"sib.py": V}, "sib.py"),
    "by-eval": Kind(("print(eval('__import__(\"s\" + \"ib\")').V)",), {"sib.py": V}, "sib.py"),
    "import-module": Kind(
        ("import importlib\nprint(importlib.import_module('s' + 'ub.m').V)",), {"sub/m.py": V}, "sub/m.py"
    ),
    "namespace": Kind(("from ns import mod\nprint(mod.V)",), {"ns/mod.py": V}, "ns/mod.py"),
    "run": Kind(("%run script.py",), {"script.py": "from deeper import V\nprint(V)", "deeper.py": V}, "deeper.py"),
    "run-without-suffix": Kind(
        ("%run -i tools/script 3",),
        {"tools/script.py": "print(1)"}, anew("tools/script.py", "print(2)"), "tools/script.py",
    ),
    "load-ext": Kind(("%load_ext ext",), {"ext.py": EXTENSION, "deeper.py": V}, "deeper.py"),
    "shell": Kind(
        ("!python3 script.py",), {"script.py": "from deeper import V\nprint(V)", "deeper.py": V}, "deeper.py"
    ),
    "bash": Kind(("%%bash\ncat x.txt",), {"x.txt": "1"}, anew("x.txt", "2"), "x.txt"),
    "subprocess": Kind(
        ("import subprocess\nprint(subprocess.run(['cat', 'x.txt'], stdout=-1, text=True).stdout)",),
        {"x.txt": "1"}, anew("x.txt", "2"), "x.txt",
    ),
    "path-literal": Kind(
        ("import sys\nsys.path.insert(0, 'lib')", "import m\nprint(m.V)"), {"lib/m.py": V}, "lib/m.py"
    ),
    "path-computed": Kind(
        ("import sys, pathlib\nsys.path.append(str(pathlib.Path.cwd() / ('li' + 'b')))", "import m\nprint(m.V)"),
        {"lib/m.py": V}, "lib/m.py",
    ),
    "path-in-helper": Kind(
        ("import helper\nprint(helper.V)",),
        {"helper.py": "import sys\nsys.path += ['lib']\nfrom m import V", "lib/m.py": V}, "lib/m.py",
    ),
    "pythonpath": Kind(
        ("import on_pythonpath as m\nprint(m.V)",),
        {"../../more/on_pythonpath.py": V}, "../../more/on_pythonpath.py", "more/on_pythonpath.py",
    ),
    "open": Kind((PRINT,), {"x.txt": "1"}, anew("x.txt", "2"), "x.txt"),
    "computed-path": Kind((READ,), {"x.txt": "1"}, anew("x.txt", "2"), "x.txt"),
    "other-folder": Kind(
        ("import os\nos.chdir('data')", READ), {"data/x.txt": "1"}, anew("data/x.txt", "2"), "data/x.txt"
    ),
    "bytes-and-descriptors": Kind(
        ("import os\nprint(os.read(os.open(b'x.' + b'txt', os.O_RDONLY), 9).decode())",),
        {"x.txt": "1"}, anew("x.txt", "2"), "x.txt",
    ),
    "same-size-and-time": Kind((READ,), {"x.txt": "1"}, same_size_and_time, "x.txt"),
    "csv": Kind(
        ("import pandas as pd\nprint(pd.read_csv('data/x.csv')['v'][0])",),
        {"data/x.csv": "v\n1\n"}, anew("data/x.csv", "v\n2\n"), "data/x.csv",
    ),
    "json": Kind(("import json\nprint(json.load(open('x.json')))",), {"x.json": "1"}, anew("x.json", "2"), "x.json"),
    "in-a-child": Kind(
        ("import os\nif (pid := os.fork()) == 0:\n    os._exit(int(open('x.' + 'txt').read()))",
         "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"),
        {"x.txt": "1"}, anew("x.txt", "2"), "x.txt",
    ),
    "sqlite": Kind((SQLITE,), {"x.db": ""}, new_row, "x.db"),
    "link": Kind((READ,), {"one.txt": "1", "two.txt": "2", "x.txt": "-> one.txt"}, other_target, "x.txt"),
    "what-a-link-names": Kind(
        (READ,), {"one.txt": "1", "x.txt": "-> one.txt"}, anew("one.txt", "2"), "x.txt"
    ),
    "folder-link": Kind(
        ("print(open('here/x.' + 'txt').read())",),
        {"one/x.txt": "1", "here": "-> one"}, anew("one/x.txt", "2"), "here/x.txt",
    ),
    "a-shadow-comes": Kind(
        ("import sys\nsys.path.append('lib')\nimport m\nprint(m.V)",), {"lib/m.py": V}, anew("m.py", "V = 2\n"), "m.py"
    ),
    "a-shadow-of-a-computed-import-comes": Kind(
        ("import sys\nsys.path.append('li' + 'b')\nprint(__import__('m' + 'o').V)",),
        {"lib/mo.py": V}, anew("mo.py", "V = 2\n"), "mo.py",
    ),
    "a-shadow-of-an-installed-module-comes": Kind(
        ("import importlib\nm = importlib.import_module('ini' + 'config')\nprint(getattr(m, 'V', 1))",),
        {}, anew("iniconfig.py", "V = 2\n"), "iniconfig.py",
    ),
    "a-package-goes-before-a-module": Kind(
        ("print(__import__('m' + 'o').V)",), {"mo.py": V}, anew("mo/__init__.py", "V = 2\n"), "mo",
    ),
    "a-shadow-goes": Kind(
        ("import sys\nsys.path.append('lib')\nimport m\nprint(m.V)",),
        {"m.py": V, "lib/m.py": "V = 2\n"}, gone("m.py"), "m.py",
    ),
    "a-file-comes": Kind(
        ("import os\nprint(2 if os.path.exists('x.txt') else 1)",), {}, anew("x.txt", "2"), "x.txt"
    ),
    "a-file-that-was-tried-comes": Kind(
        ("try:\n    print(open('x.' + 'txt').read())\nexcept OSError:\n    print(1)",), {}, anew("x.txt", "2"), "x.txt"
    ),
    "a-file-goes": Kind(
        ("import os\nprint(1 if os.path.exists('x.txt') else 2)",), {"x.txt": "1"}, gone("x.txt"), "x.txt"
    ),
    "glob": Kind(
        ("import glob\nprint(len(glob.glob('data/*.txt')))",), {"data/1.txt": ""}, anew("data/2.txt", ""), "data/ lists"
    ),
    "walk": Kind(
        ("import os\nprint(sum(len(files) for _, _, files in os.walk('data')))",),
        {"data/in/1": ""}, anew("data/in/2", ""), "data/in/ lists",
    ),
    "iterdir-here": Kind(
        ("from pathlib import Path\nprint(len([p for p in Path().iterdir() if p.suffix == '.txt']))",),
        {"1.txt": ""}, anew("2.txt", ""), "iterdir-here/ lists",
    ),
    "declared": Kind(
        ("import subprocess\nprint(subprocess.run('cat *.dat', shell=True, stdout=-1, text=True).stdout)",),
        {"x.dat": "1"}, anew("x.dat", "2"), "x.dat",
    ),
}  # fmt: skip

STAYS = {
    "makes-and-reads": ("open('out.txt', 'w').write('1')\nprint(open('out.txt').read())",),
    "makes-a-folder": (
        "import os\nos.makedirs('out', exist_ok=True)\n_ = open('out/x', 'w').write('1')",
        "print(len(os.listdir('out')))",
    ),
    "looks-then-makes": (
        "try:\n    print(open('o.txt').read())\nexcept OSError:\n    open('o.txt', 'w').write('1')\n    print(1)",
    ),
    "temporary": (
        "import subprocess, tempfile\nwith tempfile.TemporaryDirectory() as d:\n"
        "    subprocess.run(f'echo 1 > {d}/x', shell=True)\n    print(open(d + '/x').read())",
    ),
    "writes-a-module": ("%%writefile made.py\nV = 1", "import made\nprint(made.V)"),
    "renames": ("import os\nopen('a.tmp', 'w').write('1')\nos.replace('a.tmp', 'a.txt')\nprint(open('a.txt').read())",),
    "by-a-command": ("!echo 1 > made.txt", "print(1)"),
    "by-compiled-code": ("import numpy as np\nnp.array([1.0]).tofile('x.bin')\nprint(int(np.fromfile('x.bin')[0]))",),
    "appends-to-a-log": ("open('log.txt', 'a').write('x')\nprint(1)",),
    "broken-helper": ("try:\n    import broken\nexcept SyntaxError:\n    print(1)",),
    "no-text": ("print(1 if open('x.dat', 'rb').read(1) else 2)",),
}  # fmt: skip


def chapter(
    root: Path, name: str, cells: Sequence[str], files: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """A book of one chapter in a folder of its own, with *files* beside it."""
    folder = root / "chapters" / name
    write_notebook(folder / f"{name}.ipynb", *cells)
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            (folder / file).symlink_to(text[3:])
        elif file.endswith(".db"):
            with closing(sqlite3.connect(folder / file)) as database, database:
                database.execute("create table t as select 1 as v")
        else:
            (folder / file).write_text(text)
    data = {"declared": ["chapters/declared/*.dat"]} if name == "declared" else []
    (root / "harness.yml").write_text(json.dumps({"chapters": [f"chapters/{name}"], "data": data}))
    return folder


def jobs_of(root: Path) -> dict[str, tuple[str, str]]:
    """State and what was printed last, by chapter."""
    run = find_run(root)
    found = {}
    for job in read_json(run / "result.json")["jobs"]:
        printed = "".join(outputs_of(run / "jobs" / job["id"] / "out.ipynb"))
        found[job["chapter"]] = (job["state"], printed.strip().splitlines()[-1] if printed.strip() else "")
    return found


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder for a book, gone into; ``more`` in it is on PYTHONPATH as seen from a chapter."""
    root = tmp_path / "书 book"
    root.mkdir()
    monkeypatch.chdir(root)
    paths = ["../../more", *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return root


def run(root: Path) -> tuple[str, str]:
    assert main(["run", "--quiet"]) == 0
    (job,) = jobs_of(root).values()
    return job


def why(capfd) -> str:
    capfd.readouterr()
    assert main(["run", "--why"]) == 0
    return capfd.readouterr().out


@pytest.mark.parametrize("name", KINDS)
def test_what_was_read_and_changed_runs_again(root, capfd, name):
    kind = KINDS[name]
    folder = chapter(root, name, kind.cells, kind.files)
    assert run(root) == ("completed", "1")
    assert run(root) == ("skipped", "1") and why(capfd).startswith("skip")
    if isinstance(kind.change, str):
        anew(kind.change, "V = 2\n")(folder)
    else:
        kind.change(folder)
    told = why(capfd)
    assert told.startswith("run") and (kind.tells or str(kind.change)) in told
    assert run(root) == ("completed", "2")
    assert run(root) == ("skipped", "2")


@pytest.mark.parametrize("name", STAYS)
def test_what_the_notebook_makes_itself_is_no_dependency(root, capfd, name):
    folder = chapter(root, name, STAYS[name])
    (folder / "broken.py").write_text("def (:\n")
    (folder / "x.dat").write_bytes(b"\xff\x00")
    assert run(root) == ("completed", "1")
    (folder / "bystander.py").write_text("")
    assert why(capfd).startswith("skip")
    assert run(root) == ("skipped", "1")


# -- what cannot be seen is said ---------------------------------------------------------------------

UNSEEN = {
    "cmd": ("!echo 1",),
    "proc": ("import subprocess\nsubprocess.run(['echo', '1'])",),
    "system": ("import os\nos.system('true')",),
    "net": (
        "import socket\ntry:\n    socket.create_connection(('data.invalid', 80), timeout=1)\n"
        "except OSError:\n    pass",
    ),
    "compiled": ("import safetensors",),
    "plain": ("print(open('x.txt').read())",),
}  # fmt: skip
SAID = {
    "cmd": "cmd (`echo 1`)",
    "proc": "proc (`echo 1`)",
    "system": "system (`true`)",
    "net": "net (network: data.invalid)",
    "compiled": "compiled (safetensors)",
}


def warnings(root: Path) -> list[str]:
    lines = (find_run(root) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event["message"] for event in map(json.loads, lines) if event["event"] == "warning"]


def test_what_is_not_seen_is_said_once_when_a_cached_result_is_used(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(write_book(tmp_path, UNSEEN, packages=[], data={"system": []}))
    (tmp_path / "chapters" / "x.txt").write_text("1")
    assert main(["run", "--quiet", "--jobs", "2"]) == 0
    assert warnings(tmp_path) == []
    assert main(["run", "--quiet"]) == 0
    (said,) = warnings(tmp_path)
    assert "harness.yml" in said and "--no-cache" in said
    for name, words in SAID.items():
        assert (words in said) == (name != "system")  # whose author says that it reads nothing else
    assert "plain" not in said
    capfd.readouterr()
    assert main(["run", "--why", "--chapters", "cmd"]) == 0
    assert "not seen: `echo 1`" in capfd.readouterr().out


def test_another_kernel_is_named(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", 'x <- read.csv("x.csv")', kernel="ir")
    document = json.loads(path.read_text())
    document["metadata"]["kernelspec"]["language"] = "R"
    path.write_text(json.dumps(document))
    (tmp_path / "x.csv").write_text("1")
    named = named_by(read_notebook(path), None, (), ())
    assert named.unseen == ["the kernel 'ir'"] and tmp_path / "x.csv" in named.files


# -- while it runs -----------------------------------------------------------------------------------

CHANGES = """
import os
before = open('x.' + 'txt').read()
_ = os.system('printf 2 > x.txt')
print(before)
"""


def test_a_file_that_changed_while_a_chapter_ran_keeps_it_out_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(write_book(tmp_path, {"a": [CHANGES]}, packages=[]))
    (tmp_path / "chapters" / "x.txt").write_text("1")
    for shown in ("1", "2"):
        assert main(["run", "--quiet"]) == 0
        assert jobs_of(tmp_path)["a"] == ("completed", shown)
        (said,) = warnings(tmp_path)
        assert "not kept for the next run: chapters/x.txt changed while it ran" in said


def test_an_empty_file_that_is_written_empty_again_has_not_changed(tmp_path, monkeypatch):
    again = CHANGES.replace("os.system('printf 2 > x.txt')", "os.utime('x.txt')")
    monkeypatch.chdir(write_book(tmp_path, {"a": [again]}, packages=[]))
    file = tmp_path / "chapters" / "x.txt"
    file.write_text("")
    assert main(["run", "--quiet"]) == 0
    assert not warnings(tmp_path) and jobs_of(tmp_path)["a"] == ("completed", "")
    assert main(["run", "--quiet"]) == 0
    assert jobs_of(tmp_path)["a"] == ("skipped", "")
    file.write_text("1")
    assert main(["run", "--quiet"]) == 0
    assert jobs_of(tmp_path)["a"] == ("completed", "1")


def test_what_a_resumed_run_keeps_has_read_the_same(tmp_path, monkeypatch):
    fails = ["import os\nassert os.path.exists('go')"]
    monkeypatch.chdir(write_book(tmp_path, {"a": [READ], "b": [READ.replace("'x.'", "'y.'")], "c": fails}))
    folder = tmp_path / "chapters"
    (folder / "x.txt").write_text("1")
    (folder / "y.txt").write_text("1")
    assert main(["run", "--quiet", "--no-cache"]) == 2
    (folder / "x.txt").write_text("2")
    (folder / "go").touch()
    assert main(["run", "--quiet", "--resume", "--no-cache"]) == 0
    jobs = jobs_of(tmp_path)
    assert (jobs["a"][1], jobs["b"][1]) == ("2", "1")
    assert [entry["kept"] for entry in read_json(find_run(tmp_path) / "manifest.json")["resumed"]] == [1]


# -- the notes ---------------------------------------------------------------------------------------

NOTED = """
import os, sys, types
IPython = types.ModuleType("IPython")
profile = types.SimpleNamespace(location="none", startup_dir=os.getcwd())
IPython.get_ipython = lambda: types.SimpleNamespace(profile_dir=profile)
sys.modules["IPython"] = IPython
exec(compile({source!r}, "<harness>", "exec"), {{}})
"""


SOURCE = Path(opened.__file__).read_text(encoding="utf-8") + "\nnote_opened()"


def noted(folder: Path, code: str) -> tuple[str, list[list[object]]]:
    """What *code* prints in a process that takes notes, and the notes."""
    (folder / "job").mkdir(exist_ok=True)
    program = NOTED.format(source=SOURCE) + code
    environment = {**os.environ, "HARNESS_METRICS": str(folder / "job" / "metrics.jsonl")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    lines = (folder / "job" / NOTES).read_text().splitlines() if (folder / "job" / NOTES).exists() else []
    return done.stdout, [json.loads(line) for line in lines]


def test_each_file_is_noted_once_and_none_of_the_interpreter_or_the_system(tmp_path):
    (tmp_path / "x.txt").write_text("1")
    code = "import decimal, wave\nfor _ in range(9):\n    open('x.txt')\nopen('/proc/self/stat'); open(os.devnull)\n"
    _, notes = noted(tmp_path, code)
    found = [fact[1] for fact in notes if fact[0] in ("read", "own") and "ipython" not in fact[1]]
    assert found == [str(tmp_path / "x.txt")]
    assert ["import", "wave"] in notes


@pytest.mark.parametrize(
    "code",
    [
        "import shutil\nshutil.rmtree('job')\nprint(open('x.txt').read())",
        "os.closerange(3, 99)\nprint(open('x.txt').read())",
        "sys.modules.clear()\nprint(open('x.txt').read())",
        "os.open = os.stat = os.getcwd = None\nprint(open('x.txt').read())",
        "sys.audit('open'); sys.audit('open', 1, 2, 3); sys.audit('import', 1)\nprint(open('x.txt').read())",
        "try:\n    open('no' * 9999)\nexcept OSError:\n    print(1)",
        "try:\n    open('a\\0b')\nexcept ValueError:\n    print(1)",
        "sys.setrecursionlimit(60)\nprint(open('x.txt').read())",
    ],
)
def test_the_notes_never_reach_the_notebook(tmp_path, code):
    (tmp_path / "x.txt").write_text("1")
    assert noted(tmp_path, code)[0].strip() == "1"


def test_nothing_of_the_notes_is_in_the_namespace(tmp_path):
    before = "before = set(globals())\n"
    program = NOTED.replace("exec(compile", before + "exec(compile")
    (tmp_path / "job").mkdir()
    environment = {**os.environ, "HARNESS_METRICS": str(tmp_path / "job" / "m")}
    command = [
        sys.executable,
        "-c",
        program.format(source=SOURCE) + "print(set(globals()) - before)",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'before'}" and (tmp_path / "job" / NOTES).exists()


def settled(folder: Path, *notes: list[object], root: Path | None = None):
    job = folder / "job"
    job.mkdir(exist_ok=True)
    (job / NOTES).write_text("".join(json.dumps(note) + "\n" for note in (["start", 0], *notes)))
    return settle(
        job, root or folder, named_by(read_notebook(write_notebook(folder / "n.ipynb", "1")), None, (), ())
    )


def test_notes_that_were_lost_or_cut_settle_nothing(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "1")
    named = named_by(read_notebook(path), None, (), ())
    with pytest.raises(Unsettled, match="did not note"):
        settle(tmp_path, tmp_path, named)
    (tmp_path / NOTES).write_text('["start", 1]\n["read", "/x')
    with pytest.raises(Unsettled, match="did not note"):
        settle(tmp_path, tmp_path, named)


def test_a_name_that_is_no_utf_8_is_told_in_one_line(tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")
    Path(odd).write_text("1")
    status = Path(odd).stat()
    reads = settled(tmp_path, ["read", odd, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    with pytest.raises(Unsettled, match="whose name is no UTF-8"):
        write_reads(tmp_path, reads)


def test_a_large_file_is_read_again_only_if_its_size_or_times_changed(tmp_path, monkeypatch):
    large = tmp_path / "x.bin"
    large.write_bytes(bytes(2**20 + 1))
    status = large.stat()
    reads = settled(tmp_path, ["read", str(large), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    monkeypatch.setattr(reads_module, "_digest", lambda *_: pytest.fail("read again"))
    assert list(changes(reads, tmp_path)) == []
    monkeypatch.undo()
    os.utime(large)
    assert list(changes(reads, tmp_path)) == []
    with large.open("r+b") as file:
        file.write(b"1")
    assert list(changes(reads, tmp_path)) == ["x.bin changed"]
