"""Finds the vessels in anyone's fundus photographs.

    python predict.py                            the example photograph of scikit-image
    python predict.py photo.jpg folder/ -o out/  your own photographs
    python predict.py photo.jpg --weights drive  with another network: a name, a run folder or a file
    python predict.py --attention photo.jpg      a picture of what the network's spatial attention does
    python predict.py --export onnx -o rsan.onnx the network itself, for other programs

A photograph of two megapixels takes two seconds on two cores with AMX; the network sees it at two widths.
Each photograph gives three images of its own size, in predictions/ or the folder named with -o:

    <name>_probability.png   probability map, 16-bit grey: 65535 is probability 1; 0 outside the field of view
    <name>_mask.png          white where the probability is at least the threshold, else black
    <name>_overlay.png       the photograph with its vessels tinted blue

It also gives a row of vessels.csv: size; scale (pixels that the network saw per pixel of the photograph); confidence
(the Dice coefficient to expect if the probabilities are right); seconds since the previous row; a warning if the map
is doubtful; and the measures of vessels/prediction/measures.py (density, length, width, branches, tortuosity, fractal
dimension). Files that predict.py did not write are never overwritten. A photograph that is predicted again gets
another row.

Subfolders are not read. A photograph that cannot be read is reported and skipped. After an interruption, continue with
--skip-existing. --shard 3/16 takes every 16th photograph from the third on and writes vessels-03-of-16.csv;
`cat vessels-*-of-16.csv > vessels.csv` joins the tables.

Exit code: 0; 1 if a photograph failed; 2 if the command line or the weights are wrong.
"""

import argparse
import sys
from pathlib import Path

from vessels import add_threshold, exit_code, quiet_imports
from vessels.prediction import photographs
from vessels.prediction.maps import HALO, TILE
from vessels.record import weights_file

WEIGHTS = Path(__file__).parent / "weights/any_rsan.weights.h5"


def shard(text):
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise argparse.ArgumentTypeError(f"{text} must look like 3/16, the third of sixteen parts")
    return int(number), int(shards)


def parse(argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("photographs", nargs="*", type=Path, help="image files, or folders of them: JPEG, "
                        "PNG, TIFF, GIF, BMP or PPM, of any bit depth, up to 40 megapixels")
    parser.add_argument("-o", "--output-dir", type=Path,
                        help="folder for results (default: predictions); with --export, the file or folder to write "
                        "(default for onnx: beside the weights)")
    parser.add_argument("--attention", action="store_true", help="instead of predicting, draw what each block of "
                        "spatial attention does: <name>_attention.jpg")
    parser.add_argument("--export", choices=("onnx", "litert", "saved_model"), help="write the network to a file, "
                        "and check it against Keras on one photograph. The network takes images (batch, height, width, "
                        "3) of any size, in [0, 1], black outside the field of view, which should be as wide as "
                        "`diameters` in the weights' JSON says. onnx: pip install onnxruntime tf2onnx; "
                        "litert: Keras 3.13 or newer")
    parser.add_argument("--weights", type=weights_file, default=WEIGHTS, help="weights file with its JSON beside it, "
                        "a run folder, or the name of released weights, such as drive (default: any)")
    add_threshold(parser)
    parser.add_argument("--diameter", type=float, help="width in pixels to which the field of view is scaled for the "
                        "network (default: the mean of the maps at the widths in the weights' JSON); weights of "
                        "the authors' scripts have no JSON and need this option")
    parser.add_argument("--careful", action="store_true", help="average over the three mirror images too; takes "
                        "four times as long")
    parser.add_argument("--skip-existing", action="store_true", help="skip photographs whose result images and table "
                        "row are already in --output-dir")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="take only every Nth "
                        "photograph, from the Ith on: for N runs in parallel, which may share one --output-dir")
    parser.add_argument("--microns-per-pixel", type=float, help="micrometres of retina per pixel: adds lengths in "
                        "millimetres and widths in micrometres")
    parser.add_argument("--degrees", type=float, help="instead of --microns-per-pixel: the camera's angle of view "
                        "across the whole circle of the field of view; the eye is assumed to be 24 mm long")
    parser.add_argument("--no-measures", dest="measures", action="store_false",
                        help="measure nothing but the density, which saves time on large photographs")
    parser.add_argument("--tile", type=int, default=TILE, help="side in pixels of the largest square that the "
                        "network sees at once; a smaller one needs less memory and more time, and gives the same map "
                        f"(default: {TILE})")
    arguments = parser.parse_args(argv)
    if arguments.tile % 8 or arguments.tile <= 2 * HALO:
        parser.error(f"--tile must be a multiple of 8 and more than {2 * HALO}")
    if arguments.export and arguments.photographs:
        parser.error("--export takes no photographs: omit them")
    if arguments.export and arguments.export != "onnx" and not arguments.output_dir:
        parser.error("--export needs -o PATH, the file or folder to write")
    lengths = arguments.microns_per_pixel, arguments.degrees, arguments.diameter
    if any(not value > 0 for value in lengths if value is not None):
        parser.error("--microns-per-pixel, --degrees and --diameter must be more than 0")
    if arguments.microns_per_pixel and arguments.degrees:
        parser.error("--microns-per-pixel and --degrees exclude each other: give only one")
    if not arguments.export:
        arguments.output_dir = arguments.output_dir or Path("predictions")
    unused = ["careful", "skip_existing", "shard", "microns_per_pixel", "degrees", "measures", "tile"]
    if arguments.export:
        unused += ["attention", "threshold", "diameter"]
    if arguments.export or arguments.attention:
        given = [name for name in unused if getattr(arguments, name) != parser.get_default(name)]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given).replace("--measures", "--no-measures")
            parser.error(f"--{'export' if arguments.export else 'attention'} does not use {flags}: omit it")
    if any(path.is_dir() and path.resolve() == arguments.output_dir.resolve() for path in arguments.photographs):
        parser.error("--output-dir is the folder of the photographs: choose another one")
    return arguments


def run(arguments):
    with quiet_imports():  # slow imports: a wrong command line must be reported before them
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
    parsed = parse()
    sys.exit(exit_code(lambda: run(parsed)))
