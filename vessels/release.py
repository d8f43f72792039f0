"""Copies the weights of a finished training to weights/, and adds their test scores to the JSON.

    python train_drive.py
    python eval_drive.py runs/drive-rsan-0
    python -m vessels.release runs/drive-rsan-0 drive_rsan     # to weights/drive_rsan.weights.h5 and .json

The second name says set, network and, unless they are the default, recipe, training images and seed: any_rsan for
several sets, chase_rsan_all, drive_rsan_authors_seed1.
"""

import sys

from vessels import UserError, exit_code, file_path, parser_for
from vessels.data import published
from vessels.files import ROOT, read_json, sha256, write_atomically, write_json
from vessels.metrics import PROTOCOLS

from pretrained import read_record, record_path, weights_file


def release(run, stem, replace=False, name=None):
    """Copies the weights of `run` and their JSON to weights/`stem`, with `name` in the JSON if given.

    Raises:
        UserError: The training is unfinished, used images outside the published sets, or has not been scored; or
            other weights have that name and `replace` is False.
    """
    weights = weights_file(run)
    record = read_record(weights)
    sets = {dataset.name: dataset for dataset in published.DATASETS}
    names = record["dataset"].split("+")
    if not set(names) <= set(sets):
        raise UserError(f"{weights}: trained on {record['dataset']}; only weights trained on "
                        f"{' or '.join(sets)} are released")
    if record.get("unfinished"):
        raise UserError(f"{weights}: the training is unfinished; finish it before its release")
    test = {}
    for source in names:
        path = weights.parent / "results" / (source if len(names) > 1 else "") / "metrics.json"
        test[source] = figures(path, record, f"python {sets[source].eval_command(weights)}")
    copy = ROOT / "weights" / f"{stem}.weights.h5"
    if copy.exists() and sha256(copy) != record["sha256"] and not replace:
        raise UserError(f"{copy}: other weights have this name; replace them by {weights} with --replace")
    write_atomically(copy, weights.read_bytes())
    record["test"] = test if len(names) > 1 else test[names[0]]
    write_json(record_path(copy), {**record, "name": name or record["name"]})
    print(f"released {copy}")


def figures(path, record, command):
    """The pooled scores in a metrics.json: dict by protocol; UserError if of other weights or another threshold, or
    in bfloat16.
    """
    try:
        metrics = read_json(path)
        threshold = record.get("threshold", 0.5)
        scored = metrics["weights"]["sha256"], metrics["threshold"], metrics.get("precision")
        if scored == (record["sha256"], threshold, None):
            return {protocol: metrics[protocol] for protocol in PROTOCOLS}
    except (UserError, KeyError):
        pass
    raise UserError(f"{path}: holds no scores of these weights at this threshold; make them with `{command}`")


def main(argv=None):
    """The command line `python -m vessels.release`: 0, or 2 after an error that names the remedy."""
    parser = parser_for(__doc__)
    parser.add_argument("run", type=file_path, help="run folder, or weights with their JSON")
    parser.add_argument("stem", help="the file's name in weights/, such as drive_rsan_seed1")
    parser.add_argument("--name", help="the network's name in tables, without its seed (default: as in the JSON, else "
                        "by variant and recipe, such as \"rsan, authors' recipe\")")
    parser.add_argument("--replace", action="store_true", help="replace released weights of the same name")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: release(arguments.run, arguments.stem, arguments.replace, arguments.name))


if __name__ == "__main__":
    sys.exit(main())
