"""Compiled updates: with XLA where this machine has it, as a plain graph where it has not."""

import functools
import os

import tensorflow as tf


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


def compiled(function):
    """Decorator: `tf.function` with XLA or without. The results are the same; XLA is about twice as fast."""
    return tf.function(function, jit_compile=xla_works())
