"""What a Python kernel opens, lists, imports and starts, noted while it happens.

:func:`note_opened` goes into the kernel as text (:func:`kernel_source`), so it stands on the standard library of any
Python from 3.8 on, and nothing of it is seen by the notebook. One JSON line a fact, written once:
``["read", path, size, modified, changed]`` (the path alone where there is no such file), ``["own", path]`` for what the
notebook makes itself, ``["made", folder]``, ``["listed", folder, names]``, ``["import", name]``, ``["places", paths]``
and ``["unseen", what]`` for what goes on where this hook cannot look. :mod:`harness.execute.reads` makes sense of them.
"""

# ruff: noqa: PTH109, PTH110, PTH112, PTH113, PTH118, PTH119, PTH120, SIM105
from __future__ import annotations

import inspect

NOTES = "opened.jsonl"
"""The file in the job's folder; the kernel finds that folder by the variable for metrics."""

READS = "reads.json"
"""What :mod:`harness.execute.reads` makes of it, beside the job's result."""


_START = """
import os
{source}
try:
    note_opened(os.environ.get("HARNESS_METRICS"), {notes!r})
except Exception:
    pass
"""


def kernel_source() -> str:
    """Code that starts the notes in a kernel of a job; elsewhere, and where it fails, it does nothing."""
    source = inspect.getsource(note_opened)
    return _START.format(source=source, notes=NOTES)


def note_opened(metrics, notes):  # type: ignore[no-untyped-def]  # text for an older Python, too
    """Note into the file *notes* beside *metrics*. The hook never raises but for an interrupt, which is the cell's."""
    import json
    import os
    import site
    import stat
    import sys
    import sysconfig
    import time
    from importlib.util import source_from_cache

    if not metrics or not hasattr(sys, "addaudithook"):
        return
    target = os.path.join(os.path.dirname(metrics), notes)
    here, machine = os.getcwd(), os.uname().nodename
    get_stat, list_names, get_frame, get_folder = os.stat, os.listdir, sys._getframe, os.getcwd
    open_file, write, close, real, join = os.open, os.write, os.close, os.path.realpath, os.path.join
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    create, truncate, write_only, access = os.O_CREAT, os.O_TRUNC, os.O_WRONLY, os.O_ACCMODE
    is_file, dumps, fspath, fsdecode = stat.S_ISREG, json.dumps, os.fspath, os.fsdecode
    paths = sysconfig.get_paths()
    installed = {*paths.values(), sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(),
                 site.getusersitepackages(), "/proc", "/sys", "/dev", "/etc", "/run", "/usr",
                 "/lib", "/System"}  # fmt: skip
    installed |= {real(place) for place in installed}
    folders = [place.rstrip("/") + "/" for place in installed]
    passed_over = (os.path.dirname(target) + "/", *(f for f in folders if not (here + "/").startswith(f)))
    standard = tuple(
        {paths["stdlib"] + "/", paths["platstdlib"] + "/", os.path.dirname(os.__file__) + "/", "<frozen"}
    )
    of_the_machine = {
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
    ours = get_frame().f_code.co_filename
    seen = set()

    def note(*fact):
        file = open_file(target, appending, 0o600)  # anew: a descriptor kept open is the notebook's to close
        try:
            write(file, (dumps(fact) + "\n").encode())
        finally:
            close(file)

    def once(*key):
        if key in seen:
            return False
        seen.add(key)
        return True

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

    def opened(path, mode, flags):
        if path is target or (path.__class__ is str and path.startswith(passed_over)):
            return
        path = absolute(path)
        if path.endswith(".pyc") and "/__pycache__/" in path:
            path = source_from_cache(path)
        if path.startswith(passed_over) or "/__pycache__/" in path or not once(path, flags):
            return
        try:
            status = get_stat(path)
        except OSError:
            status = None
        if status is not None and not is_file(status.st_mode):
            return
        if flags & create and (status is None or flags & truncate):
            note("own", path)
        elif status is None:
            note("read", path)
        elif flags & access != write_only:
            note("read", path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def callers():
        frame = get_frame(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == ours:
                pass
            elif "importlib" in name or "pkgutil" in name:
                yield "import"
            elif "/site-packages/" in name or "/dist-packages/" in name:
                yield "library"
            elif not name.startswith(standard):
                yield "user"
            frame = frame.f_back

    def listed(folder=None):
        if folder.__class__ is int:
            return
        folder = absolute("." if folder is None else folder)
        if (folder + "/").startswith(passed_over) or ("listed", folder) in seen:
            return
        caller = next(callers(), "library")
        if caller == "import" or (caller == "library" and folder in (absolute(p or ".") for p in sys.path)):
            return  # looks for modules or for installed distributions
        if once("listed", folder):
            note("listed", folder, list_names(folder))

    def imported(name, file, path, *rest):
        if path is None:  # a compiled module is loaded
            if file is not None:
                opened(file, "rb", 0)
            return
        if "." in name or not once("import", name):
            return
        if once("places", *path):
            note(
                "places",
                [p for p in (absolute(p or ".") for p in path) if not (p + "/").startswith(passed_over)],
            )
        note("import", name)

    def made(folder, mode, directory=-1):
        folder = absolute(folder)
        if (
            directory < 0
            and not folder.startswith(passed_over)
            and not os.path.exists(folder)
            and once("made", folder)
        ):
            note("made", folder)

    def renamed(source, goal, *directories):
        source, goal = absolute(source), absolute(goal)
        if not goal.startswith(passed_over) and "/__pycache__/" not in goal:
            opened(source, "rb", 0)  # where it is not the notebook's own
            note("made" if os.path.isdir(source) else "own", goal)

    def connected(database):
        if database and database not in (":memory:", b":memory:"):
            opened(database, None, os.O_RDWR | create)

    def loaded(name):
        if name and os.path.isfile(name):
            opened(name, "rb", 0)

    def started(command, arguments=None, *rest):
        if next((c for c in callers() if c != "library"), "user") == "import":
            return
        if arguments is not None and not isinstance(arguments, (str, bytes)):
            command = arguments[-1] if len(arguments) > 2 and arguments[-2] == "-c" else arguments
        parts = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
        text = " ".join(" ".join(fsdecode(part) for part in parts).split())
        if os.path.basename(text.partition(" ")[0]) not in of_the_machine and once("unseen", text):
            note("unseen", "`" + (text if len(text) <= 60 else text[:59] + "…") + "`")

    def asked(host, *rest):
        if isinstance(host, bytes):
            host = host.decode()
        if host and host not in ("localhost", "::1", "0.0.0.0", machine) and not host.startswith("127."):
            seen.add("network")
            if once("unseen", host):
                note("unseen", "network: " + host)

    def reached(socket, address):
        if isinstance(address, tuple) and "network" not in seen:
            asked(address[0])

    find = {
        "open": opened, "os.listdir": listed, "os.scandir": listed, "import": imported, "os.mkdir": made,
        "os.rename": renamed, "sqlite3.connect": connected, "ctypes.dlopen": loaded, "subprocess.Popen": started,
        "os.system": started, "os.exec": started, "os.posix_spawn": started, "os.startfile": started,
        "socket.getaddrinfo": asked, "socket.gethostbyname": asked, "socket.connect": reached,
    }.get  # fmt: skip

    def hook(event, arguments):
        handler = find(event)
        if handler is not None:
            try:
                handler(*arguments)
            except Exception:  # as fast as can be
                pass

    shell = sys.modules["IPython"].get_ipython()
    note("start", time.time_ns())
    sys.addaudithook(hook)
    for module in list(sys.modules.values()):  # what ran before: sitecustomize, say
        hook("open", (getattr(module, "__dict__", {}).get("__file__"), "rb", 0))
    profile = shell.profile_dir
    before = [join(profile.location, name) for name in ("ipython_config.py", "ipython_kernel_config.py")]
    startup = list_names(profile.startup_dir)
    before += [join(profile.startup_dir, name) for name in startup if name.endswith((".py", ".ipy"))]
    for file in (*before, os.environ.get("PYTHONSTARTUP")):
        hook("open", (file, "rb", 0))
