"""Weights as one vector, which is quick to copy and to send, and its parts in the weights' own shapes."""

import numpy as np
import tensorflow as tf


def join(arrays: list) -> tf.Tensor:
    """All numbers of the arrays or variables, end to end: float32 [n]."""
    return tf.concat([tf.reshape(array, [-1]) for array in arrays], 0)


def split(vector, like: list) -> list:
    """The parts of the vector [n] that `join` made, each of the shape of its neighbour in `like`.

    Of a NumPy vector they are views: what is written into it changes them.
    """
    reshape = np.reshape if isinstance(vector, np.ndarray) else tf.reshape
    sizes = [int(np.prod(each.shape)) for each in like]
    ends = np.cumsum(sizes)
    return [reshape(vector[end - n : end], tuple(each.shape)) for each, n, end in zip(like, sizes, ends, strict=True)]


def assign(variables: list, vector) -> None:
    """Give the variables the numbers of the vector [n]."""
    for variable, part in zip(variables, split(vector, variables), strict=True):
        variable.assign(part)
