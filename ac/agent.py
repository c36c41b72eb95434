"""Actor-Critic: the classes of section 5.10.3, for Algorithm 5.19."""

import numpy as np
import tensorflow as tf
import tensorlayer as tl

from common import vectors, weights
from common.acting import MLP, sample
from common.adam import Adam
from common.compiling import compiled


def network(rng, state_dim, hidden, units, gain):
    """Dense layers from state_dim to `units`; orthogonal weights learn faster than the default."""

    def dense(layer, units, act, gain, name):
        init = tf.initializers.Orthogonal(gain, seed=int(rng.integers(2**31)))
        return tl.layers.Dense(units, act, W_init=init, name=name)(layer)

    inputs = layer = tl.layers.Input([None, state_dim], tf.float32)
    for i, width in enumerate(hidden, 1):
        layer = dense(layer, width, tf.nn.tanh, 2**0.5, f"hidden_{i}")
    model = tl.models.Model(inputs, dense(layer, units, None, gain, "output"))
    model.train()
    return model


class Actor:
    """pi(a|s): logits of action_num actions from a state of length state_dim.  lr: learning rate (Adam)."""

    def __init__(self, state_dim, action_num, lr=0.001, *, hidden=(64,), seed=0):
        self.state_dim, self.lr = state_dim, lr
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws
        self.model = network(self.rng, state_dim, hidden, action_num, gain=0.01)
        (self.theta,) = vectors.one_variable(self.model)
        self.optimizer = Adam(self.theta)
        self.policy = MLP(self.model)

    def learn(self, state, action, td_error, *, lr=None):
        """One ascent step on Eq. (5.9), (5.10): log pi(action|state) weighted by td_error.

        state: float32 [state_dim] or [batch, state_dim].  action: int.  td_error: the advantage, as the critic has it.
        lr: the learning rate of this step, where it is not the constructor's.
        """
        state = tf.reshape(tf.cast(state, tf.float32), [-1, self.state_dim])
        action, td_error = tf.reshape(action, [-1]), tf.stop_gradient(tf.reshape(tf.cast(td_error, tf.float32), [-1]))
        with tf.GradientTape() as tape:
            log_prob = -tf.nn.sparse_softmax_cross_entropy_with_logits(action, self.model(state))
            loss = -tf.reduce_mean(log_prob * td_error)
        self.optimizer.apply(tape.gradient(loss, self.theta), self.lr if lr is None else lr)
        if tf.executing_eagerly():  # within a compiled update there are no numbers yet
            self.policy.refresh()
        return loss

    def get_action(self, state, greedy=False):
        """An action, int, for the state [state_dim]; greedy: the most likely one."""
        logits = self.policy(state)
        return int(np.argmax(logits) if greedy else sample(logits, self.rng))

    def save(self, path="model/ac", hdf5=False):
        """Write the actor to the folder `path`."""
        weights.save(path, hdf5, actor=[self.model])

    def load(self, path="model/ac"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, actor=[self.model])
        self.policy.refresh()


class Critic:
    """V(s), or Q(s, a) for each of action_num actions.

    lr: learning rate (Adam).  gamma: discount.
    kind: 'v', or 'q' and 'expected-q' for the targets of Eq. (5.12) and (5.13); another raises ValueError.
    """

    def __init__(self, state_dim, lr=0.01, *, gamma=0.98, kind="v", action_num=None, hidden=(64,), seed=0):
        if kind not in ("v", "q", "expected-q"):
            raise ValueError(f"the critic must be 'v', 'q' or 'expected-q', not '{kind}'")
        self.state_dim, self.lr, self.gamma, self.kind = state_dim, lr, gamma, kind
        units = 1 if kind == "v" else action_num
        self.model = network(np.random.default_rng([seed, 2]), state_dim, hidden, units, gain=1.0)
        (self.psi,) = vectors.one_variable(self.model)
        self.optimizer = Adam(self.psi)

    def next_value(self, state_, pi_=None, action_=None):
        """What a target takes the next state [batch, state_dim] to be worth, float32 [batch].

        pi_: float32 [batch, action_num], the policy there.  action_: int [batch], an action sampled from it.
        """
        output = self.model(state_)
        if self.kind == "v":
            return output[:, 0]
        if self.kind == "q":
            return tf.gather(output, action_, batch_dims=1)  # Eq. (5.12)
        return tf.reduce_sum(pi_ * output, 1)  # Eq. (5.13)

    def advantage(self, state, action, pi):
        """Q(s, a) - sum_a pi(a|s) Q(s, a), Eq. (5.11), float32 [batch]; of a Q-critic only."""
        q = self.model(state)
        return tf.gather(q, action, batch_dims=1) - tf.reduce_sum(pi * q, 1)

    def learn(self, state, reward, state_, done, *, action=None, pi_=None, action_=None, discount=None, lr=None):
        """One descent step on Eq. (5.7) (or 5.12, 5.13); returns the TD error before it, float32 [batch].

        state, state_: float32 [state_dim] or [batch, state_dim].  reward: the one reward, or the discounted sum of L.
        done: whether the task ended in state_ (a time limit is no end).  discount: gamma^L where L is not 1.
        action, pi_, action_: for the Q-critics, see `next_value`.  lr: of this step, where it is not the constructor's.
        """
        state, state_ = (tf.reshape(tf.cast(s, tf.float32), [-1, self.state_dim]) for s in (state, state_))
        reward, done = (tf.reshape(tf.cast(x, tf.float32), [-1]) for x in (reward, done))
        discount = self.gamma if discount is None else discount
        target = reward + discount * (1 - done) * self.next_value(state_, pi_, action_)
        with tf.GradientTape() as tape:
            output = self.model(state)
            value = output[:, 0] if self.kind == "v" else tf.gather(output, action, batch_dims=1)
            td_error = tf.stop_gradient(target) - value  # its gradient is that of -V: Eq. (5.8)
            loss = tf.reduce_mean(tf.square(td_error)) / 2  # Eq. (5.7)
        gradient = tape.gradient(loss, self.psi)
        self.optimizer.apply(gradient, self.lr if lr is None else lr)  # Eq. (5.6): down, not up
        return td_error

    def save(self, path="model/ac", hdf5=False):
        """Write the critic to the folder `path`."""
        weights.save(path, hdf5, critic=[self.model])

    def load(self, path="model/ac"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, critic=[self.model])


class ActorCritic:
    """Both of them, and Algorithm 5.19's step as one compiled call, for discrete actions.

    state_dim: length of a state.  action_num: number of actions.
    n_steps: L of Eq. (5.7) and (5.10).  gamma: discount.
    critic: 'v', 'q' or 'expected-q', see `Critic`.
    lr_a, lr_c: learning rates of actor and critic (Adam); they fall linearly to the part end_lr
        at total_steps, if that is given.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    """

    def __init__(
        self,
        state_dim,
        action_num,
        *,
        n_steps=16,
        gamma=0.98,
        critic="v",
        lr_a=5e-4,
        lr_c=2e-3,
        end_lr=0.0,
        total_steps=None,
        reward_scale=0.1,
        hidden=(64,),
        seed=0,
    ):
        self.state_dim, self.action_num = state_dim, action_num
        self.n_steps, self.gamma, self.reward_scale = n_steps, gamma, reward_scale
        self.lr_a, self.lr_c, self.end_lr, self.total_steps, self.steps = lr_a, lr_c, end_lr, total_steps, 0
        self.rng = np.random.default_rng([seed, 3])  # of [seed, 1] and [seed, 2] actor and critic draw

        self.actor = Actor(state_dim, action_num, lr_a, hidden=hidden, seed=seed)
        self.critic = Critic(state_dim, lr_c, gamma=gamma, kind=critic, action_num=action_num, hidden=hidden, seed=seed)
        self.state_buffer, self.action_buffer, self.reward_buffer = [], [], []  # the last L steps at most

    @compiled
    def _update(self, state, action, reward, state_, done, discount, progress, noise):
        """One step of Algorithm 5.19; returns [TD error, actor's loss, entropy] and the actor's new weights.

        state, state_: float32 [1, state_dim].  action: int32 [1].  reward: the return of L steps.  discount: gamma^L.
        done: 1 where the task ended in state_.  progress: the part of the training that is over.
        noise: float32 [action_num], Gumbel noise, which samples A' of Eq. (5.12).
        """
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        logits_ = self.actor.model(state_)
        pi_, action_ = tf.nn.softmax(logits_), tf.argmax(logits_ + noise, 1, tf.int32)
        logits = self.actor.model(state)
        pi = tf.nn.softmax(logits)
        if self.critic.kind != "v":  # of Q as it is before its own step
            advantage = self.critic.advantage(state, action, pi)
        td_error = self.critic.learn(
            state, reward, state_, done, action=action, pi_=pi_, action_=action_, discount=discount, lr=self.lr_c * left
        )
        loss = self.actor.learn(state, action, td_error if self.critic.kind == "v" else advantage, lr=self.lr_a * left)
        entropy = -tf.reduce_sum(pi * tf.nn.log_softmax(logits))
        return tf.stack([td_error[0], loss, entropy]), tf.identity(self.actor.theta)  # cheaper to read here than later

    def learn(self, state, action, reward, state_, done, truncated=False):
        """Take in one step and learn from the step L - 1 before it; at an episode's end from all that are left.

        done: whether the task ended in state_: V(state_) then counts for nothing.  truncated: whether the episode was
        cut there.
        Returns for each update that it made, which may be none, floats by name: td_error, critic_loss, actor_loss, and
        entropy of the policy before its step. Raises FloatingPointError if the TD error or a weight is no longer a
        number.
        """
        reports = []
        self.state_buffer.append(np.array(state, np.float32))
        self.action_buffer.append(int(action))
        self.reward_buffer.append(self.reward_scale * float(reward))
        progress = min(self.steps / self.total_steps, 1) if self.total_steps else 0
        while self.state_buffer and (len(self.state_buffer) >= self.n_steps or done or truncated):
            n = len(self.reward_buffer)
            total = sum(self.gamma**k * r for k, r in enumerate(self.reward_buffer))
            step = self.state_buffer[0][None], np.int32(self.action_buffer[:1]), np.float32(total)
            noise = self.rng.gumbel(size=self.action_num).astype(np.float32)
            rest = np.float32(done), np.float32(self.gamma**n), np.float32(progress), noise
            results, theta = (x.numpy() for x in self._update(*step, np.float32(state_)[None], *rest))
            td_error, actor_loss, entropy = results.tolist()
            if not np.isfinite(td_error):
                raise FloatingPointError(f"the TD error is {td_error}")
            critic_loss = td_error**2 / 2
            reports.append(dict(td_error=td_error, critic_loss=critic_loss, actor_loss=actor_loss, entropy=entropy))
            self.actor.policy.refresh([theta])
            for buffer in (self.state_buffer, self.action_buffer, self.reward_buffer):
                buffer.pop(0)
        self.steps += 1
        return reports

    def get_action(self, state, greedy=False):
        """An action, int, for the state [state_dim]; greedy: the most likely one."""
        return self.actor.get_action(state, greedy)

    def save(self, path="model/ac", hdf5=False):
        """Write actor and critic to the folder `path`."""
        weights.save(path, hdf5, actor=[self.actor.model], critic=[self.critic.model])

    def load(self, path="model/ac"):
        """Read what `save` wrote. Raises UserError, before any weight has changed, if something is amiss."""
        weights.load(path, actor=[self.actor.model], critic=[self.critic.model])
        self.actor.policy.refresh()
