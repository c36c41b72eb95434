"""TensorFlow and what comes with it, loaded in less time than `import tensorflow` alone takes."""

import atexit
import contextlib
import functools
import gc
import importlib.abc
import importlib.machinery
import inspect
import os
import sys
import types

from common.quiet import quiet

# What nobody uses here: scikit-learn's wrappers, galleries (with matplotlib's pyplot), TensorLayer's examples,
# downloads, what Keras shows in Jupyter. And Python's distutils, where it has one (to 3.11): setuptools' would take its
# place and bring all of itself along.
UNUSED = {
    "IPython",
    "distutils",
    "keras.wrappers",
    "keras._tf_keras.keras.wrappers",
    "keras.visualization",
    "keras._tf_keras.keras.visualization",
    "keras.src.visualization",
    "requests",
    "tensorlayer.app",
    "tensorlayer.utils",
}

# XLA keeps what it compiles in a folder in memory; `common.cache` brings it there from the disk and back.
MEMORY = "ram://xla"
FLAGS = f"--tf_xla_persistent_cache_directory={MEMORY} --tf_xla_persistent_cache_device_types=CPU"


class Later(importlib.abc.MetaPathFinder):
    """Finds the modules of UNUSED, which are then loaded when somebody asks for something in them, and not before."""

    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in UNUSED else None
        if spec and spec.loader:
            spec.loader = _LaterLoader(spec.loader)
        return spec


class _LaterLoader(importlib.abc.Loader):
    """`importlib.util.LazyLoader` would not do: it loads a module as soon as somebody asks for its file's name."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        def load(name):
            del module.__getattr__
            module.__loader__ = module.__spec__.loader = self.loader
            self.loader.exec_module(module)
            return getattr(module, name)

        module.__getattr__ = load  # called for what the module has not got yet


def set_flags() -> None:
    """Ask TensorFlow for XLA's cache, unless XLA_CACHE=0 or its user's flags come from a file or name a cache."""
    flags = os.environ.get("TF_XLA_FLAGS", "")
    others = (bool(flags) and not flags.startswith("--")) or "persistent_cache" in flags
    if os.environ.get("XLA_CACHE") != "0" and not others:
        os.environ["TF_XLA_FLAGS"] = f"{flags} {FLAGS}".strip()


def _one_thread(config) -> bool:
    """Whether one thread is faster than several that share its work: up to 64 units a layer, without convolutions."""
    units = getattr(config, "hidden", None) or (getattr(config, "hidden_dim", 0),)
    return max(units) <= 64 and not getattr(config, "convolutions", False)


def _look_without_source() -> None:
    """Give TensorLayer, which looks up its callers for every layer, an `inspect.stack` that finds no lines of source.

    It does not need them, and for the first one Python goes through all modules, which takes 0.15 s.
    """
    frames = types.SimpleNamespace(**vars(inspect) | {"stack": functools.partial(inspect.stack, 0)})
    for name in ("tensorlayer.decorators.method_decorator", "tensorlayer.layers.core"):
        if hasattr(module := sys.modules.get(name), "inspect"):
            module.inspect = frames


@contextlib.contextmanager
def loading(config=None):
    """The block imports an agent, and with it TensorFlow: in silence, with a word on a terminal, and quickly.

    config: settings of an agent that learns from small batches. With small networks TensorFlow gets one thread then,
    unless TF_NUM_INTRAOP_THREADS says how many.
    """
    with quiet("Loading TensorFlow ..."):
        if "tensorflow" in sys.modules:
            yield
            return
        set_flags()
        sys.meta_path.insert(0, later := Later())
        before = set(sys.modules)
        gc.disable()  # what is imported stays; to look through it again and again takes a fifth of the time
        try:
            import tensorflow_probability  # noqa: F401, I001  there before TensorFlow, it does not load its experiments
            import tensorflow as tf

            if config and _one_thread(config) and "TF_NUM_INTRAOP_THREADS" not in os.environ:
                tf.config.threading.set_intra_op_parallelism_threads(1)
            yield
            if tensorlayer := sys.modules.get("tensorlayer"):
                tensorlayer.logging.set_verbosity(tensorlayer.logging.WARN)  # in a notebook it would tell of each layer
                _look_without_source()
        finally:
            sys.meta_path.remove(later)
            for name in {"distutils", "distutils.version"} - before:  # of Python's, setuptools would warn
                sys.modules.pop(name, None)
            gc.enable()
            gc.freeze()
            atexit.register(gc.unfreeze)  # an environment made before is to end as ever
