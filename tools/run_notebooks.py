"""Executes the notebooks of docs/notebooks/ from top to bottom and keeps what they print and draw.

    python tools/run_notebooks.py [NAME ...]             # writes outputs into the notebooks
    python tools/run_notebooks.py --out DIR [NAME ...]   # into copies in DIR

Exit 1, with the cell and the error, where one fails. TF_LARGEBATCH_DATA names the folder that has
fashion_mnist/; without it a notebook takes pictures that need no download.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
CELL_SECONDS = 900
# Warnings of the machine, which differ from one to the next.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}


def execute(path: Path) -> nbformat.NotebookNode:
    """Returns the notebook with fresh outputs, without times and the machine's warnings."""
    notebook = nbformat.read(path, as_version=4)
    limits = {"timeout": CELL_SECONDS, "startup_timeout": CELL_SECONDS}
    NotebookClient(notebook, **limits, resources={"metadata": {"path": FOLDER}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:  # a figure's own text says only its size
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/plain", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> int:
    """Executes and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="of the copies")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    os.environ |= QUIET
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or names:
        try:
            notebook = execute(FOLDER / f"{name}.ipynb")
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, arguments.out / f"{name}.ipynb")
        print(f"{name}: done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
