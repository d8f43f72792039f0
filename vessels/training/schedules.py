"""The loss, the learning rate, and the schedules of DropBlock and batch normalization."""

import math

import keras


def loss_of(recipe):
    """The loss: a function of labels and probabilities, `(batch, height, width, 1)`, to `(batch, height, width)`.

    It gives one value per pixel, because the general network's data sets weight their pixels. The function's name goes
    into the record, so parameters of its own belong into the name. Here it is the binary cross-entropy of each pixel; a
    vessel pixel counts `vessel_weight` times.
    """
    def weighted_crossentropy(label, probability):
        weight = 1 + (recipe.vessel_weight - 1) * label[..., 0]
        return weight * keras.losses.binary_crossentropy(label, probability)

    return weighted_crossentropy


def phases(recipe, steps):
    """`[(first epoch, epoch after the last, learning rate)]`, each phase with a new Adam.

    Patches have one phase: 50 steps of warm-up, then a cosine decay to 1e-5. Whole images have two: the authors run
    their script once, then again by hand from the resulting weights, newly compiled, at a tenth of the rate.
    """
    if recipe.whole_images:
        boundary = recipe.epochs * 2 // 3
        return [(0, boundary, recipe.learning_rate), (boundary, recipe.epochs, recipe.learning_rate / 10)]
    warmup = min(50, recipe.epochs * steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, recipe.epochs * steps - warmup, alpha=min(1e-5 / recipe.learning_rate, 1),
        warmup_target=recipe.learning_rate, warmup_steps=warmup,
    )
    return [(0, recipe.epochs, schedule)]


def in_cooldown(recipe, epoch):
    """Whether `epoch` (from 0) is in the last fifth, in which batch normalization adapts to prediction.

    DropBlock is off then, because it scales up the values that it keeps, so that batch normalization learns a larger
    variance than in prediction (arXiv:1801.05134). The moving averages then cover ten times as many steps (momentum
    0.99 instead of 0.9), because the statistics of small batches fluctuate.
    """
    return epoch >= max(math.floor(0.8 * recipe.epochs), 1)


def ramped_keep_prob(recipe, epoch):
    """DropBlock's schedule (arXiv:1810.12890, section 3.1): from 1 down to keep_prob in six equal stages."""
    if in_cooldown(recipe, epoch):
        return 1
    stage = 6 if in_cooldown(recipe, epoch + 1) else min(6, math.floor(6 * epoch / (0.6 * recipe.epochs)))
    return round(1 - (1 - recipe.keep_prob) * stage / 6, 6)


def stage_callback(recipe, set_stage):
    """Callback: `set_stage(model, keep_prob, momentum)` at the start of each epoch; None keeps a value."""
    def enter(epoch, logs=None):
        set_stage(callback.model, ramped_keep_prob(recipe, epoch), 0.99 if in_cooldown(recipe, epoch) else None)

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=enter)
    return callback
