"""Updates results/scores.csv and the tables between markers in Markdown files; finds those that are out of date."""

from vessels import UserError
from vessels.files import ROOT, write_atomically
from vessels.report import ablation, bland_altman, comparison, scores

# For each file, what makes it from the results folder, or what makes the text between `<!-- name: begin -->` and
# `<!-- name: end -->`.
DOCUMENTS = {
    "README.md": {"results": comparison.short_table, "general": comparison.general},
    "results/README.md": {"reproduction": comparison.reproduction, "cameras": comparison.cameras,
                          "methods": comparison.methods, "measures": bland_altman.markdown,
                          "groups": comparison.groups},
    "results/ablation.md": {"ablation": ablation.markdown},
    "results/scores.csv": scores.csv_text,
    "weights/README.md": {"training": comparison.training},
}


def filled(path, text, name, content):
    """`text`, of the file `path`, with `content` between the markers of `name`; UserError unless there is one pair."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise UserError(f"{path}: must have each of the lines '{begin.strip()}' and '{end}' once; put them where the "
                        "table belongs")
    before, after = text.split(begin)
    return before + begin + content + end + after.split(end)[1]


def update(root=ROOT, check=False):
    """Puts what `DOCUMENTS` lists into the files below `root`, from `root/results`; with `check`, writes nothing.

    Returns:
        list of str, the files that were out of date.

    Raises:
        UserError: There is no such file, or no pair of markers in it.
    """
    stale = []
    for path, contents in DOCUMENTS.items():
        try:
            old = new = (root / path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{root / path}: {error.strerror}; run this in a checkout of the project") from None
        if callable(contents):
            new = contents(root / "results")
        for name, make in () if callable(contents) else contents.items():
            new = filled(root / path, new, name, make(root / "results"))
        if new != old:
            stale.append(path)
            if not check:
                write_atomically(root / path, new)
    return stale
