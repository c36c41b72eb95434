"""What XLA compiled, kept for the next process: most of the time of a first update is tracing and compiling.

TensorFlow can do this alone, but then an update fails where the folder is full, read-only or holds a damaged file.
So TensorFlow is given a folder in memory, and files are carried between that and the disk here. They have checksums,
and whatever goes wrong with them, it is as if they were not there.

The environment variable XLA_CACHE=0 turns the cache off, XLA_CACHE=FOLDER puts it elsewhere.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import threading
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow as tf

from common.files import replacing
from common.loading import MEMORY

LIMIT = 200  # files; each holds one compiled update, about 0.1 MB


@functools.cache
def folder() -> Path | None:
    """The folder on the disk, for this TensorFlow and processor; None if there is no cache (see `common.loading`)."""
    choice = os.environ.get("XLA_CACHE", "")
    if choice == "0" or MEMORY not in os.environ.get("TF_XLA_FLAGS", ""):
        return None
    root = Path(choice) if choice else platformdirs.user_cache_path("policy-gradients", appauthor=False)
    return root / f"tensorflow-{importlib.metadata.version('tensorflow')}-{_digest(_processor())}"


def first_call(name: str, trace, *arguments):
    """(function, results): what `trace` gives is a concrete function, and its first call compiles it.

    name: of the method that it is made of.
    """
    function = trace()
    file = folder() and folder() / f"{_digest([name, function.name, _inputs(function)])}.npz"
    if not file:
        return function, function(*arguments)
    with contextlib.suppress(Exception):
        _read(file)
    known = _names()
    try:
        results = function(*arguments)
    except tf.errors.OpError:
        if not file.exists():
            raise
        function = trace()  # has another name, so that nothing that was read, and may be the reason, is asked for
        results = function(*arguments)
    if fresh := _names() - known:
        with contextlib.suppress(Exception):
            _write(file, fresh)
    return function, results


def _read(file: Path) -> None:
    with np.load(file, allow_pickle=False) as arrays:  # a zip file, which has checksums
        entries = {name: arrays[name].tobytes() for name in arrays.files}
    for name in entries.keys() - _names():
        temporary = f"{MEMORY}/{name}.{threading.get_ident()}"  # another thread may be compiling now
        with tf.io.gfile.GFile(temporary, "wb") as target:
            target.write(entries[name])
        tf.io.gfile.rename(temporary, f"{MEMORY}/{name}", overwrite=True)


def _write(file: Path, names: set[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:  # another process may write the same file now
        np.savez_compressed(temporary, **{name: np.frombuffer(_entry(name), np.uint8) for name in names})
    for old in sorted(file.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime)[:-LIMIT]:
        old.unlink(missing_ok=True)


def _names() -> set[str]:
    """What is complete in TensorFlow's folder."""
    names = tf.io.gfile.listdir(MEMORY) if tf.io.gfile.isdir(MEMORY) else []
    return {name for name in names if name.endswith(".pb")}


def _entry(name: str) -> bytes:
    with tf.io.gfile.GFile(f"{MEMORY}/{name}", "rb") as source:
        return source.read()


def _inputs(function) -> list:
    """Types and shapes of arguments and variables; the name alone stays the same when a network has other units."""
    return [(x.dtype.name, tuple(x.shape)) for x in function.inputs]


def _processor() -> list:
    """What machine code depends on: the processor, how many of it XLA may use, and XLA's own flags."""
    try:
        words = ("model name", "flags", "CPU part", "Features")  # the last two on Arm
        lines = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(words)}
    except OSError:
        lines = {platform.processor()}
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [platform.machine(), sorted(lines), count, os.environ.get("XLA_FLAGS"), os.environ.get("TF_XLA_FLAGS")]


def _digest(what: list) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
