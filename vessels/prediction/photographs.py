"""Vessels in anyone's fundus photographs: the command behind predict.py."""

import collections
import dataclasses
import sys
import threading
import time

import cv2
import numpy as np

from vessels import UserError
from vessels.data.fov import Widths
from vessels.data.images import EXAMPLE, SUFFIXES, read_photograph
from vessels.prediction.folders import Progress, Table, in_order, printable, refuse_foreign, write_png
from vessels.prediction.maps import predict_photograph, resize
from vessels.prediction.measures import UNITS, measure, microns_per_pixel
from vessels.prediction.quality import doubts
from vessels.record import load_network, record_and_widths

SKY_BLUE = np.array([86, 180, 233])  # of Okabe and Ito: colour-blind readers can tell it from a red retina
# Fields of view that are wider, in pixels, are measured at this width, as their maps hold no finer detail, unless
# --diameter shows the network more.
MEASURED = 1500
KINDS = ("probability", "mask", "overlay")
HEADER = ("file", "width", "height", "scale", "confidence", "seconds", "warning", *UNITS)


def collect(paths):
    """The photographs in `paths`, files or folders (without their subfolders): list of `Path`.

    Raises `UserError` if there are none, or if the results of two would have the same name.
    """
    found = {}
    for path in paths:
        inside = [path] if path.exists() else []
        if path.is_dir():
            files = [file for file in sorted(path.glob("[!.]*")) if not file.is_dir()]
            inside = [file for file in files if file.suffix.lower() in SUFFIXES]
            others = collections.Counter(file.suffix.lower() for file in files if file.suffix.lower() not in SUFFIXES)
            if others:
                listed = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items()))
                print(f"{path}: skipped {listed}; to try such a file, name it", file=sys.stderr)
        if not inside:
            raise UserError(f"{path}: no photograph there; name files, or folders of {', '.join(sorted(SUFFIXES))}")
        for photograph in inside:
            other = found.setdefault(photograph.stem.lower(), photograph)
            if other.resolve() != photograph.resolve():
                raise UserError(f"{other} and {photograph}: the results of one would overwrite the other's; "
                                "rename one, or predict them into different folders with --output-dir")
    return list(found.values())


def main(build, load_weights, arguments):
    """The command behind `predict.py`; `build` and `load_weights` as in `evaluation.main`.

    `arguments` is the result of `predict.parse`. Returns the exit code: 0; 1 if a photograph failed. Raises UserError
    for what stops all.
    """
    number, shards = arguments.shard
    photographs = collect(arguments.photographs or [EXAMPLE])[number - 1 :: shards]
    record, widths = record_and_widths(arguments.weights, arguments.diameter)
    table = Table(arguments.output_dir, HEADER, arguments.shard)
    there = table.files() if arguments.skip_existing else ()
    left = [path for path in photographs if printable(path) not in there
            or not all(place.exists() for place in places(arguments.output_dir, path).values())]
    model = OneAtATime(load_network(build, load_weights, arguments.weights, record))
    threshold = record.get("threshold", 0.5) if arguments.threshold is None else arguments.threshold
    predictor = Predictor(model, widths, threshold, arguments)
    predicted, doubtful = predict_all(predictor, left, table)
    skipped = f", {len(photographs) - len(left)} skipped" if len(left) < len(photographs) else ""
    warned = f", {doubtful} with a warning" if doubtful else ""
    print(printable(f"{predicted} of {len(left)} photographs{skipped}{warned}: results in {arguments.output_dir}/"))
    return int(predicted < len(left))


def places(folder, photograph):
    """Where the images made of a photograph are written: `{kind: path}`."""
    return {kind: folder / f"{photograph.stem}_{kind}.png" for kind in KINDS}


class OneAtATime:
    """A network that several threads share; it predicts one batch at a time."""

    def __init__(self, model):
        self.model, self.lock = model, threading.Lock()

    def predict_on_batch(self, x):
        with self.lock:
            return np.asarray(self.model.predict_on_batch(x))


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What `predict.py` does with one photograph, in any thread."""

    model: OneAtATime
    widths: Widths
    threshold: float
    arguments: object  # of `main`

    def __call__(self, path):
        """Writes the three images. Returns the photograph's row of the table, a dict, or the error that it caused."""
        files = places(self.arguments.output_dir, path)
        try:
            for file in files.values():
                refuse_foreign(file)
            image = read_photograph(path)
            found = predict_photograph(self.model, image, self.widths, tile=self.arguments.tile,
                                       careful=self.arguments.careful, threshold=self.threshold)
            mask = found.probability >= self.threshold
            doubtful = "; ".join(doubts(image, found, mask))
        except UserError as error:
            return error
        except cv2.error as error:
            return UserError(f"{path}: OpenCV cannot process it ({' '.join(str(error).split())}); leave it out")
        row = {"file": path, "width": mask.shape[1], "height": mask.shape[0], "scale": f"{found.scale:.4f}",
               "confidence": f"{found.confidence:.4f}", "warning": doubtful,
               **self.measures(found, mask)}
        image[mask] = (0.2 * image[mask] + 0.8 * SKY_BLUE).round()
        write_png(files["probability"], np.round(found.probability * 65535).astype("uint16"))
        write_png(files["mask"], mask.astype("uint8") * 255)
        write_png(files["overlay"], image)
        return row

    def measures(self, found, mask):
        microns = self.arguments.microns_per_pixel
        if self.arguments.degrees and found.diameter:
            microns = microns_per_pixel(self.arguments.degrees, found.diameter)
        measured = {"density": mask.sum() / found.fov.sum()}
        if self.arguments.measures:
            measured = measure_map(found, self.threshold, microns) | measured
        return {name: value if isinstance(value, int) else f"{value:.4f}" for name, value in measured.items()
                if not np.isnan(value)}


def measure_map(found, threshold, microns):
    """`measures.measure` of a `maps.Prediction`, with lengths in pixels of the photograph."""
    diameter = found.diameter or max(found.fov.shape)
    scale = min(1, max(MEASURED / diameter, 1.4 * found.scale))
    probability, fov = found.probability, found.fov
    if scale < 1:
        size = [round(scale * side) for side in fov.shape[::-1]]
        probability, fov = resize(probability, *size), resize(fov.astype("uint8"), *size) > 0
    measured = measure(probability >= threshold, fov, found.diameter and scale * found.diameter,
                       microns and microns / scale)
    return {name: value / scale if name.endswith("_px") else value for name, value in measured.items()}


def predict_all(predictor, photographs, table):
    """Predicts all photographs; adds rows to `table` and shows progress.

    Returns `(predicted, doubtful)`, ints: how many succeeded, and how many of these have a warning.
    """
    predicted, doubtful, last, progress = 0, 0, time.time(), Progress(len(photographs))
    for path, row in zip(photographs, in_order(predictor, photographs), strict=True):
        if isinstance(row, Exception):
            progress.failed(row)
            continue
        seconds, last = time.time() - last, time.time()
        table.append({**row, "seconds": f"{seconds:.2f}"})
        progress.photograph(path.name, f"  {row['width']}x{row['height']}  scale {float(row['scale']):.3f}  "
                                       f"density {float(row['density']):.3f}")
        doubtful += bool(row["warning"])
        if row["warning"]:
            progress.say(f"warning: {path.name}: {row['warning']}")
        predicted += 1
    progress.close()
    return predicted, doubtful
