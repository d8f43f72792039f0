"""predict.py's command line, with a replacement for the network."""

from vessels.prediction import command


class Darkness:
    """Replaces the network: dark pixels inside a bright eye are vessels."""

    def predict_on_batch(self, x):
        return 1 - x[..., 1:2]


def build(**_):
    return Darkness()


def load_weights(model, path):
    pass


def run(output, *words):
    """Exit code of `predict.py WORDS -o OUTPUT`."""
    return command.main("", "predicting", ["--weights", "drive", *words, "-o", output])
