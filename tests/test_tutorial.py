"""The notebook: its saved outputs, and a run from top to bottom."""

import re

import nbclient
import nbformat
import pytest
from conftest import ROOT

PATH = ROOT / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_outputs_are_complete_and_the_file_is_small(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("data" in output for output in outputs) >= 5
    assert PATH.stat().st_size < 2e6


def test_no_photograph_that_may_not_be_redistributed(notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "datasets.load" not in source and "data/" not in source and "RSAN_DATA_ROOT" not in source


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook):
    for cell in notebook.cells:
        cell.source = re.sub(r"\b(epochs|steps_per_epoch)=\d+", r"\1=2", cell.source)
    # Raises an error if a cell does.
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": ROOT}}).execute()
