"""Batches and whole-image prediction: image and label move together, and predictions stay in place."""

import cv2
import keras
import numpy as np
import pytest

from vessels.data.augmentation import AnyCameraPatches, Patches, Strength
from vessels.data.examples import Example
from vessels.data.images import crop, pad
from vessels.data.whole_images import Versions, WholeImages
from vessels.prediction.maps import predict_image
from vessels.training.config import Recipe


def example(height=90, width=100, seed=0):
    """The photograph shows its label, so that both can be seen to move together."""
    rng = np.random.default_rng(seed)
    label = np.kron(rng.random((height // 10, width // 10)) > 0.5, np.ones((10, 10))).astype(bool)
    image = np.stack([(50 + 150 * label).astype("uint8")] * 3, axis=-1)
    return Example("made", image, label, np.ones_like(label))


@pytest.fixture
def identity():
    """A network that returns the red channel."""
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, inputs[..., :1])


@pytest.mark.parametrize(("height", "width", "side"), [(584, 565, 592), (960, 999, 1008), (8, 16, 24), (9, 7, 16)])
def test_crop_undoes_pad_and_the_odd_pixel_goes_right_and_down(height, width, side):
    image = np.random.default_rng(0).integers(1, 255, (height, width, 3), "uint8")
    padded = pad(image, side, side)
    assert padded.shape == (side, side, 3)
    assert (crop(padded, height, width) == image).all()
    rows, columns = (np.flatnonzero(padded.any(axis=(axis, 2))) for axis in (1, 0))
    assert (rows[0], columns[0]) == ((side - height) // 2, (side - width) // 2)


def test_pad_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="negative"):
        pad(np.zeros((600, 500, 3)), 592, 592)


@pytest.mark.parametrize("side", [8, 128])
@pytest.mark.parametrize("shape", [(90, 100), (64, 64), (57, 83)])
def test_prediction_stays_in_place(identity, shape, side):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), "uint8")
    found = predict_image(identity, image, side)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image[..., 0] / 255, atol=1e-6)


EITHER = pytest.mark.parametrize("kind", [Patches, AnyCameraPatches])


@EITHER
def test_image_and_label_move_together(kind):
    x, y, *_ = kind([example(900, 1000)], Recipe(patch_size=56, batch_size=8, steps_per_epoch=2, seed=3))[0]
    assert x.dtype == y.dtype == np.float32
    assert x.shape == (8, 56, 56, 3) and y.shape == (8, 56, 56, 1)
    assert set(np.unique(y)) <= {0, 1} and x.min() >= 0 and x.max() <= 1
    for image, label in zip(x[..., 0], y[..., 0], strict=True):
        assert 0.05 < label.mean() < 0.95 and np.corrcoef(image.ravel(), label.ravel())[0, 1] > 0.8


def dots(side=400):
    """A photograph with bright discs of 9 pixels across, and their label; the field of view is far from its sides."""
    label = np.zeros((side, side), bool)
    rows, columns = np.ogrid[:side, :side]
    for y in range(20, side, 40):
        for x in range(20, side, 40):
            label |= (rows - y) ** 2 + (columns - x) ** 2 <= 20
    image = np.repeat(np.where(label, 230, 40).astype("uint8")[..., None], 3, axis=2)
    fov = np.zeros_like(label)
    fov[150:250, 150:250] = True
    return Example("dots", image, label, fov)


@pytest.mark.parametrize("strength", [Strength(rotate_prob=share, noise=0) for share in (0, 0.5, 1)])
def test_a_label_lies_on_its_image_to_a_part_of_a_pixel(strength):
    """Vessels are one to three pixels wide, so a label must not be shifted by a pixel. Copied pixels agree exactly."""
    moved = []
    batches = Patches([dots()], Recipe(patch_size=128, batch_size=4, steps_per_epoch=3, seed=2), strength)
    for x, y in (batches[i] for i in range(3)):
        for image, label in zip(x[..., 1], y[..., 0], strict=True):
            ground, disc = np.median(image[label == 0]), np.median(image[label > 0])
            if strength.rotate_prob == 0:
                np.testing.assert_array_equal(image > (ground + disc) / 2, label > 0)
            for centre in cv2.connectedComponentsWithStats(label.astype("uint8"))[3][1:]:
                column, row = centre.round().astype(int)
                window = np.s_[row - 12 : row + 13, column - 12 : column + 13]
                if min(row, column) >= 12 and max(row, column) < 116:
                    weights = ((image[window] - ground) / (disc - ground)).clip(0)
                    found = [np.average(grid, weights=weights) for grid in np.mgrid[window]]
                    moved.append(np.subtract(found, centre[::-1]))
    assert len(moved) > 50 and np.abs(moved).max() < 0.4 and np.abs(np.mean(moved, axis=0)).max() < 0.05


@EITHER
def test_batches_depend_on_seed_epoch_and_index_alone(kind):
    def batch(seed, epoch, index):
        batches = kind([example(), example(seed=1)], Recipe(patch_size=56, batch_size=2, steps_per_epoch=3, seed=seed))
        batches.epoch = epoch
        return batches[index][0]

    assert (batch(1, 2, 0) == batch(1, 2, 0)).all()
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (batch(1, 2, 0) != batch(*other)).any()


def test_whole_images_come_once_an_epoch_in_a_new_order():
    data = WholeImages([example(seed=i) for i in range(5)], 104, Recipe(batch_size=2, seed=1))
    orders = []
    for _ in range(2):
        batches = [data[i] for i in range(len(data))]
        assert [len(x) for x, _ in batches] == [2, 2, 1]
        labels = np.concatenate([y for _, y in batches])
        # The red channel shows the label.
        reds = np.concatenate([x for x, _ in batches])[..., :1]
        np.testing.assert_allclose(reds[reds > 0], (50 + 150 * labels[reds > 0]) / 255, rtol=1e-6)
        assert (reds > 0).mean() == pytest.approx(90 * 100 / 104**2)
        assert {label.tobytes() for label in labels} == {pad(example(seed=i).label, 104, 104)[..., None]
                                                         .astype("float32").tobytes() for i in range(5)}
        orders.append(labels)
        data.on_epoch_end()
    assert (orders[0] != orders[1]).any()


def test_versions_are_a_fixed_set_in_which_image_and_label_move_together():
    made = example(height=100, width=100)
    first, again = (WholeImages([made], 104, Recipe(batch_size=2, seed=1), Versions()) for _ in range(2))
    assert len(first.images) == 14 and (first.images == again.images).all()
    assert len({image.tobytes() for image in first.images}) == 14
    for image, label in zip(first.images, first.labels, strict=True):
        assert np.corrcoef(image[..., 0].ravel(), label.ravel())[0, 1] > 0.75
    assert [len({label.tobytes() for label in first.labels[part]}) for part in (np.s_[:8], np.s_[8:])] == [8, 1]


def test_fit_sees_each_epoch_in_order():
    """Keras makes batches early and in several threads; what it trains on must still depend on the epoch only."""
    seen = []

    class Watched(keras.Model):
        def train_step(self, data):
            seen.append(float(keras.ops.mean(data[0])))
            return super().train_step(data)

    inputs = keras.Input((56, 56, 3))
    model = Watched(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))
    model.compile("sgd", "binary_crossentropy", run_eagerly=True, jit_compile=False)

    def patches(epoch):
        batches = Patches([example()], Recipe(patch_size=56, batch_size=2, steps_per_epoch=3))
        batches.epoch = epoch
        return batches

    def trained_on(first):
        seen.clear()
        model.fit(patches(first), initial_epoch=first, epochs=3, shuffle=False, verbose=0)
        return list(seen)

    made = [float(keras.ops.mean(patches(epoch)[index][0])) for epoch in range(4) for index in range(3)]
    assert len(set(made)) == 12
    whole = trained_on(0)
    # While Keras 3.15 prepares the first epoch, it calls on_epoch_end once.
    assert whole == pytest.approx(made[3:]) or whole == pytest.approx(made[:-3])
    assert trained_on(1) == whole[3:]


def test_the_default_batches_are_those_of_the_released_weights(retina):
    """Any change to colour, scale, rotation, flips or centres changes at least one of these numbers."""
    batches = Patches([retina], Recipe(patch_size=64, batch_size=8, steps_per_epoch=10, seed=3))
    batches.epoch = 2
    x, y = batches[4]
    colours = [[0.6814, 0.2865, 0.2239], [0.5977, 0.2313, 0.1513], [0.852, 0.3162, 0.2371]]
    assert x[:3].mean((1, 2)) == pytest.approx(np.array(colours), abs=1e-3)
    assert x[:, 5, 7, 1] == pytest.approx([0.3225, 0.2795, 0.3195, 0.1991, 0.2024, 0.3471, 0.1872, 0.2614], abs=3e-3)
    shares = [0.0042, 0.02, 0.0557, 0.1301, 0.0212, 0.0615, 0.0002, 0.009]
    assert y.mean((1, 2, 3)) == pytest.approx(shares, abs=1e-3)  # releases of OpenCV interpolate differently
