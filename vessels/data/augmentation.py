"""Makes training batches of augmented patches."""

import dataclasses

import cv2
import keras
import numpy as np

# With one worker, Keras makes batches with tf.data's autotuning, whose thread can delay the end of an epoch: a training
# pinned to one core lost a quarter of its time. The number of workers changes neither order nor content of the batches.
WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Strength:
    """Strength of the data augmentation; part of a run's record.

    Attributes:
        rotate_prob: Fraction of the patches with any angle and scale, which need interpolation; the others are only
            flipped and rotated by multiples of 90 degrees.
        scale: Largest scale factor of such a patch; the smallest is 1 / `scale`.
        contrast, gain: Largest relative change of the contrast of all channels together, and of each channel.
        brightness: Largest change of the values, which are in [0, 1].
        noise: Largest standard deviation of the Gaussian noise that half of the patches get.
    """

    rotate_prob: float = 0.5
    scale: float = 1.25
    contrast: float = 0.2
    gain: float = 0.1
    brightness: float = 0.1
    noise: float = 0.02


class Patches(keras.utils.PyDataset):
    """Augmented patches, whose centres are random pixels inside the fields of view.

    Each patch is taken from its image by one affine transform, so that the corners of a rotated patch show the image
    and need no filling. Every batch depends only on `(seed, epoch, index)`: a resumed run gets the same data.

    Args:
        examples: list of `Example`.
        recipe: A `config.Recipe`, or what else has `patch_size`, a multiple of 8, `batch_size`, `steps_per_epoch` and
            `seed`.
        strength: A `Strength`.

    Attributes:
        epoch: Number of the present epoch; set by a run that is resumed.

    Item: `(x, y)`, float32 `(batch, patch, patch, 3)` in [0, 1] and `(batch, patch, patch, 1)` in {0, 1}.
    """

    def __init__(self, examples, recipe, strength=Strength()):
        super().__init__(workers=WORKERS)
        self.examples, self.recipe, self.strength, self.epoch = examples, recipe, strength, 0
        self.inside = [np.flatnonzero(example.fov).astype("uint32") for example in examples]

    def __len__(self):
        return self.recipe.steps_per_epoch

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        rng = np.random.default_rng((self.recipe.seed, self.epoch, index))
        return tuple(map(np.stack, zip(*(self.patch(rng) for _ in range(self.recipe.batch_size)), strict=True)))

    def centre(self, rng, which):
        """x and y of a random pixel inside the field of view of photograph number `which`."""
        y, x = divmod(int(rng.choice(self.inside[which])), self.examples[which].fov.shape[1])
        return x, y

    def patch(self, rng):
        which = rng.integers(len(self.examples))
        example, size = self.examples[which], self.recipe.patch_size
        to_image = affine(random_view(rng, self.centre(rng, which), size, self.strength), size)

        image = warp(example.image, to_image, size).astype("float32") / 255
        label = warp(example.label.astype("float32"), to_image, size) >= 0.5
        return random_colour(rng, image, self.strength), label.astype("float32")[..., None]


def warp(array, to_array, size):
    """The patch with sides of `size` whose coordinates `to_array`, an `affine`, maps to those of `array`.

    `array`: `(height, width)` or `(height, width, channels)`, uint8 or float32, as is the patch.
    """
    return cv2.warpAffine(array, to_array, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@dataclasses.dataclass(frozen=True)
class View:
    """How a patch lies in its image.

    Attributes:
        centre: x and y of the image on which the patch's middle lies.
        scale: Width of one of its pixels, in pixels of the image.
        angle: In radians.
        flip: -1 to mirror the patch, else 1.
    """

    centre: tuple[float, float]
    scale: float
    angle: float
    flip: int


def random_view(rng, centre, size, strength):
    """A `View`: flips and rotations by multiples of 90 degrees, which do not change pixel values, or any angle and
    scale.
    """
    angle, scale = rng.integers(4) * np.pi / 2, 1.0
    if rng.random() < strength.rotate_prob:
        angle, scale = rng.uniform(0, 2 * np.pi), strength.scale ** rng.uniform(-1, 1)
    # With an offset of whole pixels, rotations by 90 degrees need no interpolation.
    centre = np.asarray(centre) + (0.5 if size % 2 == 0 else 0)
    return View(tuple(centre), scale, angle, rng.choice([-1, 1]))


def affine(view, size):
    """Affine map `(2, 3)` from the coordinates of a patch with sides of `size` to those of the image."""
    cos, sin = view.scale * np.cos(view.angle), view.scale * np.sin(view.angle)
    linear = np.array([[cos * view.flip, -sin], [sin * view.flip, cos]])
    return np.column_stack([linear, view.centre - linear @ ([(size - 1) / 2] * 2)])


def random_colour(rng, image, strength):
    """float32 `(size, size, 3)` in [0, 1]: the patch `image` with other brightness, contrast, gains and noise."""
    contrast = rng.uniform(1 - strength.contrast, 1 + strength.contrast)
    gain = contrast * rng.uniform(1 - strength.gain, 1 + strength.gain, 3)
    mean = image.mean((0, 1))
    image = (image - mean) * gain + mean + rng.uniform(-strength.brightness, strength.brightness)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(0, strength.noise), image.shape)
    return np.clip(image, 0, 1, dtype="float32", casting="same_kind")


@dataclasses.dataclass(frozen=True)
class AnyCamera:
    """Strength of the data augmentation for the general network; pairs are ranges of a uniform distribution.

    Attributes:
        diameter: Diameter of the field of view in pixels of the patch; its logarithm is uniformly distributed.
        gamma: Base-2 logarithm of the gamma exponent, for values in [0, 1].
        saturation: Factor of the colour saturation; 1 leaves it unchanged.
        grey: Fraction of the patches that become grey.
        contrast, gain: Factors of the contrast about the mean, for all channels together and for each channel.
        shift: Added to the values in [0, 1], once for all channels together and once for each channel.
        slope: Relative increase of the brightness from the middle of the patch to one side.
        blur, noise: Standard deviations, in pixels and for values in [0, 1]; each is applied to half of the patches.
        jpeg: JPEG quality; a third of the patches are compressed.
    """

    diameter: tuple[float, float] = (380, 1250)
    gamma: tuple[float, float] = (-0.8, 0.8)
    saturation: tuple[float, float] = (0.5, 1.4)
    grey: float = 0.1
    contrast: tuple[float, float] = (0.75, 1.25)
    gain: tuple[float, float] = (0.85, 1.15)
    shift: tuple[float, float] = (-0.08, 0.08)
    slope: tuple[float, float] = (0, 0.3)
    blur: tuple[float, float] = (0, 1.2)
    noise: tuple[float, float] = (0, 0.03)
    jpeg: tuple[float, float] = (40, 95)


def diameter(example):
    """Diameter in pixels of the field of view's circle; if it is unknown, the longer side of the box around `fov`."""
    return example.diameter or max(cv2.boundingRect(example.fov.astype("uint8"))[2:])


def planes_of(example, width):
    """uint8 `(height, width, 5)`: RGB, black outside the field of view; label and field of view, 0 or 255.

    A photograph is reduced if its field of view is more than `width` pixels wide.
    """
    masks = (255 * mask.astype("uint8") for mask in (example.label, example.fov))
    planes = np.dstack([example.image * example.fov[..., None], *masks])
    factor = width / diameter(example)
    if factor >= 1:
        return planes
    size = [round(side * factor) for side in example.fov.shape[::-1]]
    image, masks = (cv2.resize(channels, size, interpolation=cv2.INTER_AREA)
                    for channels in np.split(planes, [3], axis=2))
    return np.dstack([image, 255 * (masks >= 128).astype("uint8")])


class AnyCameraPatches(Patches):
    """Patches as from any camera: with random scale, angle, colours, illumination and sharpness.

    Arguments and random stream are those of `Patches`; `strength` is an `AnyCamera`. Pixels outside the field
    of view are black, as in prediction.

    Item: `(x, y, weight)`: `x` and `y` as in `Patches`; `weight` float32 `(batch, patch, patch)`, which is the
    example's `vessel_weight` for vessel pixels and 1 for all others.
    """

    def __init__(self, examples, recipe, strength=AnyCamera()):
        largest = 1.5 * strength.diameter[1]  # more pixels would only need memory
        self.diameters = [min(diameter(example), largest) for example in examples]
        self.planes = [planes_of(example, largest) for example in examples]
        examples = [dataclasses.replace(example, fov=planes[..., 4] > 0)
                    for example, planes in zip(examples, self.planes, strict=True)]
        super().__init__(examples, recipe, strength)

    def patch(self, rng):
        which = rng.integers(len(self.examples))
        centre = self.centre(rng, which)
        low, high = np.log(self.strength.diameter)
        scale = self.diameters[which] / np.exp(rng.uniform(low, high))  # photograph pixels per patch pixel
        view = View(centre, scale, rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]))
        planes = warp_patch(self.planes[which], view, self.recipe.patch_size)
        inside = planes[..., 4] >= 128
        image = any_camera(rng, planes[..., :3].astype("float32") / 255, inside, self.strength)
        label = (planes[..., 3] >= 128).astype("float32")
        return image, label[..., None], 1 + np.float32(self.examples[which].vessel_weight - 1) * label


def warp_patch(planes, view, size):
    """uint8 `(size, size, 5)`: the `View` of `planes`, uint8 `(height, width, 5)`; smoothed if reduced."""
    reach = int(view.scale * size * 0.71) + 8
    x, y = (int(value) for value in view.centre)
    left, top = max(x - reach, 0), max(y - reach, 0)
    region = planes[top : y + reach, left : x + reach]
    if view.scale > 1:  # same variance as the mean over `scale` pixels, by which whole photographs are reduced
        label = region[..., 3].copy()
        region = cv2.GaussianBlur(region, (0, 0), np.sqrt((view.scale**2 - 1) / 12))
        region[..., 3] = label  # in a smoothed label, the thinnest vessels would disappear
    return warp(region, affine(dataclasses.replace(view, centre=(x - left, y - top)), size), size)


def any_camera(rng, image, inside, strength):
    """float32 `(size, size, 3)` in [0, 1]: the patch with a random camera's appearance; black where not `inside`."""
    image = image ** np.float32(2 ** rng.uniform(*strength.gamma))
    grey = image @ np.array([0.3, 0.6, 0.1], "float32")
    saturation = 0 if rng.random() < strength.grey else rng.uniform(*strength.saturation)
    image = grey[..., None] + saturation * (image - grey[..., None])
    mean = image[inside].mean(axis=0) if inside.any() else np.zeros(3)
    gain = rng.uniform(*strength.contrast) * rng.uniform(*strength.gain, 3) ** (saturation > 0)
    shift = rng.uniform(*strength.shift) + rng.uniform(*strength.shift, 3) * (saturation > 0)
    ramp = np.linspace(-1, 1, len(image))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(*strength.slope)
    light = 1 + slope * (np.cos(angle) * ramp + np.sin(angle) * ramp[:, None])
    image = ((image - mean) * gain + mean + shift) * light[..., None]
    if rng.random() < 0.5 and (sigma := rng.uniform(*strength.blur)) > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(*strength.noise), image.shape)
    image = np.where(inside[..., None], image.clip(0, 1), 0).astype("float32")
    if rng.random() < 1 / 3:
        quality = int(rng.uniform(*strength.jpeg))
        _, coded = cv2.imencode(".jpg", np.round(255 * image[..., ::-1]).astype("uint8"),
                                [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype("float32") / 255
        image = np.where(inside[..., None], image, np.float32(0))
    return image
