"""Runs in a Python kernel before the first cell, from its source alone, in a namespace of its own.

It makes the kernel tell what it would hide: a failing ``!command`` raises, and every error that IPython shows reaches
the notebook. It must run on any Python and IPython that a notebook may ask for.
"""


def set_up(fallback):
    """Prepare this kernel; *fallback* ends up last on ``sys.path`` where ``harness`` cannot be imported."""
    import atexit
    import importlib.util
    import sys

    from IPython import get_ipython

    shell = get_ipython()
    check_commands(shell)
    atexit.register(flush_last_words)
    if hasattr(shell, "_showtraceback") and hasattr(shell, "_get_exc_info"):
        tell_errors(shell)
    if fallback and importlib.util.find_spec("harness") is None:
        sys.path.append(fallback)


def flush_last_words():
    """Registered first, so run last: what threads and exit handlers print is sent while there still is a way."""
    import sys

    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def check_commands(shell):
    """A failing ``!command`` raises."""
    import subprocess

    if hasattr(shell, "system_raise_on_error"):
        shell.system_raise_on_error = True
        return
    system = shell.system

    def checked(command):
        system(command)
        if shell.user_ns.get("_exit_code"):
            raise subprocess.CalledProcessError(shell.user_ns["_exit_code"], command)

    shell.system = checked


def tell_errors(shell):
    """Errors that IPython only prints become outputs like all others.

    A group of exceptions goes to stderr, as text without the cell's name; under ``%%capture`` that, and the wrong use
    of a magic, would vanish.
    """
    import builtins
    import sys
    import traceback

    show, send, stderr = shell.showtraceback, shell._showtraceback, sys.stderr
    groups = getattr(builtins, "BaseExceptionGroup", ())
    told = []

    def tell(kind, error, lines):
        told.append(error)
        send(kind, error, lines)

    def holds_group(error):
        seen = set()
        while error is not None and id(error) not in seen:
            if isinstance(error, groups):
                return True
            seen.add(id(error))
            error = error.__cause__ or error.__context__
        return False

    def as_text(kind, error, trace):
        while trace is not None and trace.tb_next and "IPython" in trace.tb_frame.f_code.co_filename:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(kind, error, trace))
        for name, count in getattr(shell.compile, "_filename_map", {}).items():
            text = text.replace('File "%s", line' % name, "Cell In[%s], line" % count)  # noqa: UP031
        return text

    def showtraceback(*args, **options):
        kind, error, trace = shell._get_exc_info(options.get("exc_tuple") or (args[0] if args else None))
        del told[:]
        if holds_group(error) and not options.get("exception_only"):
            tell(kind, error, as_text(kind, error, trace).splitlines())
            if shell.call_pdb:
                shell.debugger(force=True)
            return
        show(*args, **options)
        if not told and sys.stderr is not stderr:
            tell(kind, error, as_text(kind, error, trace).splitlines())

    shell._showtraceback, shell.showtraceback = tell, showtraceback
