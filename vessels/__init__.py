"""Everything that is not the network: data, batches, training, scoring, reports."""

import argparse
import contextlib
import os
import sys
import tempfile

# TensorFlow reads this on import. oneDNN halves the time of a training step on processors where TensorFlow
# does not use it by default (those without VNNI or AMX). A value set by the user is kept.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow and JAX must not reserve all memory of a GPU: other programs may use it too.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class UserError(Exception):
    """An error in the input or on the command line; the message is one line with the file and the remedy.

    Scripts print it and exit with code 2.
    """


@contextlib.contextmanager
def quiet_imports():
    """Imports Keras and its backend first. Hides what TensorFlow and CUDA print on stderr meanwhile and while they look
    for devices, unless something fails.

    Raises:
        UserError: As `import_backend` does.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            import_backend()
            yield
        except Exception:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def import_backend():
    """Raises UserError if Keras does not know $KERAS_BACKEND, or this backend is missing or broken."""
    try:
        import keras  # noqa: F401

        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices("GPU")
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, RuntimeError
        while str(error).startswith("Traceback") and error.__context__:  # TensorFlow wraps the cause
            error = error.__context__
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
        packages = {"tensorflow": "-r requirements.txt", "jax": "jax", "torch": "torch"}
        install = f"install it (pip install {packages[backend]}), or " if backend in packages else ""
        raise UserError(f"KERAS_BACKEND={backend}: cannot be imported ({' '.join(str(error).split())}); {install}"
                        "set it to tensorflow, jax or torch") from error


def add_threshold(parser):
    """Adds --threshold to an `argparse.ArgumentParser`: a float between 0 and 1, or None."""
    def probability(text):
        if not 0 < float(text) < 1:
            raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
        return float(text)

    parser.add_argument("--threshold", type=probability, help="probability from which a pixel counts as vessel "
                        "(default: the value in the weights' JSON, else 0.5)")


class Renamed(argparse.Action):
    """An old flag, whose error names the new one: `add_argument("--old", action=Renamed, dest="--new")`."""

    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest, nargs="?", default=argparse.SUPPRESS, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string} is now called {self.dest}")


def exit_code(command, stopped="stopped"):
    """Returns `command()`, or 2 after a UserError and 130 after Ctrl-C, both with a line on stderr."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that cannot be printed
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
