"""Everything that is not the network: data, batches, training, scoring, reports."""

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
    """Hides what TensorFlow and CUDA print on stderr while they are imported and look for devices, unless that fails.

    Raises:
        UserError: Keras does not know $KERAS_BACKEND, or that backend is not installed.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
            if "tensorflow" in sys.modules:
                sys.modules["tensorflow"].config.list_physical_devices("GPU")
        except (ImportError, ValueError) as error:
            kept.seek(0)
            os.write(stderr, kept.read())
            backend = os.environ.get("KERAS_BACKEND", "tensorflow")
            raise UserError(f"KERAS_BACKEND={backend}: cannot be imported ({error}); install it (pip install "
                            "-r requirements.txt), or set tensorflow, jax or torch") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def exit_code(command, stopped="stopped"):
    """Returns `command()`, or 2 after a UserError and 130 after Ctrl-C, both with a line on stderr."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
