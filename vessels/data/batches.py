"""From examples to batches: augmented patches, or whole padded images."""

import dataclasses

import cv2
import keras
import numpy as np

from vessels.data.images import pad

# With one worker, Keras leaves batches to tf.data's autotuning, whose thread can sleep through the end of an epoch: a
# training pinned to one core lost a quarter of its time. Order and content of the batches are the same.
WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Strength:
    """How strongly patches vary: part of a run's record.

    Attributes:
        turned: Share of the patches at any angle and scale, which are interpolated; the others are copied, flipped
            and turned by quarters.
        scale: Largest factor of size of a turned patch, and one over the smallest.
        contrast, gain: Largest relative change of the contrast, of all channels and of each.
        brightness: Largest shift of the values, which lie in [0, 1].
        noise: Largest standard deviation of Gaussian noise; half of the patches have some.
    """

    turned: float = 0.5
    scale: float = 1.25
    contrast: float = 0.2
    gain: float = 0.1
    brightness: float = 0.1
    noise: float = 0.02


class Patches(keras.utils.PyDataset):
    """Augmented patches, centred anywhere inside the fields of view.

    Each patch is one affine warp straight from its image, so that a turned patch shows
    what lies beside it and no filled corner. Every batch is a function of `(seed, epoch, index)`
    alone: a resumed run sees the same data.

    Args:
        examples: list of `Example`.
        patch_size: Side in pixels, a multiple of 8.
        batch_size, steps: Patches in a batch, batches in an epoch.
        seed, epoch: Of the random stream.
        strength: A `Strength`.

    Item: `(x, y)`, float32 `(batch, patch, patch, 3)` in [0, 1] and `(batch, patch, patch, 1)` in {0, 1}.
    """

    def __init__(self, examples, patch_size, batch_size, steps, seed=0, epoch=0, strength=Strength()):
        super().__init__(workers=WORKERS)
        self.examples = examples
        self.patch_size, self.batch_size, self.steps = patch_size, batch_size, steps
        self.seed, self.epoch, self.strength = seed, epoch, strength
        self.centres = [np.argwhere(example.fov) for example in examples]

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        images, labels = zip(*(self.patch(rng) for _ in range(self.batch_size)), strict=True)
        return np.stack(images), np.stack(labels)[..., None]

    def patch(self, rng):
        which = rng.integers(len(self.examples))
        example, centres = self.examples[which], self.centres[which]
        to_image = random_affine(rng, centres[rng.integers(len(centres))][::-1], self.patch_size, self.strength)

        def warp(array, interpolation):
            size = (self.patch_size, self.patch_size)
            return cv2.warpAffine(array, to_image, size, flags=interpolation | cv2.WARP_INVERSE_MAP)

        image = warp(example.image, cv2.INTER_LINEAR).astype("float32") / 255
        label = warp(example.label.astype("float32"), cv2.INTER_LINEAR) >= 0.5
        return random_colour(rng, image, self.strength), label.astype("float32")


def random_affine(rng, centre, size, strength=Strength()):
    """Affine map `(2, 3)` from patch to image coordinates: flips and quarter turns, which leave each pixel as it was
    taken, or any angle and scale.
    """
    angle, scale = rng.integers(4) * np.pi / 2, 1.0
    if rng.random() < strength.turned:
        angle, scale = rng.uniform(0, 2 * np.pi), strength.scale ** rng.uniform(-1, 1)
    flip = rng.choice([-1, 1])
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    middle = (size - 1) / 2
    # A whole-pixel offset keeps quarter turns free of interpolation.
    offset = np.asarray(centre) + (0.5 if size % 2 == 0 else 0) - linear @ [middle, middle]
    return np.column_stack([linear, offset])


def random_colour(rng, image, strength=Strength()):
    """Brightness, contrast, gain of each channel and noise, as cameras and exposures differ."""
    contrast = rng.uniform(1 - strength.contrast, 1 + strength.contrast)
    gain = contrast * rng.uniform(1 - strength.gain, 1 + strength.gain, 3)
    mean = image.mean((0, 1))
    image = (image - mean) * gain + mean + rng.uniform(-strength.brightness, strength.brightness)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(0, strength.noise), image.shape)
    return np.clip(image, 0, 1, dtype="float32", casting="same_kind")


class WholeImages(keras.utils.PyDataset):
    """The authors' batches: whole padded images in a new order each epoch, no augmentation (`strength` is None).

    Item: `(x, y)`, float32 `(batch, side, side, 3)` in [0, 1] and `(batch, side, side, 1)` in {0, 1}.
    """

    strength = None

    def __init__(self, examples, side, batch_size, seed=0, epoch=0):
        super().__init__(workers=WORKERS)
        self.images = np.stack([pad(example.image, side, side) for example in examples])
        self.labels = np.stack([pad(example.label, side, side) for example in examples])
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.images))
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[chosen].astype("float32") / 255, self.labels[chosen, ..., None].astype("float32")
