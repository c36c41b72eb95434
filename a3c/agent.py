"""Asynchronous advantage actor-critic: the classes of section 5.10.4, for Algorithm 5.21."""

import threading

import numpy as np
import tensorflow as tf
import tensorlayer as tl
from tensorflow_probability import distributions as tfd

from common import environments, vectors, weights
from common.acting import MLP, sample
from common.adam import Adam
from common.compiling import compiled
from common.normalising import Normaliser
from common.sparse import convolve


class Worker:
    """A worker node: an environment of its own and a copy of the network that acts in it.

    name: 'Worker_0', ...; workers with other numbers have other environments and other noise.
    globalAC: begin with its weights; `work` pulls them in any case.
    env: the id of its environment.  render: show it.
    n_steps: L of Algorithm 5.21.
    gamma, gae_lambda: discount, and the decay of the advantage estimate (0: the one-step advantage of the algorithm).
    reward_scale: rewards are multiplied by it, so that values are of the order of 1.
    reset_at_points: any reward other than 0 is a point, after which no more is to come, though the game goes on (Pong).
    settings: those of `ACNet`.
    """

    def __init__(
        self,
        name,
        globalAC=None,
        *,
        env="BipedalWalker-v3",
        render=False,
        n_steps=80,
        gamma=0.99,
        gae_lambda=0.95,
        reward_scale=0.1,
        reset_at_points=False,
        seed=0,
        **settings,
    ):
        self.name, self.n_steps = name, n_steps
        self.gamma, self.gae_lambda, self.reward_scale = gamma, gae_lambda, reward_scale
        self.reset_at_points = reset_at_points
        number = int("0" + "".join(filter(str.isdigit, name)))
        self.env = environments.make(env, seed + 1000 * number, "human" if render else None)
        self.AC = ACNet(name, *environments.dimensions(self.env), seed=seed, **settings)
        if globalAC:
            self.AC.pull_global(globalAC)

    def work(self, globalAC, coord=None, report=None):
        """Algorithm 5.21: pull, take L steps, give the gradients to the global network; until coord says stop.

        coord: a `tf.train.Coordinator`; without one the work ends after the global network's total_steps.
        report(reward, length, updates) is called at each episode's end with the sum of the environment's own rewards
        and what `update_global` has returned since the last one; without it the rewards are printed.
        """
        AC = self.AC
        report = report or (lambda reward, *_: print(f"Training | {self.name} | Episode Reward: {reward:.4f}"))
        state, _ = self.env.reset()
        episode_reward, length, updates = 0.0, 0, []
        while not (coord.should_stop() if coord else globalAC.steps >= (globalAC.total_steps or np.inf)):
            AC.pull_global(globalAC)
            buffer_s, buffer_a, buffer_r, buffer_done = [], [], [], []
            for _ in range(self.n_steps):
                action = AC.get_action(state)
                next_state, reward, terminated, truncated, _ = self.env.step(action)
                episode_reward += reward
                length += 1
                point = self.reset_at_points and reward != 0
                reward *= self.reward_scale
                if truncated and not (terminated or point):  # the value of what the time limit has cut off
                    reward += self.gamma * AC.get_value(next_state[None])[0]
                buffer_s.append(state)
                buffer_a.append(action)
                buffer_r.append(reward)
                buffer_done.append(terminated or truncated or point)
                state = next_state
                if terminated or truncated:
                    report(episode_reward, length, updates)
                    state, _ = self.env.reset()
                    episode_reward, length, updates = 0.0, 0, []
            value = AC.get_value(np.array([*buffer_s, state], np.float32))
            buffer_v_target = self.targets(buffer_r, buffer_done, value)
            segment = np.array(buffer_s, np.float32), np.array(buffer_a), buffer_v_target
            updates.append(AC.update_global(*segment, globalAC))

    def targets(self, reward, done, value):
        """What V(s_t) should be, float32 [L]; less V(s_t) it is the generalised advantage.

        reward, done: [L], done where an episode or a point ended.  value: float32 [L + 1], of the states and the next.
        """
        target, targets = value[-1], []
        for t in reversed(range(len(reward))):
            mix = (1 - self.gae_lambda) * value[t + 1] + self.gae_lambda * target
            target = reward[t] + self.gamma * (not done[t]) * mix
            targets.append(target)
        return np.array(targets[::-1], np.float32)


class ACNet:
    """Actor and critic: the global ones (the master of Algorithm 5.21) or a worker's copy of them.

    psi, theta: all weights of the critic and of the actor (with log-std, if actions are continuous) as one float32
        vector each; they act and travel. critic_weights, actor_weights: the same for TensorFlow, to compute gradients.
    scope: 'Global_Net', or the worker's name; for messages, and copies of other names draw other actions.
    state_dim: length of a state.  By default this and what follows are the walker's.
    action_dim: length of an action, or the number of actions if they are discrete.
    action_bound: float32 [action_dim], the largest action; None for discrete actions.
    lr_a, lr_c: learning rates of actor and critic (Adam); they fall linearly to the part end_lr
        at total_steps, if that is not None.
    entropy: weight of the policy's entropy, which keeps it exploring.
    max_grad_norm: longer gradients are shortened to it.
    mean: of the Gaussian policy, 'linear' or 'tanh', which keeps it within the actions' bounds.
    log_std, max_log_std: of the Gaussian policy, at the start and at most.
    no_normalising: take states as they are, not brought to mean 0 and deviation 1.
    act: of the hidden layers and of the convolutions, 'tanh' or 'relu'.
    convolutions: begin with the two of Mnih et al. (2013), for pictures; filters: of each.
    """

    def __init__(
        self,
        scope,
        state_dim=24,
        action_dim=4,
        action_bound=1.0,
        *,
        lr_a=4e-4,
        lr_c=4e-4,
        end_lr=0.0,
        total_steps=15_000_000,
        entropy=1e-3,
        max_grad_norm=0.5,
        mean="linear",
        log_std=-1.0,
        max_log_std=-0.5,
        no_normalising=False,
        act="tanh",
        convolutions=False,
        filters=(16, 32),
        hidden=(128, 128),
        seed=0,
    ):
        self.scope, self.discrete = scope, action_bound is None
        self.entropy, self.max_grad_norm, self.max_log_std = entropy, max_grad_norm, max_log_std
        self.lr_a, self.lr_c, self.end_lr, self.total_steps = lr_a, lr_c, end_lr, total_steps
        self.rng = np.random.default_rng([seed, 1, *scope.encode()])  # neither an environment's nor another copy's

        self.convolutions, self.filters = convolutions, filters
        self.act = {"tanh": tf.nn.tanh, "relu": tf.nn.relu}[act]
        self.critic = self._network(state_dim, hidden, 1, gain=1.0)  # state -> V(s)
        act = None if self.discrete else {"linear": None, "tanh": tf.nn.tanh}[mean]  # of logits, or of the mean
        self.actor = self._network(state_dim, hidden, action_dim, gain=0.01, act=act, scale=action_bound)
        log_std = tf.Variable(tf.fill(0 if self.discrete else action_dim, float(log_std)), name="log_std")
        (self.critic_weights,) = vectors.one_variable(self.critic)
        self.actor_weights, self.log_std = vectors.one_variable(self.actor, log_std)
        self.normaliser = Normaliser(state_dim, off=no_normalising)

        self.actor_opt, self.critic_opt = Adam(self.actor_weights), Adam(self.critic_weights)
        self.lock = threading.RLock()  # guards the global weights, the optimisers' slots and the statistics
        self.steps = self.updates = 0

        self.psi, self.theta = self.critic_weights.numpy(), self.actor_weights.numpy()
        self.policy = MLP(self.actor, self.theta, self.normaliser)  # they follow the vectors
        self.value = MLP(self.critic, self.psi, self.normaliser)

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
        """The policy at state [batch, state_dim], as a distribution over actions."""
        if self.discrete:
            return tfd.Categorical(logits=self.actor(state))
        return tfd.Independent(tfd.Normal(self.actor(state), tf.exp(self.log_std)), 1)

    @compiled
    def gradients(self, state, action, v_target):
        """(g_psi, g_theta) of Algorithm 5.21 per step, each in one float32 vector, and losses and entropy by name.

        state: float32 [L, state_dim], normalised.  action: [L, ...].  v_target: float32 [L].
        g_theta is that of -J, as optimisers descend.
        """
        with tf.GradientTape() as tape:
            adv = v_target - self.critic(state)[:, 0]
            J_psi = tf.reduce_mean(tf.square(adv))  # J(psi) of Algorithm 5.21
        g_psi = tape.gradient(J_psi, self.critic_weights)
        with tf.GradientTape() as tape:
            pi = self.pi(state)
            entropy = pi.entropy()
            J_theta = tf.reduce_mean(pi.log_prob(action) * adv + self.entropy * entropy)  # J(theta)
            loss = -J_theta
        report = dict(actor_loss=loss, critic_loss=J_psi, entropy=tf.reduce_mean(entropy))
        return g_psi, tape.gradient(loss, self.actor_weights), report

    @compiled
    def _apply(self, g_psi, g_theta, progress):
        """The master's step, (psi, theta) after it; progress: the part of the training that is over."""
        left = 1 - (1 - self.end_lr) * progress  # the part of the learning rates
        self.critic_opt.apply(tf.clip_by_norm(g_psi, self.max_grad_norm), self.lr_c * left)
        self.actor_opt.apply(tf.clip_by_norm(g_theta, self.max_grad_norm), self.lr_a * left)
        self.log_std.assign(tf.minimum(self.log_std, self.max_log_std))
        return tf.identity(self.critic_weights), tf.identity(self.actor_weights)

    def apply_gradients(self, g_psi, g_theta, states):
        """The master of Algorithm 5.21: one step of the global network with a worker's gradients.

        g_psi, g_theta: as `gradients` gives them.  states: float32 [L, state_dim], what the worker saw.
        Returns the weights after it, as `get_weights` does. Raises FloatingPointError if one is no longer a number.
        """
        with self.lock:
            progress = min(self.steps / self.total_steps, 1.0) if self.total_steps else 0.0
            self.psi[:], self.theta[:] = (x.numpy() for x in self._apply(g_psi, g_theta, np.float32(progress)))
            if not (np.isfinite(self.psi).all() and np.isfinite(self.theta).all()):
                raise FloatingPointError("a weight is no longer a finite number")
            self.normaliser.update(states)
            self.steps += len(states)
            self.updates += 1
            return self.get_weights()

    def get_weights(self):
        """psi and theta, each in one float32 vector, and the statistics of the states by name."""
        with self.lock:
            statistics = {name: array.copy() for name, array in self.normaliser.arrays.items()}
            return self.psi.copy(), self.theta.copy(), statistics

    def update_global(self, buffer_s, buffer_a, buffer_v_target, globalAC):
        """Gradients on this copy from L steps, applied to the global network.

        buffer_s: float32 [L, state_dim].  buffer_a: [L, ...].  buffer_v_target: float32 [L], or the listing's [L, 1].
        Returns floats by name: actor_loss, critic_loss and entropy, means over the L steps; and actor_grad_norm and
        critic_grad_norm, how long the gradients are before the global network shortens them.
        Raises FloatingPointError if a gradient is no longer a number.
        """
        buffer_s, v_target = np.asarray(buffer_s, np.float32), np.reshape(buffer_v_target, -1).astype(np.float32)
        *gradients, report = self.gradients(self.normaliser(buffer_s), np.asarray(buffer_a), v_target)
        gradients = [x.numpy() for x in gradients]
        if not all(np.isfinite(gradient).all() for gradient in gradients):
            raise FloatingPointError(f"a gradient of {self.scope} is not finite")
        globalAC.apply_gradients(*gradients, buffer_s)
        critic_norm, actor_norm = map(np.linalg.norm, gradients)
        report |= dict(actor_grad_norm=actor_norm, critic_grad_norm=critic_norm)
        return {name: float(x) for name, x in report.items()}

    def pull_global(self, globalAC):
        """Make this copy equal to the global network."""
        self.psi[:], self.theta[:], statistics = globalAC.get_weights()
        for name, array in self.normaliser.arrays.items():
            array[...] = statistics[name]
        self.critic_weights.assign(self.psi)
        self.actor_weights.assign(self.theta)

    def get_action(self, s, greedy=False):
        """An action for the state s [state_dim]: float32 [action_dim], or an int if actions are discrete.

        greedy: the most likely one. A sampled action may lie outside the bounds: it is the environment's
        part to clip it, so that what is stored is what was sampled. Raises FloatingPointError if it is no number.
        """
        output = self.policy(s)
        if not np.isfinite(output).all():  # finite weights of 1e38 can do that, and the walker would stop on it
            raise FloatingPointError(f"the policy of {self.scope} is not finite")
        if self.discrete:
            return int(np.argmax(output) if greedy else sample(output, self.rng))
        if greedy:
            return output
        log_std = self.theta[-len(output) :]
        return output + np.exp(log_std) * self.rng.standard_normal(output.shape, np.float32)

    def get_value(self, s):
        """V(s) of the states [L, state_dim]: float32 [L]."""
        return self.value(s)[:, 0]

    def save(self, path="model/a3c", hdf5=False):
        """Write actor (with log-std and the statistics of the states) and critic to the folder `path`."""
        weights.save(path, hdf5, **self._parts())

    def load(self, path="model/a3c"):
        """Read what `save` wrote. Raises UserError if it is missing, damaged or of another network."""
        weights.load(path, **self._parts())
        self.psi[:], self.theta[:] = self.critic_weights.numpy(), self.actor_weights.numpy()

    def _parts(self):
        return dict(actor=[self.actor, self.log_std, self.normaliser.arrays], critic=[self.critic])
