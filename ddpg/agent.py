"""Deep deterministic policy gradient: the class of section 6.5.2, for Algorithm 6.26."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import memory, weights
from common.acting import MLP
from common.compiling import compiled


class BatchNorm(tl.layers.Layer):
    """Batch normalisation of [batch, units]; TensorLayer's own can't be traced in training mode."""

    def __init__(self, momentum=0.99, name=None):
        super().__init__(name)
        self.momentum = momentum
        self.is_train = False  # TensorLayer calls a layer with made-up input while it builds a model

    def build(self, inputs_shape):
        shape = (inputs_shape[-1],)
        self.beta = self._get_weights("beta", shape, tl.initializers.zeros())
        self.gamma = self._get_weights("gamma", shape, tl.initializers.ones())
        self.moving_mean = self._get_weights("moving_mean", shape, tl.initializers.zeros(), trainable=False)
        self.moving_var = self._get_weights("moving_var", shape, tl.initializers.ones(), trainable=False)

    def forward(self, inputs):
        if self.is_train:
            mean, var = tf.nn.moments(inputs, 0)
            self.moving_mean.assign_add((1 - self.momentum) * (mean - self.moving_mean))
            self.moving_var.assign_add((1 - self.momentum) * (var - self.moving_var))
        else:
            mean, var = self.moving_mean, self.moving_var
        return tf.nn.batch_normalization(inputs, mean, var, self.beta, self.gamma, 1e-5)


class DDPG:
    """DDPG (Algorithm 6.26) for continuous actions.

    action_dim, state_dim: lengths of an action and of a state.
    action_range: float32 [action_dim], the largest action.
    gamma: discount.  tau: rho of Eq. (6.7) and (6.8).
    lr_a, lr_c: learning rates of actor and critic (Adam); they fall linearly to the part end_lr
        at total_steps, if that is given.
    batch_size: transitions a gradient step.  memory_capacity: transitions kept.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    noise: 'gaussian', or 'ou' for the Ornstein-Uhlenbeck process of Eq. (6.1), whose theta is `ou_theta`.
    var: variance of the noise at the start, as a part of the squared action range.
    var_decay: its factor at each gradient step.
    batch_norm: normalise the critic's first layer, before the action comes in.
    Raises ValueError if `noise` is another word, or ou_theta is not greater than 0 and at most 1, UserError if the
    memory is larger than the machine's.
    """

    def __init__(
        self,
        action_dim,
        state_dim,
        action_range,
        *,
        gamma=0.98,
        tau=0.01,
        lr_a=1e-3,
        lr_c=1e-3,
        end_lr=1.0,
        total_steps=None,
        batch_size=64,
        memory_capacity=100_000,
        reward_scale=0.1,
        noise="gaussian",
        ou_theta=0.15,
        var=0.5,
        var_decay=0.9995,
        batch_norm=False,
        hidden=(64, 64),
        seed=0,
    ):
        if noise not in ("gaussian", "ou"):
            raise ValueError(f"noise must be 'gaussian' or 'ou', not '{noise}'")
        if not 0 < ou_theta <= 1:
            raise ValueError(f"ou_theta must be greater than 0 and at most 1, not {ou_theta}")
        self.action_dim, self.state_dim, self.action_range = action_dim, state_dim, action_range
        self.gamma, self.tau, self.batch_size, self.reward_scale = gamma, tau, batch_size, reward_scale
        self.noise, self.ou_theta, self.variance, self.var_decay = noise, ou_theta, var, var_decay
        self.lr_a, self.lr_c, self.end_lr, self.total_steps = lr_a, lr_c, end_lr, total_steps
        self.batch_norm = batch_norm
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.memory = memory.zeros(memory_capacity, state_dim * 2 + action_dim + 2)  # s, a, r, s_, done
        self.pointer = 0  # transitions stored so far
        self.ou = np.zeros(action_dim, np.float32)  # X_t of Eq. (6.1)

        self.actor, self.actor_target = (self._actor(hidden) for _ in range(2))
        self.critic, self.critic_target = (self._critic(hidden) for _ in range(2))
        for net, target in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            net.train()
            target.eval()
            for param, target_param in zip(net.all_weights, target.all_weights, strict=True):
                target_param.assign(param)
        self.actor_opt = tf.optimizers.Adam(lr_a)
        self.critic_opt = tf.optimizers.Adam(lr_c)
        self.actor_opt.build(self.actor.trainable_weights)
        self.critic_opt.build(self.critic.trainable_weights)
        self.policy = MLP(self.actor)

    @property
    def var(self):
        """The noise's variance as it is now. Assign a number to change it."""
        return self.variance

    @var.setter
    def var(self, var):
        self.variance = var

    def _dense(self, units, act, gain, name):
        init = tf.initializers.Orthogonal(gain, seed=int(self.rng.integers(2**31)))
        return tl.layers.Dense(units, act, W_init=init, name=name)

    def _actor(self, hidden):
        """pi: state [batch, state_dim] -> action [batch, action_dim] within the bounds."""
        inputs = layer = tl.layers.Input([None, self.state_dim], tf.float32)
        for i, units in enumerate(hidden, 1):
            layer = self._dense(units, tf.nn.relu, 2**0.5, f"hidden_{i}")(layer)
        layer = self._dense(self.action_dim, tf.nn.tanh, 0.01, "action")(layer)
        return tl.models.Model(inputs, tl.layers.Lambda(lambda x: x * self.action_range, name="scale")(layer))

    def _critic(self, hidden):
        """Q: (state, action) -> value [batch, 1]."""
        state = layer = tl.layers.Input([None, self.state_dim], tf.float32)
        action = tl.layers.Input([None, self.action_dim], tf.float32)
        after_action = list(enumerate(hidden, 1))
        if self.batch_norm:  # the action joins one layer later
            i, units = after_action.pop(0)
            layer = self._dense(units, None, 2**0.5, f"hidden_{i}")(layer)
            layer = tl.layers.Lambda(tf.nn.relu, name="relu")(BatchNorm(name="norm")(layer))
        layer = tl.layers.Concat(1, name="concat")([layer, action])
        for i, units in after_action:
            layer = self._dense(units, tf.nn.relu, 2**0.5, f"hidden_{i}")(layer)
        return tl.models.Model([state, action], self._dense(1, None, 1.0, "value")(layer))

    def train_critic(self, s, a, r, s_, done):
        """One gradient step on Eq. (6.4). s, s_: [batch, state_dim]; a: [batch, action_dim]; r, done: [batch, 1]."""
        y = r + self.gamma * (1 - done) * self.critic_target([s_, self.actor_target(s_)])  # Eq. (6.3), Algorithm 6.26
        self.critic.train()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - self.critic([s, a])))  # Eq. (6.4)
        self.critic_opt.apply(tape.gradient(loss, self.critic.trainable_weights))
        return loss

    def train_actor(self, s):
        """One gradient step on Eq. (6.6) at the states s [batch, state_dim]; the tape applies its chain rule."""
        self.critic.eval()
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic([s, self.actor(s)]))  # maximise Q, Eq. (6.5)
        self.actor_opt.apply(tape.gradient(loss, self.actor.trainable_weights))
        return loss

    def ema_update(self):
        """Move the target networks a little towards the networks, Eq. (6.7) and (6.8)."""
        for net, target in ((self.critic, self.critic_target), (self.actor, self.actor_target)):
            for param, target_param in zip(net.trainable_weights, target.trainable_weights, strict=True):
                target_param.assign(self.tau * param + (1 - self.tau) * target_param)  # Eq. (6.7), (6.8)
            for average, target_average in zip(net.nontrainable_weights, target.nontrainable_weights, strict=True):
                target_average.assign(average)  # batch normalisation's, which lag behind already

    @compiled
    def _learn(self, batches, progress):
        """The gradient steps on batches [steps, batch_size, transition]; returns the mean losses.

        progress: the part of the training that is over.
        """
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        self.actor_opt.learning_rate.assign(self.lr_a * left)
        self.critic_opt.learning_rate.assign(self.lr_c * left)
        critic_loss = actor_loss = 0.0
        for i in tf.range(len(batches)):
            sizes = [self.state_dim, self.action_dim, 1, self.state_dim, 1]
            s, a, r, s_, done = tf.split(batches[i], sizes, 1)
            critic_loss += self.train_critic(s, a, r, s_, done)
            actor_loss += self.train_actor(s)
            self.ema_update()
        return critic_loss / len(batches), actor_loss / len(batches)

    def learn(self, steps=1):
        """`steps` rounds of critic, actor and target updates on random minibatches of the memory.

        Returns floats by name: critic_loss, actor_loss and q, the mean Q of the actor's actions, which is minus its
        loss, means over the rounds; var, the noise's variance after them, as a part of the squared action_range.
        Raises RuntimeError if the memory is empty, FloatingPointError if a loss or a weight is no longer a number.
        """
        if not self.pointer:
            raise RuntimeError("the memory is empty: call store_transition first")
        stored = min(self.pointer, len(self.memory))
        batches = self.memory[self.rng.integers(stored, size=(steps, self.batch_size))]
        progress = np.float32(min(self.pointer / self.total_steps, 1) if self.total_steps else 0)
        critic_loss, actor_loss = (float(loss) for loss in self._learn(batches, progress))
        if not np.isfinite([critic_loss, actor_loss]).all():
            raise FloatingPointError(f"the loss is {critic_loss + actor_loss}")
        self.variance *= self.var_decay**steps
        self.policy.refresh()
        return dict(critic_loss=critic_loss, actor_loss=actor_loss, q=-actor_loss, var=self.variance)

    def reset_noise(self):
        """Begin the Ornstein-Uhlenbeck process anew, as Algorithm 6.26 does in each episode."""
        self.ou[:] = 0

    def get_action(self, s, greedy=False):
        """An action float32 [action_dim] for the state s [state_dim], with noise unless greedy, within the bounds."""
        a = self.policy(s)
        if greedy:
            return a
        noise = self.rng.standard_normal(self.action_dim, np.float32)
        if self.noise == "ou":  # Eq. (6.1) with mean 0 and dt = 1; its stationary variance is 1
            self.ou += -self.ou_theta * self.ou + (1 - (1 - self.ou_theta) ** 2) ** 0.5 * noise
            noise = self.ou
        a = a + np.sqrt(self.variance, dtype=np.float32) * self.action_range * noise
        return np.minimum(np.maximum(a, -self.action_range), self.action_range)

    def sample_action(self):
        """A random action, float32 [action_dim], for the first steps."""
        return self.action_range * self.rng.uniform(-1, 1, self.action_dim).astype(np.float32)

    def store_transition(self, s, a, r, s_, done=False):
        """Remember one step; done: whether the task ended there (not a time limit). The oldest step is overwritten."""
        row = self.memory[self.pointer % len(self.memory)]
        row[: self.state_dim] = s
        row[self.state_dim : self.state_dim + self.action_dim] = a
        row[-self.state_dim - 2] = r * self.reward_scale
        row[-self.state_dim - 1 : -1] = s_
        row[-1] = done
        self.pointer += 1

    def save(self, path="model/ddpg", hdf5=False):
        """Write all four networks to the folder `path`."""
        weights.save(path, hdf5, **self._networks())

    def load(self, path="model/ddpg"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._networks())
        self.policy.refresh()

    def _networks(self):
        names = ("actor", "critic", "actor_target", "critic_target")
        return {name: [getattr(self, name)] for name in names}
