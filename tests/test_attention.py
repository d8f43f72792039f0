import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from vessels.data import published
from vessels.prediction.attention import attention_blocks, draw

from rsan_model import build_rsan


@pytest.fixture(scope="module")
def blocks(eye):
    keras.utils.set_random_seed(0)
    model = build_rsan(filters=2)
    model.layers[-1].set_weights([4 * np.ones((1, 1, 2, 1)), np.zeros(1)])  # so that it finds some vessels
    return attention_blocks(model, eye.image, published.DRIVE.widths)


def test_seven_blocks_by_level(blocks):
    assert [(block.name, block.channels) for block in blocks] == [
        ("encoder 1", 2), ("encoder 2", 4), ("encoder 3", 8), ("bottom", 16),
        ("decoder 3", 8), ("decoder 2", 4), ("decoder 1", 2)]
    widths = [block.attention.shape[1] for block in blocks]
    assert [widths[0] / width for width in widths] == [1, 2, 4, 8, 4, 2, 1]


def test_attention_is_what_the_features_are_multiplied_by(blocks, eye):
    for block in blocks:
        inside = ~np.isnan(block.attention)
        assert inside.mean() == pytest.approx(eye.fov.mean(), abs=0.02)
        assert block.attention[inside].min() >= 0 and block.attention[inside].max() <= 1
        np.testing.assert_allclose(block.after, block.attention * block.before, atol=1e-4)
        assert min(block.on_vessels, block.elsewhere) >= 0 and max(block.on_vessels, block.elsewhere) <= 1
    assert np.nanstd(blocks[0].attention) > 0.01


def test_picture_has_a_column_for_each_block(blocks):
    widths = [Image.open(io.BytesIO(draw(blocks[:n]))).width for n in (1, 7)]
    assert widths == [280, 1480] and draw(blocks) == draw(blocks)


def test_backbone_has_no_attention(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "predict.py", "--attention", "-o", tmp_path,
                           "--weights", ROOT / "weights" / "drive_backbone.weights.h5"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "a network without attention; name other" in done.stderr
    assert "Traceback" not in done.stderr
