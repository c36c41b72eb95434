"""Twin delayed DDPG: the classes of section 6.5.3, for Algorithm 6.27."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import memory, weights
from common.acting import MLP
from common.compiling import compiled


class ReplayBuffer:
    """A ring of the last `capacity` transitions, in one float32 array; position: transitions pushed so far."""

    def __init__(self, capacity):
        self.capacity, self.position = capacity, 0
        self.rng = np.random.default_rng()  # an agent that gets the buffer puts its own here

    def allocate(self, state_dim, action_dim):
        """Make room if there is none yet. Raises UserError if the buffer is larger than the machine's memory."""
        if not hasattr(self, "buffer"):
            self.sizes = (state_dim, action_dim, 1, state_dim, 1)  # state, action, reward, next_state, done
            self.buffer = memory.zeros(self.capacity, sum(self.sizes))

    def push(self, state, action, reward, next_state, done):
        """Remember one step; done: whether the task ended there (not a time limit)."""
        self.allocate(len(state), len(action))
        row, state_dim = self.buffer[self.position % self.capacity], self.sizes[0]
        row[:state_dim] = state
        row[state_dim : -state_dim - 2] = action
        row[-state_dim - 2] = reward
        row[-state_dim - 1 : -1] = next_state
        row[-1] = done
        self.position += 1

    def sample(self, batch_size):
        """state, action, reward, next_state, done: float32 [batch_size, dim]; reward and done: [batch_size]."""
        parts = np.split(self.sample_batches(1, batch_size)[0], np.cumsum(self.sizes)[:-1], 1)
        return tuple(part[:, 0] if i in (2, 4) else part for i, part in enumerate(parts))

    def sample_batches(self, steps, batch_size):
        """float32 [steps, batch_size, transition], the columns in the order of `sample`."""
        if not self.position:
            raise RuntimeError("the replay buffer is empty: push transitions first")
        return self.buffer[self.rng.integers(len(self), size=(steps, batch_size))]

    def __len__(self):
        return min(self.position, self.capacity)


def dense(n_in, n_out, act, gain, name, rng, uniform):
    """A Dense layer with orthogonal weights, or with uniform ones up to 1/sqrt(n_in), biases too (PyTorch's)."""
    if uniform:
        W_init, b_init = (
            tf.initializers.RandomUniform(-(n_in**-0.5), n_in**-0.5, seed=int(rng.integers(2**31))) for _ in range(2)
        )
    else:
        W_init, b_init = tf.initializers.Orthogonal(gain, seed=int(rng.integers(2**31))), tf.initializers.Zeros()
    return tl.layers.Dense(n_out, act, W_init=W_init, b_init=b_init, in_channels=n_in, name=name)


class QNetwork(tl.models.Model):
    """Q: state and action [batch, num_inputs + num_actions] -> value [batch, 1].

    init_w: gain of the last layer.  uniform: uniform first weights and biases instead, without that gain.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=1.0, rng=None, uniform=False):
        super().__init__()
        rng = rng or np.random.default_rng()
        self.linear1 = dense(num_inputs + num_actions, hidden_dim, tf.nn.relu, 2**0.5, "q1", rng, uniform)
        self.linear2 = dense(hidden_dim, hidden_dim, tf.nn.relu, 2**0.5, "q2", rng, uniform)
        self.linear3 = dense(hidden_dim, 1, None, init_w, "q3", rng, uniform)
        self.train()
        self(tf.zeros([1, num_inputs + num_actions]))  # TensorLayer wants one call before it can be compiled

    def forward(self, input):
        return self.linear3(self.linear2(self.linear1(input)))


class PolicyNetwork(tl.models.Model):
    """pi: state [batch, num_inputs] -> action [batch, num_actions] in [-1, 1], to be times action_range.

    init_w, uniform: as of `QNetwork`.
    """

    def __init__(self, num_inputs, num_actions, hidden_dim, action_range=1.0, init_w=3e-3, rng=None, uniform=False):
        super().__init__()
        self.rng = rng or np.random.default_rng()
        self.linear1 = dense(num_inputs, hidden_dim, tf.nn.relu, 2**0.5, "policy1", self.rng, uniform)
        self.linear2 = dense(hidden_dim, hidden_dim, tf.nn.relu, 2**0.5, "policy2", self.rng, uniform)
        self.output_linear = dense(hidden_dim, num_actions, tf.nn.tanh, init_w, "policy_output", self.rng, uniform)
        self.action_range, self.num_actions = np.broadcast_to(np.float32(action_range), num_actions), num_actions
        self.train()
        self(tf.zeros([1, num_inputs]))  # TensorLayer wants one call before it can be compiled
        self.policy = MLP(self)

    def forward(self, state):
        state = tf.cast(state, tf.float32)  # the book hands over a list: policy_net([state])
        return self.output_linear(self.linear2(self.linear1(state)))

    def evaluate(self, state, eval_noise_scale, noise=None):
        """The action at state [batch, num_inputs], smoothed by clipped noise as in Eq. (6.16), within the bounds.

        eval_noise_scale: sigma, as a part of the action range; the noise is clipped at c = 2 sigma.
        noise: standard normal [batch, num_actions]; drawn here if not given.
        """
        if noise is None:
            noise = self.rng.standard_normal((len(state), self.num_actions), np.float32)
        epsilon = tf.clip_by_value(noise * eval_noise_scale, -2 * eval_noise_scale, 2 * eval_noise_scale)
        return self.action_range * tf.clip_by_value(self.forward(state) + epsilon, -1.0, 1.0)

    def get_action(self, state, explore_noise_scale, greedy=False):
        """float32 [num_actions] for the state [num_inputs], with noise (a part of the range) unless greedy."""
        action = self.policy(state)
        if not greedy:
            action = action + explore_noise_scale * self.rng.standard_normal(self.num_actions, np.float32)
        return self.action_range * np.minimum(np.maximum(action, -1), 1)

    def sample_action(self):
        """A random action, float32 [num_actions], for the first steps."""
        return self.action_range * self.rng.uniform(-1, 1, self.num_actions).astype(np.float32)


class TD3:
    """TD3 (Algorithm 6.27) for continuous actions.

    state_dim, action_dim: lengths of a state and of an action.
    replay_buffer: a ReplayBuffer.  hidden_dim: units of each hidden layer.
    action_range: float32 [action_dim], the largest action.
    policy_target_update_interval: d, critic steps for each step of the policy and the targets.
    q_lr, policy_lr: learning rates (Adam); they fall linearly to the part end_lr at total_steps, if that is given.
    single_q, no_smoothing: switch off the twin critics of Eq. (6.14), or the smoothing of Eq. (6.16).
    uniform_weights: let the first weights be uniform, and biases too, not orthogonal and 0.
    Raises UserError if the buffer is larger than the machine's memory.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        replay_buffer,
        hidden_dim,
        action_range,
        policy_target_update_interval=2,
        q_lr=1e-3,
        policy_lr=1e-3,
        *,
        single_q=False,
        no_smoothing=False,
        uniform_weights=False,
        end_lr=1.0,
        total_steps=None,
        seed=0,
    ):
        if isinstance(action_range, ReplayBuffer):  # the book's main loop has the two in this order
            replay_buffer, action_range = action_range, replay_buffer
        self.replay_buffer = replay_buffer
        self.policy_target_update_interval = policy_target_update_interval
        self.single_q, self.no_smoothing = single_q, no_smoothing
        self.q_lr, self.policy_lr, self.end_lr, self.total_steps = q_lr, policy_lr, end_lr, total_steps
        self.rng = np.random.default_rng([seed, 1])  # gym's environment draws from default_rng(seed)
        replay_buffer.allocate(state_dim, action_dim)
        replay_buffer.rng = self.rng

        self.q_net1, self.q_net2, self.target_q_net1, self.target_q_net2 = (
            QNetwork(state_dim, action_dim, hidden_dim, rng=self.rng, uniform=uniform_weights) for _ in range(4)
        )
        self.policy_net, self.target_policy_net = (
            PolicyNetwork(state_dim, action_dim, hidden_dim, action_range, rng=self.rng, uniform=uniform_weights)
            for _ in range(2)
        )
        self.pairs = [
            (self.q_net1, self.target_q_net1),
            (self.q_net2, self.target_q_net2),
            (self.policy_net, self.target_policy_net),
        ]
        for net, target_net in self.pairs:
            self.target_ini(net, target_net)
            target_net.eval()
        self._refresh()
        self.update_cnt = 0  # rounds of `update` so far: t of Algorithm 6.27

        self.q_optimizer1, self.q_optimizer2 = tf.optimizers.Adam(q_lr), tf.optimizers.Adam(q_lr)
        self.policy_optimizer = tf.optimizers.Adam(policy_lr)
        self.q_optimizer1.build(self.q_net1.trainable_weights)
        self.q_optimizer2.build(self.q_net2.trainable_weights)
        self.policy_optimizer.build(self.policy_net.trainable_weights)

    def target_ini(self, net, target_net):
        """Copy the weights of net to target_net, which is returned."""
        return self.target_soft_update(net, target_net, 1.0)

    def target_soft_update(self, net, target_net, soft_tau):
        """Move target_net a part soft_tau of the way to net (rho of Algorithm 6.27); returns target_net."""
        for target_param, param in zip(target_net.trainable_weights, net.trainable_weights, strict=True):
            target_param.assign(soft_tau * param + (1 - soft_tau) * target_param)  # Algorithm 6.27
        return target_net

    def target_q(self, reward, next_state, done, eval_noise_scale, gamma, noise):
        """y of Algorithm 6.27 [batch, 1].

        reward, done: [batch, 1].  next_state: [batch, state_dim].  noise: standard normal [batch, action_dim].
        """
        sigma = 0.0 if self.no_smoothing else eval_noise_scale
        next_action = self.target_policy_net.evaluate(next_state, sigma, noise)  # Eq. (6.16), a sample of (6.15)
        next_input = tf.concat([next_state, next_action], 1)
        q = self.target_q_net1(next_input)  # Eq. (6.12)
        if not self.single_q:
            q = tf.minimum(q, self.target_q_net2(next_input))  # Eq. (6.13), (6.14)
        return reward + gamma * (1 - done) * q  # Algorithm 6.27

    def train_q(self, q_net, optimizer, state, action, target):
        """One gradient step of a critic towards target [batch, 1].

        state: [batch, state_dim].  action: [batch, action_dim].
        """
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(target - q_net(tf.concat([state, action], 1))))  # Algorithm 6.27
        optimizer.apply(tape.gradient(loss, q_net.trainable_weights))
        return loss

    def train_policy(self, state):
        """One gradient step of the policy up the first critic, at state [batch, state_dim]."""
        with tf.GradientTape() as tape:
            action = self.policy_net.action_range * self.policy_net(state)  # without noise
            loss = -tf.reduce_mean(self.q_net1(tf.concat([state, action], 1)))  # Algorithm 6.27, gradient of J
        self.policy_optimizer.apply(tape.gradient(loss, self.policy_net.trainable_weights))
        return loss

    @compiled
    def _update(self, batches, noise, count, eval_noise_scale, reward_scale, gamma, soft_tau, progress):
        """The gradient steps on batches [steps, batch_size, transition]; returns the sums of the losses.

        count: steps made before.  progress: the part of the training that is over.
        """
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        self.q_optimizer1.learning_rate.assign(self.q_lr * left)
        self.q_optimizer2.learning_rate.assign(self.q_lr * left)
        self.policy_optimizer.learning_rate.assign(self.policy_lr * left)
        q_loss = policy_loss = 0.0
        for i in tf.range(len(batches)):
            state, action, reward, next_state, done = tf.split(batches[i], self.replay_buffer.sizes, 1)
            y = self.target_q(reward_scale * reward, next_state, done, eval_noise_scale, gamma, noise[i])
            q_loss += self.train_q(self.q_net1, self.q_optimizer1, state, action, y)
            if not self.single_q:
                q_loss += self.train_q(self.q_net2, self.q_optimizer2, state, action, y)
            if (count + i + 1) % self.policy_target_update_interval == 0:  # t mod d = 0
                policy_loss += self.train_policy(state)
                for net, target_net in self.pairs:
                    self.target_soft_update(net, target_net, soft_tau)
        return q_loss, policy_loss

    def update(self, batch_size, eval_noise_scale, reward_scale=0.1, gamma=0.98, soft_tau=1e-2, steps=1):
        """`steps` rounds of the loop of Algorithm 6.27 on random minibatches.

        Returns floats by name: q_loss, of both critics together, the mean over the rounds; policy_loss and q, the mean
        Q of the policy's actions, which is minus its loss, means over the policy's steps, if there was one.
        Raises RuntimeError if the replay buffer is empty, FloatingPointError if a loss or a weight is no number.
        """
        batches = self.replay_buffer.sample_batches(steps, batch_size)
        noise = self.rng.standard_normal((steps, batch_size, self.policy_net.num_actions), np.float32)
        progress = min(self.replay_buffer.position / self.total_steps, 1) if self.total_steps else 0
        settings = (np.float32(x) for x in (eval_noise_scale, reward_scale, gamma, soft_tau, progress))
        results = self._update(batches, noise, np.int32(self.update_cnt), *settings)
        q_loss, policy_loss = (float(loss) for loss in results)
        if not np.isfinite([q_loss, policy_loss]).all():
            raise FloatingPointError(f"the loss is {q_loss + policy_loss}")
        report, d, before = dict(q_loss=q_loss / steps), self.policy_target_update_interval, self.update_cnt
        self.update_cnt += steps
        if policy_steps := self.update_cnt // d - before // d:
            report.update(policy_loss=policy_loss / policy_steps, q=-policy_loss / policy_steps)
        self._refresh()
        return report

    def _refresh(self):
        """Bring the NumPy copies that act up to date with the networks."""
        self.policy_net.policy.refresh()
        self.target_policy_net.policy.refresh()

    def save(self, path="model/td3", hdf5=False):
        """Write all six networks to the folder `path`."""
        weights.save(path, hdf5, **self._networks())

    def load(self, path="model/td3"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._networks())
        self._refresh()

    def _networks(self):
        names = ("q_net1", "q_net2", "target_q_net1", "target_q_net2", "policy_net", "target_policy_net")
        return {name: [getattr(self, name)] for name in names}
