"""Run a notebook in place, in the folder where it lies: `python execute.py NOTEBOOK`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

path = Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
client = NotebookClient(
    notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": path.parent}}
)
try:
    client.execute()
finally:
    nbformat.write(notebook, path)
