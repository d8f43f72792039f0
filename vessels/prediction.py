"""Vessels in anyone's fundus photographs: reading, field of view, scale, tiles, and what is written."""

import contextlib
import csv
import io
import json
import sys
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image, ImageOps

from vessels import UserError, datasets, evaluation
from vessels.files import write_atomically
from vessels.pipeline import crop, pad

EXAMPLE = Path(skimage.__file__).parent / "data" / "retina.jpg"  # of skimage.data.retina(), ships with scikit-image
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".ppm"}
MEGAPIXELS = 40

# How far the network sees, in pixels. Each level reaches 7 of its own pixels, four 3x3 convolutions and the 7x7 one
# of the attention: 7 (1 + 2 + 4 + 8 + 4 + 2 + 1) = 154; the three transposed convolutions add 2 + 4 + 8 = 14 to the
# left and upwards. tests/test_prediction.py measures it.
HALO = 168
SKY_BLUE = np.array([86, 180, 233])  # Okabe and Ito's palette: told from a red retina by colour-blind readers too


def read_photograph(path):
    """A photograph as uint8 `(height, width, 3)`, RGB, turned upright.

    JPEG, PNG, TIFF (the first page), GIF (the first frame), BMP or PPM, of 8 or 16 bit; transparency becomes black.

    Raises:
        UserError: It cannot be read, has more than 40 megapixels or a side of fewer than 64 pixels, or is all black.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.width * picture.height > MEGAPIXELS * 1e6:
                raise UserError(f"{path}: more than {MEGAPIXELS} megapixels; scale it down")
            image = eight_bit_rgb(picture, path)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        reason = getattr(error, "strerror", None) or "cannot be decoded, is it cut short or no image at all?"
        raise UserError(f"{path}: {reason} ({type(error).__name__})") from None
    if image.max() < 16 or min(image.shape[:2]) < 64:
        raise UserError(f"{path}: {'all black' if image.max() < 16 else 'smaller than 64 pixels'}, no photograph")
    return image


def eight_bit_rgb(picture, path):
    if picture.mode == "RGB" and ";16" in str(picture.tile):
        # Pillow would keep the upper eight bits of each colour: of a 12-bit camera's, next to nothing.
        return highest_eight_bits(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[..., ::-1])
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        return np.stack([highest_eight_bits(np.asarray(picture).clip(0))] * 3, axis=-1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return np.array(picture.convert("RGB"))


def highest_eight_bits(array):
    """uint8 of whole numbers: 12-bit cameras write 16-bit files, so the highest bit in use becomes that of eight."""
    return (array >> max(int(array.max()).bit_length() - 8, 0)).astype("uint8")


def predict_tiled(model, image, tile=1024):
    """Vessel probability of each pixel, in one pass where the image fits into a tile, else tile by tile.

    Tiles overlap so far that what is used of them equals a pass over the whole image, to rounding.

    Args:
        model: The network; takes float `(1, height, width, 3)` in [0, 1].
        image: uint8 `(height, width, 3)`, RGB.
        tile: Side of the squares, which bounds the memory: a multiple of 8 and more than 336, or a ValueError.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    if tile % 8 or tile <= 2 * HALO:
        raise ValueError(f"tiles must be multiples of 8 and larger than {2 * HALO}, got {tile}")
    height, width = image.shape[:2]
    padded = pad(image, -(-height // 8) * 8, -(-width // 8) * 8)
    result = np.empty(padded.shape[:2], "float32")
    for y, top, bottom in windows(padded.shape[0], tile):
        for x, left, right in windows(padded.shape[1], tile):
            part = padded[None, y : y + tile, x : x + tile].astype("float32") / 255
            found = np.asarray(model.predict_on_batch(part))[0, ..., 0]
            result[top:bottom, left:right] = found[top - y : bottom - y, left - x : right - x]
    return crop(result, height, width)


def windows(length, tile):
    """`(start, first, end)` along one side: where each tile starts, and from where to where it is used."""
    step = tile - 2 * HALO if length > tile else length
    return [(max(min(first - HALO, length - tile), 0), first, min(first + step, length))
            for first in range(0, length, step)]


def predict_photograph(model, image, dataset, tile=1024):
    """Vessels in a photograph of any size, seen at the scale of the photographs that the network knows.

    Args as in `predict_tiled`, and `dataset`: the `datasets.Dataset` that the network was trained on.

    Returns:
        `(probability, fov, scale)`: float32 `(height, width)` in [0, 1], 0 outside the field of view; bool
        `(height, width)`; and how many pixels the network saw for each of the photograph's, a float.
    """
    fov = datasets.estimate_fov(image)
    x, y, width, height = cv2.boundingRect(fov.astype("uint8"))
    box = np.s_[y : y + height, x : x + width]
    scale = dataset.diameter / max(width, height)
    scale = 1.0 if abs(scale - 1) < 0.02 else scale  # so little is not worth an interpolation
    small = resize(image[box], max(round(width * scale), 1), max(round(height * scale), 1))
    # Black around the eye, whatever surround, lettering or frame the photograph has: what training showed.
    small[resize(fov[box].astype("uint8"), *small.shape[1::-1]) == 0] = 0
    found = predict_tiled(model, pad(small, dataset.padded, dataset.padded), tile)
    probability = np.zeros(fov.shape, "float32")
    probability[box] = resize(crop(found, *small.shape[:2]), width, height)
    return probability * fov, fov, scale


def resize(array, width, height):
    how = cv2.INTER_AREA if width < array.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(array, (width, height), interpolation=how)


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


def read_record(weights):
    """`(dataset, record)`: the set that the weights were trained on and their JSON, checked as `eval_*.py` do."""
    dataset, network = datasets.DRIVE, {"variant": "rsan", "seed": 0}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # evaluation.read_record says what is wrong
        claimed = json.loads(evaluation.record_path(weights).read_text())
        dataset = {one.name: one for one in datasets.DATASETS}[claimed["dataset"]]
        network = {key: claimed[key] for key in network}
    return dataset, evaluation.read_record(weights, dataset, **network)


def main(build, load_weights, arguments):
    """What `predict.py` does; `build` and `load_weights` as in `evaluation.main`.

    `arguments` holds `photographs`, `output_dir`, `weights`, `tile` and `export`. Returns the exit code: 0; 1 if a
    photograph failed; 2 for what the user can mend and what keeps all of them from being predicted.
    """
    try:
        photographs = [] if arguments.export else collect(arguments.photographs or [EXAMPLE])
        dataset, record = read_record(arguments.weights)
        try:
            model = build(**record["model"])
            load_weights(model, arguments.weights)
        except (TypeError, ValueError) as error:
            raise UserError(f"{arguments.weights} does not fit {evaluation.record_path(arguments.weights)}: {error}; "
                            "name other --weights") from None
        if arguments.export:
            from vessels.export import export

            difference = export(model, arguments.export, arguments.output_dir)
            print(f"written {arguments.output_dir}: at most {difference:.1e} from Keras' probabilities")
            return 0
        predicted = predict_all(model, dataset, photographs, arguments.output_dir, arguments.tile)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print(f"{predicted} of {len(photographs)} photographs: results in {arguments.output_dir}/")
    return int(predicted < len(photographs))


def predict_all(model, dataset, photographs, output, tile):
    """Writes what `predict.py` says for each photograph. Returns how many could be read: int."""
    rows = [("file", "width", "height", "scale", "density", "seconds")]
    for i, path in enumerate(photographs):
        began, counter = time.time(), f"[{i + 1}/{len(photographs)}]"
        try:
            image = read_photograph(path)
            probability, fov, scale = predict_photograph(model, image, dataset, tile)
        except (UserError, cv2.error) as error:
            print(f"{counter} error: {error}", file=sys.stderr)
            continue
        if fov.all():
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
