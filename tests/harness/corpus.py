"""Small notebooks of which each stands for a kind of ending or of surprise, with what a truthful tool says of it.

The property test runs them with the harness and in bare kernels (`test_corpus.py`); `benchmarks/endings.py` asks
papermill and nbclient, too. A notebook lies alone in a folder with its *files*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from notebooks import write_notebook

CELL_LIMIT = 15  # seconds; one notebook runs into it


@dataclass(frozen=True)
class Case:
    """One notebook and its right end."""

    name: str
    cells: tuple[str, ...]
    state: str = "completed"
    at: int | None = None  # position of the cell that ended it, from 0
    says: str = ""  # a part of the reason
    writes: Mapping[str, str] = field(default_factory=dict)  # what its folder holds afterwards
    metrics: Mapping[str, float] = field(default_factory=dict)
    shows: str = ""  # a part of what its cells put out
    files: Mapping[str, str] = field(default_factory=dict)  # beside it
    tags: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    varies: bool = False  # its outputs differ from run to run


def write(case: Case, folder: Path) -> Path:
    """The notebook and its files in *folder*; its cells are called ``c0``, ``c1`` …"""
    path = write_notebook(folder / f"{case.name}.ipynb", *case.cells, tags=case.tags)
    notebook = nbformat.read(path, 4)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"c{number}"
    nbformat.write(notebook, path)
    for name, text in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return path


def _failed(name: str, *cells: str, at: int, says: str, **more: object) -> Case:
    return Case(name, cells, "failed", at, says, **more)  # type: ignore[arg-type]


AFTER = "open('after.txt', 'w').write('ran')"  # must not run

ERRORS = (
    _failed("raise", "x = 1", "1 / 0", AFTER, at=1, says="ZeroDivisionError: division by zero"),
    _failed("in-a-function", "def f():\n    raise KeyError('钥匙')", "f()", AFTER, at=1, says="KeyError"),
    _failed("syntax", "print('一')", "x = = 1", AFTER, at=1, says="SyntaxError"),
    _failed("no-module", "import no_such_module_here", AFTER, at=0, says="ModuleNotFoundError"),
    _failed("assertion", "assert 1 + 1 == 3, '算错了'", AFTER, at=0, says="AssertionError: 算错了"),
    _failed("in-the-last-cell", "x = 1", "y = x + z", at=1, says="NameError"),
    _failed("chained", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('outer') from e",
            AFTER, at=0, says="ValueError: outer"),
    _failed("group", "raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])", AFTER, at=0,
            says="ExceptionGroup: several"),
    _failed("note", "e = ValueError('noted')\ne.add_note('a note')\nraise e", AFTER, at=0, says="ValueError: noted"),
    _failed("recursion", "def f():\n    return f() + 1\nf()", AFTER, at=0, says="RecursionError"),
    _failed("interrupt", "raise KeyboardInterrupt('mine')", AFTER, at=0, says="KeyboardInterrupt"),
    _failed("await", "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise OSError('late')",
            "await f()", AFTER, at=1, says="OSError: late"),
    _failed("own-class", "class Mine(Exception):\n    def __str__(self):\n        return 'mine, said'",
            "raise Mine", AFTER, at=1, says="Mine: mine, said"),
    _failed("asks", "input('name? ')", AFTER, at=0, says="StdinNotImplementedError"),
    _failed("warning-as-error", "import warnings\nwarnings.simplefilter('error')", "warnings.warn('old')", AFTER,
            at=1, says="UserWarning: old"),
    _failed("repr-raises", "class Bad:\n    def __repr__(self):\n        raise RuntimeError('no face')", "Bad()",
            AFTER, at=1, says="RuntimeError: no face"),
    _failed("html-raises", "class Bad:\n    def _repr_html_(self):\n        raise RuntimeError('no html')", "Bad()",
            AFTER, at=1, says="RuntimeError: no html"),
    _failed("debugger-on", "%pdb on", "1 / 0", AFTER, at=1, says="ZeroDivisionError"),
    _failed("script-raises", "%run fails.py", AFTER, at=0, says="ValueError: in the script",
            files={"fails.py": "raise ValueError('in the script')\n"}),
    _failed("capture-raises", "%%capture\nprint('hidden')\n1 / 0", AFTER, at=0, says="ZeroDivisionError"),
    _failed("capture-kept-raises", "%%capture kept\nraise OSError('kept')", AFTER, at=0, says="OSError: kept"),
    _failed("time-raises", "%%time\n1 / 0", AFTER, at=0, says="ZeroDivisionError"),
    _failed("figure-fails", "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
            "plt.title('$\\\\frac{1$')", AFTER, at=0, says="ValueError"),
    _failed("hook-raises", "def hook():\n    raise OSError('after the cell')\n"
            "get_ipython().events.register('post_execute', hook)", "x = 1", AFTER, at=0, says="OSError", varies=True),
    _failed("command-fails", "!exit 3", AFTER, at=0, says="3"),
    _failed("bash-fails", "%%bash\necho one\nexit 4", AFTER, at=0, says="4"),
    _failed("writefile-fails", "%%writefile no/such/folder/x.txt\ntext", AFTER, at=0, says="FileNotFoundError"),
    _failed("in-a-pool", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
            "    list(pool.map(lambda n: 1 / n, [1, 0]))", AFTER, at=0, says="ZeroDivisionError"),
    _failed("long-words", "raise ValueError('长' * 5000)", AFTER, at=0, says="ValueError: 长长长"),
)  # fmt: skip

ENDS = (
    _failed("sys-exit-1", "import sys\nsys.exit(1)", AFTER, at=0, says="SystemExit"),
    _failed("sys-exit-words", "import sys\nsys.exit('no data')", AFTER, at=0, says="no data"),
    Case("sys-exit-0", ("import sys\nsys.exit(0)", AFTER), "exited_early", 0, "exit"),
    Case("exit", ("exit()", AFTER), "exited_early", 0, "exit"),
    Case("quit", ("x = 1", "quit()", AFTER), "exited_early", 1, "quit"),
    Case("os-exit", ("import os\nos._exit(0)", AFTER), "dead", 0, "died"),
    Case("killed", ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", AFTER), "dead", 0, "SIGKILL"),
    Case("segfault", ("import ctypes\nctypes.string_at(0)", AFTER), "dead", 0, "SIGSEGV", varies=True),
    Case("hangs", ("import time\ntime.sleep(600)", AFTER), "timed_out", 0, "limit"),
    Case("hangs-and-holds-on", ("import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end:\n"
         "    try:\n        time.sleep(1)\n    except KeyboardInterrupt:\n        pass", AFTER), "timed_out", 0,
         "limit"),
)  # fmt: skip

SURROUNDINGS = (
    Case("own-module-first", ("import sys\nsys.path.insert(0, 'own')", "import statistics\nprint(statistics.WHO)"),
         shows="mine", files={"own/statistics.py": "WHO = 'mine'\n"}),
    Case("module-beside", ("import helper\nprint(helper.VALUE)",), shows="42", files={"helper.py": "VALUE = 42\n"}),
    Case("beside-a-package-of-that-name", ("import evaluate\nprint(evaluate.WHO)",), shows="beside",
         files={"evaluate.py": "WHO = 'beside'\n"}),
    Case("environment-before-import", ("import os\nos.environ['MODE'] = 'set'", "import reads\nprint(reads.MODE)"),
         shows="set", files={"reads.py": "import os\nMODE = os.environ.get('MODE', 'unset')\n"}),
    Case("environment-by-a-helper", ("import loads\nloads.load()", "import reads\nprint(reads.MODE)"), shows="loaded",
         files={"loads.py": "def load():\n    import os\n    for line in open('dotenv'):\n"
                "        name, value = line.strip().split('=')\n        os.environ[name] = value\n",
                "dotenv": "MODE=loaded\n",
                "reads.py": "import os\nMODE = os.environ.get('MODE', 'unset')\n"}),
    Case("environment-by-a-magic", ("%env MODE=magic", "import os\nprint(os.environ['MODE'])"), shows="magic"),
    Case("environment-by-a-script", ("%run sets.py", "import os\nprint(os.environ['MODE'])"), shows="script",
         files={"sets.py": "import os\nos.environ['MODE'] = 'script'\n"}),
    Case("hub-home-before-import", ("import os\nos.environ['HF_HOME'] = '/nowhere/hub'",
         "from huggingface_hub import constants\nprint(constants.HF_HOME)"), shows="/nowhere/hub"),
    Case("warns-at-import", ("import old",), shows="old thing",
         files={"old.py": "import warnings\nwarnings.warn('old thing', UserWarning)\n"}),
    Case("prints-at-import", ("import loud", "import loud"), shows="loaded", files={"loud.py": "print('loaded')\n"}),
    Case("filters-at-import", ("import quiet", "import warnings\nwarnings.warn('seen?', DeprecationWarning)\n"
         "print(len([f for f in warnings.filters if f[0] == 'ignore' and f[2] is FutureWarning]))"), shows="1",
         files={"quiet.py": "import warnings\nwarnings.simplefilter('ignore', FutureWarning)\n"}),
    Case("namespace-package", ("from space import part\nprint(part.VALUE)",), shows="in space",
         files={"space/part.py": "VALUE = 'in space'\n"}),
    Case("script", ("%run script.py", "print(value)"), shows="7", files={"script.py": "value = 7\n"}),
    Case("changes-folder", ("import os\nos.makedirs('below', exist_ok=True)\nos.chdir('below')",
         "open('here.txt', 'w').write('below')\nprint(os.path.basename(os.getcwd()))"), shows="below",
         writes={"below/here.txt": "below"}),
    Case("no-main-guard", ("print(__name__)", "import sys\nprint(len(sys.argv) > 0)"), shows="__main__"),
    Case("same-hash", ("print(hash('词') == hash('词'), hash('词'))",), shows="True"),
    Case("reload", ("import importlib, helper\nopen('helper.py', 'w').write('VALUE = 22222\\n')",
         "importlib.invalidate_caches()\nimportlib.reload(helper)\nprint(helper.VALUE)"), shows="22222",
         files={"helper.py": "VALUE = 1\n"}, writes={"helper.py": "VALUE = 22222\n"}),
    Case("logs", ("import logging\nlogging.basicConfig(level=logging.INFO, format='%(message)s')",
         "logging.info('到日志')"), shows="到日志"),
)  # fmt: skip

OUTPUTS = (
    Case("prints", ("print('甲')", "print('乙')\n'丙'"), shows="丙"),
    Case("display", ("from IPython.display import HTML, JSON, Latex, Markdown, display\n"
         "display(HTML('<b>b</b>'), Markdown('**m**'), Latex('$x$'), JSON({'a': 1}))",), shows="HTML object"),
    Case("updates-a-display", ("from IPython.display import display\nh = display('first', display_id='d')",
         "h.update('second')"), shows="second"),
    Case("clears", ("from IPython.display import clear_output\nfor n in range(30):\n    clear_output(wait=True)\n"
         "    print('step', n)",), shows="step 29"),
    Case("clears-display-and-print", ("from IPython.display import clear_output, display\nfor n in range(30):\n"
         "    clear_output(wait=True)\n    display(n)\n    print('text', n)",), shows="text 29"),
    Case("progress-line", ("import sys\nfor n in range(200):\n    sys.stdout.write(f'\\r{n}/199')\nprint()",),
         shows="199/199"),
    Case("both-streams", ("import sys\nprint('out')\nprint('err', file=sys.stderr)",), shows="out"),
    Case("much-text", ("for n in range(2000):\n    print('x' * 99)",), shows="xxx"),
    Case("figure", ("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",),
         shows="Figure size"),
    Case("hidden-by-capture", ("%%capture\nprint('hidden')", "print('seen')"), shows="seen"),
    Case("shown-after-capture", ("%%capture kept\nprint('kept')", "print(kept.stdout)"), shows="kept"),
    Case("late-task", ("import asyncio\nasync def late():\n    await asyncio.sleep(0.2)\n    print('late')\n"
         "task = asyncio.ensure_future(late())", "await asyncio.sleep(0.6)"), shows="late", varies=True),
    Case("nothing", ()),
    Case("only-comments", ("# nothing", "")),
    Case("expected-error", ("1 / 0", "print('goes on')"), tags={0: ("raises-exception",)}, shows="goes on"),
    Case("caught-error", ("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print('caught', error)",),
         shows="caught"),
    Case("shown-traceback", ("import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n"
         "    print(traceback.format_exc().splitlines()[-1])", "print('on')"), shows="ZeroDivisionError"),
    Case("skipped", ("print('one')", "1 / 0", "print('three')"), tags={1: ("skip-execution",)}, shows="three"),
    Case("in-a-thread", ("import threading\nt = threading.Thread(target=print, args=('threaded',))\nt.start()\n"
         "t.join()",), shows="threaded"),
    Case("kernels-own-python", ("import sys, subprocess\nout = subprocess.run(['python', '-c', 'import sys; "
         "print(sys.prefix)'], capture_output=True, text=True).stdout.strip()\nprint(out == sys.prefix)",),
         shows="True", varies=True),  # a bare kernel takes the first that PATH names
)  # fmt: skip

TRACES = (
    Case("exit-handler", ("import atexit\nwords = 'kept'\ndef save():\n    open('kept.txt', 'w').write(words)\n"
         "atexit.register(save)",), writes={"kept.txt": "kept"}),
    Case("thread-still-writes", ("import threading, time\ndef work():\n    time.sleep(0.5)\n"
         "    open('kept.txt', 'w').write(text)\ntext = 'late'\nthreading.Thread(target=work).start()",),
         writes={"kept.txt": "late"}),
    Case("open-file", ("file = open('kept.txt', 'w')\nfile.write('unflushed')\nNone",),
         writes={"kept.txt": "unflushed"}),
    Case("writes-and-reads", ("open('a.txt', 'w').write('甲')\nprint(open('a.txt').read())",), shows="甲",
         writes={"a.txt": "甲"}),
    Case("writefile", ("%%writefile made.py\nVALUE = 5", "import made\nprint(made.VALUE)"), shows="5",
         writes={"made.py": "VALUE = 5\n"}),
    Case("records", ("from harness.record import record", "record('accuracy', 0.5)\nrecord('loss', 2)"),
         varies=True,  # without a harness they are printed
        metrics={"accuracy": 0.5, "loss": 2.0}),
    Case("records-then-dies", ("from harness.record import record\nrecord('accuracy', 0.25)",
         "import os\nos._exit(7)"), "dead", 1, "exit code 7", metrics={"accuracy": 0.25}),
    Case("child-process", ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', "
         "\"open('child.txt', 'w').write('child')\"], check=True)\nNone",), writes={"child.txt": "child"}),
    Case("forks", ("import multiprocessing as mp\ncontext = mp.get_context('fork')\nqueue = context.Queue()\n"
         "p = context.Process(target=queue.put, args=(41,))\np.start()\nprint(queue.get() + 1)\np.join()",),
         shows="42"),
)  # fmt: skip

KINDS: Mapping[str, tuple[Case, ...]] = {
    "errors": ERRORS,
    "ends": ENDS,
    "surroundings": SURROUNDINGS,
    "outputs": OUTPUTS,
    "traces": TRACES,
}
CASES = tuple(case for cases in KINDS.values() for case in cases)
