import contextlib
import io

import keras
import numpy as np
import pytest
from PIL import Image

from vessels import UserError
from vessels.data import published
from vessels.data.fov import Widths, field_of_view
from vessels.data.images import pad
from vessels.prediction import command
from vessels.prediction.attention import attention_blocks, draw, write

from rsan_model import build_rsan


@pytest.fixture(scope="module")
def blocks(eye):
    keras.utils.set_random_seed(0)
    model = build_rsan(filters=2)
    return attention_blocks(model, eye.image, published.DRIVE.widths)


def test_seven_blocks_by_level(blocks):
    assert [(block.name, block.channels) for block in blocks] == [
        ("encoder 1", 2), ("encoder 2", 4), ("encoder 3", 8), ("bottom", 16),
        ("decoder 3", 8), ("decoder 2", 4), ("decoder 1", 2)]
    widths = [block.attention.shape[1] for block in blocks]
    assert [widths[0] / width for width in widths] == [1, 2, 4, 8, 4, 2, 1]


class Red(keras.layers.Layer):
    def call(self, x):
        return x

    def attention(self, x):
        return x[..., :1]


def red_network():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, Red()(inputs)[..., 1:2])
    model.record, model.threshold = {"diameters": (565,)}, 0.5
    return model


def test_another_photographs_picture_is_not_overwritten(eye, tmp_path):
    for turn, refused in ((0, False), (0, False), (1, True)):
        Image.fromarray(np.rot90(eye.image, turn)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match="did not make it from this") if refused else contextlib.nullcontext():
            write(red_network(), tmp_path / "a.png", tmp_path, published.DRIVE.widths, 0.5)


def test_attention_is_shown_inside_the_field_of_view(eye):
    """This network finds vessels where green is bright, and its attention is red."""
    own_width = Widths((field_of_view(eye.image)[1],))
    (block,) = attention_blocks(red_network(), eye.image, own_width)
    height, width = block.attention.shape
    red, green = (pad(eye.image[..., i], height, width) / 255 for i in (0, 1))
    inside = ~np.isnan(block.attention)
    assert inside.mean() == pytest.approx(eye.fov.sum() / inside.size, abs=0.01)
    np.testing.assert_allclose(block.attention[inside], red[inside], atol=1e-2)
    assert block.on_vessels == pytest.approx(red[inside & (green >= 0.5)].mean(), abs=0.01)
    assert block.elsewhere == pytest.approx(red[inside & (green < 0.5)].mean(), abs=0.01)


@pytest.mark.filterwarnings("error")
def test_without_vessels_their_mean_is_unknown(eye):
    (block,) = attention_blocks(red_network(), eye.image, published.DRIVE.widths, threshold=0.999)
    assert np.isnan(block.on_vessels) and block.elsewhere == pytest.approx(np.nanmean(block.attention), abs=1e-5)


def test_picture_has_a_column_for_each_block(blocks):
    widths = [Image.open(io.BytesIO(draw(blocks[:n]))).width for n in (1, 7)]
    assert widths == [280, 1480] and draw(blocks) == draw(blocks)


def test_a_photograph_that_cannot_be_read_does_not_stop_the_others(eye, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "opened", lambda weights, default: red_network())
    (tmp_path / "a.png").write_text("no photograph")
    Image.fromarray(eye.image).save(tmp_path / "b.png")
    assert command.main("", "rsan_model", ["--attention", tmp_path, "-o", tmp_path / "out", "--diameter", 200]) == 1
    output, said = capsys.readouterr()
    assert "error: " in said and "a.png: cannot be decoded" in said and "b_attention.jpg" in output


def test_backbone_has_no_attention(tmp_path, capsys):
    flags = ["--attention", "-o", tmp_path, "--weights", "drive_backbone"]
    assert command.main("", "rsan_model", flags) == 2
    assert "a network without attention; name other" in capsys.readouterr().err
