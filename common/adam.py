"""Adam for weights in one variable, with a state in one variable: a small update is half as long as with Keras's."""

import tensorflow as tf


class Adam:
    """Adam (Kingma and Ba 2015), by the same arithmetic as `tf.optimizers.Adam` and with its defaults.

    variable: float32 [n], what it changes.
    state: the moving averages m and v of the gradient and of its square, and the number of steps t, end to end.
    """

    def __init__(self, variable: tf.Variable, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7):
        self.variable, self.beta_1, self.beta_2, self.epsilon = variable, beta_1, beta_2, epsilon
        self.state = tf.Variable(tf.zeros(2 * variable.shape[0] + 1), name="adam")

    def apply(self, gradient: tf.Tensor, learning_rate: float | tf.Tensor) -> None:
        """One step down the gradient [n]."""
        n = self.variable.shape[0]
        m, v, t = tf.split(self.state, [n, n, 1])
        m += (1 - self.beta_1) * (gradient - m)
        v += (1 - self.beta_2) * (gradient**2 - v)
        t += 1
        step = learning_rate * tf.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        self.variable.assign_sub(step * m / (tf.sqrt(v) + self.epsilon))
        self.state.assign(tf.concat([m, v, t], 0))

    @property
    def iterations(self) -> int:
        """Steps so far."""
        return int(self.state[-1])
