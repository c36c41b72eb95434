"""Synchronous advantage actor-critic: master and workers of Algorithm 5.20."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl
from tensorflow_probability import distributions as tfd

from common import vectors, weights
from common.acting import MLP, sample
from common.adam import Adam
from common.compiling import compiled
from common.environments import Replayable
from common.normalising import Normaliser
from common.sparse import convolve


class Worker:
    """The worker nodes of Algorithm 5.20 that share a process: W environments that act in step, as one batch."""

    def __init__(self, envs):
        self.envs = [Replayable(env) for env in envs]
        self.states = np.array([env.reset()[0] for env in self.envs], np.float32)
        self.episode_rewards, self.lengths = [0.0] * len(envs), [0] * len(envs)

    def collect(self, agent, n_steps):
        """Act for L steps in every environment; a new episode begins where one ends.

        Returns states float32 [L + 1, W, state_dim], actions [L, W, ...], rewards float32 [L, W] (scaled; at a time
        limit with the value of what was cut off), done float32 [L, W], and (reward, length) of each episode that ended.
        """
        W, episodes = len(self.envs), []
        states = np.empty((n_steps + 1, *self.states.shape), np.float32)
        rewards, done = np.empty((n_steps, W), np.float32), np.zeros((n_steps, W), np.float32)
        states[0], actions = self.states, []
        for t in range(n_steps):
            actions.append(agent.get_action(states[t]))
            each = actions[t].tolist() if agent.discrete else actions[t]  # gym checks Python's int in no time
            for w, (env, action) in enumerate(zip(self.envs, each, strict=True)):
                state, reward, terminated, truncated, _ = env.step(action)
                rewards[t, w] = agent.reward_scale * reward
                done[t, w] = agent.reset_at_points and reward != 0
                self.episode_rewards[w] += reward
                self.lengths[w] += 1
                if terminated or truncated:
                    if not terminated and not done[t, w]:  # a point is an end, too
                        rewards[t, w] += agent.gamma * agent.get_value(state)
                    done[t, w] = 1
                    episodes.append((self.episode_rewards[w], self.lengths[w]))
                    self.episode_rewards[w], self.lengths[w] = 0.0, 0
                    state, _ = env.reset()
                states[t + 1, w] = state
        self.states = states[-1]
        return states, np.array(actions), rewards, done, episodes


class A2C:
    """The master of Algorithm 5.20: global actor and critic, for continuous or discrete actions.

    state_dim: length of a state.
    action_dim: length of an action, or the number of actions if they are discrete.
    action_bound: float32 [action_dim], the largest action; None for discrete actions.
    gamma, gae_lambda: discount, and the decay of the advantage estimate (0: the book's one-step advantage).
    lr_a, lr_c: learning rates of actor and critic (Adam); they fall linearly to the part end_lr
        at total_steps, if that is given.
    entropy: weight of the policy's entropy, which keeps it exploring.
    max_grad_norm: longer gradients are shortened to it.
    mean: of the Gaussian policy, 'linear' or 'tanh', which keeps it within the actions' bounds.
    log_std: of the Gaussian policy at the start.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    reset_at_points: any reward other than 0 is a point, after which no more is to come, though the game goes on (Pong).
    no_normalising: take states as they are, not brought to mean 0 and deviation 1.
    act: of the hidden layers and of the convolutions, 'tanh' or 'relu'.
    convolutions: begin with the two of Mnih et al. (2013), for pictures; filters: of each.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        action_bound,
        *,
        gamma=0.98,
        gae_lambda=0.95,
        lr_a=1e-3,
        lr_c=2e-3,
        end_lr=1.0,
        total_steps=None,
        entropy=0.0,
        max_grad_norm=0.5,
        mean="linear",
        log_std=0.0,
        reward_scale=0.1,
        reset_at_points=False,
        no_normalising=False,
        act="tanh",
        convolutions=False,
        filters=(16, 32),
        hidden=(64, 64),
        seed=0,
    ):
        self.state_dim, self.discrete = state_dim, action_bound is None
        self.gamma, self.gae_lambda, self.reward_scale = gamma, gae_lambda, reward_scale
        self.reset_at_points, self.entropy, self.max_grad_norm = reset_at_points, entropy, max_grad_norm
        self.lr_a, self.lr_c, self.end_lr, self.total_steps, self.steps = lr_a, lr_c, end_lr, total_steps, 0
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.convolutions, self.filters = convolutions, filters
        self.act = {"tanh": tf.nn.tanh, "relu": tf.nn.relu}[act]
        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s)
        act = None if self.discrete else {"linear": None, "tanh": tf.nn.tanh}[mean]  # of logits, or of the mean
        self.actor = self._network(state_dim, hidden, action_dim, gain=0.01, act=act, scale=action_bound)
        log_std = tf.Variable(tf.fill(0 if self.discrete else action_dim, float(log_std)), name="log_std")
        (self.psi,) = vectors.one_variable(self.critic)
        self.theta, self.log_std = vectors.one_variable(self.actor, log_std)
        self.normaliser = Normaliser(state_dim, off=no_normalising)

        self.actor_opt, self.critic_opt = Adam(self.theta), Adam(self.psi)

        self.policy = MLP(self.actor, normaliser=self.normaliser)
        self.value = MLP(self.critic, normaliser=self.normaliser)
        self._refresh()

    def _network(self, state_dim, hidden, units, gain, act=None, scale=None):
        """Layers from state_dim to `units`; orthogonal weights learn faster than the default."""

        def init(gain):
            return tf.initializers.Orthogonal(gain, seed=int(self.rng.integers(2**31)))

        def dense(layer, units, act, gain, name):
            return tl.layers.Dense(units, act, W_init=init(gain), name=name)(layer)

        inputs = layer = tl.layers.Input([None, state_dim], tf.float32)
        if self.convolutions:
            layer = convolve(layer, self.filters, self.act, init)
        for i, width in enumerate(hidden, 1):
            name = f"hidden_{i}" if self.act is tf.nn.tanh else f"hidden_{i}_relu"
            layer = dense(layer, width, self.act, 2**0.5, name)
        name = "output" if act is None else "output_tanh"  # weights of the one don't load as the other's
        layer = dense(layer, units, act, gain, name)
        if scale is not None:
            layer = tl.layers.Lambda(lambda x: x * scale, name="scale")(layer)
        model = tl.models.Model(inputs, layer)
        model.train()
        return model

    def pi(self, state):
        """The current policy at state [batch, state_dim], as a distribution over actions."""
        if self.discrete:
            return tfd.Categorical(logits=self.actor(state))
        return tfd.Independent(tfd.Normal(self.actor(state), tf.exp(self.log_std)), 1)

    def advantage(self, value, reward, done):
        """Advantage of each step: for gae_lambda = 0 that of Algorithm 5.20, R_t + gamma V(S_t+1) - V(S_t).

        value: float32 [L + 1, W].  reward, done: float32 [L, W].  Returns float32 [L, W].
        """
        adv, advs = 0.0, []
        for t in reversed(range(reward.shape[0])):
            delta = reward[t] + self.gamma * (1 - done[t]) * value[t + 1] - value[t]  # Algorithm 5.20
            adv = delta + self.gamma * self.gae_lambda * (1 - done[t]) * adv
            advs.append(adv)
        return tf.stack(advs[::-1])

    def gradients(self, states, actions, rewards, done):
        """(g_psi, g_theta) of Algorithm 5.20 and (-J, J(psi), entropy), all summed over the steps of W workers.

        Arguments: see `Worker.collect`.  g_theta is that of -J, as optimisers descend.
        """
        with tf.GradientTape() as tape:
            value = tf.reshape(self.critic(tf.reshape(states, [-1, self.state_dim])), states.shape[:2])
            adv = tf.stop_gradient(self.advantage(value, rewards, done))
            target = adv + tf.stop_gradient(value[:-1])
            J_psi = tf.reduce_sum(tf.square(target - value[:-1]))  # J(psi) of Algorithm 5.20
        g_psi = tape.gradient(J_psi, self.psi)
        state, action = tf.reshape(states[:-1], [-1, self.state_dim]), tf.reshape(actions, [-1, *actions.shape[2:]])
        adv = tf.reshape(adv, [-1])
        with tf.GradientTape() as tape:
            pi = self.pi(state)
            entropy = pi.entropy()
            J_theta = tf.reduce_sum(pi.log_prob(action) * adv + self.entropy * entropy)  # J(theta)
            loss = -J_theta
        return g_psi, tape.gradient(loss, self.theta), (loss, J_psi, tf.reduce_sum(entropy))

    @compiled
    def _update(self, states, actions, rewards, done, progress):
        """One step of the master with the gradients of all workers; returns its report and the new psi and theta.

        progress: the part of the training that is over.
        """
        g_psi, g_theta, sums = self.gradients(states, actions, rewards, done)
        n = tf.size(rewards, tf.float32)  # steps taken
        g_psi, g_theta = g_psi / n, g_theta / n
        norm_psi, norm_theta, longest = tf.norm(g_psi), tf.norm(g_theta), self.max_grad_norm
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        self.critic_opt.apply(g_psi * longest / tf.maximum(norm_psi, longest), self.lr_c * left)
        self.actor_opt.apply(g_theta * longest / tf.maximum(norm_theta, longest), self.lr_a * left)
        report = tf.stack([*(x / n for x in sums), norm_theta, norm_psi])
        return report, tf.identity(self.psi), tf.identity(self.theta)  # read here, they cost next to nothing

    def update(self, states, actions, rewards, done):
        """One round of Algorithm 5.20 on what the workers have collected.

        Returns floats by name: actor_loss, critic_loss and entropy, means over the steps, before the update; and
        actor_grad_norm and critic_grad_norm, how long the gradients were before they were shortened.
        Raises FloatingPointError if a loss or a weight is no longer a number.
        """
        progress = np.float32(min(self.steps / self.total_steps, 1) if self.total_steps else 0)
        results, psi, theta = self._update(self.normaliser(states), actions, rewards, done, progress)
        names = "actor_loss", "critic_loss", "entropy", "actor_grad_norm", "critic_grad_norm"
        report = dict(zip(names, results.numpy().tolist(), strict=True))
        if not np.isfinite(report["critic_loss"]):
            raise FloatingPointError(f"the loss is {report['critic_loss']}")
        self.normaliser.update(states[:-1].reshape(-1, self.state_dim))
        self.steps += rewards.size
        self._refresh(psi.numpy(), theta.numpy())
        return report

    def get_weights(self):
        """What a copy of this agent needs to act: psi and theta, float32 vectors, and the statistics of the states."""
        return self.psi.numpy(), self.theta.numpy(), self.normaliser.arrays

    def set_weights(self, psi, theta, statistics):
        """Act from now on as the agent whose `get_weights` this is."""
        for name, array in self.normaliser.arrays.items():
            array[...] = statistics[name]
        self._refresh(psi, theta)

    def _refresh(self, *new_weights):
        """Bring the NumPy copies that act up to date with the networks."""
        psi, theta = new_weights or (self.psi.numpy(), self.theta.numpy())
        self.value.refresh([psi])
        self.policy.refresh([theta])
        self.std = np.exp(theta[len(self.policy.vector) :])

    def get_action(self, s, greedy=False):
        """Actions for the states s [W, state_dim], float32 [W, action_dim] or int [W]; or for one state [state_dim].

        greedy: the most likely one. A sampled action may lie outside the bounds: it is the environment's
        part to clip it, so that what is stored is what was sampled.
        """
        output = self.policy(s)
        if self.discrete:
            return np.argmax(output, -1) if greedy else sample(output, self.rng)
        if greedy:
            return output
        return output + self.std * self.rng.standard_normal(output.shape, np.float32)

    def get_value(self, s):
        """V(s) of one state [state_dim]."""
        return float(self.value(s)[0])

    def save(self, path="model/a2c", hdf5=False):
        """Write actor (with log-std and the statistics of the states) and critic to the folder `path`."""
        weights.save(path, hdf5, **self._parts())

    def load(self, path="model/a2c"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._parts())
        self._refresh()

    def _parts(self):
        return dict(actor=[self.actor, self.log_std, self.normaliser.arrays], critic=[self.critic])
