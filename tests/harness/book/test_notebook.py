"""Files that are no notebooks, or broken ones: one clear line for each."""

from __future__ import annotations

import json
import os

import pytest

from harness.book.notebook import InvalidNotebook, read_document, read_notebook
from harness.execute.kernel.job import JobFolder, run_job
from harness.model import Job, JobState, Limits


def document(cell=None, **more):
    plain = {"cell_type": "code", "id": "one", "metadata": {}, "source": "1", "outputs": []}
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{**plain, **(cell or {})}], **more}
    )


PROBLEMS = {
    "": "the file is empty",
    " \n": "the file is empty",
    "not json": "broken JSON in line 1",
    "[]": "no nbformat field",
    "[" * 100_000: "nested too deep",
    '{"nbformat": 4, "cells": 3}': "no list of cells",
    '{"cells": []}': "no nbformat field",
    document(nbformat=3): "notebook format 3; save it in format 4",
    document(nbformat="4"): "notebook format '4'; save it in format 4",
    document(nbformat_minor="5"): "nbformat_minor must be a whole number",
    document(metadata=[]): "metadata must be an object, not a list",
    document(metadata={"kernelspec": "python3"}): "metadata.kernelspec must be an object, not text",
    document(metadata={"kernelspec": {"name": ["x"]}}): "metadata.kernelspec.name must be text, not a list",
    document(metadata={"kernelspec": {"language": 5}}): "metadata.kernelspec.language must be text",
    document(metadata={"language_info": "python"}): "metadata.language_info must be an object, not text",
    document(metadata={"language_info": {"name": 3}}): "metadata.language_info.name must be text",
    document({"cell_type": 5}): "cell 1: it has no cell_type",
    document({"source": 5}): "cell 1: source must be text or a list of lines, not a number",
    document({"source": [1, 2]}): "cell 1: source must be text or a list of lines, not a list that holds",
    document({"metadata": []}): "cell 1: metadata must be an object, not a list",
    document({"metadata": {"tags": 5}}): "cell 1: tags must be a list of texts, not a number",
    document({"metadata": {"tags": "x"}}): "cell 1: tags must be a list of texts, not text",
    document({"id": 5}): "cell 1: id must be text",
    document({"outputs": 5}): "cell 1: outputs must be a list",
    document({"source": "'\ud800'"}): "half a surrogate pair",
}
BROKEN = list(PROBLEMS)


@pytest.mark.parametrize(("text", "problem"), PROBLEMS.items(), ids=range(len(PROBLEMS)))
def test_what_is_wrong_is_said(tmp_path, text, problem):
    path = tmp_path / "a.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidNotebook) as caught:
        read_notebook(path)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    """A pipe may never say anything, and a device such as /dev/zero never stops."""
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(InvalidNotebook, match=r"pipe\.ipynb is not a notebook: it is a pipe or a device"):
        read_notebook(tmp_path / "pipe.ipynb")


def test_what_may_be_missing_is_filled_in(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', encoding="utf-8")
    (cell,) = read_document(path)["cells"]
    assert (cell["source"], cell["metadata"], cell["outputs"]) == ("", {}, [])
    assert read_notebook(path).language == "python"


def end_of(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text, encoding="utf-8")
    job = Job("job", path, None, "offline", None, {}, Limits(30, 30))
    return run_job(JobFolder(job, tmp_path / "job"))


@pytest.mark.slow
@pytest.mark.parametrize("text", [document({"metadata": {"tags": 5}}), document(nbformat="4")])
def test_a_broken_notebook_ends_as_invalid(tmp_path, text):
    result = end_of(tmp_path, text)
    assert result.state is JobState.INVALID and "\n" not in result.reason
    assert "a.ipynb" in result.reason


@pytest.mark.slow
def test_a_sparse_notebook_runs_whatever_papermill_left_in_it(tmp_path):
    cells = [{"cell_type": "code", "source": ["1"]}, {"cell_type": "code"}]
    cells[0]["metadata"] = {"papermill": 5}
    text = json.dumps({"nbformat": 4, "metadata": {"papermill": [1]}, "cells": cells})
    result = end_of(tmp_path, text)
    assert (result.state, result.reason) == (JobState.COMPLETED, "")


def test_cells_without_an_id_of_their_own_are_named_by_their_number(tmp_path):
    """Cells of all kinds are counted, from 1; an id that is taken is not given twice."""
    cells = [
        {"cell_type": "markdown", "source": ""},
        {"cell_type": "code", "source": "", "id": "own"},
        {"cell_type": "code", "source": ""},
        {"cell_type": "code", "source": "", "id": "cell-5"},
        {"cell_type": "code", "source": "", "id": ""},
        {"cell_type": "code", "source": "", "id": "own"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 4, "cells": cells}), encoding="utf-8")
    assert [cell.id for cell in read_notebook(path).cells] == [
        "cell-1",
        "own",
        "cell-3",
        "cell-5",
        "cell-5-",
        "cell-6",
    ]
