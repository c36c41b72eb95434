"""Acting in NumPy: for one state at a time this is some 20 times faster than calling TensorFlow."""

from functools import partial

import numpy as np


def _linear(x):
    return x


def _relu(x):
    return np.maximum(x, 0)


def _relu6(x):
    return np.minimum(np.maximum(x, 0), 6)


ACTIVATIONS = {None: _linear, "relu": _relu, "relu6": _relu6, "tanh": np.tanh}


def _square(side: int, x):
    return x.reshape(*x.shape[:-1], side, side, 1)


def _convolution(W, b, act, stride: int, x):
    """[..., h, w, c] -> [..., h', w', filters]: each patch of the picture times W [size, size, c, filters]."""
    size, _, channels, filters = W.shape
    *batch, height, width, _ = x.shape
    places = *batch, (height - size) // stride + 1, (width - size) // stride + 1
    *each, down, across, one = x.strides
    steps = *each, stride * down, stride * across, down, one  # the numbers of a patch's row lie side by side
    patches = np.lib.stride_tricks.as_strided(x, (*places, size, size * channels), steps)
    return act(patches.reshape(-1, W.size // filters) @ W.reshape(-1, filters) + b).reshape(*places, filters)


def _flat(x):
    return x.reshape(*x.shape[:-3], -1)


class MLP:
    """A NumPy copy of a TensorLayer model made of Dense and Lambda layers, or of convolutions before them.

    The model is the source of truth: call `refresh` after each change of its weights. A copy sent to another process
    has the weights and the statistics alone, so that it can act where TensorFlow is not loaded.

    vector: float32 [n], all weights end to end; who is given one acts with what its owner writes into it.
    normaliser: a `common.normalising.Normaliser` that states go through first.
    """

    def __init__(self, model, vector: np.ndarray | None = None, normaliser=None):
        import tensorlayer as tl

        from common.sparse import Convolution

        self.model, self.normaliser = model, normaliser
        arrays = [w.numpy() for w in model.trainable_weights]
        self.vector = np.concatenate(arrays, axis=None) if vector is None else vector
        ends = np.cumsum([array.size for array in arrays])
        views = zip(np.split(self.vector, ends), arrays, strict=False)  # in the vector, a log-std may follow
        self.layers, weights = [], (view.reshape(array.shape) for view, array in views)
        for layer in model.all_layers:
            if isinstance(layer, (tl.layers.Dense, tl.layers.Conv2d)):
                dense = next(weights), next(weights), ACTIVATIONS[layer.act and layer.act.__name__]
                if isinstance(layer, Convolution):
                    self.layers.append((None, None, partial(_square, layer.side)))
                if isinstance(layer, tl.layers.Conv2d):
                    dense = None, None, partial(_convolution, *dense, layer.strides[1])
                self.layers.append(dense)
            elif isinstance(layer, tl.layers.Lambda):
                self.layers.append((None, None, layer.fn))
            elif isinstance(layer, tl.layers.Flatten):
                self.layers.append((None, None, _flat))

    def refresh(self, weights: list | None = None) -> None:
        """Copy the model's weights; weights: the same as NumPy arrays, where an update has just brought them along.

        Raises FloatingPointError if one is no longer a finite number.
        """
        new = np.concatenate(weights or [w.numpy() for w in self.model.trainable_weights], axis=None)
        self.vector[: len(new)] = new[: len(self.vector)]  # of either, a log-std may be the rest
        if not np.isfinite(self.vector).all():
            raise FloatingPointError("a weight is no longer a finite number")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x: [input_dim] or [batch, input_dim] -> float32 [output_dim] or [batch, output_dim].

        An int8 [input_dim] is a picture of mostly zeros (see common.pixels): a dense layer multiplies only its other
        pixels. So it does with those of a scipy.sparse [batch, input_dim].
        """
        layers = self.layers
        if self.normaliser is not None:
            x = self.normaliser(x)
        if layers[0][0] is None:  # convolutions take all pixels
            x = x.toarray() if hasattr(x, "indptr") else x
        elif getattr(x, "dtype", None) == np.int8 and x.ndim == 1:
            (W, b, act), *layers = layers
            pixels = np.flatnonzero(x.view(bool))
            x = act(x[pixels].astype(np.float32) @ W[pixels] + b)
        elif hasattr(x, "indptr"):
            (W, b, act), *layers = layers
            x = act(x @ W + b)
        x = np.asarray(x, np.float32)
        for W, b, act in layers:
            x = act(x if W is None else x.dot(W) + b)  # the method, as of one state `@` takes twice as long
        return x

    def __getstate__(self):
        return {"layers": self.layers, "normaliser": self.normaliser}


def sample(logits: np.ndarray, rng: np.random.Generator):
    """Actions from softmax(logits [..., n]), int [...]: argmax(logits + Gumbel noise) has that distribution."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(-1)
