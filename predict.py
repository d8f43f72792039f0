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

It also gives a row of vessels.csv: size; scale (pixels that the network saw per pixel of the photograph, a mean over
its widths); confidence (the Dice coefficient to expect if the probabilities are right); seconds since the previous
row; a warning if the map is doubtful; the measures of vessels/prediction/measures.py (density, length, width,
branches, tortuosity, fractal dimension); and what made it: weights, threshold, settings, checksum of the photograph's
pixels.

Results of another photograph, and files that predict.py did not write, are never overwritten. A photograph that is
predicted again gets another row.

Subfolders are not read. A photograph that cannot be read is reported and skipped. After an interruption, continue with
--skip-existing.

Exit code: 0; 1 if a photograph failed; 2 if the command line or the weights are wrong.
"""

import sys

from vessels.prediction import command

if __name__ == "__main__":
    sys.exit(command.main(__doc__, network="rsan_model"))
