"""Finds the vessels in anyone's fundus photographs.

    python predict.py                            the photograph that scikit-image ships
    python predict.py photo.jpg folder/ -o out/  your own
    python predict.py --attention photo.jpg      what the network's spatial attention does to it, as a picture
    python predict.py --export onnx -o rsan.onnx the network itself, for other programs

A photograph of two megapixels takes six seconds on two cores: the network sees it at two widths.
For each, in predictions/ or where -o says, at the photograph's own size:

    <name>_probability.png   16-bit grey: 65535 is certainly vessel; 0 outside the field of view
    <name>_mask.png          black and white: probability of at least the threshold
    <name>_overlay.png       the photograph, vessels tinted blue

and a row of vessels.csv: size, scale (pixels that the network saw for each of the photograph's), confidence (the Dice
coefficient to expect, were the probabilities true), seconds since the row before, a warning where the map cannot be
right, and what vessels/prediction/measures.py measures (density, length, width, branches, tortuosity, fractal
dimension). Files that predict.py did not write are never overwritten. Predicted once more, a photograph gets another
row.

A folder is read without the folders within. A photograph that cannot be read is reported and left out. After an
interruption, --skip-existing goes on; --shard 3/16 takes the third sixteenth and writes vessels-03-of-16.csv, and
`cat vessels-*-of-16.csv > vessels.csv` makes one table of all.

Exit code: 0; 1 if a photograph failed; 2 if the command line or the weights are wrong.
"""

import argparse
import sys
from pathlib import Path

from vessels import add_threshold, exit_code, quiet_imports
from vessels.prediction import photographs
from vessels.prediction.maps import HALO

WEIGHTS = Path(__file__).parent / "weights/any_rsan.weights.h5"


def shard(text):
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise argparse.ArgumentTypeError(f"{text} is not like 3/16, the third of sixteen")
    return int(number), int(shards)


def parse(argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("photographs", nargs="*", type=Path, help="files, or folders of them: JPEG, PNG, TIFF, "
                        "GIF, BMP or PPM, of any depth, up to 40 megapixels")
    parser.add_argument("-o", "--output-dir", type=Path,
                        help="where the results go (default: predictions); with --export, the file or folder")
    parser.add_argument("--attention", action="store_true", help="draw what each block of spatial attention does to "
                        "the photographs instead: <name>_attention.jpg")
    parser.add_argument("--export", choices=("onnx", "litert", "saved_model"), help="write the network, for images "
                        "(batch, height, width, 3) in [0, 1] whose sides are multiples of 8 and whose field of "
                        "view is as wide as `diameters` in the weights' JSON says, on black; what it says of a "
                        "photograph is compared with Keras; onnx needs pip install onnxruntime tf2onnx")
    parser.add_argument("--weights", type=Path, default=WEIGHTS,
                        help=f"weights, with their JSON beside them (default: weights/{WEIGHTS.name})")
    add_threshold(parser)
    parser.add_argument("--diameter", type=float, help="how wide the network sees the field of view, in pixels "
                        "(default: of the widths in the weights' JSON, the one at which the network is most "
                        "confident); weights that the authors' scripts left have no JSON and need it")
    parser.add_argument("--careful", action="store_true", help="average over those widths and four mirror images: four "
                        "times the time")
    parser.add_argument("--skip-existing", action="store_true", help="leave out photographs whose images and row in "
                        "the table are in --output-dir")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="only each Nth photograph, from "
                        "the Ith on: for N runs side by side, into one --output-dir or several")
    parser.add_argument("--microns-per-pixel", type=float, help="micrometres of retina for each pixel: lengths and "
                        "widths in millimetres and micrometres too")
    parser.add_argument("--degrees", type=float, help="instead, the camera's angle of view across the whole circle")
    parser.add_argument("--no-measures", dest="measures", action="store_false",
                        help="measure nothing but the density, which saves time on large photographs")
    parser.add_argument("--tile", type=int, default=1024, help="side of the largest square that the network sees "
                        "at once; smaller takes less memory and more time, nothing else changes (default: 1024)")
    arguments = parser.parse_args(argv)
    if arguments.tile % 8 or arguments.tile <= 2 * HALO:
        parser.error(f"--tile must be a multiple of 8 and more than {2 * HALO}")
    if arguments.export and (arguments.photographs or not arguments.output_dir):
        parser.error("--export takes no photographs and needs -o FILE")
    lengths = arguments.microns_per_pixel, arguments.degrees, arguments.diameter
    if any(not value > 0 for value in lengths if value is not None):
        parser.error("--microns-per-pixel, --degrees and --diameter must be more than 0")
    if arguments.microns_per_pixel and arguments.degrees:
        parser.error("--microns-per-pixel and --degrees are two ways to say the same: give one")
    arguments.output_dir = arguments.output_dir or Path("predictions")
    if any(path.is_dir() and path.resolve() == arguments.output_dir.resolve() for path in arguments.photographs):
        parser.error("--output-dir is the folder of the photographs: name another one")
    return arguments


def run(arguments):
    with quiet_imports():  # which take seconds: not before the command line is known to be right
        from vessels.prediction import export
        from vessels.report import attention

        from attention_module import SpatialAttention
        from fused import unfused
        from rsan_model import build_rsan, load_weights
    if arguments.export:
        return export.main(build_rsan, load_weights, unfused, arguments)
    if arguments.attention:
        return attention.main(build_rsan, load_weights, SpatialAttention, arguments)
    return photographs.main(build_rsan, load_weights, arguments)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # file names hold whatever bytes they like
    parsed = parse()
    sys.exit(exit_code(lambda: run(parsed)))
