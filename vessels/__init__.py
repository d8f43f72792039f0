"""Everything that is not the network: data, batches, training, scoring, reports."""

import argparse
import contextlib
import importlib.metadata
import io
import os
import re
import signal
import sys
import tempfile
import threading
from pathlib import Path

from packaging.version import Version

from pretrained import WeightsError

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
        UserError: As `import_backend` does; or no temporary file can be written.
    """
    try:
        tempfile.gettempdir()
    except OSError:  # TensorFlow, too, needs one
        raise UserError("no folder for temporary files can be written to: set TMPDIR to one, or make room") from None
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
        import keras

        keras.config.set_floatx("float32")  # the user's keras.json may say another
        if "tensorflow" in sys.modules:
            sys.modules["tensorflow"].config.list_physical_devices("GPU")
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, RuntimeError
        while str(error).startswith("Traceback") and error.__context__:  # TensorFlow wraps the cause
            error = error.__context__
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
        raise UserError(f"KERAS_BACKEND={backend}: cannot be imported ({' '.join(str(error).split())}): pip install "
                        "-r requirements.txt for TensorFlow, set it to tensorflow, jax or torch, or correct keras.json "
                        "in ~/.keras or $KERAS_HOME") from error


def parser_for(description):
    """An `argparse.ArgumentParser` whose help shows `description` line by line, as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def between(unit, low, high):
    """Type of a command line's argument: float from `low` to `high`."""
    def number(text):
        if not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high} {unit}, got {text}")
        return float(text)

    return number


def file_path(text):
    """Type of a command line's argument: Path. An empty one, as of an unset variable, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return Path(text)


def add_threshold(parser):
    """Adds --threshold to an `argparse.ArgumentParser`: a float between 0 and 1, or None."""
    parser.add_argument("--threshold", type=between("as a probability", 0.001, 0.999), help="probability from which "
                        "a pixel counts as vessel (default: the value in the weights' JSON, else 0.5)")


def add_renamed(parser, old, new):
    """Adds an old flag, whose error names the new one, to an `argparse.ArgumentParser`."""
    def refuse(value):
        raise argparse.ArgumentTypeError(f"is now called {new}")

    parser.add_argument(old, type=refuse, nargs="?", const="", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class Lasting:
    """A text stream that may still be written to when its reader, such as `head`, has gone, or its disk is full."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self.go_on(self.stream.write, text)

    def flush(self):
        self.go_on(self.stream.flush)

    def go_on(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def open_streams():
    """Opens standard streams that are closed, as services and `2>&-` leave them: else a file would take their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = (stream or io.StringIO() for stream in (sys.stdout, sys.stderr))


def check_packages():
    """Raises UserError if an installed package is older than requirements.txt says."""
    requirements, old = Path(__file__).parent.parent / "requirements.txt", []
    for name, least in re.findall(r"(?m)^([\w-]+)>=([\d.]+)", requirements.read_text(encoding="utf-8")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # what is missing is said on import
            version = importlib.metadata.version(name)
            if Version(version) < Version(least):
                old.append(f"{name} {version} ({least} is needed)")
    if old:
        raise UserError(f"too old: {', '.join(old)}; pip install -r requirements.txt")


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and container engines send it."""


def terminate(number, frame):
    raise Terminated


def repeat(dropped):
    """Repeats a signal that came where Python drops every exception, such as in a weak reference's callback."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        number = signal.SIGTERM if dropped.exc_type is Terminated else signal.SIGINT
        threading.Timer(0.1, signal.raise_signal, [number]).start()
    else:
        sys.__unraisablehook__(dropped)


def exit_code(command, stopped="stopped"):
    """Returns `command()`, 0 for None; or after a line on stderr: 2 for a UserError, 130 for Ctrl-C, 143 for SIGTERM.
    """
    open_streams()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that cannot be printed
    before, sys.unraisablehook = signal.signal(signal.SIGTERM, terminate), repeat
    with contextlib.redirect_stdout(Lasting(sys.stdout)), contextlib.redirect_stderr(Lasting(sys.stderr)):
        try:
            check_packages()
            return command() or 0
        except (UserError, WeightsError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            print(f"\n{stopped}", file=sys.stderr)
            return 143 if isinstance(error, Terminated) else 130
        finally:
            signal.signal(signal.SIGTERM, before)
            sys.stdout.flush()
            sys.stderr.flush()
