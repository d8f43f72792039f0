"""The command behind eval_*.py: predicts maps with given weights, scores them, and writes tables and pictures."""

import functools
import json
import sys

import cv2

from vessels import UserError, add_renamed, add_threshold, exit_code, file_path, network, parser_for
from vessels.data.fov import Widths
from vessels.files import read_json, write_atomically, write_json
from vessels.jobs import plan
from vessels.metrics import Scores, to_16_bit
from vessels.prediction import external_maps, maps
from vessels.prediction.precision import with_precision
from vessels.record import environment
from vessels.report import bland_altman, comparison, plots, tables

from pretrained import load_network

CHANCE = 0.6  # an AUC under which map and label seem not to belong together


def parse(dataset, description, argv=None):
    parser = parser_for(description)
    general = dataset.general
    if general:
        parser.add_argument("sources", nargs="*", default=list(dataset.sources), metavar="SET", help="data to score: "
                            "CSVs of your own photographs, DRIVE, CHASEDB1, HRF (default: "
                            f"{' '.join(dataset.sources)})")
    several = {"action": "append"} if general else {"nargs": "*"}  # --weights must not swallow the sources
    parser.add_argument("--weights" if general else "weights", **several, type=file_path, metavar="WEIGHTS", default=[],
                        help="weights files, folders of them, or names of released ones (drive). The JSON beside each "
                        "file describes its network and training data. For a network trained on another set, "
                        "photographs are scaled to that set's field of view "
                        f"(default: weights/{dataset.key}_rsan.weights.h5)")
    parser.add_argument("--maps", type=file_path, metavar="FOLDER", help="instead of using a network, score "
                        "probability maps of any program: grey PNG or TIFF of the photograph's size, 8 or 16 bit "
                        "(the largest value is 1) or float in [0, 1], named as the photographs or as predict.py names "
                        "them; writes to FOLDER/results/<set>")
    add_threshold(parser)
    parser.add_argument("--network", help="the module that defines the network: my_unet for a file my_unet.py beside "
                        "this script (default: the one in the weights' JSON)")
    parser.add_argument("--data-dir", type=file_path, help=f"folder of {dataset.name.replace('+', ' and ')}, or the "
                        "one that contains it (default: $RSAN_DATA_ROOT or data/)")
    parser.add_argument("--output-dir", type=file_path, help="folder for metrics, table, curves, panels and maps "
                        "(default: results/<set>/<name of the weights> for files in weights/, else results/ beside the "
                        "weights)")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: average the maps of each "
                        "photograph and its three mirror images; takes four times as long; default folders then end in "
                        "_tta")
    add_renamed(parser, "--flips", "--tta")
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16, which is faster where the "
                        "processor or GPU has it (default: float32); metrics.json says so")
    parser.add_argument("--synthetic", action="store_true", help="score the weights that "
                        f"`train_{dataset.key}.py --synthetic` wrote, on procedural images; write beside them")
    arguments = parser.parse_args(argv)
    if arguments.maps and (arguments.weights or arguments.synthetic or arguments.tta or arguments.mixed_precision):
        parser.error("--maps scores no network: leave WEIGHTS, --tta, --mixed-precision and --synthetic out")
    named = general and arguments.sources != list(dataset.sources)
    if arguments.synthetic and (named or arguments.weights or arguments.data_dir):
        parser.error("--synthetic uses its own weights and images: omit any SET, WEIGHTS and --data-dir")
    return arguments


def main(dataset, default, description, argv=None):
    """The command line of `eval_drive.py`, `eval_chase.py` and `eval_any.py`.

    Args:
        dataset: A `published.Dataset`, or `sources.Several`, in whose place the command line may name other sources.
        default: Name of the module that defines the network, see `vessels/network.py`.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 after an error that names the remedy.
    """
    arguments = parse(dataset, description, argv)

    def command():
        checked = None
        for job in plan(dataset, default, arguments):
            if job.source != checked:
                checked = job.source
                checked.check("test")
            run(job)

    return exit_code(command)


def from_maps(folder):
    """The same as `from_network`, for maps of any program in `folder`, a `Path`."""
    name = folder.resolve().name
    facts = {"name": f"maps of {name}", "variant": name, "trained_on": "", "maps": name,
             "weights": {"recipe": {"seed": 0}}}
    return functools.partial(external_maps.read_map, folder), facts


def from_network(job):
    """Loads the network that the record of a `Job` describes.

    Returns:
        `(predict, facts)`. `predict(example)` is the map of an `Example`, float32 `(height, width)` in [0, 1]; `facts`
        are entries of metrics.json.
    """
    record = job.record
    if "network_sha256" in record:
        print(f"network   {network.find(job.network)}", flush=True)
    module = network.load(job.network)
    model = load_network(module.build, module.load_weights, job.weights, record)
    if job.mixed_precision:
        model = with_precision(model, True)[0]
    widths = widths_for(job.source, record)
    unusual = {
        "unfinished": record.get("unfinished"),
        "tta": job.tta,
        "precision": job.mixed_precision and "bfloat16",
        "widths": widths and widths.as_record(),
        "started_from": record.get("started_from", {}).get("file"),
    }
    more = {key: record[key] for key in ("loss", "augmentation") if key in record}
    facts = {
        "name": f"{record['name']}, TTA" if job.tta else record["name"],
        "variant": record["variant"],
        "trained_on": record["dataset"],
        **{key: value for key, value in unusual.items() if value},
        "weights": {"file": job.weights.name, "sha256": record["sha256"], "parameters": model.count_params(),
                    "recipe": {**record["recipe"], **more}},
    }
    see = functools.partial(maps.predict_map, model, widths, job.source.padded)
    if job.tta:
        see = functools.partial(maps.average_flips, see)
    return lambda example: see(example.image, example.fov), facts


def widths_for(dataset, record):
    """`Widths` to which fields of view are scaled; None if images are predicted unscaled."""
    as_it_is = record["dataset"] == dataset.name and record["recipe"].get("recipe") != "any"
    return None if as_it_is else Widths.of_record(record)


def run(job):
    """Scores one photograph after the other, writes the results (complete once metrics.json exists), prints the table.

    Nothing of a photograph is kept but counts and scores.
    """
    photographs = job.source.photographs("test")
    photographs[0].load()  # wrong data are said before a network is built
    predict, facts = from_network(job) if job.weights else from_maps(job.maps)
    scores = Scores(job.threshold)
    try:
        for i, photograph in enumerate(photographs, 1):
            print(f"\rphotograph {i}/{len(photographs)} ", end="", file=sys.stderr, flush=True)
            score(job, predict, photograph.load(), scores)
    finally:
        print(file=sys.stderr)  # an error gets a line of its own
    metrics = {
        "dataset": job.source.name,
        **facts,
        "threshold": job.threshold,
        "n_images": len(scores.per_image),
        **scores.result(),
        **({"photographs": {one.name: one.digests["image"] for one in photographs}} if job.source.own else {}),
        "published": comparison.paper(job.source.name),
        "environment": environment(),
    }
    for name, picture in plots.curves(scores.pooled.histograms, metrics).items():
        write_atomically(job.output / name, picture)
    write_atomically(job.output / "table.md", f"```{tables.table(metrics)}\n```\n")
    write_metrics(job.output / "metrics.json", metrics)
    report(job, metrics)


def score(job, predict, example, scores):
    """Adds an `Example` to the `Scores`, and writes its pictures; `predict` as in `from_network`."""
    try:
        values = to_16_bit(predict(example))
        scored = scores.add(example, values)
    except ValueError as error:
        raise UserError(f"{job.weights or job.maps}: the map of {example.name} {error}; it cannot be scored, name "
                        "others") from None
    auc = scored["inside_fov"]["auc"]
    if auc and auc < CHANCE:  # None for black and white maps
        print(f"\nwarning: {example.name}: its AUC is {auc:.2f}, hardly better than chance;\n"
              "is the map or the label mirrored, shifted, or another photograph's?", file=sys.stderr)
    scored["measures"] = bland_altman.measures(example, values, job.threshold)
    for folder, picture in (("probabilities", cv2.imencode(".png", values)[1].tobytes()),
                            ("panels", plots.panel(example, values, job.threshold))):
        write_atomically(job.output / folder / f"{example.name}.png", picture)


def report(job, metrics):
    """Prints where the results are, and the table."""
    if metrics["whole_image"]["auc"] is None:
        print("the maps are black and white, so there is no AUC and no curve")
    print(f"scored    {job.weights or job.maps}\nwritten   {job.output}/: metrics.json, table.md, curves,\n"
          "          panels/, probabilities/")
    if job.source.name == "synthetic":
        print(f"\nSYNTHETIC IMAGES: these scores say nothing about {job.source.title}.")
    print(tables.table(metrics))


def write_metrics(path, metrics):
    """Writes metrics.json, unless it holds the same outcome already: all but the environment."""
    changing = {"environment": None, "seconds": None}  # older results hold the second
    now = json.loads(json.dumps(metrics))
    if not path.exists() or {**read_json(path), **changing} != {**now, **changing}:
        write_json(path, now)
