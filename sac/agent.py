"""Soft actor-critic: the classes of section 6.5.4, for Algorithm 6.28."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import memory, weights
from common.acting import MLP
from common.command import UserError
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


def dense(n_in, n_out, act, gain, name, rng):
    """A Dense layer with orthogonal weights."""
    init = tf.initializers.Orthogonal(gain, seed=int(rng.integers(2**31)))
    return tl.layers.Dense(n_out, act, W_init=init, in_channels=n_in, name=name)


class SoftQNetwork(tl.models.Model):
    """Q: state and action [batch, num_inputs + num_actions] -> value [batch, 1]. init_w: gain of the last layer."""

    def __init__(self, num_inputs, num_actions, hidden_dim, init_w=1.0, rng=None):
        super().__init__()
        rng = rng or np.random.default_rng()
        self.linear1 = dense(num_inputs + num_actions, hidden_dim, tf.nn.relu, 2**0.5, "q1", rng)
        self.linear2 = dense(hidden_dim, hidden_dim, tf.nn.relu, 2**0.5, "q2", rng)
        self.linear3 = dense(hidden_dim, 1, None, init_w, "q3", rng)
        self.train()
        self(tf.zeros([1, num_inputs + num_actions]))  # TensorLayer wants one call before it can be compiled

    def forward(self, input):
        return self.linear3(self.linear2(self.linear1(input)))


class PolicyNetwork(tl.models.Model):
    """pi: state [batch, num_inputs] -> mean and log-std of a Gaussian, whose sample goes through tanh to the bounds."""

    def __init__(
        self,
        num_inputs,
        num_actions,
        hidden_dim,
        action_range=1.0,
        init_w=3e-3,
        log_std_min=-20,
        log_std_max=2,
        rng=None,
    ):
        super().__init__()
        self.rng = rng or np.random.default_rng()
        self.linear1 = dense(num_inputs, hidden_dim, tf.nn.relu, 2**0.5, "policy1", self.rng)
        self.linear2 = dense(hidden_dim, hidden_dim, tf.nn.relu, 2**0.5, "policy2", self.rng)
        self.output_linear = dense(hidden_dim, 2 * num_actions, None, init_w, "policy_output", self.rng)
        self.action_range, self.num_actions = np.broadcast_to(np.float32(action_range), num_actions), num_actions
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.train()
        self(tf.zeros([1, num_inputs]))  # TensorLayer wants one call before it can be compiled
        self.policy = MLP(self)

    def forward(self, state):
        """mean, log_std: [batch, num_actions] each."""
        state = tf.cast(state, tf.float32)  # the book hands over a list: policy_net([state])
        mean, log_std = tf.split(self.output_linear(self.linear2(self.linear1(state))), 2, 1)
        return mean, tf.clip_by_value(log_std, self.log_std_min, self.log_std_max)

    def evaluate(self, state, epsilon=1e-6, noise=None):
        """action, log_prob, z, mean, log_std at state [batch, num_inputs]; log_prob: [batch, 1], the others [batch, n].

        action = f(s, epsilon), Eq. (6.27). That epsilon, z in the listing, is standard normal: `noise`, or drawn here.
        The argument epsilon is the listing's guard against log(0); `log_one_minus_tanh_squared` needs none.
        """
        if noise is None:
            noise = self.rng.standard_normal((len(state), self.num_actions), np.float32)
        mean, log_std = self.forward(state)
        u = mean + tf.exp(log_std) * noise
        action = self.action_range * tf.tanh(u)  # Eq. (6.27)
        gaussian = -0.5 * tf.square(noise) - log_std - 0.5 * np.log(2 * np.pi)
        log_prob = gaussian - log_one_minus_tanh_squared(u) - np.log(self.action_range)  # change of variables
        return action, tf.reduce_sum(log_prob, 1, keepdims=True), noise, mean, log_std

    def get_action(self, state, greedy=False):
        """float32 [num_actions] for the state [num_inputs]: sampled, or the squashed mean if greedy."""
        mean, log_std = self.policy(state).reshape(2, -1)
        if not greedy:
            std = np.exp(np.minimum(np.maximum(log_std, self.log_std_min), self.log_std_max))
            mean = mean + std * self.rng.standard_normal(self.num_actions, np.float32)
        return self.action_range * np.tanh(mean)

    def sample_action(self):
        """A random action, float32 [num_actions], for the first steps."""
        return self.action_range * self.rng.uniform(-1, 1, self.num_actions).astype(np.float32)


def log_one_minus_tanh_squared(u):
    """log(1 - tanh(u)^2), finite where 1 - tanh(u)^2 rounds to 0."""
    return 2 * (np.log(2.0) - u - tf.nn.softplus(-2 * u))


class SAC:
    """SAC (Algorithm 6.28) for continuous actions: maximises reward and alpha times entropy, Eq. (6.17).

    state_dim, action_dim: lengths of a state and of an action.
    replay_buffer: a ReplayBuffer.  hidden_dim: units of each hidden layer.
    action_range: float32 [action_dim], the largest action.
    soft_q_lr, policy_lr, alpha_lr: learning rates (Adam); they fall linearly to the part end_lr at total_steps, if that
        is given.
    alpha: weight of the entropy at the start, 1 if not given; it stays there unless `update` tunes it.
    Raises ValueError if alpha is not greater than 0, UserError if the buffer is larger than the machine's memory.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        replay_buffer,
        hidden_dim,
        action_range,
        soft_q_lr=1e-3,
        policy_lr=1e-3,
        alpha_lr=1e-3,
        *,
        alpha=None,
        end_lr=1.0,
        total_steps=None,
        seed=0,
    ):
        if isinstance(action_range, ReplayBuffer):  # the book's main loop has the two in this order
            replay_buffer, action_range = action_range, replay_buffer
        self.replay_buffer = replay_buffer
        self.soft_q_lr, self.policy_lr, self.alpha_lr = soft_q_lr, policy_lr, alpha_lr
        self.end_lr, self.total_steps = end_lr, total_steps
        self.rng = np.random.default_rng([seed, 1])  # gym's environment draws from default_rng(seed)
        replay_buffer.allocate(state_dim, action_dim)
        replay_buffer.rng = self.rng

        self.soft_q_net1, self.soft_q_net2, self.target_soft_q_net1, self.target_soft_q_net2 = (
            SoftQNetwork(state_dim, action_dim, hidden_dim, rng=self.rng) for _ in range(4)
        )
        self.policy_net = PolicyNetwork(state_dim, action_dim, hidden_dim, action_range, rng=self.rng)
        self.pairs = [(self.soft_q_net1, self.target_soft_q_net1), (self.soft_q_net2, self.target_soft_q_net2)]
        for net, target_net in self.pairs:
            self.target_ini(net, target_net)
            target_net.eval()
        self.log_alpha = tf.Variable(0.0, name="log_alpha")
        if alpha is not None:
            self.alpha = alpha

        self.soft_q_optimizer1, self.soft_q_optimizer2 = tf.optimizers.Adam(soft_q_lr), tf.optimizers.Adam(soft_q_lr)
        self.policy_optimizer, self.alpha_optimizer = tf.optimizers.Adam(policy_lr), tf.optimizers.Adam(alpha_lr)
        self.soft_q_optimizer1.build(self.soft_q_net1.trainable_weights)
        self.soft_q_optimizer2.build(self.soft_q_net2.trainable_weights)
        self.policy_optimizer.build(self.policy_net.trainable_weights)
        self.alpha_optimizer.build([self.log_alpha])

    @property
    def alpha(self):
        """The weight of the entropy: always that of log_alpha, after loading too. Assign a number to change it."""
        return tf.exp(self.log_alpha)

    @alpha.setter
    def alpha(self, alpha):
        if not alpha > 0:
            raise ValueError(f"alpha must be greater than 0, not {alpha}")
        self.log_alpha.assign(np.log(alpha))

    def target_ini(self, net, target_net):
        """Copy the weights of net to target_net, which is returned."""
        return self.target_soft_update(net, target_net, 1.0)

    def target_soft_update(self, net, target_net, soft_tau):
        """Move target_net a part soft_tau of the way to net; returns target_net.

        Algorithm 6.28 prints it with tau = 1 - soft_tau, the part of target_net that stays.
        """
        for target_param, param in zip(target_net.trainable_weights, net.trainable_weights, strict=True):
            target_param.assign(soft_tau * param + (1 - soft_tau) * target_param)  # Algorithm 6.28, 1 - tau: soft_tau
        return target_net

    def target_q(self, reward, next_state, done, gamma, noise):
        """The soft Bellman backup of Eq. (6.21) [batch, 1].

        reward, done: [batch, 1].  next_state: [batch, state_dim].  noise: standard normal [batch, action_dim].
        """
        next_action, next_log_prob, *_ = self.policy_net.evaluate(next_state, noise=noise)
        next_input = tf.concat([next_state, next_action], 1)
        q = tf.minimum(self.target_soft_q_net1(next_input), self.target_soft_q_net2(next_input))
        return reward + gamma * (1 - done) * (q - self.alpha * next_log_prob)  # Eq. (6.19) with V of Eq. (6.20)

    def train_q(self, q_net, optimizer, state, action, target):
        """One gradient step of a critic towards target [batch, 1].

        state: [batch, state_dim].  action: [batch, action_dim].
        """
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(target - q_net(tf.concat([state, action], 1))))  # Eq. (6.25)
        optimizer.apply(tape.gradient(loss, q_net.trainable_weights))
        return loss

    def train_policy(self, state, noise):
        """One gradient step of the policy at state [batch, state_dim], noise: standard normal [batch, action_dim].

        Returns the loss, and log_prob [batch, 1] of the actions, from which alpha learns.
        """
        with tf.GradientTape() as tape:
            action, log_prob, *_ = self.policy_net.evaluate(state, noise=noise)
            q_input = tf.concat([state, action], 1)
            q = tf.minimum(self.soft_q_net1(q_input), self.soft_q_net2(q_input))
            loss = tf.reduce_mean(self.alpha * log_prob - q)  # Eq. (6.26), reparameterised: Eq. (6.28)
        self.policy_optimizer.apply(tape.gradient(loss, self.policy_net.trainable_weights))
        return loss, log_prob

    def train_alpha(self, log_prob, target_entropy):
        """One gradient step on log(alpha): alpha stays positive. log_prob: [batch, 1].  target_entropy: kappa."""
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.alpha * (log_prob + target_entropy))  # Eq. (6.29)
        self.alpha_optimizer.apply([tape.gradient(loss, self.log_alpha)])
        return loss

    @compiled
    def _update(self, batches, noise, auto_entropy, target_entropy, reward_scale, gamma, soft_tau, progress):
        """The gradient steps on batches [steps, batch_size, transition]; returns the mean of `update`'s report, [5].

        noise: [steps, 2, batch_size, action_dim].  progress: the part of the training that is over.
        """
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        self.soft_q_optimizer1.learning_rate.assign(self.soft_q_lr * left)
        self.soft_q_optimizer2.learning_rate.assign(self.soft_q_lr * left)
        self.policy_optimizer.learning_rate.assign(self.policy_lr * left)
        self.alpha_optimizer.learning_rate.assign(self.alpha_lr * left)
        sums = tf.zeros(5)
        for i in tf.range(len(batches)):
            state, action, reward, next_state, done = tf.split(batches[i], self.replay_buffer.sizes, 1)
            y = self.target_q(reward_scale * reward, next_state, done, gamma, noise[i, 0])
            q_loss = self.train_q(self.soft_q_net1, self.soft_q_optimizer1, state, action, y)
            q_loss += self.train_q(self.soft_q_net2, self.soft_q_optimizer2, state, action, y)
            policy_loss, log_prob = self.train_policy(state, noise[i, 1])
            log_pi = tf.reduce_mean(log_prob)
            sums += tf.stack([q_loss, policy_loss, self.alpha * log_pi - policy_loss, -log_pi, self.alpha])
            if auto_entropy:
                self.train_alpha(log_prob, target_entropy)
            for net, target_net in self.pairs:
                self.target_soft_update(net, target_net, soft_tau)
        return sums / len(batches)

    def update(
        self, batch_size, reward_scale=0.1, auto_entropy=True, target_entropy=None, gamma=0.98, soft_tau=1e-2, steps=1
    ):
        """`steps` rounds of the gradient steps of Algorithm 6.28 on random minibatches.

        auto_entropy: whether alpha learns, too.  target_entropy: kappa of Eq. (6.29), of actions within action_range;
        -action_dim if not given.
        Returns floats by name, means over the rounds: q_loss, of both critics together; policy_loss; q, the mean of
        the smaller Q of the policy's actions; its entropy; and alpha.
        Raises RuntimeError if the replay buffer is empty, UserError if alpha learns and no policy has an entropy of
        kappa, FloatingPointError if a loss or a weight is no longer a number.
        """
        batches = self.replay_buffer.sample_batches(steps, batch_size)
        noise = self.rng.standard_normal((steps, 2, batch_size, self.policy_net.num_actions), np.float32)
        kappa = -self.policy_net.num_actions if target_entropy is None else target_entropy
        most = np.log(2 * self.policy_net.action_range).sum()  # of actions that are all equally likely
        if auto_entropy and not kappa < most:  # nor if it is no number
            raise UserError(f"the target entropy must be below {most:.2f}, that of random actions, not {kappa:g}")
        progress = min(self.replay_buffer.position / self.total_steps, 1) if self.total_steps else 0
        settings = (np.float32(x) for x in (kappa, reward_scale, gamma, soft_tau, progress))
        results = self._update(batches, noise, auto_entropy, *settings).numpy().tolist()
        if not np.isfinite(results).all():
            raise FloatingPointError(f"the loss is {results[0] + results[1]}")
        self.policy_net.policy.refresh()
        return dict(zip(("q_loss", "policy_loss", "q", "entropy", "alpha"), results, strict=True))

    def save(self, path="model/sac", hdf5=False):
        """Write all five networks and log(alpha) to the folder `path`."""
        weights.save(path, hdf5, **self._networks())

    def load(self, path="model/sac"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._networks())
        self.policy_net.policy.refresh()

    def _networks(self):
        names = ("soft_q_net1", "soft_q_net2", "target_soft_q_net1", "target_soft_q_net2")
        networks = {name: [getattr(self, name)] for name in names}
        return {**networks, "policy_net": [self.policy_net, self.log_alpha]}
