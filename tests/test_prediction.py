import csv
import shutil
import types

import cv2
import keras
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from predicting import Darkness, run

from vessels.data import published
from vessels.data.fov import Widths, field_of_view
from vessels.prediction import command, folders, maps

from attention_module import SpatialAttention
from rsan_model import build_rsan


@pytest.fixture(scope="module")
def eye(eye):
    return eye.image


@pytest.fixture
def photograph(eye, tmp_path):
    Image.fromarray(eye).save(tmp_path / "rgb.png")
    return tmp_path / "rgb.png"


@pytest.mark.slow
def test_halo_is_how_far_the_network_sees(monkeypatch):
    """An infinite value spreads through positive weights wherever there is a path, and nowhere else."""
    monkeypatch.setattr("fused.FUSED", False)  # its kernels hold zeros, and infinity times zero is NaN
    model = build_rsan(filters=1)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(np.full(weight.shape, 0.01 / np.prod(weight.shape[:-1])))
    for layer in model.layers:
        if isinstance(layer, SpatialAttention):
            layer.conv.activation = keras.activations.linear  # a sigmoid would make it finite
    logits = keras.Model(model.input, model.layers[-1].input)
    reach = []
    for phase in range(8):
        x = np.full((1, 384, 384, 3), 0.5, "float32")
        x[0, 192 + phase, 192 + phase] = np.inf
        rows, columns = np.nonzero(~np.isfinite(logits.predict_on_batch(x))[0, ..., 0])
        reach += [np.abs(rows - 192 - phase).max(), np.abs(columns - 192 - phase).max()]
    assert max(reach) == maps.HALO


def seen_far(x):
    """Instead of the network: each pixel depends on all within HALO, and on its place in a grid of 8 x 8 pixels."""
    image = x[0, ..., 0] + np.tile(np.arange(64, dtype="float32").reshape(8, 8), np.array(x.shape[1:3]) // 8)
    return cv2.erode(image, np.ones((2 * maps.HALO + 1,) * 2, "uint8"))[None, ..., None]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_tiles_equal_the_whole(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")
    network = types.SimpleNamespace(predict_on_batch=seen_far)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "HALO", 24)
        found = maps.predict_image(network, image, tile=80)
        np.testing.assert_array_equal(found, maps.predict_image(network, image))


def test_a_large_field_of_view_is_seen_in_few_tiles():
    seen = []
    network = types.SimpleNamespace(predict_on_batch=lambda x: seen.append(x[..., 0].size) or x[..., :1])
    maps.predict_image(network, np.zeros((1872, 2648, 3), "uint8"), tile=1304)  # 8 of 10 pixels of HRF's photographs
    assert max(seen) <= 1304**2 and sum(seen) < 1.35 * 1872 * 2648


@pytest.mark.parametrize("dataset", published.DATASETS, ids=lambda dataset: dataset.name)
@pytest.mark.parametrize("factor", [0.4, 1, 2.5])
def test_every_size_is_seen_at_the_scale_of_training(eye, dataset, factor):
    image = cv2.resize(eye, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    found = maps.predict_photograph(Darkness(), image, dataset.widths)
    probability, fov, scale = found.probability, found.fov, found.scale
    assert probability.shape == fov.shape == image.shape[:2] and probability.dtype == np.float32
    assert not probability[~fov].any() and 0 <= probability.min() <= probability.max() <= 1
    assert np.ptp(np.flatnonzero(fov.any(0))) * scale == pytest.approx(dataset.diameter, rel=0.02)
    # After scaling down and up, each pixel's probability is at the pixel's position.
    inside = cv2.erode(fov.astype("uint8"), np.ones((5, 5), "uint8"), borderValue=0) > 0
    assert np.abs(probability - (1 - image[..., 1] / 255))[inside].mean() < 0.02


def test_a_field_of_view_that_is_given_must_be_a_mask_of_the_photograph_and_gives_the_scale(eye):
    bare = eye[150:450, 150:450]  # no rim
    disc = np.hypot(*(np.mgrid[:300, :300] - 149.5)) < 120
    assert maps.predict_photograph(Darkness(), bare, Widths((480,)), disc).scale == pytest.approx(2, rel=0.02)
    for fov in (255 * disc.astype("uint8"), disc[:-1]):
        with pytest.raises(ValueError, match=r"fov must be bool \(300, 300\)"):
            maps.predict_photograph(Darkness(), bare, Widths((480,)), fov)


def test_of_several_widths_the_mean_is_taken(eye):
    maps_at = [maps.predict_photograph(Darkness(), eye, Widths((wanted,))) for wanted in (300, 500)]
    found = maps.predict_photograph(Darkness(), eye, Widths((300, 500)))
    assert found.scale == pytest.approx(np.mean([one.scale for one in maps_at]))
    np.testing.assert_allclose(found.probability, np.mean([one.probability for one in maps_at], axis=0), atol=1e-6)
    assert found.confidence == pytest.approx(maps.confidence(found.probability))


def test_four_mirror_images_are_seen_flipped_back_and_averaged():
    image, seen = np.random.default_rng(0).integers(0, 256, (5, 8, 3), "uint8"), []
    fov, ramp = image[..., 1] > 100, np.arange(40, dtype="float32").reshape(5, 8) / 40

    def predict(image, fov):
        assert image.flags["C_CONTIGUOUS"] and image.dtype == "uint8"
        seen.append(image.tobytes())
        return fov * image[..., 0] / np.float32(255) + ramp

    found = maps.average_flips(predict, image, fov)
    assert found.dtype == "float32" and np.abs(found - fov * image[..., 0] / 255 - ramp.mean()).max() < 1e-6
    assert set(seen) == {one.tobytes() for one in (image, image[::-1], image[:, ::-1], image[::-1, ::-1])}


def test_no_probability_is_rounded_to_more_than_1():
    certain = types.SimpleNamespace(predict_on_batch=lambda x: np.ones((*x.shape[:3], 1), "float32"))
    photograph, everywhere = np.full((584, 584, 3), 100, "uint8"), np.ones((584, 584), bool)
    assert maps.resize(np.ones((952, 952), "float32"), 584, 584).max() > 1  # what OpenCV makes of ones
    assert maps.predict_scaled(certain, photograph, everywhere, 952 / 584).max() == 1


def test_without_a_rim_the_most_confident_size_of_the_disc_is_used(monkeypatch):
    """The confidence rises with the size at which this network is shown the photograph."""
    image = np.full((200, 300, 3), 120, "uint8")
    image[::9] = 60

    def sure_when_large(model, image, fov, scale, *arguments, **keywords):
        return np.full(fov.shape, min(scale / 4, 1), "float32")

    monkeypatch.setattr(maps, "predict_scaled", sure_when_large)
    found = maps.predict_photograph(None, image, Widths((800, 1100)))
    assert found.diameter is None
    assert found.scale == pytest.approx(950 / (300 * min(maps.NO_RIM)))


@pytest.mark.parametrize(("values", "expected"), [([1, 1, 0, 0], 1), ([0.5, 0.5], 2 / 3), ([0.4, 0.9], 1.8 / 2.3),
                                                  ([0, 0], 0)])
def test_confidence_is_the_dice_to_be_expected(values, expected):
    assert maps.confidence(np.array(values, "float32")) == pytest.approx(expected)


@pytest.mark.parametrize("image", [np.zeros((80, 80, 3), "float32"), np.zeros((80, 80, 3), "uint16"),
                                   np.zeros((80, 80), "uint8"), np.zeros((80, 80, 4), "uint8")])
def test_what_is_no_8_bit_rgb_is_refused(image):
    with pytest.raises(ValueError, match="must be uint8"):
        maps.predict_photograph(Darkness(), image, Widths((537,)))
    with pytest.raises(ValueError, match="must be uint8"):
        maps.predict_image(Darkness(), image)


def test_one_bad_file_does_not_stop_the_others(eye, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("rgb.png", "turned.jpg", "grey16.tiff", "bad.jpg"):
        Image.fromarray(eye).save(folder / name)
    (folder / "bad.jpg").write_bytes((folder / "bad.jpg").read_bytes()[:3000])
    for name in ("notes.txt", "a.dcm", "b.DCM", "c.webp", "d.jp2"):
        (folder / name).write_text("not tried")
    (folder / "._rgb.jpg").write_text("what another system leaves")
    output = tmp_path / "out"
    assert run(output, folder) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum("bad.jpg" in line and "error" in line for line in lines) == 1
    assert "skipped .dcm (2), .jp2 (1), .txt (1), .webp (1); to try one of another suffix, name it" in lines
    assert sum("scale" in line for line in lines) == 3 and [line[:5] for line in lines if "/4]" in line][-1] == "[4/4]"

    with (output / "vessels.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    assert [row["file"] for row in rows] == [str(folder / name) for name in ("grey16.tiff", "rgb.png", "turned.jpg")]
    assert list(rows[0])[:8] == ["file", "width", "height", "scale", "confidence", "seconds", "warning", "density"]
    assert len(list(output.iterdir())) == 1 + 3 * 3
    for row in rows:
        assert (int(row["height"]), int(row["width"])) == eye.shape[:2] and 0.98 < float(row["scale"]) < 1.02
    probability = np.asarray(Image.open(output / "rgb_probability.png"))
    mask = np.asarray(Image.open(output / "rgb_mask.png"))
    overlay = np.asarray(Image.open(output / "rgb_overlay.png"))
    assert probability.max() > 255 and set(np.unique(mask)) == {0, 255}  # Pillow 10 reads 16 bits as int32
    assert ((probability >= 32768) == (mask == 255)).all()
    assert (overlay[mask == 0] == eye[mask == 0]).all() and (overlay[mask == 255] != eye[mask == 255]).any(1).all()
    density = (mask == 255).sum() / field_of_view(eye)[0].sum()
    assert float(rows[1]["density"]) == pytest.approx(density, abs=1e-4)


def test_two_photographs_of_one_name_are_refused_and_one_named_twice_is_predicted_once(photograph, tmp_path, capsys):
    assert folders.collect([photograph, photograph.parent]) == [photograph]
    copies = [shutil.copy(photograph, tmp_path / name) for name in ("RGB.tif", "rgb.jpg")]
    assert run(tmp_path / "out", photograph, *copies) == 2
    said = capsys.readouterr().err
    assert all(f"{photograph} and {copy}" in said for copy in copies) and "overwrite" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["nowhere.jpg", "empty"])
def test_nothing_to_predict_is_said_so(tmp_path, capsys, missing):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "out", tmp_path / missing) == 2
    assert "no photograph there" in capsys.readouterr().err


def test_weights_must_be_those_of_their_record(photograph, tmp_path, capsys):
    (tmp_path / "drive_rsan.weights.h5").write_bytes(b"changed")
    shutil.copy(ROOT / "weights" / "drive_rsan.json", tmp_path)
    assert run(tmp_path / "out", photograph, "--weights", tmp_path / "drive_rsan.weights.h5") == 2
    assert "not the file that" in capsys.readouterr().err


def test_a_diameter_replaces_the_widths_of_the_record(photograph, tmp_path):
    assert run(tmp_path / "out", photograph, "--weights", "drive", "--diameter", 500) == 0
    with (tmp_path / "out" / "vessels.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["scale"]) == pytest.approx(500 / 537, abs=0.02)


def test_the_photograph_of_scikit_image_needs_no_download(tmp_path):
    assert run(tmp_path) == 0
    assert Image.open(tmp_path / "retina_overlay.png").size == (1411, 1411)


@pytest.mark.parametrize(("wrong", "message"), [
    (["--weights"], "expected one argument"), ([".", "-o", "."], "choose another one"),
    (["--export", "litert"], "invalid choice"), (["--export", "onnx", "photo.jpg", "-o", "rsan.onnx"], "unrecognized"),
    (["--attention", "--tta"], "unrecognized"),
    (["--export", "onnx", "-o", "rsan.onnx", "--threshold", "0.4"], "unrecognized"),
    (["--flips"], "--flips: is now called --tta"),
    (["--microns-per-pixel", "0.006"], "0.5 to 100 micrometres a pixel"), (["--degrees", "0.785"], "5 to 220 degrees"),
    (["--degrees", "400"], "5 to 220 degrees"), (["--degrees", "nan"], "5 to 220"), (["--diameter", "-1"], "100 to"),
    (["--degrees", "45", "--microns-per-pixel", "5"], "not allowed with"),
])
def test_wrong_command_line(wrong, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main("", "predicting", wrong)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
