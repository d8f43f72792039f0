"""A file of one's own beside the scripts is trained, scored and compared as RSAN is."""

import json
import sys

import keras
import pytest
from conftest import TINY

from vessels import UserError, evaluation, jobs, network
from vessels.training import loop
from vessels.training.config import Recipe, main, parse

from rsan_model import build_rsan

RECIPE = Recipe(network="rsan_model", epochs=1, steps_per_epoch=2, batch_size=2, patch_size=56, keep_prob=0.9)
UNET = """
import keras
from keras import layers

def build(keep_prob=0.5, filters=2):
    inputs = keras.Input((None, None, 3))
    skip = layers.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
    x = layers.Dropout(1 - keep_prob)(layers.Conv2D(filters, 3, padding="same")(layers.MaxPooling2D()(skip)))
    x = layers.Concatenate()([skip, layers.UpSampling2D()(x)])
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of the scripts, with a U-Net in it."""
    (tmp_path / "my_unet.py").write_text(UNET)
    for module in (network, jobs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_unet", None)


def train(home, name="my_unet"):
    flags = ["--synthetic", "--epochs", "1", "--steps-per-epoch", "2", "--network", name]
    return main(TINY, RECIPE, {}, "help", [*flags, "--output-dir", str(home / "run")])


def score(home, *flags):
    return evaluation.main(TINY, "rsan_model", "help", [str(home / "run"), *flags])


def test_a_network_of_ones_own_is_trained_and_scored_in_the_same_tables(home, capsys):
    assert train(home) == 0
    record = json.loads((home / "run/final.json").read_text())
    assert (record["network"], record["variant"]) == ("my_unet", "my_unet")
    assert record["model"] == {"keep_prob": 0.95, "filters": 2}
    with pytest.raises(ValueError, match="arrays that do not match"):
        build_rsan(weights=home / "run")
    capsys.readouterr()
    assert score(home) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"network   {home / 'my_unet.py'}\n") and "\nmy_unet " in output
    (home / "my_unet.py").write_text(UNET + "raise SystemExit('imported')\n")
    assert score(home) == 2
    assert "my_unet.py is not the file of the training; restore that one" in capsys.readouterr().err
    (home / "my_unet.py").write_text(UNET + "# of the same shape\n")
    assert score(home, "--network", "my_unet") == 0
    assert score(home, "--network", "other") == 2
    assert "belongs to my_unet.py; leave out --network other" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing", "../my_unet", "json", "/tmp/x", "my_unet.py"])
def test_only_a_file_beside_the_scripts_is_imported(name, home, capsys):
    assert train(home, name) == 2
    assert f"network {name}: no file" in capsys.readouterr().err
    assert not (home / "run").exists()


def test_a_file_without_a_network_is_said(home, capsys):
    (home / "my_unet.py").write_text("x = 1\n")
    assert train(home) == 2
    assert "my_unet.py: has no function build" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "folder", "arguments"), [
    ([], "drive-rsan-0", {"variant": "rsan", "block_size": 7}),
    (["--network", "my_unet"], "drive-my_unet-0", {"block_size": 7}),
    (["--network", "my_unet", "--variant", "deep"], "drive-my_unet-deep-0", {"variant": "deep", "block_size": 7}),
])
def test_a_network_gets_the_arguments_that_it_accepts(flags, folder, arguments):
    recipe, _, given = parse(TINY, RECIPE, {}, "help", flags)
    module = network.Network(recipe.network, lambda variant="flat", block_size=3, weights=None: None, None, None)
    assert given.output_dir.name == folder
    assert module.arguments(recipe) == {"variant": "flat", **arguments}


def test_a_network_that_is_not_functional_is_refused():
    class Mine(keras.Model):
        pass

    with pytest.raises(UserError, match="must return a functional"):
        loop.built(network.Network("mine", lambda: Mine(), None, None), Recipe())
