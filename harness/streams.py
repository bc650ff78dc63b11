"""A cell's text output: merged as it arrives, progress lines reduced, and never more than a notebook can hold.

nbclient's ``coalesce_streams`` looks for carriage returns with a pattern whose time grows with the square of a
line's length and that holds the interpreter lock meanwhile. Here everything is linear in what was printed.
"""

from __future__ import annotations

from typing import Any

from nbformat.v4 import new_output

MAX_TEXT = 10_000_000
"""Characters of text that one cell may leave in the notebook; the rest is counted and left out."""

_REDUCE_EVERY = 1_000_000  # characters; progress bars are reduced before they fill the cell's room


def last_on_line(text: str) -> str:
    """What a terminal shows in the end: a carriage return starts the line anew."""
    if "\r" not in text:
        return text
    *lines, open_line = text.split("\n")
    shown = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]
    rest = open_line.rstrip("\r")
    tail = "\r" if len(rest) < len(open_line) else ""  # the next message may overwrite this line
    return "\n".join([*shown, rest.rsplit("\r", 1)[-1] + tail])


def cut(text: str, length: int = MAX_TEXT) -> str:
    """At most *length* characters of *text*, with a note on what is missing."""
    return text if len(text) <= length else text[:length] + _note(len(text) - length)


def cut_output(output: Any) -> None:
    """Limit the plain text of a result or an error, in place."""
    data = output.get("data", {})
    if isinstance(data.get("text/plain"), str):
        data["text/plain"] = cut(data["text/plain"])
    if "evalue" in output:
        output["evalue"] = cut(str(output["evalue"]))
        output["traceback"] = [cut(part) for part in output.get("traceback", ())]


def _note(characters: int) -> str:
    return f"\n… {characters:,} characters left out\n"


class _Stream:
    """One stream output that still grows."""

    def __init__(self, name: str) -> None:
        self.node = new_output("stream", name=name, text="")
        self.parts: list[str] = []
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

    def add(self, outputs: list[Any], name: str, text: str) -> None:
        """Take what the kernel printed; *outputs* is the cell's list, extended where needed."""
        if not outputs:  # a new cell, or clear_output
            self._streams, self._settled = {}, 0
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
            text = "".join(stream.parts)
            stream.node["text"] = text + _note(stream.left_out) if stream.left_out else text

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
        text = last_on_line("".join(stream.parts))
        others = self._settled + sum(s.size for s in self._streams.values() if s is not stream)
        room = max(MAX_TEXT - others, 0)
        if len(text) > room:
            stream.left_out += len(text) - room
            text = text[:room]
        stream.parts, stream.size = [text], len(text)
