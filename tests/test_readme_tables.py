"""Tables between the markers of Markdown files."""

import json

import pytest
from test_report import measured

from vessels import UserError
from vessels.report import __main__ as command
from vessels.report import readme_tables

SECTION = "before\n<!-- {0}: begin -->\noutdated\n<!-- {0}: end -->\nafter\n"
FILES = {path: "".join(map(SECTION.format, contents)) for path, contents in readme_tables.DOCUMENTS.items()}
MARKED = [path for path in FILES if path.endswith(".md")]


@pytest.fixture
def root(tmp_path):
    """A folder with all documents and the results of one network."""
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    folder = tmp_path / "results" / "DRIVE" / "rsan"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(measured()))
    return tmp_path


def test_stale_tables_are_named_and_made_anew(root):
    assert readme_tables.update(root, check=True) == list(FILES)
    assert (root / "README.md").read_text(encoding="utf-8") == FILES["README.md"]
    assert readme_tables.update(root) == list(FILES)
    assert readme_tables.update(root) == []
    for path in MARKED:
        text = (root / path).read_text(encoding="utf-8")
        assert "outdated" not in text and text.startswith("before\n") and text.endswith("after\n")
    assert "| rsan |" in (root / "README.md").read_text(encoding="utf-8")
    assert (root / "results/scores.csv").read_text(encoding="utf-8").startswith("set,folder,network")
    (root / "README.md").write_text(FILES["README.md"])
    assert readme_tables.update(root, check=True) == ["README.md"]


@pytest.mark.parametrize("path", MARKED)
def test_a_file_without_markers_is_named(root, path):
    (root / path).write_text("no table here\n")
    with pytest.raises(UserError, match=rf"{path}: must have the lines '<!-- .*: begin -->'"):
        readme_tables.update(root)


def test_no_table_is_stale(capsys):
    assert command.main(["--check"]) == 0, capsys.readouterr().err
