"""Brings what older versions wrote to today's form: records of weights, metrics.json, run folders.

    python -m vessels.migrate                weights/ and results/ of this repository
    python -m vessels.migrate runs/x runs/y  run folders, and other folders that hold records or results

Scores, histories and weights stay as they are. What is in today's form already is left alone.
"""

import sys

from vessels import UserError, exit_code, file_path, parser_for
from vessels.files import ROOT, read_json, write_json

from pretrained import default_name, todays_keys, todays_record

FILES = {"best.weights.h5": "final.weights.h5", "best.json": "final.json", "look": "previews"}


def migrate_metrics(metrics):
    """Today's form of the content of a metrics.json: dict; with the network's name, unless it scores anyone's maps."""
    metrics = todays_keys(metrics)
    if "maps" in metrics or "name" in metrics:
        return metrics
    trained_on = metrics.get("trained_on", metrics["dataset"])
    return {"name": default_name(metrics["variant"], trained_on, metrics["weights"]["recipe"]), **metrics}


def migrate(folder):
    """Migrates all records, results and run folders in `folder`. Yields the paths that changed.

    Raises:
        UserError: A file cannot be read, or both an old and a new name exist.
    """
    for path in sorted(folder.rglob("*")):
        if path.name in FILES and (path.parent / "config.json").exists():
            new = path.with_name(FILES[path.name])
            if new.exists():
                raise UserError(f"{new}: exists beside {path.name}; remove one of the two")
            yield path.rename(new)
    for path in sorted(folder.rglob("*.json")):
        weights = path.with_suffix(".weights.h5").exists()
        if not weights and path.name != "metrics.json":
            continue
        before = read_json(path)
        after = todays_record(before) if weights else migrate_metrics(before)
        if after != before:
            write_json(path, after)
            yield path


def main(argv=None):
    parser = parser_for(__doc__)
    parser.add_argument("folders", nargs="*", type=file_path, default=[ROOT / "weights", ROOT / "results"])
    folders = parser.parse_args(argv).folders

    def command():
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; name a run folder, or one with records or results")
            for path in migrate(folder):
                print(path)

    return exit_code(command)


if __name__ == "__main__":
    sys.exit(main())
