"""Vessels in anyone's fundus photographs: the command behind predict.py."""

import csv
import io
import sys
import time

import cv2
import numpy as np
from PIL import Image

from vessels import UserError, exit_code
from vessels.data.images import EXAMPLE, SUFFIXES, read_photograph
from vessels.files import write_atomically
from vessels.prediction.maps import predict_photograph
from vessels.record import load_network, record_and_diameter

SKY_BLUE = np.array([86, 180, 233])  # Okabe and Ito's palette: told from a red retina by colour-blind readers too


def collect(paths):
    """Photographs that `paths` name, files or folders (not what is in folders within): list of `Path`.

    Raises `UserError` where there is none, or where the results of two would have one name.
    """
    found = {}
    for path in paths:
        inside = [path] if path.exists() else []
        if path.is_dir():
            inside = [file for file in sorted(path.glob("[!.]*")) if file.suffix.lower() in SUFFIXES]
        if not inside:
            raise UserError(f"{path}: no photograph there; name files, or folders of {', '.join(sorted(SUFFIXES))}")
        for photograph in inside:
            other = found.setdefault(photograph.stem.lower(), photograph)
            if other.resolve() != photograph.resolve():
                raise UserError(f"{other} and {photograph}: the results of one would overwrite the other's; "
                                "rename one, or predict them into different folders with --output-dir")
    return list(found.values())


def main(build, load_weights, arguments):
    """What `predict.py` does with photographs; `build` and `load_weights` as in `evaluation.main`.

    `arguments` holds `photographs`, `output_dir`, `weights` and `tile`. Returns the exit code: 0; 1 if a photograph
    failed; 2 for what the user can mend and what keeps all of them from being predicted.
    """
    def command():
        photographs = collect(arguments.photographs or [EXAMPLE])
        record, diameter = record_and_diameter(arguments.weights)
        model = load_network(build, load_weights, arguments.weights, record)
        predicted = predict_all(model, diameter, photographs, arguments.output_dir, arguments.tile)
        print(f"{predicted} of {len(photographs)} photographs: results in {arguments.output_dir}/")
        return int(predicted < len(photographs))

    return exit_code(command)


def predict_all(model, diameter, photographs, output, tile):
    """Writes what `predict.py` says for each photograph. Returns how many could be read: int."""
    rows = [("file", "width", "height", "scale", "density", "seconds")]
    for i, path in enumerate(photographs):
        began, counter = time.time(), f"[{i + 1}/{len(photographs)}]"
        try:
            image = read_photograph(path)
            found = predict_photograph(model, image, (diameter,), tile=tile)
            probability, fov, scale = found.probability, found.fov, found.scale
        except (UserError, cv2.error) as error:
            print(f"{counter} error: {error}", file=sys.stderr)
            continue
        if found.diameter is None:
            print(f"{counter} {path.name[-20:]}: no surround found, so its scale is a guess", file=sys.stderr)
        mask = probability >= 0.5
        image[mask] = (0.2 * image[mask] + 0.8 * SKY_BLUE).round()
        for name, array in (("probability", np.round(probability * 65535).astype("uint16")),
                            ("mask", mask.astype("uint8") * 255), ("overlay", image)):
            png = io.BytesIO()
            Image.fromarray(array).save(png, "PNG", compress_level=3)
            write_atomically(output / f"{path.stem}_{name}.png", png.getvalue())
        (height, width), density, seconds = mask.shape, mask.sum() / fov.sum(), time.time() - began
        rows.append((path, width, height, f"{scale:.4f}", f"{density:.4f}", f"{seconds:.2f}"))
        print(f"{counter} {path.name[-20:]}  {width}x{height}  scale {scale:.3f}  density {density:.3f}  "
              f"{seconds:.1f} s", file=sys.stderr)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_atomically(output / "vessels.csv", table.getvalue())
    return len(rows) - 1
