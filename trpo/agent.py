"""Trust region policy optimisation: the classes of section 5.10.5, for Algorithm 5.22."""

from functools import partial
from operator import mul

import numpy as np
import scipy.signal
import scipy.special
import tensorflow as tf
import tensorlayer as tl
from tensorflow_probability import distributions as tfd

from common import vectors, weights
from common.acting import MLP, sample
from common.compiling import compiled, converted
from common.normalising import Normaliser

HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


class GAE_Buffer:
    """The steps of one batch, with generalised advantage estimates.

    obs_dim, act_dim: lengths of a state and of the policy's output (mean or logits).  size: steps in a batch.
    gamma, lam: discount, and decay of the advantage estimate.  discrete: whether an action is one number.
    reward_scale: rewards are multiplied by it in the estimates.
    """

    def __init__(self, obs_dim, act_dim, size, gamma=0.99, lam=0.95, discrete=False, reward_scale=1.0):
        self.obs_buf = np.zeros((size, obs_dim), np.float32)
        self.act_buf = np.zeros(size, np.int32) if discrete else np.zeros((size, act_dim), np.float32)
        self.adv_buf = np.zeros(size, np.float32)
        self.rew_buf = np.zeros(size, np.float32)
        self.ret_buf = np.zeros(size, np.float32)
        self.val_buf = np.zeros(size, np.float32)
        self.logp_buf = np.zeros(size, np.float32)
        self.mean_buf = np.zeros((size, act_dim), np.float32)
        self.log_std_buf = np.zeros((size, act_dim), np.float32)
        self.gamma, self.lam, self.reward_scale = gamma, lam, reward_scale
        self.ptr, self.path_start_idx, self.max_size = 0, 0, size

    def store(self, obs, act, rew, *estimates):
        """Remember one step: the state [obs_dim], the action [act_dim], or an int if discrete, and the reward.

        estimates: the book's val, logp, mean and log_std, as `TRPO.get_action` gives them. `TRPO.finish_path` computes
        them for all steps of a path at once, so they are for who calls the `finish_path` of the buffer itself.
        Raises RuntimeError when the buffer is full.
        """
        if self.is_full():
            raise RuntimeError(f"the buffer is full with {self.max_size} steps: call finish_path and update first")
        self.obs_buf[self.ptr] = obs
        self.act_buf[self.ptr] = act
        self.rew_buf[self.ptr] = rew
        if estimates:
            for buffer, estimate in zip(self.estimates, estimates, strict=True):
                buffer[self.ptr] = estimate
        self.ptr += 1

    @property
    def path(self):
        """The steps since the last path was closed, as a slice of the buffers."""
        return slice(self.path_start_idx, self.ptr)

    @property
    def estimates(self):
        """The four buffers of what the networks say about a step, in the order of `store`."""
        return self.val_buf, self.logp_buf, self.mean_buf, self.log_std_buf

    def finish_path(self, last_val=0):
        """Close the path since the last call; last_val: value of the state after it, 0 if the task ended there."""
        path = self.path
        rews = np.append(self.reward_scale * self.rew_buf[path], last_val)
        vals = np.append(self.val_buf[path], last_val)
        deltas = rews[:-1] + self.gamma * vals[1:] - vals[:-1]
        self.adv_buf[path] = self._discount_cumsum(deltas, self.gamma * self.lam)  # A of Algorithm 5.22
        self.ret_buf[path] = self._discount_cumsum(rews, self.gamma)[:-1]  # G of Algorithm 5.22
        self.path_start_idx = self.ptr

    def _discount_cumsum(self, x, discount):
        """y_t = x_t + discount * y_{t+1}."""
        return scipy.signal.lfilter([1], [1, -discount], x[::-1])[::-1]

    def is_full(self):
        """Whether `size` steps are stored."""
        return self.ptr == self.max_size

    def clear(self):
        """Forget the steps."""
        self.ptr, self.path_start_idx = 0, 0

    def get(self):
        """states, actions, normalised advantages, returns, log-probabilities, means, log-stds; empties the buffer.

        Raises RuntimeError before the buffer is full and its last path is closed.
        """
        if not self.is_full():
            raise RuntimeError(f"the buffer holds {self.ptr} of {self.max_size} steps: store the others first")
        if self.path_start_idx < self.ptr:
            raise RuntimeError("the last path is not closed: call finish_path first")
        self.clear()
        adv = (self.adv_buf - self.adv_buf.mean()) / (self.adv_buf.std() + 1e-8)
        return [self.obs_buf, self.act_buf, adv, self.ret_buf, self.logp_buf, self.mean_buf, self.log_std_buf]


class TRPO:
    """TRPO (Algorithm 5.22), for continuous or discrete actions.

    state_dim: length of a state.
    action_dim: length of an action, or the number of actions if they are discrete.
    action_bound: float32 [action_dim], the largest action; None for discrete actions.
    batch_size: steps between two updates.
    gamma, gae_lambda: discount, and the decay of the advantage estimate.
    delta: the largest mean KL divergence of Eq. (5.26).
    cg_iters, damping: steps of the conjugate gradient, and what is added to the diagonal of H.
    backtrack_iters, backtrack_coeff: K and alpha of Algorithm 5.22.
    lr_c, c_update_epochs, minibatch_size: value fit of Eq. (5.34), by Adam.
    end_lr, total_steps: delta and lr_c fall linearly to the part end_lr at total_steps, if that is given.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    mean: of the Gaussian policy, 'linear' or 'tanh', which keeps it within the actions' bounds.
    log_std: of the Gaussian policy at the start.
    normalising: bring states to mean 0 and deviation 1.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        action_bound,
        *,
        batch_size=2048,
        gamma=0.95,
        gae_lambda=0.95,
        delta=0.02,
        cg_iters=10,
        damping=0.1,
        backtrack_iters=10,
        backtrack_coeff=0.8,
        lr_c=1e-3,
        end_lr=0.0,
        total_steps=None,
        c_update_epochs=10,
        minibatch_size=64,
        reward_scale=0.1,
        mean="linear",
        log_std=0.0,
        normalising=False,
        hidden=(64, 64),
        seed=0,
    ):
        self.discrete = action_bound is None
        self.gamma, self.gae_lambda, self.reward_scale = gamma, gae_lambda, reward_scale
        self.delta, self.cg_iters, self.damping = delta, cg_iters, damping
        self.backtrack_iters, self.backtrack_coeff = backtrack_iters, backtrack_coeff
        self.c_update_epochs, self.minibatch_size = c_update_epochs, minibatch_size
        self.lr_c, self.end_lr, self.total_steps, self.steps = lr_c, end_lr, total_steps, 0
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s)
        act = None if self.discrete else {"linear": None, "tanh": tf.nn.tanh}[mean]  # of logits, or of the mean
        self.actor = self._network(state_dim, hidden, action_dim, gain=0.01, act=act, scale=action_bound)
        self.log_std = tf.Variable(tf.fill(0 if self.discrete else action_dim, float(log_std)), name="log_std")
        self.actor_weights = [*self.actor.trainable_weights, *([] if self.discrete else [self.log_std])]

        self.critic_opt = tf.optimizers.Adam(lr_c)
        self.critic_opt.build(self.critic.trainable_weights)

        self.normaliser = Normaliser(state_dim) if normalising else None
        self.policy = MLP(self.actor, normaliser=self.normaliser)
        self.value = MLP(self.critic, normaliser=self.normaliser)
        self._refresh()
        self.buf = GAE_Buffer(state_dim, action_dim, batch_size, gamma, gae_lambda, self.discrete, reward_scale)

    def _network(self, state_dim, hidden, units, gain, act=None, scale=None):
        """Dense layers from state_dim to `units`; orthogonal weights learn faster than the default."""

        def dense(layer, units, act, gain, name):
            init = tf.initializers.Orthogonal(gain, seed=int(self.rng.integers(2**31)))
            return tl.layers.Dense(units, act, W_init=init, name=name)(layer)

        inputs = layer = tl.layers.Input([None, state_dim], tf.float32)
        for i, width in enumerate(hidden, 1):
            layer = dense(layer, width, tf.nn.tanh, 2**0.5, f"hidden_{i}")
        name = "output" if act is None else "output_tanh"  # weights of the one don't load as the other's
        layer = dense(layer, units, act, gain, name)
        if scale is not None:
            layer = tl.layers.Lambda(partial(mul, scale), name="scale")(layer)  # a lambda would not reach a process
        model = tl.models.Model(inputs, layer)
        model.train()
        return model

    def distribution(self, output, log_std=None):
        """pi(.|s) from the actor's output [batch, action_dim]: one joint likelihood for all dimensions."""
        if self.discrete:
            return tfd.Categorical(logits=output)
        return tfd.Independent(tfd.Normal(output, tf.exp(log_std)), 1)

    def pi(self, state):
        """The current policy at state [batch, state_dim], as a distribution over actions."""
        return self.distribution(self.actor(state), self.log_std)

    def pi_loss(self, states, actions, adv, old_log_prob):
        """Minus the surrogate of Eq. (5.26), without its gamma^t as in Eq. (5.31).

        states: float32 [batch, state_dim].  actions: [batch, action_dim], or int [batch] if discrete.
        adv, old_log_prob: float32 [batch].
        """
        ratio = tf.exp(self.pi(states).log_prob(actions) - old_log_prob)  # pi'(A|S) / pi(A|S) of Eq. (5.24)
        return -tf.reduce_mean(ratio * adv)  # Eq. (5.26)

    def gradient(self, states, actions, adv, old_log_prob):
        """The gradient of `pi_loss` as a vector, which is -g of Eq. (5.27), (5.28) and (5.31), and the loss itself."""
        with tf.GradientTape() as tape:
            loss = self.pi_loss(states, actions, adv, old_log_prob)
        return self._flat_concat(tape.gradient(loss, self.actor_weights)), loss

    def train_vf(self, states, rewards_to_go):
        """One gradient step on Eq. (5.34): the values of states [batch, state_dim] towards rewards_to_go [batch]."""
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(rewards_to_go - self.critic(states)[:, 0]))  # Eq. (5.34)
        self.critic_opt.apply(tape.gradient(loss, self.critic.trainable_weights))
        return loss

    def kl(self, states, old_mean, old_log_std):
        """Mean KL(pi_old || pi) over states [batch, state_dim]; old_mean, old_log_std: [batch, action_dim]."""
        old_pi = self.distribution(old_mean, old_log_std)
        return tf.reduce_mean(old_pi.kl_divergence(self.pi(states)))  # the constraint of Eq. (5.26)

    def _flat_concat(self, xs):
        """One vector of all tensors in xs."""
        return vectors.join(xs)

    def get_pi_params(self):
        """The policy's parameters as one vector, log-std last."""
        return self._flat_concat(self.actor_weights)

    def set_pi_params(self, flat_params):
        """The inverse of `get_pi_params`."""
        vectors.assign(self.actor_weights, flat_params)

    @converted
    def cg(self, Ax, b):
        """x with A x = b, Eq. (5.32), by conjugate gradient from x = 0; Ax(v) gives A v."""
        x, r, p = tf.zeros_like(b), b, b  # r = b - A x, which is b as long as x = 0
        r_dot_old = tf.tensordot(r, r, 1)
        for _ in tf.range(self.cg_iters):
            z = Ax(p)
            alpha = r_dot_old / (tf.tensordot(p, z, 1) + 1e-10)
            x += alpha * p
            r -= alpha * z
            r_dot_new = tf.tensordot(r, r, 1)
            p = r + r_dot_new / (r_dot_old + 1e-10) * p
            r_dot_old = r_dot_new
        return x

    def hvp(self, states, old_mean, old_log_std, x):
        """(H + damping) x, H the Hessian of the mean KL in the policy's n parameters, without forming H.

        H = J^T M J: J has the derivatives of the policy's output and log-std, and M is the Hessian of KL in these. That
        is so at the old policy, where the gradient of KL, which is a factor of what else a Hessian has, is 0.
        states, old_mean, old_log_std: as `kl` takes them, of the policy as it is.  x: float32 [n].  Returns [n], too.
        """
        tangents = vectors.split(x, self.actor_weights)
        with tf.autodiff.ForwardAccumulator(self.actor_weights, tangents) as forward, tf.GradientTape() as backward:
            output = [self.actor(states), *([] if self.discrete else [tf.identity(self.log_std)])]
        with tf.autodiff.ForwardAccumulator(output, forward.jvp(output)) as forward, tf.GradientTape() as tape:
            tape.watch(output)
            old_pi = self.distribution(old_mean, old_log_std)
            kl = tf.reduce_mean(old_pi.kl_divergence(self.distribution(*output)))
            kl_gradient = tape.gradient(kl, output)
        M_J_x = forward.jvp(kl_gradient)
        return self._flat_concat(backward.gradient(output, self.actor_weights, M_J_x)) + self.damping * x

    def natural_step(self, g, delta, states, old_mean, old_log_std):
        """The whole step d, float32 [n]: along H^-1 g, as far as KL to second order, d' H d / 2, is delta.

        g: float32 [n], the direction in which the surrogate rises.  delta: a number.  The others as `kl` takes them.
        """
        x = self.cg(lambda v: self.hvp(states, old_mean, old_log_std, v), g)  # H^-1 g, Eq. (5.32)
        x_H_x = tf.tensordot(x, self.hvp(states, old_mean, old_log_std, x), 1)
        return tf.sqrt(2 * delta / (x_H_x + 1e-10)) * x  # Eq. (5.30)

    @converted
    def line_search(self, full_step, delta, loss_old, states, actions, adv, old_log_prob, old_mean, old_log_std):
        """Algorithm 5.22, Eq. (5.33): the longest step that lowers the loss and keeps KL <= delta, or none at all.

        full_step: float32 [n].  delta: a number.  loss_old: the loss before the step.  The others as `pi_loss` and
        `kl` take them.
        Returns (KL, loss, whether a step was taken).
        """
        old_params = self.get_pi_params()
        kl, loss, accepted, size = 0.0, loss_old, False, 1.0
        for _ in tf.range(self.backtrack_iters + 1):  # j = 0 to K
            self.set_pi_params(old_params + size * full_step)  # size = alpha^j
            kl = self.kl(states, old_mean, old_log_std)
            loss = self.pi_loss(states, actions, adv, old_log_prob)
            accepted = kl <= delta and loss < loss_old
            if accepted:
                break
            size *= self.backtrack_coeff
        if not accepted:
            self.set_pi_params(old_params)
            kl, loss = 0.0, loss_old
        return kl, loss, accepted

    @compiled
    def _update(self, states, actions, adv, returns, old_log_prob, old_mean, old_log_std, critic_batches, progress):
        """One step of the policy, then the value fit; returns the report.

        critic_batches: int32 [steps, minibatch_size].  progress: the part of the training that is over.
        """
        left = 1 - (1 - self.end_lr) * progress
        delta = self.delta * left
        self.critic_opt.learning_rate.assign(self.lr_c * left)
        loss_gradient, loss_old = self.gradient(states, actions, adv, old_log_prob)
        full_step = self.natural_step(-loss_gradient, delta, states, old_mean, old_log_std)
        old = states, actions, adv, old_log_prob, old_mean, old_log_std
        kl, loss, accepted = self.line_search(full_step, delta, loss_old, *old)
        critic_loss = 0.0
        for i in tf.range(len(critic_batches)):
            k = critic_batches[i]
            critic_loss += self.train_vf(tf.gather(states, k), tf.gather(returns, k))
        return dict(
            actor_loss_before=loss_old,
            actor_loss=loss,
            critic_loss=critic_loss / len(critic_batches),
            kl=kl,
            accepted=accepted,
            entropy=tf.reduce_mean(self.distribution(old_mean, old_log_std).entropy()),
        )

    def update(self):
        """One round of Algorithm 5.22 on the full buffer.

        Returns floats by name: actor_loss_before and actor_loss, -L before and after the step; critic_loss, the mean
        over its gradient steps; kl of the new policy from the old; accepted, 0 if the line search took no step; entropy
        of the old policy.
        Raises RuntimeError before the buffer is full and its last path is closed, FloatingPointError if a loss or a
        weight is no longer a number.
        """
        states, actions, adv, returns, logp, mean, log_std = self.buf.get()
        progress = np.float32(min(self.steps / self.total_steps, 1) if self.total_steps else 0)
        seen = self.normaliser(states) if self.normaliser else states
        results = self._update(seen, actions, adv, returns, logp, mean, log_std, self._minibatches(), progress)
        report = {name: float(x) for name, x in results.items()}
        loss = report["actor_loss_before"] + report["critic_loss"]
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        if self.normaliser:
            self.normaliser.update(states)
        self.steps += self.buf.max_size
        self._refresh()
        return report

    def _refresh(self):
        """Bring the NumPy copies that act up to date with the networks."""
        self.policy.refresh()
        self.value.refresh()
        self.log_std_now = self.log_std.numpy()
        self.std = None if self.discrete else np.exp(self.log_std_now)

    def _minibatches(self):
        """int32 [steps, minibatch_size]: a new shuffle of the buffer for each epoch of the value fit."""
        n = self.buf.max_size
        size = min(self.minibatch_size, n)
        shuffles = [self.rng.permutation(n)[: n // size * size] for _ in range(self.c_update_epochs)]
        return np.concatenate(shuffles).reshape(-1, size).astype(np.int32)

    def act(self, state, greedy=False):
        """An action for the state [state_dim]: float32 [action_dim], or an int if actions are discrete.

        greedy: the most likely one. A sampled action may lie outside the bounds: it is the environment's
        part to clip it, so that what is stored is what was sampled.
        """
        output = self.policy(state)
        if self.discrete:
            return int(np.argmax(output) if greedy else sample(output, self.rng))
        if greedy:
            return output
        return output + self.std * self.rng.standard_normal(output.shape, np.float32)

    def get_action(self, state, greedy=False):
        """action, value, logp, mean, log_std at the state [state_dim], as in the book: `act` and `evaluate` in one."""
        action = self.act(state, greedy)
        return action, *(estimate[0] for estimate in self.evaluate(np.array([state]), [action]))

    def evaluate(self, states, actions):
        """values, log-probabilities, means (or logits) and log-stds (or 0) of actions taken in states.

        states: [n, state_dim].  actions: n of them.  Returns arrays [n], [n], [n, action_dim], [n, action_dim].
        """
        means, values, actions = self.policy(states), self.value(states)[:, 0], np.array(actions)
        if self.discrete:
            logp = scipy.special.log_softmax(means, -1)[np.arange(len(actions)), actions]
            return values, logp, means, np.zeros_like(means)
        noise = (actions - means) / self.std
        logp = -(0.5 * noise**2 + self.log_std_now + HALF_LOG_TWO_PI).sum(-1)
        return values, logp, means, np.broadcast_to(self.log_std_now, means.shape)

    def finish_path(self, done, next_state):
        """Close the path; done: whether the task ended there. If not, V(next_state) stands for the rewards to come."""
        buf, path = self.buf, self.buf.path
        for buffer, estimate in zip(buf.estimates, self.evaluate(buf.obs_buf[path], buf.act_buf[path]), strict=True):
            buffer[path] = estimate  # the networks have not changed since the path began
        buf.gamma, buf.lam, buf.reward_scale = self.gamma, self.gae_lambda, self.reward_scale
        buf.finish_path(0.0 if done else self.value(next_state)[0])

    def save(self, path="model/trpo", hdf5=False):
        """Write actor (with log-std and the statistics of the states) and critic to the folder `path`."""
        weights.save(path, hdf5, **self._parts())

    def load(self, path="model/trpo"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._parts())
        self._refresh()

    def _parts(self):
        statistics = [self.normaliser.arrays] if self.normaliser else []
        return dict(actor=[self.actor, self.log_std, *statistics], critic=[self.critic])
