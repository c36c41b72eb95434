"""Observations brought to mean 0 and deviation 1, by statistics that are saved beside the weights."""

import numpy as np


class Normaliser:
    """Mean and variance of all states seen so far, one by one dimension.

    off: it learns nothing, hands states on as they are, and has nothing to save.
    """

    def __init__(self, state_dim: int, off: bool = False):
        self.off = off
        self.mean, self.var, self.count = np.zeros(state_dim), np.ones(state_dim), np.zeros(1)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics by name, for `weights.save` and `weights.load`, which writes into them."""
        return {} if self.off else {"mean": self.mean, "var": self.var, "count": self.count}

    def update(self, states: np.ndarray) -> None:
        """Take in states [n, state_dim] (Chan, Golub and LeVeque 1979, combining two samples)."""
        if self.off:
            return
        n = len(states)
        mean = states.sum(0) / n  # this and what follows are states.mean(0) and states.var(0), in half the time
        var = ((states - mean) ** 2).sum(0) / n
        delta, count = mean - self.mean, float(self.count[0])
        total = count + n
        self.mean += delta * n / total
        self.var += (var - self.var) * n / total + delta**2 * (n / total) * (count / total)
        self.count[:] = total

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """states [..., state_dim] -> float32 of the same shape, within 10 deviations of the mean."""
        if self.off:
            return np.asarray(states, np.float32)
        scaled = (states - self.mean) / np.sqrt(self.var + 1e-8)
        return np.minimum(np.maximum(scaled, -10), 10).astype(np.float32)
