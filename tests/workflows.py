"""A workflow of `.github/` played on this machine: its conditions, and its steps in the shell that GitHub would take.

The actions that steps use are played, too: a checkout is a clone of a local repository, artefacts lie in a folder, a
cache is empty. Other machines are not: nothing here knows of runners, containers, time limits, rights or concurrency.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
ENVIRONMENT = Path(sys.prefix)  # its packages stand for those that a job installs
_STATUS = re.compile(r"\b(success|failure|cancelled|always)\(\)")
_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(\|\||&&|==|!=|[!(),])|([\w.-]+))")


def read_workflow(name: str) -> dict[str, Any]:
    """The workflow of that name as written: every scalar a string, so that the key `on` stays a word."""
    return yaml.load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression of GitHub's; *names* has the contexts, and functions as callables.

    Covered: literals, names with dots, calls, `!`, `==`, `!=`, `&&`, `||` and parentheses, with GitHub's rules: a name
    that is not there is null, text is compared without case, and `a || b` is one of the two.

    Raises:
        ValueError: the expression is not one of those.
    """
    tokens = []
    while expression.strip():
        if not (match := _TOKEN.match(expression)):
            raise ValueError(f"cannot be read: {expression}")
        tokens.append(match[0].strip())
        expression = expression[match.end() :]
    value = _either(tokens, names)
    if tokens:
        raise ValueError(f"left over: {' '.join(tokens)}")
    return value


def fill(text: str, names: Mapping[str, Any]) -> str:
    """*text* with each `${{ … }}` replaced by its value, as GitHub writes it."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: _written(evaluate(match[1], names)), text)


def _either(tokens: list[str], names: Mapping[str, Any]) -> Any:
    value = _both(tokens, names)
    while tokens[:1] == ["||"]:
        tokens.pop(0)
        other = _both(tokens, names)
        value = value or other
    return value


def _both(tokens: list[str], names: Mapping[str, Any]) -> Any:
    value = _compared(tokens, names)
    while tokens[:1] == ["&&"]:
        tokens.pop(0)
        other = _compared(tokens, names)
        value = value and other
    return value


def _compared(tokens: list[str], names: Mapping[str, Any]) -> Any:
    value = _single(tokens, names)
    while tokens[:1] in (["=="], ["!="]):
        wanted = tokens.pop(0) == "=="
        value = _same(value, _single(tokens, names)) is wanted
    return value


def _single(tokens: list[str], names: Mapping[str, Any]) -> Any:
    if not tokens:
        raise ValueError("an expression ends too early")
    token = tokens.pop(0)
    if token == "!":
        return not _single(tokens, names)
    if token == "(":
        value = _either(tokens, names)
        _expect(")", tokens)
        return value
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    if token in ("true", "false", "null") or re.fullmatch(r"-?\d+(\.\d+)?", token):
        return json.loads(token)
    if tokens[:1] == ["("]:
        tokens.pop(0)
        arguments: list[Any] = []
        while tokens[:1] != [")"]:
            if arguments:
                _expect(",", tokens)
            arguments.append(_either(tokens, names))
        tokens.pop(0)
        return names[token](*arguments)
    value: Any = names
    for part in token.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _expect(token: str, tokens: list[str]) -> None:
    if tokens[:1] != [token]:
        raise ValueError(f"{token} expected, not {' '.join(tokens) or 'the end'}")
    tokens.pop(0)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    return _number(one) == _number(other) if type(one) is not type(other) else one == other


def _number(value: Any) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return float("nan")


def _written(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass
class Play:
    """One start of a workflow; `run` plays its jobs in the order of their needs.

    Attributes:
        workflow: name of its file, without ending.
        folder: where checkouts, artefacts and what is logged go.
        origin: the repository that is checked out, and pushed to.
        github: the `github` context: `event_name`, and what of `event` the workflow asks for.
        inputs: those of a start by hand, as strings and booleans.
        variables: the repository's, `vars` in expressions.
        lost: jobs, as "name" or "name-index", whose machine goes away before the first step.
        results: how each job ended: success, failure or skipped.
        logs: what the steps of each job printed, by "name" or "name-index".
    """

    workflow: str
    folder: Path
    origin: Path
    github: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    lost: Collection[str] = ()
    results: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.read = read_workflow(self.workflow)
        self.artifacts.mkdir(parents=True)
        self.commands.mkdir()
        given = {
            "repository": "someone/a-book",
            "ref": "refs/heads/main",
            "ref_name": "main",
            "sha": "0123456789abcdef0123456789abcdef01234567",
            "run_id": "42",
            "actor": "somebody",
            "token": "a token",
        }
        self.github = {**given, **self.github}

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def commands(self) -> Path:
        """Folder of programs that stand before the machine's own."""
        return self.folder / "commands"

    @property
    def calls(self) -> list[str]:
        """How the commands of `stand_in` were called."""
        log = self.folder / "calls.txt"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text(encoding="utf-8")

    def stand_in(self, command: str, script: str = "") -> None:
        """Put a program in place of *command*: it notes how it was called, then does what *script* says."""
        path = self.commands / command
        log = self.folder / "calls.txt"
        path.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"{command} $*\" >> '{log}'\n{script}\n", encoding="utf-8"
        )
        path.chmod(0o755)

    def starts(self, job: str) -> bool:
        """Whether *job* starts, given how those that it needs have ended."""
        written = self.read["jobs"][job]
        needs = written.get("needs", [])
        results = [self.results[need] for need in ([needs] if isinstance(needs, str) else needs)]
        return self._holds(written, self._names(job), all(result == "success" for result in results))

    def run(self, *jobs: str) -> dict[str, str]:
        """Play *jobs*, or all; what they need must come before them, as it does in a workflow's file."""
        for name in jobs or self.read["jobs"]:
            if not self.starts(name):
                self.results[name] = "skipped"
                continue
            ended = [self._play(name, *instance) for instance in self._instances(name)]
            self.results[name] = "success" if all(ended) else "failure"
        return self.results

    def _names(self, job: str, **more: Any) -> dict[str, Any]:
        needs = {name: {"result": result} for name, result in self.results.items()}
        return {
            "github": self.github,
            "inputs": self.inputs,
            "vars": self.variables,
            "needs": needs,
            "fromJSON": json.loads,
            "hashFiles": lambda *patterns: "0" * 64,
            "cancelled": lambda: False,
            "always": lambda: True,
            **more,
        }

    def _holds(self, written: Mapping[str, Any], names: Mapping[str, Any], well: bool) -> bool:
        """Whether the `if` of a job or step holds, where all went *well* before it or not."""
        condition = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", written.get("if", "success()").strip())
        if not _STATUS.search(condition):
            condition = f"success() && ({condition})"
        return bool(evaluate(condition, {**names, "success": lambda: well, "failure": lambda: not well}))

    def _instances(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Label and names of each combination of the job's matrix."""
        matrix = self.read["jobs"][job].get("strategy", {}).get("matrix")
        if matrix is None:
            yield job, self._names(job)
            return
        for index, values in enumerate(itertools.product(*matrix.values())):
            combination = dict(zip(matrix, values, strict=True))
            yield f"{job}-{index}", self._names(job, matrix=combination, strategy={"job-index": index})

    def _play(self, job: str, label: str, names: dict[str, Any]) -> bool:
        """Play one machine's steps; whether all went well."""
        self.logs[label] = ""
        if label in self.lost:
            return False
        workspace = self.folder / "checkouts" / label
        workspace.mkdir(parents=True)
        kept = self.folder / f"{label}.env"
        kept.touch()
        steps: dict[str, Any] = {}
        names = {**names, "steps": steps}
        well = True
        for step in self.read["jobs"][job]["steps"]:
            if not self._holds(step, names, well):
                continue
            if "uses" in step:
                given = {key: fill(value, names) for key, value in step.get("with", {}).items()}
                outputs = self._act(step["uses"].partition("@")[0], given, workspace, job)
                steps[step.get("id")] = {"outputs": outputs}
            else:
                well = self._shell(job, step, workspace, kept, names, label) and well
        return well

    def _shell(
        self,
        job: str,
        step: Mapping[str, Any],
        workspace: Path,
        kept: Path,
        names: Mapping[str, Any],
        label: str,
    ) -> bool:
        written = [part.get("env", {}) for part in (self.read, self.read["jobs"][job], step)]
        asked = {key: fill(value, names) for part in written for key, value in part.items()}
        told = dict(line.split("=", 1) for line in kept.read_text(encoding="utf-8").splitlines())
        script = self.folder / "step.sh"
        script.write_text(fill(step["run"], names), encoding="utf-8")
        done = subprocess.run(
            [shell_of(self.read["jobs"][job]), "-e", str(script)],
            cwd=workspace,
            env={**self._machine(job, workspace, kept), **asked, **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.logs[label] += done.stdout
        return done.returncode == 0

    def _machine(self, job: str, workspace: Path, kept: Path) -> dict[str, str]:
        """The variables that a runner sets; a container's `python` has the book's packages already."""
        own = [str(ENVIRONMENT / "bin")] if "container" in self.read["jobs"][job] else []
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        variables = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_ENV": str(kept),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(self.commands), *own, os.environ["PATH"]]),
            "PIP_NO_INDEX": "1",  # nothing may be installed into the environment of the tests
        }
        given = ("repository", "ref", "ref_name", "sha", "run_id", "actor", "event_name")
        return {**variables, **{f"GITHUB_{name.upper()}": str(self.github[name]) for name in given}}

    def _act(self, action: str, given: Mapping[str, str], workspace: Path, job: str) -> dict[str, str]:
        """Do what *action* would; its outputs."""
        match action.removeprefix("actions/"):
            case "checkout":
                subprocess.run(["git", "clone", "--quiet", str(self.origin), str(workspace)], check=True)
                if "container" not in self.read["jobs"][job]:
                    link_environment(workspace)
            case "setup-python" | "cache":
                pass
            case "upload-artifact":
                target = self.artifacts / given["name"]
                if target.exists() and given.get("overwrite") != "true":
                    raise FileExistsError(f"two artefacts of the name {given['name']}")
                if (workspace / given["path"]).exists():  # otherwise GitHub warns
                    shutil.copytree(workspace / given["path"], target)
            case "download-artifact":
                found = sorted(self.artifacts.glob(given.get("pattern", given.get("name", "*"))))
                if "name" in given and not found:
                    raise FileNotFoundError(f"no artefact {given['name']}")
                for artifact in found:  # one alone lies in the folder itself
                    inner = workspace / given["path"] / (artifact.name if len(found) > 1 else "")
                    shutil.copytree(artifact, inner, dirs_exist_ok=True)
            case "upload-pages-artifact":
                shutil.copytree(workspace / given["path"], self.artifacts / "github-pages")
            case "deploy-pages":
                assert (self.artifacts / "github-pages" / "index.html").exists()
                return {"page_url": "https://someone.github.io/a-book/"}
            case _:
                raise NotImplementedError(action)
        return {}


def shell_of(job: Mapping[str, Any]) -> str:
    """The shell of a job's steps where none is named: in a container `sh`, elsewhere `bash`."""
    return "sh" if "container" in job else "bash"


def link_environment(checkout: Path) -> None:
    """Give *checkout* a `.venv` that holds the packages of the tests and counts as up to date."""
    venv = checkout / ".venv"
    venv.mkdir()
    for entry in ENVIRONMENT.iterdir():
        if not entry.name.startswith("."):
            (venv / entry.name).symlink_to(entry)
    for stamp in (".harness", ".site", ".copies", ".test"):
        (venv / stamp).touch()
