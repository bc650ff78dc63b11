"""What a Python kernel opens, lists, imports and starts, noted while it happens.

It runs in the kernel, from its source alone, so it stands on the standard library of any Python from 3.8 on, and
nothing of it is seen by the notebook. One JSON line a fact, written once: ``["read", path, size, modified, changed]``
(the path alone where there is no such file), ``["own", path]`` for what the notebook makes, ``["made", folder]``,
``["listed", folder, names]``, ``["import", name]``, ``["places", paths]`` and ``["unseen", what]`` for what goes on
where this hook cannot look. :mod:`harness.execute.reads` makes sense of them.
"""

# ruff: noqa: PTH109, PTH110, PTH112, PTH113, PTH119, PTH120, SIM105
import json
import os
import site
import stat
import sys
import sysconfig
import time
from importlib.util import source_from_cache

NOTES = "opened.jsonl"
"""The file in the job's folder; the kernel finds that folder by the variable for metrics."""

READS = "reads.json"
"""What :mod:`harness.execute.reads` makes of it, beside the job's result."""

# taken now: the notebook may put others in their places
open_file, write, close, get_stat, list_names = os.open, os.write, os.close, os.stat, os.listdir
get_folder, fspath, fsdecode, get_frame = os.getcwd, os.fspath, os.fsdecode, sys._getframe
real, join, dumps, is_file = os.path.realpath, os.path.join, json.dumps, stat.S_ISREG
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
CREATE, TRUNCATE, WRITE_ONLY, ACCESS = os.O_CREAT, os.O_TRUNC, os.O_WRONLY, os.O_ACCMODE
OF_THE_SYSTEM = {"/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/lib", "/System"}
ABOUT_THE_MACHINE = {
    "uname",
    "lscpu",
    "ldconfig",
    "fc-list",
    "nvidia-smi",
    "sysctl",
    "sw_vers",
    "gcc",
    "cc",
    "ld",
}


def note_opened():
    """Begin; elsewhere than in a job, and where it fails, do nothing."""
    metrics = os.environ.get("HARNESS_METRICS")
    if metrics and hasattr(sys, "addaudithook"):
        try:
            notes = Notes(join(os.path.dirname(metrics), NOTES))
            shell = sys.modules["IPython"].get_ipython()
            notes.note("start", time.time_ns())
            sys.addaudithook(notes.hook)
            for file in opened_before(shell.profile_dir):
                notes.hook("open", (file, "rb", 0))
        except Exception:
            pass


def opened_before(profile):
    """Files of what ran already: sitecustomize, say, and IPython's own set-up."""
    for module in list(sys.modules.values()):
        yield getattr(module, "__dict__", {}).get("__file__")
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        yield join(profile.location, name)
    for name in list_names(profile.startup_dir):
        if name.endswith((".py", ".ipy")):
            yield join(profile.startup_dir, name)
    yield os.environ.get("PYTHONSTARTUP")


class Notes:
    """Takes notes into the file *target*. Its hook never raises but for an interrupt, which is the cell's."""

    def __init__(self, target):
        self.target, self.machine, self.seen = target, os.uname().nodename, set()
        self.ours = get_frame().f_code.co_filename
        here, paths = os.getcwd() + "/", sysconfig.get_paths()
        installed = {*paths.values(), sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(),
                     site.getusersitepackages(), *OF_THE_SYSTEM}  # fmt: skip
        installed |= {real(place) for place in installed}
        folders = [place.rstrip("/") + "/" for place in installed]
        self.passed_over = (os.path.dirname(target) + "/", *(f for f in folders if not here.startswith(f)))
        self.standard = (paths["stdlib"] + "/", paths["platstdlib"] + "/", os.path.dirname(os.__file__) + "/",
                         "<frozen")  # fmt: skip
        self.find = {
            "open": self.opened, "os.listdir": self.listed, "os.scandir": self.listed, "import": self.imported,
            "os.mkdir": self.made, "os.rename": self.renamed, "sqlite3.connect": self.connected,
            "ctypes.dlopen": self.loaded, "subprocess.Popen": self.started, "os.system": self.started,
            "os.exec": self.started, "os.posix_spawn": self.started, "os.startfile": self.started,
            "socket.getaddrinfo": self.asked, "socket.gethostbyname": self.asked, "socket.connect": self.reached,
        }.get  # fmt: skip

    def hook(self, event, arguments):
        handler = self.find(event)
        if handler is not None:
            try:
                handler(*arguments)
            except Exception:  # as fast as can be
                pass

    def note(self, *fact):
        file = open_file(self.target, APPENDING, 0o600)  # anew: one kept open is the notebook's to close
        try:
            write(file, (dumps(fact) + "\n").encode())
        finally:
            close(file)

    def once(self, *key):
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    # -- files and folders ---------------------------------------------------------------------------

    def opened(self, path, mode, flags):
        if path is self.target or (path.__class__ is str and path.startswith(self.passed_over)):
            return
        path = absolute(path)
        if path.endswith(".pyc") and "/__pycache__/" in path:
            path = source_from_cache(path)
        if path.startswith(self.passed_over) or "/__pycache__/" in path or not self.once(path, flags):
            return
        try:
            status = get_stat(path)
        except OSError:
            status = None
        if status is not None and not is_file(status.st_mode):
            return
        if flags & CREATE and (status is None or flags & TRUNCATE):
            self.note("own", path)
        elif status is None:
            self.note("read", path)
        elif flags & ACCESS != WRITE_ONLY:
            self.note("read", path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def connected(self, database):
        if database and database not in (":memory:", b":memory:"):
            self.opened(database, None, os.O_RDWR | CREATE)

    def loaded(self, name):
        if name and os.path.isfile(name):
            self.opened(name, "rb", 0)

    def listed(self, folder=None):
        if folder.__class__ is int:
            return
        folder = absolute("." if folder is None else folder)
        if (folder + "/").startswith(self.passed_over) or ("listed", folder) in self.seen:
            return
        caller = next(self.callers(), "library")
        if caller == "import" or (caller == "library" and folder in (absolute(p or ".") for p in sys.path)):
            return  # looks for modules or for installed distributions
        if self.once("listed", folder):
            self.note("listed", folder, list_names(folder))

    def made(self, folder, mode, directory=-1):
        folder = absolute(folder)
        new = directory < 0 and not folder.startswith(self.passed_over) and not os.path.exists(folder)
        if new and self.once("made", folder):
            self.note("made", folder)

    def renamed(self, source, goal, *directories):
        source, goal = absolute(source), absolute(goal)
        if not goal.startswith(self.passed_over) and "/__pycache__/" not in goal:
            self.opened(source, "rb", 0)  # where it is not the notebook's own
            self.note("made" if os.path.isdir(source) else "own", goal)

    # -- modules -------------------------------------------------------------------------------------

    def imported(self, name, file, path, *rest):
        if path is None:  # a compiled module is loaded
            if file is not None:
                self.opened(file, "rb", 0)
            return
        if "." in name or not self.once("import", name):
            return
        if self.once("places", *path):
            places = (absolute(place or ".") for place in path)
            self.note("places", [p for p in places if not (p + "/").startswith(self.passed_over)])
        self.note("import", name)

    def callers(self):
        frame = get_frame(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self.ours:
                pass
            elif "importlib" in name or "pkgutil" in name:
                yield "import"
            elif "/site-packages/" in name or "/dist-packages/" in name:
                yield "library"
            elif not name.startswith(self.standard):
                yield "user"
            frame = frame.f_back

    # -- what cannot be looked into ------------------------------------------------------------------

    def started(self, command, arguments=None, *rest):
        if next((c for c in self.callers() if c != "library"), "user") == "import":
            return
        if arguments is not None and not isinstance(arguments, (str, bytes)):
            command = arguments[-1] if len(arguments) > 2 and arguments[-2] == "-c" else arguments
        parts = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
        text = " ".join(" ".join(fsdecode(part) for part in parts).split())
        if os.path.basename(text.partition(" ")[0]) not in ABOUT_THE_MACHINE and self.once("unseen", text):
            self.note("unseen", "`" + (text if len(text) <= 60 else text[:59] + "…") + "`")

    def asked(self, host, *rest):
        if isinstance(host, bytes):
            host = host.decode()
        if host and host not in ("localhost", "::1", "0.0.0.0", self.machine) and not host.startswith("127."):
            self.seen.add("network")
            if self.once("unseen", host):
                self.note("unseen", "network: " + host)

    def reached(self, socket, address):
        if isinstance(address, tuple) and "network" not in self.seen:
            self.asked(address[0])


def absolute(path):
    path = fspath(path)
    if path.__class__ is bytes:
        path = fsdecode(path)
    if not path.startswith("/"):
        path = join(get_folder(), path)
    if path.endswith(("/.", "/..", "/")):
        return real(path)
    if "/./" in path or "/../" in path or "//" in path:
        head, _, tail = path.rpartition("/")
        path = join(real(head), tail)
    return path
