"""REINFORCE: the class of section 5.10.2, for Algorithm 5.18."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import pixels, weights
from common.acting import MLP, sample
from common.compiling import compiled
from common.sparse import Dense


class PolicyGradient:
    """REINFORCE with a baseline (Algorithm 5.18), for discrete actions.

    A state is float [state_dim], or int8 [state_dim] for a picture of -1, 0 and 1, which is then kept in two bits
    a pixel and multiplied as the sparse row that it is.

    state_dim: length of a state.  action_num: number of actions.
    gamma: discount.  gamma_t: keep the weight gamma^t of Eq. (5.2), which is often dropped.
    baseline: 'none', 'normalise' (returns of the batch to mean 0 and deviation 1) or 'value' (V(s), Eq. 5.3).
    learning_rate, lr_c: learning rates of the policy and of the value baseline (Adam); they fall linearly to the
        part end_lr at total_steps, if that is given.
    entropy: weight of the policy's entropy, which keeps it exploring.
    c_update_epochs: gradient steps of the value baseline an update.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    reset_at_points: any reward other than 0 is a point that ends a path, though the game goes on (Pong).
    act: of the hidden layers, 'tanh' or 'relu'.
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
        act="tanh",
        hidden=(32,),
        seed=0,
    ):
        if baseline not in ("none", "normalise", "value"):
            raise ValueError(f"baseline must be 'none', 'normalise' or 'value', not '{baseline}'")
        self.baseline, self.reset_at_points = baseline, reset_at_points
        self.gamma, self.gamma_t, self.reward_scale = gamma, gamma_t, reward_scale
        self.entropy, self.c_update_epochs = entropy, c_update_epochs
        self.learning_rate, self.lr_c, self.end_lr = learning_rate, lr_c, end_lr
        self.total_steps, self.steps = total_steps, 0
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.act = {"tanh": tf.nn.tanh, "relu": tf.nn.relu}[act]
        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s), the baseline b(s)
        self.actor = self._network(state_dim, hidden, action_num, gain=0.01)  # state -> logits
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
            name = f"hidden_{i}" if self.act is tf.nn.tanh else f"hidden_{i}_relu"
            layer = dense(layer, width, self.act, 2**0.5, name)
        model = tl.models.Model(inputs, dense(layer, units, None, gain, "output"))
        model.train()
        return model

    def train_actor(self, state, action, weight, mask, paths):
        """One ascent step on J of Algorithm 5.18, whose gradient is Eq. (5.3); returns -J and the mean entropy.

        state: float32 [batch, state_dim], dense or sparse.  action: int [batch].  weight: float32 [batch], the
        advantage.  mask: float32 [batch]; both are 0 in padding rows.  paths: B, the number of trajectories.
        """
        with tf.GradientTape() as tape:
            logits = self.actor.forward(state)
            log_prob = -tf.nn.sparse_softmax_cross_entropy_with_logits(action, logits)
            entropy = tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(logits), logits)
            J = tf.reduce_sum(log_prob * weight + self.entropy * entropy * mask) / paths  # J of Algorithm 5.18
            loss = -J
        self.actor_opt.apply(tape.gradient(loss, self.actor.trainable_weights))
        return loss, tf.reduce_sum(entropy * mask) / tf.reduce_sum(tf.cast(mask, tf.float32))

    def train_critic(self, returns, state, mask):
        """One gradient step of the baseline b(s) towards returns [batch]; mask: float32 [batch], 0 in padding rows."""
        with tf.GradientTape() as tape:
            error = tf.square(returns - self.critic.forward(state)[:, 0])  # last line of Algorithm 5.18's loop
            loss = tf.reduce_sum(error * mask) / tf.reduce_sum(mask)
        self.critic_opt.apply(tape.gradient(loss, self.critic.trainable_weights))
        return loss

    @compiled
    def _update(self, states, actions, weight, returns, mask, paths, progress):
        """All gradient steps of one update; returns its report.  progress: the part of the training that is over."""
        for optimizer, lr in (self.critic_opt, self.lr_c), (self.actor_opt, self.learning_rate):
            optimizer.learning_rate.assign(lr * (1 - (1 - self.end_lr) * progress))
        actor_loss, entropy = self.train_actor(states, actions, weight, mask, paths)
        if self.baseline != "value":
            return dict(actor_loss=actor_loss, entropy=entropy)
        critic_loss = 0.0
        for _ in tf.range(self.c_update_epochs):
            critic_loss += self.train_critic(returns, states, mask)
        return dict(actor_loss=actor_loss, entropy=entropy, critic_loss=critic_loss / self.c_update_epochs)

    def learn(self):
        """One round of Algorithm 5.18 on the paths in the buffers, which it empties; an open path ends here.

        Returns floats by name: actor_loss, entropy of the policy before its step and, with the value baseline,
        critic_loss, the mean over its gradient steps.
        Raises RuntimeError if there are no steps to learn from, and FloatingPointError if a loss or a weight is no
        longer a number.
        """
        if not self.state_buffer:
            raise RuntimeError("there is nothing to learn from: call store_transition for each step that is played")
        states, n = self._states(), len(self.state_buffer)
        advantage = self._discount_and_norm_rewards(states)
        time = np.array(self.time_buffer)
        weight = advantage * self.gamma**time if self.gamma_t else advantage  # gamma^t of Eq. (5.2)
        progress = min(self.steps / self.total_steps, 1) if self.total_steps else 0

        def pad(x, dtype=np.float32):
            return np.pad(np.asarray(x, dtype), (0, states.shape[0] - n))

        results = self._update(
            states,
            pad(self.action_buffer, np.int32),
            pad(weight),
            pad(self.return_buffer),
            pad(np.ones(n)),
            np.float32(np.sum(time == 0)),
            np.float32(progress),
        )
        report = {name: float(x) for name, x in results.items()}
        loss = report["actor_loss"] + report.get("critic_loss", 0.0)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        self.steps += n
        self._refresh()
        for buffer in (self.state_buffer, self.action_buffer, self.return_buffer, self.time_buffer):
            buffer.clear()
        return report

    def _states(self):
        """The buffered states, float32 [size, state_dim]; sparse if they are pictures. Rows of zeros follow them."""
        n = len(self.state_buffer)
        size = max(512, 1 << (n - 1).bit_length())  # few lengths, or each one would be compiled anew
        return pixels.batch(self.state_buffer + [np.zeros_like(self.state_buffer[0])] * (size - n))

    def _refresh(self):
        """Bring the NumPy copies that act up to date with the networks."""
        self.policy.refresh()
        self.value.refresh()

    def _discount_and_norm_rewards(self, states=None):
        """The returns of the buffered paths less b, the bracket of Eq. (5.3), or normalised: float [steps].

        states: what `_states` gives, if it is at hand.  An open path ends here.
        """
        self.finish_path()
        returns = np.array(self.return_buffer, float)
        if self.baseline == "normalise":
            return (returns - returns.mean()) / (returns.std() + 1e-8)
        if self.baseline == "value":
            states = self._states() if states is None else states
            return returns - self.value(states)[: len(returns), 0]  # R_t + gamma R_t+1 + ... - b(S_t)
        return returns

    def get_action(self, s, greedy=False):
        """An action, int, for the state s [state_dim]; greedy: the most likely one."""
        logits = self.policy(s)
        return int(np.argmax(logits) if greedy else sample(logits, self.rng))

    def store_transition(self, s, a, r):
        """Remember one step of the path that is being played. s: a state, or a picture that is packed already."""
        s = pixels.kept(np.asarray(s))
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
            total = self.reward_scale * reward + self.gamma * total  # sum of gamma^(t-t') R_t in Eq. (5.2)
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
