"""What one cell shows: text, figures, results and errors, within the room that a notebook has for one cell."""

from __future__ import annotations

import json
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output

from harness.execute.kernel.screen import Screen, complete

MAX_TEXT = 10_000_000
"""Characters of text that one cell may leave in the notebook; the rest is counted and left out."""

MAX_DATA = 20_000_000
"""Characters of figures, results and errors of one cell: beyond, the first ones stay, and the last."""

_OVERHEAD = 200  # characters that any output costs beside its data
_REDUCE_EVERY = 1_000_000  # characters; progress bars are reduced before they fill the cell's room


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


# -- text --------------------------------------------------------------------------------------------


class _Stream:
    """One stream output that still grows."""

    def __init__(self, name: str) -> None:
        self.node = new_output("stream", name=name, text="")
        self.screen = Screen()
        self.parts: list[str] = []  # not yet on the screen
        self.shown = ""  # on the screen
        self.size = 0
        self.left_out = 0
        self.reduce_at = _REDUCE_EVERY


class CellText:
    """The stream outputs of the running cell.

    Streams that no other output separates become one stdout and one stderr, in this order: they come over
    different pipes, so how they interleave is chance.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}  # those at the end of the outputs
        self._settled = 0  # characters in streams that other outputs have closed

    def clear(self) -> None:
        """Nothing is there any more: all of the room is free again."""
        self._streams, self._settled = {}, 0

    def add(self, outputs: list[Any], name: str, text: str) -> None:
        """Take what the kernel printed; *outputs* is the cell's list, extended where needed."""
        if not outputs:
            self.clear()
        elif not any(outputs[-1] is s.node for s in self._streams.values()):
            self.settle()
            self._settled += sum(s.size for s in self._streams.values())
            self._streams = {}
        if name not in self._streams:
            stream = self._streams[name] = _Stream(name)
            before_stderr = name == "stdout" and "stderr" in self._streams
            outputs.insert(len(outputs) - before_stderr, stream.node)
        self._append(self._streams[name], text)

    def settle(self) -> None:
        """Put what was collected into the notebook."""
        for stream in self._streams.values():
            self._reduce(stream)
            stream.node["text"] = stream.shown + (_text_note(stream.left_out) if stream.left_out else "")

    def _append(self, stream: _Stream, text: str) -> None:
        if stream.left_out:
            stream.left_out += len(text)
            return
        stream.parts.append(text)
        stream.size += len(text)
        if stream.size >= stream.reduce_at:
            self._reduce(stream)
            stream.reduce_at = stream.size + max(stream.size, _REDUCE_EVERY)  # linear in all

    def _reduce(self, stream: _Stream) -> None:
        if stream.parts:
            self._show(stream)
        others = self._settled + sum(s.size for s in self._streams.values() if s is not stream)
        room = max(MAX_TEXT - others, 0)
        if len(stream.shown) > room:
            stream.left_out += len(stream.shown) - room
            stream.shown = stream.shown[:room]
            stream.screen, stream.parts = Screen(), []
        stream.size = len(stream.shown)

    def _show(self, stream: _Stream) -> None:
        text = "".join(stream.parts)
        end = complete(text)
        stream.parts = [text[end:]] if end < len(text) else []
        stream.screen.feed(text[:end])
        stream.shown = stream.screen.text()


# -- room --------------------------------------------------------------------------------------------


def cut(text: str, length: int = MAX_TEXT) -> str:
    """At most *length* characters of *text*, with a note on what is missing."""
    return text if len(text) <= length else text[:length] + _text_note(len(text) - length)


def _text_note(characters: int) -> str:
    return f"\n… {characters:,} characters left out\n"


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
