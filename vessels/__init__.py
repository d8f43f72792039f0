"""Everything that is not the network: data, batches, training, scoring, reports."""

import os

# Read when TensorFlow is imported: oneDNN halves the training step on processors where TensorFlow leaves
# it off (those without VNNI or AMX). A setting of the user's own stands.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class UserError(Exception):
    """What the user can mend: one line that names the file and the remedy. Scripts print it and exit with 2."""
