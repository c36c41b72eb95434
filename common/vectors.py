"""Weights as one vector, which is quick to copy, to send and to hand to a compiled update, and its parts."""

import numpy as np
import tensorflow as tf


def one_variable(model, *others) -> tuple:
    """Put the weights of a TensorLayer model, and further variables, into one tf.Variable, float32 [n].

    What was a variable of its own becomes a `Part` of it; the model computes, loads and saves as before. A compiled
    update then hands over one variable where it handed over all of them at 10 to 15 us each, and so does its optimiser.

    Returns that variable, and the parts that take the places of the others.
    """
    vector = tf.Variable(join([*model.trainable_weights, *others]), name="weights")
    parts, end = [], 0
    for weight in (*model.trainable_weights, *others):
        start, end = end, end + int(tf.size(weight))
        parts.append(Part(vector, slice(start, end), weight.shape, weight.name))
    place = iter(parts)
    for layer in model.all_layers:
        for i, weight in enumerate(layer._trainable_weights or ()):
            (name,) = (name for name, value in vars(layer).items() if value is weight)
            layer._trainable_weights[i] = part = next(place)
            setattr(layer, name, part)
        layer._all_weights = None
    model._trainable_weights = model._all_weights = None  # TensorLayer's notes of what the layers had
    return vector, *place


class Part:
    """A part of a vector variable, in a shape of its own; what computes with a variable computes with it."""

    def __init__(self, vector: tf.Variable, where: slice, shape, name: str):
        self.vector, self.where, self.shape, self.name = vector, where, shape, name
        self.dtype = vector.dtype

    def __tf_tensor__(self, dtype=None, name=None) -> tf.Tensor:
        return tf.reshape(self.vector[self.where], self.shape)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.numpy()

    def numpy(self) -> np.ndarray:
        """Its numbers as they are now."""
        return self.vector.numpy()[self.where].reshape(self.shape)

    def assign(self, value) -> None:
        """Write its numbers into the vector."""
        self.vector[self.where].assign(tf.reshape(tf.convert_to_tensor(value, self.dtype), [-1]))


def join(arrays: list) -> tf.Tensor:
    """All numbers of the arrays or variables, end to end: float32 [n]."""
    return tf.concat([tf.reshape(array, [-1]) for array in arrays], 0)


def split(vector, variables: list) -> list[tf.Tensor]:
    """The inverse of `join`: the parts of the vector [n] in the shapes of the variables."""
    parts = tf.split(vector, [int(np.prod(each.shape)) for each in variables])
    return [tf.reshape(part, each.shape) for part, each in zip(parts, variables, strict=True)]


def assign(variables: list, vector) -> None:
    """Give the variables the numbers of the vector [n] that `join` made of them."""
    for variable, part in zip(variables, split(vector, variables), strict=True):
        variable.assign(part)
