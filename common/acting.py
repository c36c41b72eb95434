"""Acting in NumPy: for one state at a time this is some 20 times faster than calling TensorFlow."""

import numpy as np
import tensorlayer as tl

ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "tanh": np.tanh,
}


class MLP:
    """A NumPy copy of a TensorLayer model made of Dense and Lambda layers.

    The model stays the one source of truth: call `refresh` after each change of its weights.
    """

    def __init__(self, model: tl.models.Model):
        self.model = model
        self.refresh()

    def refresh(self, weights: list | None = None) -> None:
        """Copy the model's weights; weights: the same as NumPy arrays, where an update has just brought them along."""
        values = iter(weights or [w.numpy() for w in self.model.trainable_weights])
        self.layers = []
        for layer in self.model.all_layers:
            if isinstance(layer, tl.layers.Dense):
                act = ACTIVATIONS[layer.act and layer.act.__name__]
                self.layers.append((next(values), next(values), act))
            elif isinstance(layer, tl.layers.Lambda):
                self.layers.append((None, None, layer.fn))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x: [input_dim] or [batch, input_dim] -> float32 [output_dim] or [batch, output_dim]."""
        x = np.asarray(x, np.float32)
        for W, b, act in self.layers:
            x = act(x if W is None else x @ W + b)
        return x
