"""Vessels in anyone's fundus photographs: what predict.py does with each of them."""

import collections
import contextlib
import dataclasses
import sys
import time

import cv2
import numpy as np

from vessels import UserError
from vessels.data.fov import Widths
from vessels.data.images import read_photograph
from vessels.prediction import folders
from vessels.prediction.maps import confidence, predict_photograph, resize
from vessels.prediction.measures import UNITS, measure, microns_per_pixel
from vessels.prediction.quality import doubts
from vessels.record import record_path

SKY_BLUE = np.array([86, 180, 233])  # of Okabe and Ito: colour-blind readers can tell it from a red retina
# Fields of view that are wider, in pixels, are measured at this width or, if that is more, about as large as the
# network saw them: their maps hold no finer detail.
MEASURED = 1500
KINDS = ("probability", "mask", "overlay")
HEADER = ("file", "width", "height", "scale", "confidence", "seconds", "warning", *UNITS, *folders.MADE, "photograph")


@dataclasses.dataclass(frozen=True)
class Options:
    """How photographs are predicted.

    Attributes:
        widths, tta: As in `predict_photograph`.
        threshold: Probability from which a pixel counts as vessel.
        microns_per_pixel: Micrometres of retina per pixel; None if unknown.
        degrees: Instead, the angle of view across the whole circle of the field of view.
        precision: In which the network computes; only said.
    """

    widths: Widths
    threshold: float = 0.5
    tta: bool = False
    microns_per_pixel: float | None = None
    degrees: float | None = None
    precision: str = "float32"

    def made(self, weights, record):
        """What a map and its row depend on, in words: `{column of the table: str}`. `weights` is a `Path`."""
        words = ["onnx" if weights.suffix == ".onnx" else "keras", self.precision]
        words += [f"{name} {' '.join(f'{number:g}' for number in np.ravel(value))}"
                  for name, value in self.widths.as_record().items()]
        words += ["test-time augmentation"] if self.tta else []
        words += [f"{self.microns_per_pixel:g} micrometres a pixel"] if self.microns_per_pixel else []
        words += [f"{self.degrees:g} degrees"] if self.degrees else []
        return {"weights": f"{record_path(weights).stem} {record['sha256'][:12]}", "threshold": f"{self.threshold:g}",
                "settings": ", ".join(words)}


def result_of(image, prediction, options):
    """What is written of a photograph.

    Args:
        image: uint8 `(height, width, 3)`, RGB.
        prediction: Its `maps.Prediction`.
        options: `Options`.

    Returns:
        `(images, row)`: the pictures by `KINDS`, of the photograph's size: uint16 and uint8, grey, and uint8 RGB; and
        size, scale, confidence, warning and measures: `{name: int or str}`, names as in `HEADER`.
    """
    mask = prediction.probability >= options.threshold
    prediction = dataclasses.replace(prediction, confidence=confidence(prediction.probability, options.threshold))
    warnings = doubts(image, prediction, mask)
    microns = options.microns_per_pixel
    if options.degrees and prediction.diameter:
        microns = microns_per_pixel(options.degrees, prediction.diameter)
    elif options.degrees:
        warnings.append("without a rim, the angle of view gives no scale; give micrometres a pixel")
    measured = measure_map(prediction, options.threshold, microns) | {"density": mask.sum() / prediction.fov.sum()}
    row = {"width": mask.shape[1], "height": mask.shape[0], "scale": f"{prediction.scale:.4f}",
           "confidence": f"{prediction.confidence:.4f}", "warning": "; ".join(warnings),
           **{name: value if isinstance(value, int) else f"{value:.4f}" for name, value in measured.items()
              if not np.isnan(value)}}
    overlay = image.copy()
    overlay[mask] = (0.2 * image[mask] + 0.8 * SKY_BLUE).round()
    pictures = np.round(prediction.probability * 65535).astype("uint16"), 255 * mask.astype("uint8"), overlay
    return dict(zip(KINDS, pictures, strict=True)), row


def measure_map(prediction, threshold, microns):
    """`measures.measure` of a `maps.Prediction`, with lengths in pixels of the photograph."""
    diameter = prediction.diameter or max(prediction.fov.shape)
    scale = min(1, max(MEASURED / diameter, 1.4 * prediction.scale))
    probability, fov = prediction.probability, prediction.fov
    if scale < 1:
        size = [round(scale * side) for side in fov.shape[::-1]]
        probability, fov = resize(probability, *size), resize(fov.astype("uint8"), *size) > 0
    measured = measure(probability >= threshold, fov, prediction.diameter and scale * prediction.diameter,
                       microns and microns / scale)
    return {name: value / scale if name.endswith("_px") else value for name, value in measured.items()}


@contextlib.contextmanager
def opencv_errors(path):
    """Raises what OpenCV cannot process as a `UserError`."""
    try:
        yield
    except cv2.error as error:
        raise UserError(f"{path}: OpenCV cannot process it ({' '.join(str(error).split())}); leave it out") from None


@dataclasses.dataclass(frozen=True)
class Writer:
    """Predicts photographs, in any thread, and writes their images into the folder of `table`."""

    model: object
    options: Options
    table: folders.Table
    skip_existing: bool = False

    def __call__(self, path):
        """Returns the photograph's row of the table, a dict, the error that it caused, or None if it is skipped."""
        try:
            with opencv_errors(path):
                image = read_photograph(path)
                photograph, made = folders.identity(image), folders.digest(self.table.made)
                before = self.made_before(path, photograph)
                row = path.name.encode("utf-8", "backslashreplace").decode(), photograph, made
                if self.skip_existing and before == {made} and row in self.table.done:
                    return None
                prediction = predict_photograph(self.model, image, self.options.widths, tta=self.options.tta)
                images, row = result_of(image, prediction, self.options)
                self.made_before(path, photograph)  # another run may have written there meanwhile
        except UserError as error:
            return error
        return self.write(path, photograph, images, row)

    def files(self, path):
        return [folders.place(self.table.folder, path, f"{ending}.png") for ending in KINDS]

    def made_before(self, path, photograph):
        """What made the photograph's pictures that exist: set; `UserError` if they are of another one."""
        return {folders.made_from(file, photograph) for file in self.files(path)}

    def write(self, path, photograph, images, row):
        """Writes what `result_of` returns. Returns the row of the table; `photograph` is its `folders.identity`."""
        for file, image in zip(self.files(path), images.values(), strict=True):
            folders.write_png(file, image, folders.mark(photograph, folders.digest(self.table.made)))
        return {**row, "file": path, "photograph": photograph}


def predict_all(writer, photographs):
    """Predicts all photographs, a list of `Path`, and says what it did. Returns the exit code: 1 if one failed."""
    counts, last = collections.Counter(), time.time()
    for number, (path, row) in enumerate(folders.as_finished(writer, photographs), 1):
        if row is None:
            counts["skipped"] += 1
            continue
        if isinstance(row, UserError):
            counts["failed"] += 1
            said = f"error: {row}"
        else:
            seconds, last = time.time() - last, time.time()
            writer.table.append({**row, "seconds": f"{seconds:.2f}"})
            counts["predicted"] += 1
            counts["doubtful"] += bool(row["warning"])
            said = f"{path.name}  {row['width']}x{row['height']}  scale {row['scale']}  density {row['density']}"
            said += f"\nwarning: {path.name}: {row['warning']}" if row["warning"] else ""
        print(f"[{number}/{len(photographs)}] {said}", file=sys.stderr, flush=True)
    tried = counts["predicted"] + counts["failed"]
    print(f"{counts['predicted']} of {tried} photographs, {counts['skipped']} skipped, {counts['doubtful']} with a "
          f"warning: results in {writer.table.folder}/")
    return int(counts["failed"] > 0)
