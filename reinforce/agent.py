"""REINFORCE: the class of section 5.10.2, for Algorithm 5.18."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import pixels, weights
from common.acting import MLP, sample
from common.compiling import compiled, converted


class Dense(tl.layers.Dense):
    """A dense layer that takes sparse rows too: pictures that are mostly zeros cost only their other pixels."""

    def forward(self, inputs):
        if not isinstance(inputs, tf.SparseTensor):
            return super().forward(inputs)
        z = sparse_matmul(inputs, tf.convert_to_tensor(self.W)) + self.b
        return self.act(z) if self.act else z


def sparse_matmul(a, b):
    """The product of a sparse matrix and b, ten times as fast as by `tf.sparse.sparse_dense_matmul`."""
    csr = tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=a.indices, values=a.values, dense_shape=a.dense_shape)
    transposed = tf.raw_ops.SparseMatrixTranspose(input=csr, type=a.dtype)  # with transpose_a sums come in any order

    @tf.custom_gradient
    def product(b):
        return tf.raw_ops.SparseMatrixMatMul(a=csr, b=b), lambda g: tf.raw_ops.SparseMatrixMatMul(a=transposed, b=g)

    return product(b)


class PolicyGradient:
    """REINFORCE with a baseline (Algorithm 5.18), for discrete actions.

    A state is float [state_dim], or int8 [state_dim] for a picture of -1, 0 and 1, which is then kept in two bits
    a pixel and multiplied as the sparse row that it is.

    state_dim: length of a state.  action_num: number of actions.
    learning_rate, lr_c: learning rates of the policy and of the value baseline (Adam); they fall linearly to the
        part end_lr at total_steps, if that is given.
    gamma: discount.  gamma_t: keep the weight gamma^t of Eq. (5.2), which the text advises to drop.
    baseline: 'none', 'normalise' (returns of the batch to mean 0 and deviation 1) or 'value' (V(s), Eq. 5.3).
    entropy: weight of the policy's entropy, which keeps it exploring.
    c_update_epochs: gradient steps of the value baseline an update.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    reset_at_points: any reward other than 0 is a point that ends a path, though the game goes on (Pong).
    """

    def __init__(
        self,
        state_dim,
        action_num,
        learning_rate=0.02,
        gamma=0.99,
        *,
        gamma_t=False,
        baseline="normalise",
        lr_c=1e-2,
        end_lr=1.0,
        total_steps=None,
        entropy=0.0,
        c_update_epochs=20,
        reward_scale=0.1,
        reset_at_points=False,
        hidden=(32,),
        seed=0,
    ):
        if baseline not in ("none", "normalise", "value"):
            raise ValueError(f"baseline must be 'none', 'normalise' or 'value', not '{baseline}'")
        self.gamma, self.gamma_t, self.baseline = gamma, gamma_t, baseline
        self.reward_scale, self.entropy, self.c_update_epochs = reward_scale, entropy, c_update_epochs
        self.learning_rate, self.lr_c, self.end_lr, self.total_steps = learning_rate, lr_c, end_lr, total_steps
        self.reset_at_points, self.state_dim, self.steps = reset_at_points, state_dim, 0
        self.rng = np.random.default_rng(seed)

        self.actor = self._network(state_dim, hidden, action_num, gain=0.01)  # state -> logits
        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s), the baseline b(s)
        self.actor_opt = tf.optimizers.Adam(learning_rate)
        self.critic_opt = tf.optimizers.Adam(lr_c)
        self.actor_opt.build(self.actor.trainable_weights)
        self.critic_opt.build(self.critic.trainable_weights)

        self.policy, self.value = MLP(self.actor), MLP(self.critic)
        self.state_buffer, self.action_buffer, self.reward_buffer = [], [], []  # reward: of the open path only
        self.return_buffer, self.time_buffer = [], []

    def _network(self, state_dim, hidden, units, gain):
        """Dense layers from state_dim to `units`; orthogonal weights learn faster than the default."""

        def dense(layer, units, act, gain, name):
            init = tf.initializers.Orthogonal(gain, seed=int(self.rng.integers(2**31)))
            return Dense(units, act, W_init=init, name=name)(layer)

        inputs = layer = tl.layers.Input([None, state_dim], tf.float32)
        for i, width in enumerate(hidden, 1):
            layer = dense(layer, width, tf.nn.tanh, 2**0.5, f"hidden_{i}")
        model = tl.models.Model(inputs, dense(layer, units, None, gain, "output"))
        model.train()
        return model

    def train_actor(self, state, action, weight, mask, paths):
        """One ascent step on J of Algorithm 5.18, whose gradient is Eq. (5.3).

        state: float32 [batch, state_dim], dense or sparse.  action: int [batch].  weight: float32 [batch], the
        advantage.  mask: float32 [batch]; both are 0 in padding rows.  paths: B, the number of trajectories.
        """
        with tf.GradientTape() as tape:
            logits = self.actor.forward(state)
            log_prob = -tf.nn.sparse_softmax_cross_entropy_with_logits(action, logits)
            entropy = tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(logits), logits)
            loss = -tf.reduce_sum(log_prob * weight + self.entropy * entropy * mask) / paths
        self.actor_opt.apply(tape.gradient(loss, self.actor.trainable_weights))
        return loss

    def train_critic(self, returns, state, mask):
        """One gradient step of the baseline b(s) towards returns [batch]; mask: float32 [batch], 0 in padding rows."""
        with tf.GradientTape() as tape:
            error = tf.square(returns - self.critic.forward(state)[:, 0])
            loss = tf.reduce_sum(error * mask) / tf.reduce_sum(mask)
        self.critic_opt.apply(tape.gradient(loss, self.critic.trainable_weights))
        return loss

    def _gradient_steps(self, states, actions, advantage, returns, mask, paths, progress):
        """All gradient steps of one update; progress: the part of the training that is over."""
        for optimizer, lr in (self.actor_opt, self.learning_rate), (self.critic_opt, self.lr_c):
            optimizer.learning_rate.assign(lr * (1 - (1 - self.end_lr) * progress))
        actor_loss, critic_loss = self.train_actor(states, actions, advantage, mask, paths), 0.0
        if self.baseline == "value":
            for _ in tf.range(self.c_update_epochs):
                critic_loss = self.train_critic(returns, states, mask)
        return actor_loss, critic_loss

    _update = compiled(_gradient_steps)
    _update_sparse = tf.function(converted(_gradient_steps), autograph=False)  # XLA knows no sparse matrices

    def learn(self):
        """One round of Algorithm 5.18 on the paths in the buffers, which it empties; an open path ends here.

        Returns the discounted returns less the baseline, float [steps]. Raises FloatingPointError if a loss
        is no longer a number.
        """
        self.finish_path()
        states, n = self._states(), len(self.action_buffer)
        advantage = self._discount_and_norm_rewards(states)
        paths = float(np.sum(np.array(self.time_buffer) == 0))
        weight = advantage * self.gamma ** np.array(self.time_buffer) if self.gamma_t else advantage  # Eq. (5.2)
        progress = min(self.steps / self.total_steps, 1) if self.total_steps else 0

        def pad(x, dtype=np.float32):
            x = np.asarray(x, dtype)
            return np.concatenate([x, np.zeros(states.shape[0] - n, dtype)])

        losses = (self._update_sparse if isinstance(states, tf.SparseTensor) else self._update)(
            states,
            pad(self.action_buffer, np.int32),
            pad(weight),
            pad(self.return_buffer),
            pad(np.ones(n)),
            np.float32(paths),
            np.float32(progress),
        )
        actor_loss, critic_loss = (float(x) for x in losses)
        if not np.isfinite(actor_loss + critic_loss):
            raise FloatingPointError(f"the loss is {actor_loss + critic_loss}")
        self.steps += n
        self._refresh()
        for buffer in (self.state_buffer, self.action_buffer, self.return_buffer, self.time_buffer):
            buffer.clear()
        return advantage

    def _states(self):
        """The buffered states, float32 [size, state_dim]; sparse if they are pictures. Rows of zeros follow them."""
        n = len(self.state_buffer)
        size = max(512, 1 << (n - 1).bit_length())  # few lengths, or XLA would compile for each one
        states = np.array(self.state_buffer)
        if states.dtype == np.uint8:
            return tf.SparseTensor(*pixels.entries(states), (size, self.state_dim))
        return np.concatenate([states, np.zeros((size - n, self.state_dim), np.float32)])

    def _refresh(self):
        """Bring the NumPy copies that act up to date with the networks."""
        self.policy.refresh()
        self.value.refresh()

    def _discount_and_norm_rewards(self, states=None):
        """The returns of the buffered paths less the baseline, float [steps]: the bracket of Eq. (5.3).

        states: what `_states` gives, if it is at hand.
        """
        self.finish_path()
        returns = np.array(self.return_buffer, float)
        if self.baseline == "normalise":
            return (returns - returns.mean()) / (returns.std() + 1e-8)
        if self.baseline == "value":
            states = self._states() if states is None else states
            return returns - self.critic.forward(states)[: len(returns), 0].numpy()
        return returns

    def get_action(self, s, greedy=False):
        """An action, int, for the state s [state_dim]; greedy: the most likely one."""
        logits = self.policy(s)
        return int(np.argmax(logits) if greedy else sample(logits, self.rng))

    def store_transition(self, s, a, r):
        """Remember one step of the path that is being played. s: a state, or a picture that is packed already."""
        s = np.asarray(s)
        if s.dtype == np.int8:
            s = pixels.pack(s)
        self.state_buffer.append(s if s.dtype == np.uint8 else s.astype(np.float32))
        self.action_buffer.append(int(a))
        self.reward_buffer.append(float(r))
        if self.reset_at_points and r:
            self.finish_path()

    def finish_path(self, next_state=None, done=True):
        """Close the path played since the last call: its returns from t on, the inner sum of Eq. (5.1) and (5.2).

        done: whether the task ended. At a time limit it has not, and with the value baseline V(next_state)
        stands for the rewards to come; the other baselines know no value and take the rewards that were seen.
        """
        if not self.reward_buffer:
            return
        total, returns = 0.0, []
        if self.baseline == "value" and not done:
            total = float(self.value(next_state)[0])
        for reward in reversed(self.reward_buffer):
            total = self.reward_scale * reward + self.gamma * total
            returns.append(total)
        self.return_buffer.extend(reversed(returns))
        self.time_buffer.extend(range(len(returns)))
        self.reward_buffer.clear()

    def save(self, path="model/reinforce", hdf5=False):
        """Write the policy to the folder `path`; a baseline serves training alone."""
        weights.save(path, hdf5, actor=[self.actor])

    def load(self, path="model/reinforce"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, actor=[self.actor])
        self._refresh()
