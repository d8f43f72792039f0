"""The module that defines a network: rsan_model.py, or a file of your own beside the scripts.

It offers `build(**arguments)`, which returns an uncompiled functional `keras.Model` from float images in [0, 1],
`(batch, height, width, 3)`, to probabilities `(batch, height, width, 1)`, and is given those of `keep_prob`, `variant`
and `block_size` that it accepts. Optional are `set_stage(model, keep_prob, momentum)`, called before each epoch, and
`load_weights(model, path)`, which raises ValueError if the file does not fit.
"""

import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Callable

from vessels import UserError, quiet_imports
from vessels.files import ROOT, sha256

import pretrained


@dataclasses.dataclass(frozen=True)
class Network:
    """What a module offers, see above. `name`: of the module."""

    name: str
    build: Callable
    set_stage: Callable
    load_weights: Callable

    def arguments(self, recipe):
        """The arguments of `build` for a `Recipe`: those of the recipe that it accepts, and its own defaults: dict."""
        wanted = {name: getattr(recipe, name) for name in ("keep_prob", "variant", "block_size")}
        if recipe.variant == self.name:  # the file has no variants, or its default one is meant
            del wanted["variant"]
        parameters = inspect.signature(self.build).parameters
        everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        defaults = {name: parameter.default for name, parameter in parameters.items()
                    if isinstance(parameter.default, bool | int | float | str)}
        return {**defaults, **{name: value for name, value in wanted.items() if everything or name in parameters}}


def find(name):
    """Path of the file NAME.py beside the scripts, which is not imported; UserError if there is none."""
    path = ROOT / f"{name}.py"
    if not str(name).isidentifier() or not path.is_file():
        raise UserError(f"network {name}: no file {path}; put it beside the scripts, and leave out folder and suffix")
    return path


def of_record(weights, record, default, asked=None):
    """Name of the module of a network; UserError unless it is the script's, was asked for, or trained the weights.

    A record may come from anywhere, so a file that it names is imported only if it is the one of the training.
    """
    name = record.get("network", asked or default)
    if asked and name != asked:
        raise UserError(f"{weights}: belongs to {name}.py; leave out --network {asked}, or name other weights")
    if name != default:
        path = find(name)
        if not asked and sha256(path) != record.get("network_sha256"):
            raise UserError(f"{weights}: {path} is not the file of the training; restore that one or, to score with "
                            f"this one, give eval_*.py --network {name}")
    return name


def load(name):
    """Imports Keras and the module: a `Network`. UserError if it has no function `build`."""
    with quiet_imports():
        module = importlib.import_module(name)
    if not callable(getattr(module, "build", None)):
        raise UserError(f"{name}.py: has no function build; it must return the network, a keras.Model")
    return Network(name, module.build, getattr(module, "set_stage", lambda *stage: None),
                   getattr(module, "load_weights", pretrained.load_weights))
