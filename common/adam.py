"""Adam for weights in one variable, with a state in one variable: a small update is half as long as with Keras's."""

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults


class Adam:
    """Adam (Kingma and Ba 2015), by the same arithmetic as `tf.optimizers.Adam` and with its defaults.

    variable: float32 [n], what it changes.
    state: the moving averages m and v of the gradient and of its square, and the number of steps t, end to end.
    """

    def __init__(self, variable: tf.Variable):
        self.variable = variable
        self.state = tf.Variable(tf.zeros(2 * variable.shape[0] + 1), name="adam")

    def apply(self, gradient: tf.Tensor, learning_rate: float | tf.Tensor) -> None:
        """One step down the gradient [n]."""
        n = self.variable.shape[0]
        m, v, t = tf.split(self.state, [n, n, 1])
        m += (1 - BETA_1) * (gradient - m)
        v += (1 - BETA_2) * (gradient**2 - v)
        t += 1
        step = learning_rate * tf.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        self.variable.assign_sub(step * m / (tf.sqrt(v) + EPSILON))
        self.state.assign(tf.concat([m, v, t], 0))

    @property
    def iterations(self) -> int:
        """Steps so far."""
        return int(self.state[-1])
