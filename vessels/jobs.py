"""What eval_*.py scores: weights and photographs, after all checks that need no network."""

import dataclasses
from pathlib import Path

from vessels import UserError, network
from vessels.data import published, sources, synthetic
from vessels.data.examples import Source
from vessels.files import ROOT, read_json
from vessels.record import find_weights, learned_from

from pretrained import read_record, record_path


@dataclasses.dataclass(frozen=True)
class Job:
    """One evaluation: of `weights`, or of the `maps` that another program has written to a folder.

    `source`: the photographs, of its split "test". `output`: folder for the results. `threshold`: probability from
    which a pixel counts as vessel. For weights, `record`: the JSON beside them; `network`: the module that defines the
    network; `tta`: whether maps are averaged over mirror images; `mixed_precision`: whether it computes in bfloat16.
    """

    source: Source
    output: Path
    threshold: float
    maps: Path | None = None
    weights: Path | None = None
    record: dict | None = None
    network: str | None = None
    tta: bool = False
    mixed_precision: bool = False


def plan(dataset, default, arguments):
    """What to score: list of `Job`, those of one source together. All records are checked."""
    parts = [dataset]
    if dataset.general and not arguments.synthetic:
        parts = [sources.find(source) for source in arguments.sources]
    jobs = []
    for source in [source.at(arguments.data_dir) for source in parts]:
        if arguments.maps:
            output = arguments.output_dir or arguments.maps / "results" / source.name
            jobs.append(Job(source, output, arguments.threshold or 0.5, arguments.maps))
        else:
            jobs += weights_plan(dataset, source, default, arguments)
    for i, job in enumerate(jobs):
        if job.output in [other.output for other in jobs[:i]]:
            raise UserError(f"{job.output}: the results of {job.weights or job.source.name} would overwrite others; "
                            "score each separately, with its own --output-dir")
        if job.source.own:
            check_no_others(job.output, job.source)
    return jobs


def check_no_others(output, table):
    """UserError if `output` holds results of photographs that `table` does not score, such as another CSV's."""
    path = output / "metrics.json"
    scored = read_json(path).get("photographs", {}) if path.exists() else {}
    now = {photograph.digests["image"] for photograph in table.photographs("test")}
    if foreign := [name for name, digest in scored.items() if digest not in now]:
        raise UserError(f"{output}: holds results of {len(foreign)} photographs that {table.path} does not score, such "
                        f"as {foreign[0]}; remove it, or give another --output-dir")


def weights_plan(dataset, source, default, arguments):
    usual = ROOT / "weights" / f"{dataset.key}_rsan.weights.h5"
    if arguments.synthetic:
        usual = ROOT / "runs" / f"{dataset.key}-synthetic-rsan-0" / "final.weights.h5"
    jobs, photographs = [], []
    for weights in find_weights(arguments.weights) or [usual]:
        record = read_record(weights)
        drawn = record["dataset"] == "synthetic"
        if drawn and source.own:
            raise UserError(f"{weights}: trained on procedural images, of which your photographs show nothing; name "
                            "other weights")
        name = network.of_record(weights, record, default, arguments.network)
        if not drawn and learned_from(record)[0]:
            photographs = photographs or source.photographs("test")
            if seen := photographs_seen(photographs, weights, record):
                raise UserError(f"{weights}: trained or validated on {len(seen)} of the {len(photographs)} photographs "
                                f"of {source.title} ({', '.join(seen[:3])}); score others")
        output = arguments.output_dir or results_folder(source, weights, record, arguments.tta)
        threshold = arguments.threshold or record.get("threshold", 0.5)
        scored = synthetic.Procedural(source) if drawn else source
        jobs.append(Job(scored, output, threshold, None, weights, record, name, arguments.tta,
                        arguments.mixed_precision))
    return jobs


def photographs_seen(photographs, weights, record):
    """Names of the photographs in the training data, by files and decoded pixels of photograph and label: list of str.

    A photograph that was saved anew as JPEG has other pixels, but the same label.
    """
    learned, complete = learned_from(record)
    if not complete:
        print(f"{weights}: its record has no checksums of pixels, so photographs are compared as files")
    return [photograph.name for photograph in photographs
            if any(photograph.digests.get(role) in learned or (complete and photograph.pixels[role] in learned)
                   for role in ("image", "label"))]


def results_folder(dataset, weights, record, tta=False):
    """Output folder for `weights` scored on `dataset`: in the repository's results/, or beside the weights."""
    if weights.parent.resolve() != (ROOT / "weights").resolve():
        known = record["dataset"] in (dataset.name, "synthetic")
        return weights.parent / ("results_tta" if tta else "results") / ("" if known else dataset.name)
    name = record_path(weights).stem
    for one in published.DATASETS:
        if one.name == record["dataset"]:
            name = name.removeprefix(f"{one.key}_")
            if one.name != dataset.name:
                name += f"_of_{one.name}"
    return ROOT / "results" / dataset.name / (f"{name}_tta" if tta else name)
