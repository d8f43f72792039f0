"""Updates results/scores.csv and the tables between markers in Markdown files; finds those that are out of date."""

import re

from vessels import UserError
from vessels.files import ROOT, write_atomically
from vessels.report import ablation, bland_altman, comparison, scores

# For each file, what makes the text between `<!-- name: begin -->` and `<!-- name: end -->` from the results folder.
# Without a name, it makes the whole file.
DOCUMENTS = {
    "README.md": {"results": comparison.short_table, "general": comparison.general},
    "results/README.md": {"reproduction": comparison.reproduction, "cameras": comparison.cameras,
                          "methods": comparison.methods, "measures": bland_altman.markdown,
                          "groups": comparison.groups},
    "results/ablation.md": {"ablation": ablation.markdown},
    "results/scores.csv": {None: scores.csv_text},
}


def filled(path, text, name, content):
    """`text`, of the file `path`, with `content` between the markers of `name`; UserError unless there is one pair."""
    markers = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
    text, count = re.subn(markers, lambda match: match[1] + content + match[2], text, flags=re.DOTALL)
    if count != 1:
        raise UserError(f"{path}: must have the lines '<!-- {name}: begin -->' and '<!-- {name}: end -->' once, where "
                        "the table belongs")
    return text


def update(root=ROOT, check=False):
    """Puts what `DOCUMENTS` lists into the files below `root`, from `root/results`; with `check`, writes nothing.

    Returns:
        list of str, the files that were out of date.

    Raises:
        UserError: There is no pair of markers in a file.
    """
    stale = []
    for path, contents in DOCUMENTS.items():
        old = new = (root / path).read_text(encoding="utf-8")
        for name, make in contents.items():
            content = make(root / "results")
            new = filled(root / path, new, name, content) if name else content
        if new != old:
            stale.append(path)
            if not check:
                write_atomically(root / path, new)
    return stale
