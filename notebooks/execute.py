"""The notebooks as one runs them from top to bottom: `make notebooks` writes what they print and draw into them."""

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def execute(path: Path, steps: int | None = None, **environment: str) -> nbformat.NotebookNode:
    """The notebook with the outputs of a new run.  steps: in place of its own STEPS.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if steps:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = re.sub(r"^STEPS = [0-9_]+", f"STEPS = {steps}", cell.source, flags=re.M)
    folder = {"metadata": {"path": str(path.parent)}}
    options = dict(timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True)
    client = NotebookClient(notebook, resources=folder, **options)
    client.execute(env=os.environ | environment)
    notebook.metadata["language_info"] = {"name": "python"}  # not which version it was
    return notebook


if __name__ == "__main__":
    for path in NOTEBOOKS:
        print(path.name)
        nbformat.write(execute(path), path)
