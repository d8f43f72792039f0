"""The command line of predict.py. Until it is known to be right, nothing slow is imported."""

import argparse
import os
import sys
from pathlib import Path

from vessels import UserError, add_renamed, add_threshold, between, exit_code, file_path

from pretrained import load_network, read_record, weights_file

WEIGHTS = "any"


def main(description, network, argv=None):
    """The command behind `predict.py`.

    Args:
        description: Text of `--help`.
        network: Name of the module that defines the network, see `vessels/network.py`.
        argv: The command line; by default, that of the process.

    Returns:
        Exit code: 0; 1 if a photograph failed; 2 after an error that names the remedy.
    """
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    given = {word.split("=")[0] for word in argv}
    if "--export" in given:
        return exit_code(lambda: export(export_parser().parse_args(argv), network))
    if "--attention" in given:
        return exit_code(lambda: attention(attention_parser().parse_args(argv), network))
    return exit_code(lambda: predict(parse(description, argv), network))


# Unit, least and most of --microns-per-pixel and --degrees.
SCALES = ("micrometres a pixel", 0.5, 100), ("degrees across the field of view", 5, 220)


def add_weights(parser):
    parser.add_argument("--weights", type=file_path, help="weights file with its JSON beside it, a run folder, or the "
                        "name of released weights, such as drive (default: any); or the .onnx file of --export, which "
                        "ONNX Runtime runs (default if Keras is not installed: weights/any_rsan.onnx)")


def add_photographs(parser):
    """Adds what predicting and `--attention` share."""
    parser.add_argument("photographs", nargs="*", type=file_path, help="image files, or folders of them: JPEG, "
                        "PNG, TIFF, GIF, BMP or PPM, of any bit depth, up to 40 megapixels")
    parser.add_argument("-o", "--output-dir", type=file_path, default=Path("predictions"),
                        help="folder for results (default: predictions)")
    add_weights(parser)
    add_threshold(parser)
    parser.add_argument("--diameter", type=between("pixels", 100, 10000), help="width in pixels to which the field of "
                        "view is scaled for the network (default: the mean of the maps at the widths in the weights' "
                        "JSON)")


def export_parser():
    parser = argparse.ArgumentParser(description="Writes the network to an ONNX file, and checks it against Keras on "
                                     "one photograph. The network takes images (batch, height, width, 3) in [0, 1], "
                                     "sides that are multiples of 8, black outside the field of view, which should be "
                                     "as wide as `diameters` in the weights' JSON says.")
    parser.add_argument("--export", required=True, choices=["onnx"], help="needs pip install onnxruntime tf2onnx")
    parser.add_argument("-o", "--output-dir", type=file_path, metavar="PATH", help="file to write (default: beside the "
                        "weights)")
    add_weights(parser)
    return parser


def attention_parser():
    parser = argparse.ArgumentParser(description="Draws what each block of spatial attention does in a photograph: "
                                     "<name>_attention.jpg.")
    parser.add_argument("--attention", required=True, action="store_true")
    add_photographs(parser)
    return parser


def parse(description, argv):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw, allow_abbrev=False,
                                     epilog="--attention and --export have options of their own: predict.py --export "
                                     "onnx --help")
    add_photographs(parser)
    parser.add_argument("--attention", action="store_true", help="instead of predicting, draw what each block of "
                        "spatial attention does")
    parser.add_argument("--export", metavar="onnx", help="instead of predicting, write the network to a file")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: average over the three mirror "
                        "images too; takes four times as long")
    add_renamed(parser, "--flips", "--tta")
    parser.add_argument("--fast", action="store_true", help="see each photograph once, at the smaller width")
    parser.add_argument("--mixed-precision", action=argparse.BooleanOptionalAction, help="compute in bfloat16 "
                        "(default: if this processor does so natively), or in float32")
    parser.add_argument("--skip-existing", action="store_true", help="skip photographs whose results are already in "
                        "--output-dir, if the same photograph, weights and settings made them")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--microns-per-pixel", type=between(*SCALES[0]), help="micrometres of "
                      "retina per pixel, 0.5 to 100: adds lengths in millimetres and widths in micrometres")
    size.add_argument("--degrees", type=between(*SCALES[1]), help="the same from the camera's angle of view "
                      "across the whole circle of the field of view, 5 to 220; the eye is assumed to be 24 mm long")
    arguments = parser.parse_args(argv)
    if os.path.realpath(arguments.output_dir) in map(os.path.realpath, arguments.photographs):
        parser.error("--output-dir is the folder of the photographs: choose another one")
    return arguments


def opened(weights, default):
    """The network of a weights file, a `Path`; `default` is `network` in `main`."""
    from vessels import network

    record = read_record(weights)
    module = network.load(network.of_record(weights, record, default))
    return load_network(module.build, module.load_weights, weights, record)


def predict(arguments, network):
    from vessels.data.fov import Widths
    from vessels.files import ROOT
    from vessels.prediction import folders, photographs
    from vessels.prediction.precision import with_precision
    from vessels.prediction.runtimes import load_onnx, only_onnx

    paths = folders.collect(arguments.photographs)
    missing = arguments.weights is None and only_onnx()
    weights = ROOT / "weights/any_rsan.onnx" if missing else weights_file(arguments.weights or WEIGHTS)
    if weights.suffix == ".onnx":
        model = load_onnx(weights)
        print(f"ONNX Runtime runs {weights.name}{', as Keras is not installed' if missing else ''}", file=sys.stderr)
    else:
        model = opened(weights, network)
    record, threshold = model.record, arguments.threshold or model.threshold
    widths = Widths.of_record(record, arguments.diameter)
    if arguments.fast:
        widths = Widths(widths.diameters[:1], widths.own_width[:1], widths.largest)
    model, precision = with_precision(model, arguments.mixed_precision)
    options = photographs.Options(
        widths, threshold, arguments.tta, arguments.microns_per_pixel, arguments.degrees, precision)
    table = folders.Table(arguments.output_dir, photographs.HEADER, options.made(weights, record))
    writer = photographs.Writer(model, options, table, arguments.skip_existing)
    return photographs.predict_all(writer, paths)


def attention(arguments, network):
    from vessels.data.fov import Widths
    from vessels.prediction import folders

    paths = folders.collect(arguments.photographs)
    model = opened(weights_file(arguments.weights or WEIGHTS), network)
    widths = Widths.of_record(model.record, arguments.diameter)
    threshold = arguments.threshold or model.threshold
    from vessels.prediction import attention as drawing  # needs Keras
    from vessels.prediction import photographs

    drawing.attention_layers(model)  # a network without attention is said once
    failed = 0
    for path in paths:
        try:
            with photographs.opencv_errors(path):
                print(f"written {drawing.write(model, path, arguments.output_dir, widths, threshold)}")
        except UserError as error:
            failed = 1
            print(f"error: {error}", file=sys.stderr)
    return failed


def export(arguments, network):
    weights = weights_file(arguments.weights or WEIGHTS)
    model = opened(weights, network)
    from vessels.prediction import export as exports  # needs Keras

    return exports.main(model, weights, arguments.output_dir)
