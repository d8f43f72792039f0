"""Updates results/scores.csv, all tables of README.md and results/, and the results page.

    python -m vessels.report            # the tables, from results/*/*/metrics.json; and, if the images and the maps
                                        # of eval_*.py are available, results/index.html
    python -m vessels.report --check    # writes nothing; exit code 1 if a table is out of date
"""

import sys

from vessels import exit_code, parser_for
from vessels.report import page, readme_tables


def main(argv=None):
    """Runs `python -m vessels.report`: 0; 1 if a table is out of date or a file was left out; 2 after an error."""
    parser = parser_for(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is out of date")
    check = parser.parse_args(argv).check

    def command():
        stale = readme_tables.update(check=check)
        if check:
            if stale:
                print(f"out of date: {', '.join(stale)}; update with `python -m vessels.report`", file=sys.stderr)
            return int(bool(stale))
        lines = page.write()
        print("\n".join(lines))
        return int(any(line.startswith("left out") for line in lines))

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
