"""The loss, the optimizer, and the schedules of learning rate, DropBlock and batch normalization."""

import dataclasses
import math

import keras


@dataclasses.dataclass(frozen=True)
class Schedules:
    """What changes during a training on patches; part of a run's record.

    Attributes:
        warmup_steps: Steps in which the learning rate rises from 0.
        final_learning_rate: To which it then falls, along a cosine.
        second_peak: Factor of the peak learning rate in the second cycle.
        ramp, stages: In this part of a cycle, DropBlock's keep_prob falls from 1, in so many equal stages.
        cooldown: In this last part of a cycle, DropBlock is off, and batch normalization adapts to prediction.
        momentum, cooldown_momentum: Of batch normalization, before and in the cooldown.
    """

    warmup_steps: int = 50
    final_learning_rate: float = 1e-5
    second_peak: float = 0.4
    ramp: float = 0.6
    stages: int = 6
    cooldown: float = 0.2
    momentum: float = 0.9
    cooldown_momentum: float = 0.99


SCHEDULES = Schedules()


def loss_of(recipe):
    """The loss: a function of labels and probabilities, `(batch, height, width, 1)`.

    It gives a value for each pixel, `(batch, height, width)`, or for each photograph, `(batch,)`. The function's name
    goes into the record, so parameters of its own belong into the name. Here it is the binary cross-entropy of each
    pixel; a vessel pixel counts `vessel_weight` times.
    """
    def weighted_crossentropy(label, probability):
        weight = 1 + (recipe.vessel_weight - 1) * label[..., 0]
        return weight * keras.losses.binary_crossentropy(label, probability)

    return weighted_crossentropy


def training_loss(recipe):
    """`loss_of(recipe)` for `compile`: a value for a whole photograph counts for each of its pixels.

    The general network's data sets weight their pixels, `(batch, height, width)`; Keras would multiply them by
    `(batch,)` values along the wrong side.
    """
    loss = loss_of(recipe)

    def values(label, probability):
        result = loss(label, probability)
        return keras.ops.reshape(result, (-1, 1, 1)) if len(result.shape) == 1 else result

    return values


def optimizer_of(rate):
    return keras.optimizers.Adam(rate)


def cycles(recipe):
    """`[(first epoch, epoch after the last, peak learning rate)]` of a training on patches: one, or two.

    In a second one, all schedules begin again, from a lower peak, as in warm restarts (arXiv:1608.03983).
    """
    restart = max(round((1 - recipe.second_cycle) * recipe.epochs), 1)
    both = [(0, restart, recipe.learning_rate), (restart, recipe.epochs, SCHEDULES.second_peak * recipe.learning_rate)]
    return [(first, end, peak) for first, end, peak in both if first < end]


def phases(recipe, steps):
    """`[(first epoch, epoch after the last, learning rate)]`, each phase with a new optimizer.

    Patches have one for each cycle. Whole images have two: the authors run their script once, then again by hand from
    the resulting weights, newly compiled, at a tenth of the rate.
    """
    if recipe.whole_images:
        boundary = recipe.epochs * 2 // 3
        return [(0, boundary, recipe.learning_rate), (boundary, recipe.epochs, recipe.learning_rate / 10)]
    return [(first, end, rate_of((end - first) * steps, peak)) for first, end, peak in cycles(recipe)]


def rate_of(steps, peak):
    """The learning rate of a cycle of `steps`: a rise to `peak`, then a cosine."""
    warmup = min(SCHEDULES.warmup_steps, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, alpha=min(SCHEDULES.final_learning_rate / peak, 1), warmup_target=peak,
        warmup_steps=warmup)


def described(recipe, steps):
    """Loss, optimizer and schedules, as they are recorded and compared on resume: dict."""
    loss, rates = loss_of(recipe), {}
    for first, end, rate in phases(recipe, steps):
        optimizer = optimizer_of(rate)
        settings = {key: value for key, value in optimizer.get_config().items() if key not in ("name", "learning_rate")}
        rates[f"epochs {first + 1} to {end}"] = rate if isinstance(rate, float) else rate.get_config()
    return {
        "loss": getattr(loss, "__name__", type(loss).__name__),
        "optimizer": {"class_name": type(optimizer).__name__, **settings},
        "schedules": {"learning_rate": rates, **({} if recipe.whole_images else dataclasses.asdict(SCHEDULES))},
    }


def stage(recipe, epoch):
    """`(keep_prob, momentum)` of DropBlock and batch normalization in `epoch` (from 0) of a training on patches.

    In equal stages, keep_prob falls from 1 to the recipe's (arXiv:1810.12890, section 3.1). In the cooldown, the last
    part of a cycle, batch normalization adapts to prediction: DropBlock is off, because it scales up the values that it
    keeps, so that batch normalization learns a larger variance than in prediction (arXiv:1801.05134). The moving
    averages then cover ten times as many steps, because the statistics of small batches fluctuate.
    """
    first, length = next((first, end - first) for first, end, _ in reversed(cycles(recipe)) if epoch >= first)
    done, dropping = epoch - first, max(math.floor((1 - SCHEDULES.cooldown) * length), 1)
    if done >= dropping:
        return 1, SCHEDULES.cooldown_momentum
    stages = SCHEDULES.stages
    reached = stages if done + 1 == dropping else min(stages, math.floor(stages * done / (SCHEDULES.ramp * length)))
    return round(1 - (1 - recipe.keep_prob) * reached / stages, 6), SCHEDULES.momentum
