"""Actor-critic with a Kronecker-factored trust region: K-FAC and ACKTR, Algorithm 5.25."""

import sys

import numpy as np
import scipy.linalg
import tensorflow as tf
import tensorlayer as tl
from tensorflow_probability import distributions as tfd

from common import weights
from common.acting import MLP, sample
from common.compiling import compiled
from common.environments import Replayable
from common.normalising import Normaliser


class Worker:
    """The trajectories D_k of Algorithm 5.25: W environments that act in step, as one batch."""

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
                self.episode_rewards[w] += reward
                self.lengths[w] += 1
                if terminated or truncated:
                    if not terminated:
                        rewards[t, w] += agent.gamma * agent.get_value(state)
                    done[t, w] = 1
                    episodes.append((self.episode_rewards[w], self.lengths[w]))
                    self.episode_rewards[w], self.lengths[w] = 0.0, 0
                    state, _ = env.reset()
                states[t + 1, w] = state
        self.states = states[-1]
        return states, np.array(actions), rewards, done, episodes


class KFAC:
    """The Fisher matrix of one Dense layer as the Kronecker product of two small matrices, Eq. (5.49).

    A: float32 [n_in + 1, n_in + 1], mean of a a'; a is the layer's input and, for the bias, a one.
    S: float32 [n_out, n_out], mean of g g'; g is the gradient of log pi in the layer's sums s = W a.
    Until `invert` is called their inverses are 1: the natural gradient is then the gradient itself.
    """

    def __init__(self, n_in, n_out):
        self.A, self.S = tf.Variable(tf.zeros([n_in + 1, n_in + 1])), tf.Variable(tf.zeros([n_out, n_out]))
        self.A_inverse, self.S_inverse = tf.Variable(tf.eye(n_in + 1)), tf.Variable(tf.eye(n_out))

    def average(self, a, g, keep):
        """Take a batch into the running averages: a float32 [batch, n_in + 1], g float32 [batch, n_out].

        keep: the part of the old averages that stays.
        """
        for mean, x in (self.A, a), (self.S, g):
            mean.assign(keep * mean + (1 - keep) * tf.matmul(x, x, transpose_a=True) / x.shape[0])

    def invert(self, damping):
        """Invert A and S so that their product is about the inverse of F + damping I; returns the number of tries.

        If a Cholesky decomposition fails, it is tried again with ten times the damping; after ten tries
        FloatingPointError is raised.
        """
        A, S = self.A.numpy(), self.S.numpy()  # damping is split between them (Martens and Grosse 2015, section 6.3)
        pi = np.sqrt(np.trace(A) / len(A) / (np.trace(S) / len(S) + 1e-8))
        for tries in range(10):
            root = np.sqrt(damping * 10**tries)
            try:
                A_inverse, S_inverse = _inverse(A, root * pi), _inverse(S, root / pi)
            except scipy.linalg.LinAlgError:
                continue
            self.A_inverse.assign(A_inverse)
            self.S_inverse.assign(S_inverse)
            return tries + 1
        raise FloatingPointError("a Kronecker factor can't be inverted, however much it is damped")

    def solve(self, gradient):
        """F^-1 gradient, Eq. (5.50)-(5.52), for a gradient in the layer's weights, float32 [n_in + 1, n_out]."""
        return self.A_inverse @ gradient @ self.S_inverse


def _inverse(matrix, damping):
    """(matrix + damping I)^-1 of a symmetric matrix; raises LinAlgError if that is not positive definite."""
    eye = np.eye(len(matrix), dtype=np.float32)
    damped = matrix + np.float32(damping) * eye
    if not np.isfinite(damped).all():
        raise scipy.linalg.LinAlgError
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(damped), eye)


class ACKTR:
    """ACKTR (Algorithm 5.25), for continuous or discrete actions.

    state_dim: length of a state.
    action_dim: length of an action, or the number of actions if they are discrete.
    action_bound: float32 [action_dim], the largest action; None for discrete actions.
    gamma, gae_lambda: discount, and the decay of the advantage estimate.
    eta_max: the longest step of Eq. (5.43), in natural gradients.
    delta: about the largest mean KL divergence between the policies before and after an update.
    delta_c: the same for each of the critic's c_update_epochs steps, half the mean squared change of its values.
    end_lr, total_steps: delta and delta_c fall linearly to the part end_lr at total_steps, if that is given.
    damping: what is added to the Fisher matrix's diagonal before it is inverted.
    decay: the part of the averages A and S that a step keeps; the critic takes c_update_epochs steps an update.
    refresh: their inverses are computed anew every so many updates.
    entropy: weight of the policy's entropy, which keeps it exploring.
    mean: of the Gaussian policy, 'linear' or 'tanh', which keeps it within the actions' bounds.
    log_std: of the Gaussian policy at the start.
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    no_normalising: take states as they are, not brought to mean 0 and deviation 1.
    """

    def __init__(
        self,
        state_dim,
        action_dim,
        action_bound,
        *,
        gamma=0.99,
        gae_lambda=0.95,
        eta_max=1.0,
        delta=0.005,
        delta_c=0.1,
        c_update_epochs=2,
        end_lr=0.0,
        total_steps=None,
        damping=1e-3,
        decay=0.95,
        refresh=5,
        entropy=0.0,
        mean="linear",
        log_std=0.0,
        reward_scale=0.1,
        no_normalising=False,
        hidden=(64, 64),
        seed=0,
    ):
        self.state_dim, self.action_dim, self.discrete = state_dim, action_dim, action_bound is None
        self.gamma, self.gae_lambda, self.reward_scale = gamma, gae_lambda, reward_scale
        self.eta_max, self.delta, self.delta_c, self.c_update_epochs = eta_max, delta, delta_c, c_update_epochs
        self.entropy = entropy
        self.damping, self.decay, self.refresh = damping, decay, refresh
        self.end_lr, self.total_steps, self.steps, self.updates = end_lr, total_steps, 0, 0
        self.rng = np.random.default_rng([seed, 1])  # of [seed] the environment draws

        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s)
        act = None if self.discrete else {"linear": None, "tanh": tf.nn.tanh}[mean]  # of logits, or of the mean
        self.actor = self._network(state_dim, hidden, action_dim, gain=0.01, act=act, scale=action_bound)
        self.log_std = tf.Variable(tf.fill(0 if self.discrete else action_dim, float(log_std)), name="log_std")
        self.actor_weights = [*self.actor.trainable_weights, *([] if self.discrete else [self.log_std])]
        self.weights = [*self.critic.trainable_weights, *self.actor_weights]
        self.normaliser = Normaliser(state_dim, off=no_normalising)

        self.critic_blocks, self.actor_blocks = (
            [KFAC(*W.shape) for W in network.trainable_weights[::2]] for network in (self.critic, self.actor)
        )
        self.failures = 0  # factors that could not be inverted as they were

        self.policy = MLP(self.actor, normaliser=self.normaliser)
        self.value = MLP(self.critic, normaliser=self.normaliser)
        self._refresh()

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
            layer = tl.layers.Lambda(lambda x: x * scale, name="scale")(layer)
        model = tl.models.Model(inputs, layer)
        model.train()
        return model

    def forward(self, model, state):
        """The model's output at state [batch, state_dim], and a_l and s_l of each Dense layer l.

        a_l: float32 [batch, n_in + 1], its input and a column of ones, for the bias.  s_l = a_l W_l: [batch, n_out].
        """
        x, a, s = state, [], []
        for layer in model.all_layers:
            if isinstance(layer, tl.layers.Dense):
                a.append(tf.concat([x, tf.ones_like(x[:, :1])], 1))
                s.append(a[-1] @ tf.concat([layer.W, layer.b[None]], 0))
                x = layer.act(s[-1]) if layer.act else s[-1]
            elif isinstance(layer, tl.layers.Lambda):
                x = layer.fn(x)
        return x, a, s

    def distribution(self, output):
        """pi(.|s) from the actor's output [batch, action_dim]."""
        if self.discrete:
            return tfd.Categorical(logits=output)
        return tfd.Independent(tfd.Normal(output, tf.exp(self.log_std)), 1)

    def draw(self, output, noise):
        """Actions of the current policy; noise [batch, action_dim]: Gumbel's for discrete actions, else Gaussian."""
        return tf.argmax(output + noise, 1) if self.discrete else output + tf.exp(self.log_std) * noise

    def advantage(self, value, reward, done):
        """Advantage of each step; advantage + value is G_t of Algorithm 5.25 for gae_lambda = 1.

        value: float32 [L + 1, W].  reward, done: float32 [L, W].  Returns float32 [L, W].
        """
        adv, advs = 0.0, []
        for t in reversed(range(reward.shape[0])):
            delta = reward[t] + self.gamma * (1 - done[t]) * value[t + 1] - value[t]
            adv = delta + self.gamma * self.gae_lambda * (1 - done[t]) * adv
            advs.append(adv)
        return tf.stack(advs[::-1])

    def natural(self, blocks, a, g, ascent, keep):
        """The natural gradient of Algorithm 5.25, layer by layer: [n_in + 1, n_out] each, weights and bias.

        a, g: for each layer what `KFAC.average` takes.  ascent: for each layer the objective's gradient in s_l, like g.
        """
        steps = []
        for block, a_l, g_l, ascent_l in zip(blocks, a, g, ascent, strict=True):
            block.average(a_l, g_l, keep)
            steps.append(block.solve(tf.matmul(a_l, ascent_l, transpose_a=True)))
        return steps

    def change(self, model, state, steps):
        """How fast the output [batch, n] at state changes along the steps of `natural`: the Jacobian times the step."""
        along = [part for step in steps for part in (step[:-1], step[-1])]
        with tf.autodiff.ForwardAccumulator(model.trainable_weights, along) as tangent:
            output = model(state)
        return tangent.jvp(output)

    def curvature(self, output, change, log_std_change):
        """step' F step of Eq. (5.43), where the step changes the actor's output and the log-std by these.

        Not by A (x) S, which leaves out what the layers do together, but exactly: the variance of the change of
        log pi over the actions, in the mean over the states.  output, change: float32 [batch, action_dim].
        """
        if self.discrete:
            p = tf.nn.softmax(output)
            mean = tf.reduce_sum(p * change, 1, keepdims=True)
            return tf.reduce_mean(tf.reduce_sum(p * tf.square(change - mean), 1))
        of_mean = tf.reduce_mean(tf.reduce_sum(tf.square(change / tf.exp(self.log_std)), 1))
        return of_mean + 2 * tf.reduce_sum(tf.square(log_std_change))  # F of a Gaussian's log-std is 2 I

    def eta(self, delta, curvature):
        """eta_k of Eq. (5.43): the part of a step with a KL of about delta, at most eta_max.

        curvature: step' F step.
        """
        return tf.minimum(self.eta_max, tf.sqrt(2 * delta / (curvature + 1e-10)))

    def move(self, model, steps):
        """Add a [n_in + 1, n_out] to the weights and the bias of each Dense layer, Eq. (5.43)."""
        variables = model.trainable_weights
        for W, b, step in zip(variables[::2], variables[1::2], steps, strict=True):
            W.assign_add(step[:-1])
            b.assign_add(step[-1])

    def train_actor(self, state, action, adv, noise, keep=0.0, left=1.0):
        """One step of Eq. (5.43); returns -J, the entropy, eta and the KL divergence that it should have, by name.

        state: float32 [batch, state_dim].  action: [batch, ...].  adv: float32 [batch].  noise: see `draw`.
        keep: see `KFAC.average`.  left: the part of delta.
        """
        with tf.GradientTape(persistent=True) as tape:
            output, a, s = self.forward(self.actor, state)
            pi = self.distribution(output)
            entropy = pi.entropy()
            J = tf.reduce_mean(pi.log_prob(action) * adv + self.entropy * entropy)  # Eq. (5.42)
            log_pi = pi.log_prob(tf.stop_gradient(self.draw(output, noise)))  # of actions of its own, Eq. (5.48)
        g = tape.gradient(log_pi, s)  # row by row, as a sample's s is in its own log pi only
        steps = self.natural(self.actor_blocks, a, g, tape.gradient(J, s), keep)
        log_std_step = tape.gradient(J, self.log_std, unconnected_gradients="zero") / (2 + self.damping)  # its F is 2 I
        curvature = self.curvature(output, self.change(self.actor, state, steps), log_std_step)
        eta = self.eta(self.delta * left, curvature)
        self.move(self.actor, [eta * step for step in steps])
        self.log_std.assign_add(eta * log_std_step)
        return dict(actor_loss=-J, entropy=tf.reduce_mean(entropy), eta=eta, kl=eta**2 * curvature / 2)

    def train_critic(self, state, target, keep=0.0, left=1.0):
        """One Gauss-Newton step on Eq. (5.44) towards target [batch]; returns the loss.

        That is the natural gradient of a Gaussian with mean V and deviation 1: F is E[g g'] here too, and g that of V.
        """
        with tf.GradientTape() as tape:
            output, a, s = self.forward(self.critic, state)
        g, error = tape.gradient(output, s), target[:, None] - output
        ascent = [error * g_l / error.shape[0] for g_l in g]  # of minus half the loss
        steps = self.natural(self.critic_blocks, a, g, ascent, keep)
        eta = self.eta(self.delta_c * left, tf.reduce_mean(tf.square(self.change(self.critic, state, steps))))
        self.move(self.critic, [eta * step for step in steps])
        return tf.reduce_mean(tf.square(error))  # Eq. (5.44)

    @compiled
    def _update(self, states, actions, rewards, done, noise, keep, left):
        """One round of Algorithm 5.25 on what the workers have collected; returns its report and the new weights."""
        value = tf.reshape(self.critic(tf.reshape(states, [-1, self.state_dim])), states.shape[:2])
        adv = self.advantage(value, rewards, done)
        target, state = tf.reshape(adv + value[:-1], [-1]), tf.reshape(states[:-1], [-1, self.state_dim])
        adv, action = tf.reshape(adv, [-1]), tf.reshape(actions, [-1, *actions.shape[2:]])
        adv = (adv - tf.reduce_mean(adv)) / (tf.math.reduce_std(adv) + 1e-8)
        loss = 0.0
        for _ in range(self.c_update_epochs):
            loss += self.train_critic(state, target, keep, left)
        report = self.train_actor(state, action, adv, noise, keep, left)
        report["critic_loss"] = loss / max(self.c_update_epochs, 1)
        return report, *map(tf.identity, self.weights)  # read here, the new weights cost next to nothing

    def update(self, states, actions, rewards, done):
        """One round of Algorithm 5.25 on what the workers have collected (see `Worker.collect`).

        Returns floats by name: actor_loss, which is -J; entropy of the policy before its step; eta of Eq. (5.43); kl,
        the mean divergence that the step should have; critic_loss, the mean over the critic's steps.
        Raises FloatingPointError if J, the critic's loss, a weight or a factor is no longer of finite numbers.
        """
        progress = min(self.steps / self.total_steps, 1) if self.total_steps else 0
        left = np.float32(1 - (1 - self.end_lr) * progress)
        keep = np.float32(min(self.decay, self.updates / (self.updates + 1)))  # the actor's first batches count alike
        noise = self._noise((rewards.size, self.action_dim))
        results, *new_weights = self._update(self.normaliser(states), actions, rewards, done, noise, keep, left)
        report = {name: float(x) for name, x in results.items()}
        loss = report["critic_loss"] - report["actor_loss"]
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        self.normaliser.update(states[:-1].reshape(-1, self.state_dim))
        self.steps += rewards.size
        self._refresh([x.numpy() for x in new_weights])
        if self.updates % self.refresh == 0:
            self._invert()
        self.updates += 1
        return report

    def _invert(self):
        """Bring the inverses of all factors up to date; says so once if one of them needs more damping."""
        failed = sum(block.invert(self.damping) > 1 for block in [*self.actor_blocks, *self.critic_blocks])
        if failed and not self.failures:
            print("A Kronecker factor could not be inverted and was damped more (said once).", file=sys.stderr)
        self.failures += failed

    def _noise(self, shape):
        """What makes actions of the policy's output: Gumbel's noise for discrete actions, else Gaussian."""
        noise = self.rng.gumbel(size=shape) if self.discrete else self.rng.standard_normal(shape)
        return noise.astype(np.float32)

    def _refresh(self, new_weights=None):
        """Bring the NumPy copies that act up to date with the networks."""
        new_weights = new_weights or [w.numpy() for w in self.weights]
        n = len(self.critic.trainable_weights)
        self.value.refresh(new_weights[:n])
        self.policy.refresh(new_weights[n:])
        self.std = np.exp(self.log_std.numpy() if self.discrete else new_weights[-1])

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

    def save(self, path="model/acktr", hdf5=False):
        """Write actor (with log-std and the statistics of the states) and critic to the folder `path`."""
        weights.save(path, hdf5, **self._parts())

    def load(self, path="model/acktr"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._parts())
        self._refresh()

    def _parts(self):
        return dict(actor=[self.actor, self.log_std, self.normaliser.arrays], critic=[self.critic])
