"""What one cell shows: text, figures, results and errors, within the room that a notebook has for one cell."""

from __future__ import annotations

import json

from nbformat import NotebookNode
from nbformat.v4 import new_output

from harness.execute.kernel.streams import CellText, cut

MAX_DATA = 20_000_000
"""Characters of figures, results and errors of one cell: beyond, the first ones stay, and the last."""

_OVERHEAD = 200  # characters that any output costs beside its data


class CellOutputs:
    """The outputs of one cell while its notebook runs, and every error among them.

    An error counts even where the cell takes it away again (``clear_output``) or shows it in a widget.
    """

    def __init__(self, cell: NotebookNode) -> None:
        self.cell = cell
        self.errors: list[NotebookNode] = []
        self.displays: dict[str, list[NotebookNode]] = {}  # by display id, which may be updated
        self._text = CellText()
        self._clear_next = False
        self._forget()

    def _forget(self) -> None:
        self._used = 0
        self._left_out = [0, 0]  # outputs, characters
        self._note: NotebookNode | None = None
        self._last: NotebookNode | None = None  # the one that is kept though there is no room for it

    def clear(self, wait: bool) -> None:
        """Take everything away: now, or once something new comes."""
        self._clear_next = wait
        if not wait:
            self.cell.outputs[:] = []
            self.displays.clear()
            self._text.clear()
            self._forget()

    def add_text(self, name: str, text: str) -> None:
        self._clear_if_due()
        outputs = self.cell.outputs
        if self._last is not None:  # stays the last, that text grows in one place
            outputs.pop()
        self._text.add(outputs, name, text)
        if self._last is not None:
            outputs.append(self._last)

    def add(self, output: NotebookNode, display_id: str | None = None) -> None:
        """Take a figure, a result or an error."""
        self._clear_if_due()
        limit(output)
        if display_id:
            self.displays.setdefault(display_id, []).append(output)
        outputs, size = self.cell.outputs, size_of(output)
        if self._last is None and self._used + size <= MAX_DATA:
            self._used += size
            outputs.append(output)
        elif output.output_type == "error" and self._used < 2 * MAX_DATA:
            self._used += size
            outputs.insert(len(outputs) - (self._last is not None), output)
        else:
            if self._last is None:
                self._note = new_output("display_data", {"text/plain": ""})
                outputs.append(self._note)
            else:
                self._leave_out(outputs.pop())
            self._last = output
            outputs.append(output)

    def update(self, display_id: str, output: NotebookNode) -> None:
        """Put new data into what was displayed under this id."""
        limit(output)
        for shown in self.displays.get(display_id, ()):
            grown = size_of(output) - size_of(shown)
            if grown > 0 and self._used + grown > MAX_DATA and shown is not self._last:
                output = new_output("display_data", {"text/plain": _note(1, size_of(output))})
                grown = size_of(output) - size_of(shown)
            shown["data"], shown["metadata"] = output["data"], output["metadata"]
            self._used += grown if shown is not self._last else 0

    def settle(self) -> None:
        """Put the text that was collected into the notebook."""
        self._text.settle()

    def _clear_if_due(self) -> None:
        if self._clear_next:
            self.clear(wait=False)

    def _leave_out(self, output: NotebookNode) -> None:
        self._left_out[0] += 1
        self._left_out[1] += size_of(output) - _OVERHEAD
        assert self._note is not None
        self._note["data"]["text/plain"] = _note(*self._left_out)


def size_of(output: NotebookNode) -> int:
    """Characters that *output* takes in the notebook, about."""
    parts = [output.get("data", {}), output.get("metadata", {}), output.get("traceback", ())]
    values = [v for part in parts for v in (part.values() if isinstance(part, dict) else part)]
    texts = (v if isinstance(v, str) else json.dumps(v, default=str) for v in values)
    return _OVERHEAD + sum(map(len, texts)) + len(str(output.get("evalue", "")))


def limit(output: NotebookNode) -> None:
    """Cut a text that is too long, and leave out data that are, in place: half a figure is none."""
    data = output.get("data", {})
    left_out = {}
    for mime, value in data.items():
        size = len(value) if isinstance(value, str) else len(json.dumps(value, default=str))
        if mime == "text/plain" and isinstance(value, str):
            data[mime] = cut(value)
        elif size > MAX_DATA:
            left_out[mime] = size
    for mime, size in left_out.items():
        del data[mime]
        data["text/plain"] = (
            f"{data.get('text/plain', '')}\n… {mime} of {size:,} characters left out".lstrip()
        )
    if "evalue" in output:
        output["evalue"] = cut(str(output["evalue"]))
        output["traceback"] = [cut(part) for part in output.get("traceback", ())]


def _note(outputs: int, characters: int) -> str:
    return f"… {outputs:,} outputs with {characters:,} characters left out"
