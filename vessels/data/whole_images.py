"""Makes training batches of whole padded images, as RSAN's authors do."""

import dataclasses

import cv2
import keras
import numpy as np

from vessels.data.augmentation import WORKERS
from vessels.data.images import pad


@dataclasses.dataclass(frozen=True)
class Versions:
    """Fixed versions of each whole image, as RSAN's authors describe them for SA-UNet (arXiv:2004.03696).

    These are the image, its three mirror images, and rotated, noisy and colour-jittered ones. The numbers and strengths
    are ours: the authors name the kinds only. Part of a run's record.

    Attributes:
        rotated, noisy, jittered: Number of versions of each kind.
        noise: Standard deviation of the Gaussian noise, for values in [0, 1].
        jitter: Largest relative change of each channel.
    """

    rotated: int = 4
    noisy: int = 3
    jittered: int = 3
    noise: float = 0.03
    jitter: float = 0.2


def versions(image, label, strength, rng):
    """`[(image, label)]` of all versions of a square uint8 image and its bool label; rotations are by any angle."""
    made = [(image, label), *((np.flip(image, axes), np.flip(label, axes)) for axes in (0, 1, (0, 1)))]
    for _ in range(strength.rotated):
        middle = (len(image) - 1) / 2
        turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 360), 1)
        planes = np.dstack([image, 255 * label.astype("uint8")])
        planes = cv2.warpAffine(planes, turn, planes.shape[:2], flags=cv2.INTER_LINEAR)
        made.append((planes[..., :3], planes[..., 3] >= 128))
    changes = [rng.normal(0, 255 * strength.noise, image.shape) for _ in range(strength.noisy)]
    changes += [image * rng.uniform(-strength.jitter, strength.jitter, 3) for _ in range(strength.jittered)]
    return made + [((image + change).clip(0, 255).round().astype("uint8"), label) for change in changes]


class WholeImages(keras.utils.PyDataset):
    """The authors' batches: whole padded images in a new random order each epoch.

    Args:
        examples: list of `Example`.
        side: Side in pixels to which images are padded.
        recipe: A `config.Recipe`, or what else has `batch_size` and `seed`.
        strength: `Versions` for several versions of each image; None for the images alone.

    Attributes:
        epoch: Number of the present epoch; set by a run that is resumed.

    Item: `(x, y)`, float32 `(batch, side, side, 3)` in [0, 1] and `(batch, side, side, 1)` in {0, 1}.
    """

    def __init__(self, examples, side, recipe, strength=None):
        super().__init__(workers=WORKERS)
        pairs = [(pad(example.image, side, side), pad(example.label, side, side)) for example in examples]
        if strength:
            rng = np.random.default_rng(recipe.seed)
            pairs = [version for pair in pairs for version in versions(*pair, strength, rng)]
        self.images, self.labels = map(np.stack, zip(*pairs, strict=True))
        self.recipe, self.strength, self.epoch = recipe, strength, 0

    def __len__(self):
        return -(-len(self.images) // self.recipe.batch_size)

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        size = self.recipe.batch_size
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.images))
        chosen = order[index * size : (index + 1) * size]
        return self.images[chosen].astype("float32") / 255, self.labels[chosen, ..., None].astype("float32")
