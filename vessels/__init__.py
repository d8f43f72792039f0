"""Everything that is not the network: data, batches, training, scoring, reports."""

import os
import sys

# Read when TensorFlow is imported: oneDNN halves the training step on processors where TensorFlow leaves
# it off (those without VNNI or AMX). A setting of the user's own stands.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Of a GPU's memory, TensorFlow and JAX take what they need as they need it: other programs live on it too.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class UserError(Exception):
    """What the user can mend: one line that names the file and the remedy. Scripts print it and exit with 2."""


def exit_code(command, stopped="stopped"):
    """What `command()` returns; 2 after a UserError, 130 after Ctrl-C, each with a line on stderr."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
