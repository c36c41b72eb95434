"""Compiled updates: with XLA where this machine has it, as a plain graph where it has not."""

import functools
import os

import numpy as np
import tensorflow as tf

DATA = (np.ndarray, np.generic)


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

    Arguments: NumPy arrays and scalars are data, anything else is a constant. There is one compiled function for each
    combination of types and shapes, kept with the object: to look it up here makes small updates about a third faster
    than TensorFlow's own dispatch does.
    """
    traced = tf.function(converted(method), autograph=False, jit_compile=xla_works())

    def call(self, *arguments):
        data = [x for x in arguments if isinstance(x, DATA)]
        key = (method.__name__, *((x.dtype, x.shape) if isinstance(x, DATA) else x for x in arguments))
        functions = self.__dict__.setdefault("compiled_functions", {})
        if key not in functions:
            functions[key] = traced.__get__(self, type(self)).get_concrete_function(*arguments)
        return functions[key](*(tf.convert_to_tensor(x) for x in data))

    functools.update_wrapper(call, method)
    del call.__wrapped__  # Ray would change the signature of what it finds there, and TensorFlow goes by signatures
    return call
