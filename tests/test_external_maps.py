"""Probability maps that any program has made: which are read, and the messages for those that are not."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from vessels import UserError
from vessels.data.examples import Example
from vessels.prediction.external_maps import read_map

SHAPE = (40, 50)
PROBABILITY = np.linspace(0, 1, SHAPE[0] * SHAPE[1], dtype="float32").reshape(SHAPE)
BINARY = PROBABILITY > 0.7


def example(name):
    rng = np.random.default_rng(len(name))
    label = rng.random(SHAPE) < PROBABILITY / 2
    return Example(name, np.zeros((*SHAPE, 3), "uint8"), label, np.ones(SHAPE, bool))


EXAMPLES = [example("01_test"), example("left/eye")]


def eight(array):
    return np.round(255 * array).astype("uint8")


def sixteen(array):
    return np.round(65535 * array).astype("uint16")


def write(folder, array, suffix=".png", names=("01_test", "left/eye")):
    for name in names:
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix.lower().endswith(".png"):
            Image.fromarray(array).save(path)
        else:
            tifffile.imwrite(path, array)


@pytest.mark.parametrize(("made", "suffix", "step"), [
    (eight(PROBABILITY), ".png", 255), (eight(PROBABILITY), ".tif", 255), (sixteen(PROBABILITY), ".PNG", 65535),
    (sixteen(PROBABILITY), ".tiff", 65535), (PROBABILITY, ".tif", 1e7), (PROBABILITY.astype("float64"), ".tif", 1e7),
    (np.dstack([eight(PROBABILITY)] * 3), ".png", 255), (sixteen(PROBABILITY), "_probability.png", 65535),
    # Black and white maps rank nothing: they become bool.
    (eight(BINARY), ".png", None), (BINARY.astype("uint8"), ".png", None), (BINARY, ".png", None),
    (sixteen(BINARY), ".png", None),
])
def test_maps_of_every_kind_are_read(made, suffix, step, tmp_path):
    write(tmp_path, made, suffix)
    for one in EXAMPLES:
        found = read_map(tmp_path, one)
        assert found.dtype == (np.float32 if step else bool)
        np.testing.assert_allclose(found, PROBABILITY if step else BINARY, atol=0.51 / step if step else 0)


@pytest.mark.parametrize(("made", "suffix", "message"), [
    (eight(PROBABILITY[1:]), ".png", "50x39 pixels, not 50x40 as the photograph"),
    (eight(np.stack([PROBABILITY, PROBABILITY.T.reshape(SHAPE), PROBABILITY], axis=-1)), ".png", "is in colour"),
    (255 * PROBABILITY, ".tif", r"holds values outside \[0, 1\]"),
    (np.full(SHAPE, np.nan, "float32"), ".tif", r"holds values outside \[0, 1\]"),
    (eight(1 - PROBABILITY), ".png", "is darker in vessels than elsewhere"),
    (eight(0 * PROBABILITY), ".png", "holds the value 0 alone"),
    (np.round(100 * PROBABILITY).astype("uint8"), ".png", "its largest value is 100, but 255 means 1"),
    (eight(PROBABILITY).astype("uint16"), ".png", "its largest value is 255, but 65535 means 1"),
    (PROBABILITY - 0.5, ".tif", r"holds values outside \[0, 1\]"),
])
def test_what_is_no_map_is_refused(made, suffix, message, tmp_path):
    write(tmp_path, made, suffix)
    with pytest.raises(UserError, match=f"01_test{suffix}: .*{message}"):
        read_map(tmp_path, EXAMPLES[0])


def test_a_missing_map_a_broken_one_and_two_of_a_name(tmp_path):
    with pytest.raises(UserError, match="none: no such folder"):
        read_map(tmp_path / "none", EXAMPLES[0])
    write(tmp_path, eight(PROBABILITY), names=("01_test",))
    with pytest.raises(UserError, match=r"lacks the map of left/eye; there must be one left/eye\.png or \.tif"):
        read_map(tmp_path, EXAMPLES[1])
    write(tmp_path, eight(PROBABILITY), ".tif", names=("01_test",))
    with pytest.raises(UserError, match=r"01_test\.png, 01_test\.tif all claim to be the map of 01_test"):
        read_map(tmp_path, EXAMPLES[0])
    (tmp_path / "01_test.png").unlink()
    (tmp_path / "01_test.tif").write_bytes(b"II*\0 cut short")
    with pytest.raises(UserError, match=r"01_test\.tif: cannot be decoded"):
        read_map(tmp_path, EXAMPLES[0])
