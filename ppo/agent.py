"""Proximal policy optimisation: the class of section 5.10.6, for Algorithms 5.23 and 5.24."""

from functools import partial
from operator import mul

import numpy as np
import tensorflow as tf
import tensorlayer as tl
from tensorflow_probability import distributions as tfd

from common import pixels, weights
from common.acting import MLP, sample
from common.compiling import compiled
from common.normalising import Normaliser
from common.sparse import Dense, convolve


class PPO:
    """PPO-Clip (Algorithm 5.24) or PPO-Penalty (Algorithm 5.23), for continuous or discrete actions.

    A state is float [state_dim], or int8 [state_dim] for a picture of -1, 0 and 1, which is then kept in two bits
    a pixel and multiplied as the sparse row that it is.

    state_dim: length of a state.
    action_dim: length of an action, or the number of actions if they are discrete.
    action_bound: float32 [action_dim], the largest action; None for discrete actions.
    method: 'clip' or 'penalty'; another word raises ValueError.
    gamma, gae_lambda: discount, and the decay of the advantage estimate (1: the book's Monte Carlo sum).
    lr_a, lr_c: learning rates of actor and critic (Adam); they fall linearly to the part end_lr
        at total_steps, if that is given.
    a_update_epochs, c_update_epochs: M and B of the algorithms, in passes over the buffer.
    minibatch_size: transitions a gradient step; the book's is the whole buffer.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    reset_at_points: any reward other than 0 is a point that ends a path, though the game goes on (Pong).
    entropy: weight of the policy's entropy, which keeps it exploring.
    epsilon: clip range of Eq. (5.38).  kl_target, lam: d_target and first lambda of Algorithm 5.23.
    mean: of the Gaussian policy, 'linear' or 'tanh', which keeps it within the actions' bounds.
    log_std: of the Gaussian policy at the start.
    normalising: bring states to mean 0 and deviation 1 (not pictures).
    act: of the hidden layers and of the convolutions, 'tanh' or 'relu'.
    convolutions: begin with the two of Mnih et al. (2013), for pictures; filters: of each.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        action_bound,
        method="clip",
        *,
        gamma=0.98,
        gae_lambda=0.9,
        lr_a=1e-3,
        lr_c=2e-3,
        end_lr=0.0,
        total_steps=None,
        a_update_epochs=10,
        c_update_epochs=10,
        minibatch_size=128,
        reward_scale=0.1,
        reset_at_points=False,
        entropy=0.0,
        epsilon=0.2,
        kl_target=0.01,
        lam=0.5,
        mean="linear",
        log_std=0.0,
        normalising=False,
        act="tanh",
        convolutions=False,
        filters=(16, 32),
        hidden=(64, 64),
        seed=0,
    ):
        if method not in ("clip", "penalty"):
            raise ValueError(f"method must be 'clip' or 'penalty', not '{method}'")
        self.method, self.discrete = method, action_bound is None
        self.gamma, self.gae_lambda, self.reward_scale = gamma, gae_lambda, reward_scale
        self.reset_at_points, self.entropy = reset_at_points, entropy
        self.epsilon, self.kl_target, self.minibatch_size = epsilon, kl_target, minibatch_size
        self.a_update_epochs, self.c_update_epochs = a_update_epochs, c_update_epochs
        self.lr_a, self.lr_c, self.end_lr, self.total_steps, self.steps = lr_a, lr_c, end_lr, total_steps, 0
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.convolutions, self.filters = convolutions, filters
        self.act = {"tanh": tf.nn.tanh, "relu": tf.nn.relu}[act]
        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s)
        act = None if self.discrete else {"linear": None, "tanh": tf.nn.tanh}[mean]  # of logits, or of the mean
        self.actor = self._network(state_dim, hidden, action_dim, gain=0.01, act=act, scale=action_bound)
        self.log_std = tf.Variable(tf.fill(0 if self.discrete else action_dim, float(log_std)), name="log_std")
        self.actor_weights = [*self.actor.trainable_weights, *([] if self.discrete else [self.log_std])]

        self.actor_opt = tf.optimizers.Adam(lr_a)
        self.critic_opt = tf.optimizers.Adam(lr_c)
        self.actor_opt.build(self.actor_weights)
        self.critic_opt.build(self.critic.trainable_weights)
        self._lam = tf.Variable(lam, trainable=False, name="lam")

        self.normaliser = Normaliser(state_dim) if normalising else None
        self.policy = MLP(self.actor, normaliser=self.normaliser)
        self.value = MLP(self.critic, normaliser=self.normaliser)
        self._refresh()
        self.state_buffer, self.action_buffer, self.reward_buffer = [], [], []
        self.cumulative_reward_buffer, self.adv_buffer = [], []

    @property
    def lam(self):
        """lambda of Eq. (5.37), which adapts. Assign a number to change it."""
        return self._lam

    @lam.setter
    def lam(self, lam):
        self._lam.assign(lam)

    def _network(self, state_dim, hidden, units, gain, act=None, scale=None):
        """Layers from state_dim to `units`; orthogonal weights learn faster than the default."""

        def init(gain):
            return tf.initializers.Orthogonal(gain, seed=int(self.rng.integers(2**31)))

        def dense(layer, units, act, gain, name):
            return Dense(units, act, W_init=init(gain), name=name)(layer)

        inputs = layer = tl.layers.Input([None, state_dim], tf.float32)
        if self.convolutions:
            layer = convolve(layer, self.filters, self.act, init)
        for i, width in enumerate(hidden, 1):
            name = f"hidden_{i}" if self.act is tf.nn.tanh else f"hidden_{i}_relu"
            layer = dense(layer, width, self.act, 2**0.5, name)
        name = "output" if act is None else "output_tanh"  # weights of the one don't load as the other's
        layer = dense(layer, units, act, gain, name)
        if scale is not None:
            layer = tl.layers.Lambda(partial(mul, scale), name="scale")(layer)  # a lambda would not reach a process
        model = tl.models.Model(inputs, layer)
        model.train()
        return model

    def distribution(self, output, log_std):
        """pi(.|s) from the actor's output [batch, action_dim]: one joint likelihood for all dimensions."""
        if self.discrete:
            return tfd.Categorical(logits=output)
        return tfd.Independent(tfd.Normal(output, tf.exp(log_std)), 1)

    def pi(self, state):
        """The current policy at state [batch, state_dim], as a distribution over actions."""
        return self.distribution(self.actor.forward(state), self.log_std)

    def train_actor(self, state, action, adv, old_pi):
        """One gradient step on Eq. (5.37) or (5.38).

        state: float32 [batch, state_dim].  action: [batch, action_dim], or int [batch] if discrete.
        adv: float32 [batch].  old_pi: what `pi(state)` was when the actions were taken.
        """
        adv = tf.reshape(adv, [-1])
        with tf.GradientTape() as tape:
            pi = self.pi(state)
            ratio = tf.exp(pi.log_prob(action) - old_pi.log_prob(action))  # l_t, Eq. (5.39)
            if self.method == "penalty":
                loss = -tf.reduce_mean(ratio * adv - self.lam * old_pi.kl_divergence(pi))  # Eq. (5.37)
            else:
                clipped = tf.clip_by_value(ratio, 1 - self.epsilon, 1 + self.epsilon)
                loss = -tf.reduce_mean(tf.minimum(ratio * adv, clipped * adv))  # Eq. (5.38), (5.40), (5.41)
            loss -= self.entropy * tf.reduce_mean(pi.entropy())
        self.actor_opt.apply(tape.gradient(loss, self.actor_weights))
        return loss

    def train_critic(self, reward, state):
        """One gradient step on Eq. (5.34): the values of state [batch, state_dim] towards reward [batch]."""
        with tf.GradientTape() as tape:
            advantage = tf.reshape(reward, [-1, 1]) - self.critic.forward(state)
            loss = tf.reduce_mean(tf.square(advantage))
        self.critic_opt.apply(tape.gradient(loss, self.critic.trainable_weights))
        return loss

    @compiled
    def _update(self, states, actions, adv, returns, actor_batches, critic_batches, progress):
        """All gradient steps of one update; returns most of its report.

        *_batches: int32 [steps, minibatch_size], indices of transitions.
        progress: the part of the training that is over.
        """
        for optimizer, lr in (self.actor_opt, self.lr_a), (self.critic_opt, self.lr_c):
            optimizer.learning_rate.assign(lr * (1 - (1 - self.end_lr) * progress))
        old_output, old_log_std = self.actor.forward(states), tf.identity(self.log_std)
        actor_loss = critic_loss = 0.0
        for i in tf.range(len(actor_batches)):
            k = actor_batches[i]
            old_pi = self.distribution(tf.gather(old_output, k), old_log_std)
            actor_loss += self.train_actor(tf.gather(states, k), tf.gather(actions, k), tf.gather(adv, k), old_pi)
        for i in tf.range(len(critic_batches)):
            k = critic_batches[i]
            critic_loss += self.train_critic(tf.gather(returns, k), tf.gather(states, k))
        old_pi, pi = self.distribution(old_output, old_log_std), self.pi(states)
        ratio = tf.exp(pi.log_prob(actions) - old_pi.log_prob(actions))
        return dict(
            actor_loss=actor_loss / len(actor_batches),
            critic_loss=critic_loss / len(critic_batches),
            kl=tf.reduce_mean(old_pi.kl_divergence(pi)),
            entropy=tf.reduce_mean(old_pi.entropy()),
            clip_fraction=tf.reduce_mean(tf.cast(tf.abs(ratio - 1) > self.epsilon, tf.float32)),
        )

    def update(self):
        """One round of Algorithm 5.24 or 5.23 on the finished paths in the buffers, which it empties.

        Returns floats by name: actor_loss and critic_loss, means over the gradient steps; kl of the new policy from the
        old; entropy of the old; clip_fraction, the part of all steps whose new ratio is outside 1 +- epsilon; and the
        lam that it used, for 'penalty'.
        Raises RuntimeError if a path is open or there is none, FloatingPointError if a loss or a weight is no number.
        """
        if self.reward_buffer or not self.state_buffer:
            raise RuntimeError("update() learns from finished paths: call finish_path(next_state, done) first")
        states, actions = pixels.batch(self.state_buffer), np.array(self.action_buffer)
        adv, returns = np.array(self.adv_buffer, np.float32), np.array(self.cumulative_reward_buffer, np.float32)
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        batches = self._minibatches(self.a_update_epochs), self._minibatches(self.c_update_epochs)
        progress = np.float32(min(self.steps / self.total_steps, 1) if self.total_steps else 0)
        seen = self.normaliser(states) if self.normaliser else states
        results = self._update(seen, actions, adv, returns, *batches, progress)
        report = {name: float(x) for name, x in results.items()}
        loss = report["actor_loss"] + report["critic_loss"]
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        if self.method == "penalty":
            report["lam"] = float(self.lam)
            self._adapt_lam(report["kl"])
        if self.normaliser:
            self.normaliser.update(states)
        self.steps += len(actions)
        self._refresh()
        for buffer in (self.state_buffer, self.action_buffer, self.cumulative_reward_buffer, self.adv_buffer):
            buffer.clear()
        return report

    def _refresh(self):
        """Bring the NumPy copies that act up to date with the networks."""
        self.policy.refresh()
        self.value.refresh()
        self.std = None if self.discrete else np.exp(self.log_std.numpy())

    def _adapt_lam(self, kl):
        """The last lines of Algorithm 5.23, with a = 1.5 and b = 2."""
        if kl < self.kl_target / 1.5:
            self.lam = self.lam / 2
        elif kl > self.kl_target * 1.5:
            self.lam = self.lam * 2

    def _minibatches(self, epochs):
        """int32 [steps, minibatch_size]: a new shuffle of the buffer for each epoch."""
        n = len(self.state_buffer)
        size = min(self.minibatch_size, n)
        shuffles = [self.rng.permutation(n)[: n // size * size] for _ in range(epochs)]
        return np.concatenate(shuffles).reshape(-1, size).astype(np.int32)

    def get_action(self, s, greedy=False):
        """An action for the state s [state_dim]: float32 [action_dim], or an int if actions are discrete.

        greedy: the most likely one. A sampled action may lie outside the bounds: it is the environment's
        part to clip it, so that what is stored is what was sampled.
        """
        output = self.policy(s)
        if self.discrete:
            return int(np.argmax(output) if greedy else sample(output, self.rng))
        if greedy:
            return output
        return output + self.std * self.rng.standard_normal(output.shape, np.float32)

    def store_transition(self, state, action, reward):
        """Remember one step of the path that is being played. state: a state, or a picture that is packed already."""
        self.state_buffer.append(pixels.kept(state))
        self.action_buffer.append(action)
        self.reward_buffer.append(reward)
        if self.reset_at_points and reward:
            self.finish_path()

    def finish_path(self, next_state=None, done=True):
        """Close the path played since the last call: its advantages and cumulative rewards.

        next_state: the state after the last step.  done: whether the task ended there; at a time limit
        or in the middle of an episode it has not, and V(next_state) stands for the rewards to come.
        """
        n = len(self.reward_buffer)
        if n == 0:
            return
        states = pixels.batch(self.state_buffer[-n:])
        last_value = 0.0 if done else self.value(next_state)[0]
        value = np.append(self.value(states)[:, 0], last_value)
        adv, returns = np.zeros(n + 1), np.zeros(n + 1)
        returns[n] = last_value
        for t in reversed(range(n)):
            reward = self.reward_scale * self.reward_buffer[t]
            returns[t] = reward + self.gamma * returns[t + 1]
            delta = reward + self.gamma * value[t + 1] - value[t]
            adv[t] = delta + self.gamma * self.gae_lambda * adv[t + 1]
        self.adv_buffer.extend(adv[:n])
        self.cumulative_reward_buffer.extend(returns[:n])
        self.reward_buffer.clear()

    def save(self, path="model/ppo", hdf5=False):
        """Write actor (with log-std and the statistics of the states) and critic to the folder `path`."""
        weights.save(path, hdf5, **self._parts())

    def load(self, path="model/ppo"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._parts())
        self._refresh()

    def _parts(self):
        statistics = [self.normaliser.arrays] if self.normaliser else []
        return dict(actor=[self.actor, self.log_std, *statistics], critic=[self.critic])
