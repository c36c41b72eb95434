"""Compiled updates: with XLA where this machine has it, as a plain graph where it has not."""

import contextlib
import functools
import inspect
import os

import numpy as np
import tensorflow as tf
from scipy.sparse import issparse

from common import cache, sparse


@functools.cache
def xla_works() -> bool:
    """Whether `jit_compile` works here; TensorFlow for Windows has come without the compiler.

    The environment variable JIT_COMPILE=0 or 1 decides instead.
    """
    if choice := os.environ.get("JIT_COMPILE"):
        return choice != "0"
    try:
        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))
    except (tf.errors.OpError, ValueError, RuntimeError):
        return False
    return True


def converted(method):
    """Decorator of a method whose loops and conditions over tensors become part of the compiled update that calls it.

    This is AutoGraph for the method's own lines. By default TensorFlow also rewrites what they call, TensorLayer
    included: that changes nothing and takes one to two seconds of the first update.
    """
    return functools.wraps(method)(tf.autograph.to_graph(method, recursive=False))


def compiled(method):
    """Decorator of a method: `tf.function` with XLA or without. The results are the same; XLA is about twice as fast.

    Arguments: NumPy arrays and scalars are data, and so are pictures (scipy.sparse, see `common.sparse`), with which
    there is no XLA (nor for an object with `convolutions`, of which XLA's take longer); anything else is a constant.
    There is one compiled function for each combination of types and shapes, kept with the object: to look it up here
    makes small updates about a third faster than TensorFlow's own dispatch does, and so does handing over all data end
    to end in one array.

    The object's plain settings (see `Settings`) count as they are at the call, not as they were at the first one: those
    that are floats are data too, and for each value of the others there is a compiled function of its own.
    """
    graph = converted(method)

    def trace(self, settings, arguments):
        """A compiled function of what `_pack` makes of the settings that are floats and the arguments that are data,
        and of the pictures among them."""

        def body(pack, *pictures):
            tensors, batches = iter(_unpack(pack, data)), iter(pictures)
            with settings.as_tensors(next(tensors)):
                given = (next(batches) if issparse(x) else next(tensors) if _is_data(x) else x for x in arguments)
                return graph(self, *given)

        data = [settings.floats, *filter(_is_data, arguments)]
        shape = tf.TensorSpec([sum(_words(x).size for x in data)], tf.int32)
        shapes = [tf.RaggedTensorSpec([x.shape[0], None], tf.int32, 1, tf.int32) for x in arguments if issparse(x)]
        jit_compile = xla_works() and not shapes and not getattr(self, "convolutions", False)
        return tf.function(body, autograph=False, jit_compile=jit_compile).get_concrete_function(shape, *shapes)

    def call(self, *arguments):
        functions = self.__dict__.setdefault("compiled_functions", {})
        if "compiled_settings" not in self.__dict__:
            self.compiled_settings = Settings(self)
        settings = self.compiled_settings
        settings.look()
        kinds = ((x.dtype, x.shape) if _is_data(x) or issparse(x) else x for x in arguments)
        key = (method.__name__, settings.others, *kinds)
        pack = _pack([settings.floats, *filter(_is_data, arguments)])
        pictures = [sparse.ragged(x) for x in arguments if issparse(x)]
        if key in functions:
            return functions[key](pack, *pictures)
        new = functools.partial(trace, self, settings, arguments)
        function, results = cache.first_call(method.__qualname__, new, pack, *pictures)
        functions[key] = function if pictures else _unchecked(function)
        return results

    functools.update_wrapper(call, method)
    del call.__wrapped__  # Ray would change the signature of what it finds there, and TensorFlow goes by signatures
    return call


def _is_data(x) -> bool:
    return isinstance(x, (np.ndarray, np.generic))


def _unchecked(function):
    """The concrete function, called without looking at its arguments again, which would take 0.07 ms."""
    call = getattr(function, "_call_flat", None)
    if call is None:  # it is TensorFlow's own affair, and may be gone one day
        return function
    captured = function.captured_inputs
    return lambda pack: call([pack], captured)


def _pack(data: list) -> tf.Tensor:
    """The numbers of all arrays end to end, as int32 words.

    TensorFlow takes the memory as it is, which spares each update the 0.03 ms of `tf.constant`. It has to begin at a
    multiple of 64 bytes, as TensorFlow's own does: elsewhere its vector instructions crash.
    """
    words = [_words(x) for x in data]
    n = sum(x.size for x in words)
    room = np.empty(n + 15, np.int32)
    start = -room.__array_interface__["data"][0] // 4 % 16  # of the first number, so many words on
    pack = np.concatenate(words, out=room[start : start + n])
    return tf.experimental.dlpack.from_dlpack(pack.__dlpack__())


def _words(x) -> np.ndarray:
    return (x if x.itemsize >= 4 else x.astype(np.int32)).ravel().view(np.int32)


def _unpack(pack: tf.Tensor, data: list) -> list:
    """The tensors, of the shapes and types of the arrays `data`, that `_pack` made of such."""
    tensors = []
    for x, words in zip(data, tf.split(pack, [_words(x).size for x in data]), strict=True):
        if x.itemsize < 4:
            tensors.append(tf.reshape(tf.cast(words, x.dtype), x.shape))
        else:
            words = words if x.itemsize == 4 else tf.reshape(words, [-1, x.itemsize // 4])
            tensors.append(tf.reshape(tf.bitcast(words, x.dtype), x.shape))
    return tensors


class Settings:
    """The plain settings of an object and of its parts, as they are at the last `look`.

    A setting is a number, flag, word or None that a constructor takes and keeps under the argument's name. Parts are
    the objects among its attributes that are of the same module.

    floats: float32 [n], those that are floats.  others: a tuple of the rest, with `float` in the places of these.
    """

    def __init__(self, owner):
        owners = [owner, *(each for each in vars(owner).values() if type(each).__module__ == type(owner).__module__)]
        names = [(each, name) for each in owners for name in inspect.signature(type(each)).parameters]
        plain = (bool, int, float, str, type(None))
        self.places = [place for place in names if isinstance(getattr(*place, ()), plain)]
        self.values = None

    def look(self) -> None:
        """Bring floats and others up to date."""
        values = [getattr(owner, name) for owner, name in self.places]
        if values != self.values:
            self.values = values
            self.floats = np.array([x for x in values if isinstance(x, float)], np.float32)
            self.others = tuple(float if isinstance(x, float) else x for x in values)

    @contextlib.contextmanager
    def as_tensors(self, floats: tf.Tensor):
        """While a method is traced, the settings that are floats are the elements of `floats`."""
        numbers = [(*place, x) for place, x in zip(self.places, self.values, strict=True) if isinstance(x, float)]
        for (owner, name, _), tensor in zip(numbers, tf.unstack(floats), strict=True):
            setattr(owner, name, tensor)
        try:
            yield
        finally:
            for owner, name, number in numbers:
                setattr(owner, name, number)
