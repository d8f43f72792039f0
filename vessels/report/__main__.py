"""All tables of README.md, results/README.md and results/ablation.md, and the results page, anew.

    python -m vessels.report            # the tables, from results/*/*/metrics.json; where the images and the maps
                                        # of eval_*.py are, results/index.html and results/figure.png
    python -m vessels.report --check    # exit code 1 where a table is stale
"""

import argparse
import sys

from vessels import UserError
from vessels.report import documents, page


def main(argv=None):
    """The command line `python -m vessels.report`: 0; 1 for a stale table or what was left out; 2 for what to mend."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is stale")
    check = parser.parse_args(argv).check
    try:
        stale = documents.update(check=check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if check:
        if stale:
            print(f"stale: {', '.join(stale)}; make them anew with `python -m vessels.report`", file=sys.stderr)
        return int(bool(stale))
    lines = page.write()
    print("\n".join(lines))
    return int(any(line.startswith("left out") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
