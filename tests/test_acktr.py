"""ACKTR: Kronecker factors against brute force, the natural step, the trust region, resuming, and that it learns."""

import itertools
import signal

import gym
import numpy as np
import pytest
import tensorflow as tf
from conftest import Constant, Ends, EndsAtTheLimit
from scipy import special, stats
from test_a2c import Countdown, TimeLimitEnds

from acktr.agent import ACKTR, KFAC, Worker
from acktr.main import PRESETS, Config, train
from common import environments
from common.command import keywords

BOUND = np.float32([2.0])
KINDS = pytest.mark.parametrize("action_dim, action_bound", [(1, BOUND), (3, None)], ids=["continuous", "discrete"])


def make(action_dim=1, action_bound=BOUND, state_dim=3, **settings):
    return ACKTR(state_dim, action_dim, action_bound, **{"hidden": (5,), "reward_scale": 1.0, **settings})


def samples(agent, n=40):
    """state, action, adv and noise of n steps, at random; advantages of mean 0 and deviation 1."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(n, agent.state_dim)).astype(np.float32)
    actions = rng.integers(agent.action_dim, size=n) if agent.discrete else rng.normal(size=(n, agent.action_dim))
    adv = rng.normal(size=n).astype(np.float32)
    return state, np.array(actions, None if agent.discrete else np.float32), adv, agent._noise((n, agent.action_dim))


def drawn(agent, state, noise):
    """The actions that the noise makes of the policy, by NumPy."""
    output = agent.policy(state)
    return np.argmax(output + noise, 1) if agent.discrete else output + np.exp(agent.log_std.numpy()) * noise


def pairs(arrays):
    """(W, b) of each layer."""
    return zip(arrays[::2], arrays[1::2], strict=True)


def gradients_one_by_one(agent, state, action):
    """For each sample the gradient of log pi in (W, b) of each layer, float32 [layers][n, n_in + 1, n_out].

    By one tape a sample and with the policy written out here; agent.forward and agent.distribution are not used.
    """
    variables, layers = agent.actor.trainable_weights, [[] for _ in agent.actor_blocks]
    for s, a in zip(state, action, strict=True):
        with tf.GradientTape() as tape:
            output = agent.actor(s[None])[0]
            if agent.discrete:
                log_pi = output[int(a)] - tf.reduce_logsumexp(output)
            else:
                log_pi = tf.reduce_sum(-0.5 * tf.square((a - output) / tf.exp(agent.log_std)) - agent.log_std)
        for layer, (W, b) in zip(layers, pairs(tape.gradient(log_pi, variables)), strict=True):
            layer.append(np.concatenate([W.numpy(), b.numpy()[None]]))
    return [np.array(layer) for layer in layers]


# factors and their inverses


def block(n_in=3, n_out=2):
    """A KFAC with factors of its own, which are returned too."""
    rng, made = np.random.default_rng(1), KFAC(n_in, n_out)
    A, S = (x.T @ x / len(x) for x in (rng.normal(size=(50, n_in + 1)), rng.normal(size=(50, n_out)) / 3))
    made.A.assign(A)
    made.S.assign(S)
    return made, A, S


def test_solve_is_the_inverse_of_the_kronecker_product():
    """Eq. (5.50)-(5.52) with the matrix of 8 x 8 written out."""
    made, A, S = block()
    gradient = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_allclose(made.solve(gradient), gradient)  # before the first inversion F is taken for 1
    assert made.invert(1e-8) == 1
    expected = np.linalg.solve(np.kron(A, S), gradient.ravel()).reshape(4, 2)
    np.testing.assert_allclose(made.solve(gradient), expected, rtol=2e-3, atol=1e-2)


def test_the_damping_is_split_so_that_both_factors_feel_it_alike():
    """(A + root pi I) (x) (S + root / pi I) = A (x) S + damping I + the rest; pi^2: ratio of the mean eigenvalues."""
    made, A, S = block()
    made.invert(0.04)
    added_A, added_S = np.linalg.inv(made.A_inverse) - A, np.linalg.inv(made.S_inverse) - S
    ratio = np.linalg.eigvalsh(A).mean() / np.linalg.eigvalsh(S).mean()
    np.testing.assert_allclose(added_A, np.sqrt(0.04 * ratio) * np.eye(4), atol=1e-4)
    np.testing.assert_allclose(added_S, np.sqrt(0.04 / ratio) * np.eye(2), atol=1e-4)


def test_a_factor_that_is_not_positive_definite_is_damped_more(capsys):
    agent = make()
    agent.update(*batch(agent))
    assert agent.failures == 0
    broken = agent.actor_blocks[0]
    broken.S.assign(tf.linalg.diag([1.0, 1.0, 1.0, 1.0, -0.5]))
    for _ in range(2):
        agent._invert()
    assert agent.failures == 2
    assert np.isfinite(broken.S_inverse).all() and np.linalg.eigvalsh(broken.S_inverse).min() > 0
    said = capsys.readouterr().err
    assert "could not be inverted" in said and said.count("\n") == 1
    broken.S.assign(broken.S * np.float32("inf"))  # inf and, off the diagonal, nan
    with pytest.raises(FloatingPointError, match="can't be inverted"):
        agent._invert()


@KINDS
def test_factors_against_per_sample_gradients(action_dim, action_bound):
    """A sample's gradient is the outer product of a and g: from it, g is what b gets, and a what is left (5.49)."""
    agent = make(action_dim, action_bound, damping=1e-2)
    state, action, adv, noise = samples(agent)
    layers = gradients_one_by_one(agent, state, drawn(agent, state, noise))
    agent.train_actor(state, action, adv, noise)
    for made, gradients in zip(agent.actor_blocks, layers, strict=True):
        g = gradients[:, -1]
        a = np.einsum("nio,no->ni", gradients, g) / (g**2).sum(1, keepdims=True)
        np.testing.assert_allclose(made.A, a.T @ a / len(a), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(made.S, g.T @ g / len(g), rtol=1e-3, atol=1e-6)


def test_averages_keep_what_they_are_told():
    made, rng = KFAC(2, 1), np.random.default_rng(0)
    (a, g), (a2, g2) = ((rng.normal(size=(9, 3)), rng.normal(size=(9, 1))) for _ in range(2))
    made.average(np.float32(a), np.float32(g), 0.0)
    made.average(np.float32(a2), np.float32(g2), 0.75)
    np.testing.assert_allclose(made.A, 0.75 * a.T @ a / 9 + 0.25 * a2.T @ a2 / 9, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made.S, 0.75 * g.T @ g / 9 + 0.25 * g2.T @ g2 / 9, rtol=1e-4)


# steps


def taken(agent, move):
    """What `move` adds to each layer, [n_in + 1, n_out], and to the log-std; and what it returns."""

    def now():
        weights = [w.numpy() for w in agent.actor_weights]
        both = pairs(weights[: 2 * len(agent.actor_blocks)])
        return [np.concatenate([W, b[None]]) for W, b in both], agent.log_std.numpy()

    before, result = now(), move()
    after = now()
    return [new - old for new, old in zip(after[0], before[0], strict=True)], after[1] - before[1], result


@KINDS
def test_one_linear_layer_one_sample_is_the_exact_natural_gradient(action_dim, action_bound):
    """There A (x) S is F = G G' itself, and F^+ times the gradient adv G is adv G / |G|^2."""
    agent = make(action_dim, action_bound, hidden=(), damping=1e-4, eta_max=1.0, delta=1e3)
    state, _, _, noise = samples(agent, 1)
    action = drawn(agent, state, noise)
    (G,) = gradients_one_by_one(agent, state, action)
    weights = [w.numpy() for w in agent.actor_weights]
    agent.train_actor(state, action, np.float32([0.0]), noise)  # nothing to gain: only the factors change
    agent.actor_blocks[0].invert(agent.damping)
    for variable, value in zip(agent.actor_weights, weights, strict=True):
        variable.assign(value)
    (step,), _, _ = taken(agent, lambda: agent.train_actor(state, action, np.float32([0.7]), noise))
    np.testing.assert_allclose(step, 0.7 * G[0] / (G**2).sum(), rtol=4e-2, atol=1e-4)


@pytest.mark.parametrize("steps", ["actor", "critic"])
def test_a_step_keeps_a_part_of_the_averages(steps):
    """After two batches A and S are 3/4 those of the first and 1/4 those of the second alone."""

    def averages(*batches):
        agent = make(delta=1e-12, delta_c=1e-12)  # the weights stay
        blocks = getattr(agent, f"{steps}_blocks")
        for i, keep in batches:
            rng = np.random.default_rng(i)
            state, action, noise = (rng.standard_normal((8, n), np.float32) for n in (3, 1, 1))
            if steps == "actor":
                agent.train_actor(state, action, noise[:, 0], noise, keep)
            else:
                agent.train_critic(state, noise[:, 0], keep)
        return [[mean.numpy() for mean in (block.A, block.S)] for block in blocks]

    both, differ = averages((1, 0.0), (2, 0.75)), []
    for mixed, first, second in zip(both, averages((1, 0.0)), averages((2, 0.0)), strict=True):
        for average, a, b in zip(mixed, first, second, strict=True):
            size = np.abs(a).max()
            differ.append(np.abs(a - b).max() > 0.1 * size)
            np.testing.assert_allclose(average, 0.75 * a + 0.25 * b, atol=1e-4 * size)
    assert sum(differ) >= 3  # of four; S of the critic's last layer is always 1


def test_the_block_of_the_log_std_is_exact():
    """The Hessian of the mean KL in (mean, log-std) by differences: 1 / std^2 and 2, and nothing beside them."""

    def kl(d_mean, d_log_std, std=1.7):
        old, new = stats.norm(0, std), stats.norm(d_mean, std * np.exp(d_log_std))
        x = np.linspace(-15, 15, 20_001)
        return np.trapezoid(old.pdf(x) * (old.logpdf(x) - new.logpdf(x)), x)

    h = 1e-2
    assert (kl(0, h) + kl(0, -h)) / h**2 == pytest.approx(2, rel=1e-3)
    assert (kl(h, h) - kl(h, -h) - kl(-h, h) + kl(-h, -h)) / (4 * h**2) == pytest.approx(0, abs=1e-4)
    agent = make(log_std=0.3, damping=0.5, eta_max=0.25, delta=1e3)
    state, action, adv, noise = samples(agent)
    z = (action - agent.policy(state)) / np.exp(0.3)
    gradient = ((z[:, 0] ** 2 - 1) * adv).mean()
    _, step, report = taken(agent, lambda: agent.train_actor(state, action, adv, noise))
    assert step[0] == pytest.approx(0.25 * gradient / (2 + 0.5), rel=1e-4)
    log_pi = stats.norm(agent.policy(state)[:, 0], np.exp(0.3)).logpdf(action[:, 0])
    assert report["actor_loss"].numpy() == pytest.approx(-(log_pi * adv).mean(), rel=1e-4)
    assert report["entropy"].numpy() == pytest.approx(stats.norm.entropy(0, np.exp(0.3)), rel=1e-4)
    assert report["eta"].numpy() == 0.25


@KINDS
def test_the_step_is_as_long_as_the_trust_region_allows(action_dim, action_bound):
    """Eq. (5.43): step' F step = 2 delta, with F by brute force from single gradients; or eta_max is less.

    F is the mean of grad log pi grad log pi' over states and actions: every one of the discrete ones with its
    probability, of the continuous ones two with the right mean and deviation, as log pi is of the second degree.
    """
    lengths = {}
    for eta_max in (1e9, 1e-3):
        agent = make(action_dim, action_bound, eta_max=eta_max, delta=0.03, hidden=(5, 4), damping=1e-2)
        state, action, adv, noise = samples(agent)
        agent.train_actor(state, action, adv, noise)
        for made in agent.actor_blocks:
            made.invert(agent.damping)
        agent._refresh()
        if agent.discrete:
            p = special.softmax(agent.policy(state), 1).T
            every = [(np.full(len(state), k), p[k]) for k in range(action_dim)]
        else:
            every = [(agent.policy(state) + sign * agent.std, 0.5) for sign in (-1, 1)]
        layers = [(gradients_one_by_one(agent, state, each), p) for each, p in every]
        steps, log_std_step, report = taken(agent, lambda: agent.train_actor(state, action, adv, noise, left=0.5))  # noqa: B023
        lengths[eta_max] = 2 * (log_std_step**2).sum()
        for gradients, p in layers:
            along = sum(np.einsum("nio,io->n", G, step) for G, step in zip(gradients, steps, strict=True))
            lengths[eta_max] += np.mean(p * along**2)
        assert report["kl"].numpy() == pytest.approx(lengths[eta_max] / 2, rel=1e-3)
    assert lengths[1e9] == pytest.approx(2 * 0.03 * 0.5, rel=1e-3)
    assert lengths[1e-3] < 0.1 * lengths[1e9]


@KINDS
def test_the_step_is_the_damped_inverse_times_the_gradient_of_5_42(action_dim, action_bound):
    """By eta_max alone, layer by layer, with the gradient of J by autodiff of the whole network."""
    agent = make(action_dim, action_bound, eta_max=0.1, delta=1e6, entropy=0.2)
    state, action, adv, noise = samples(agent)
    agent.train_actor(state, action, adv, noise)
    for made in agent.actor_blocks:
        made.invert(agent.damping)
    inverses = [(each.A_inverse.numpy(), each.S_inverse.numpy()) for each in agent.actor_blocks]
    with tf.GradientTape() as tape:
        pi = agent.distribution(agent.actor(state))
        J = tf.reduce_mean(pi.log_prob(action) * adv + 0.2 * pi.entropy())
    both = pairs(tape.gradient(J, agent.actor.trainable_weights))
    gradients = [np.concatenate([W.numpy(), b.numpy()[None]]) for W, b in both]
    steps, _, _ = taken(agent, lambda: agent.train_actor(state, action, adv, noise, keep=1.0))
    for step, gradient, (A_inverse, S_inverse) in zip(steps, gradients, inverses, strict=True):
        np.testing.assert_allclose(step, 0.1 * A_inverse @ gradient @ S_inverse, rtol=1e-2, atol=1e-5)


def test_the_critics_step_is_gauss_newton():
    """A linear critic: one whole step lands on the solution of the least squares (5.44)."""
    agent = make(hidden=(), damping=1e-9, eta_max=1.0, delta_c=1e6)
    state, _, target, _ = samples(agent)
    weights = [w.numpy() for w in agent.critic.trainable_weights]
    agent.train_critic(state, target)
    agent.critic_blocks[0].invert(agent.damping)
    for variable, value in zip(agent.critic.trainable_weights, weights, strict=True):
        variable.assign(value)
    loss = agent.train_critic(state, target)
    features = np.concatenate([state, np.ones((len(state), 1))], 1)
    best, *_ = np.linalg.lstsq(features, target, rcond=None)
    W, b = agent.critic.trainable_weights
    np.testing.assert_allclose(np.append(W.numpy()[:, 0], b.numpy()), best, rtol=1e-2, atol=1e-3)
    before = features @ np.append(weights[0][:, 0], weights[1])
    assert loss.numpy() == pytest.approx(((target - before) ** 2).mean(), rel=1e-4)


def test_the_critic_has_a_trust_region_of_its_own():
    """Half the mean squared change of the values of a linear critic is delta_c, of which `left` is a part."""
    agent = make(hidden=(), eta_max=1e9, delta_c=0.08)
    state, _, target, _ = samples(agent)
    before = agent.critic(state).numpy()
    agent.train_critic(state, target, left=0.5)
    assert 0.5 * np.mean((agent.critic(state).numpy() - before) ** 2) == pytest.approx(0.04, rel=1e-3)


# updates


def batch(agent, n_steps=5, workers=4):
    """What workers might have collected, at random: states, actions, rewards, done."""
    rng, shape = np.random.default_rng(0), (n_steps, workers)
    return (
        rng.normal(size=(n_steps + 1, workers, agent.state_dim)).astype(np.float32),
        rng.integers(agent.action_dim, size=shape)
        if agent.discrete
        else rng.normal(size=(*shape, agent.action_dim)).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        (rng.random(shape) < 0.3).astype(np.float32),
    )


@KINDS
def test_the_compiled_update_is_the_steps_that_the_methods_take(action_dim, action_bound):
    """The critic's steps, the policy's, the inverses every second time; what is kept and what is left."""
    settings = dict(seed=1)  # with seed 0 two actions are as likely but for rounding, and one may flip
    settings |= dict(
        refresh=2, decay=0.6, end_lr=0.5, total_steps=80, c_update_epochs=3, gamma=0.9, gae_lambda=0.7, delta=0.02
    )
    agent, twin = make(action_dim, action_bound, **settings), make(action_dim, action_bound, **settings)
    states, actions, rewards, done = batch(agent)
    for k, (keep, left) in enumerate([(0, 1), (1 / 2, 0.875), (0.6, 0.75), (0.6, 0.625)]):
        report = agent.update(states, actions, rewards, done)
        seen = twin.normaliser(states)
        value = twin.critic(seen.reshape(-1, 3)).numpy().reshape(6, 4)
        adv = np.zeros((6, 4))
        for t in reversed(range(5)):
            delta = rewards[t] + 0.9 * (1 - done[t]) * value[t + 1] - value[t]
            adv[t] = delta + 0.9 * 0.7 * (1 - done[t]) * adv[t + 1]
        target, state = (adv[:-1] + value[:-1]).ravel().astype(np.float32), seen[:-1].reshape(-1, 3)
        adv = (adv[:-1] - adv[:-1].mean()) / adv[:-1].std()
        noise = twin._noise((20, action_dim))
        losses = [float(twin.train_critic(state, target, keep, left)) for _ in range(3)]
        action = actions.reshape(20, *actions.shape[2:])
        expected = twin.train_actor(state, action, adv.ravel().astype(np.float32), noise, keep, left)
        expected = {name: float(x) for name, x in expected.items()} | dict(critic_loss=np.mean(losses))
        assert report == pytest.approx(expected, rel=1e-2, abs=1e-4)
        if k % 2 == 0:
            twin._invert()
        twin.normaliser.update(states[:-1].reshape(-1, 3))
        for new, expected in zip(agent.weights, twin.weights, strict=True):
            np.testing.assert_allclose(new, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(agent.policy(states), agent.actor(agent.normaliser(states)), atol=1e-5)
    np.testing.assert_allclose(agent.value(states), agent.critic(agent.normaliser(states)), atol=1e-5)
    assert (agent.steps, agent.updates) == (80, 4)


def test_settings_count_when_they_change_between_two_updates():
    """delta, a number, and c_update_epochs, of which each value has a compiled function of its own."""
    agent = make()
    agent.update(*batch(agent))

    def moves(network):
        before = [w.numpy() for w in network.trainable_weights]
        agent.update(*batch(agent))
        after = network.trainable_weights
        return sum(np.abs(new.numpy() - old).sum() for new, old in zip(after, before, strict=True))

    assert moves(agent.actor) > 1e-3
    agent.delta = 1e-14
    assert moves(agent.actor) < 1e-4
    assert moves(agent.critic) > 1e-3
    agent.c_update_epochs = 0
    assert moves(agent.critic) == 0


def mean_kl(old, new):
    """KL(old || new) of two Gaussians (mean [n, d], std [d]), mean over n."""
    (m0, s0), (m1, s1) = old, new
    return (np.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5).sum(1).mean()


def test_200_updates_keep_the_trust_region():
    """On Pendulum with its own settings: after 95 % of the updates the mean KL is at most 1.5 delta."""
    config = Config(env="Pendulum-v1", **PRESETS["Pendulum-v1"])
    envs = [environments.make(config.env, 1000 * w) for w in range(config.workers)]
    agent = ACKTR(*environments.dimensions(envs[0]), **keywords(config, ACKTR))  # delta does not fall
    worker, ratios = Worker(envs), []
    for _ in range(200):
        *collected, _ = worker.collect(agent, config.n_steps)
        state = agent.normaliser(collected[0][:-1].reshape(-1, 3))
        old = agent.actor(state).numpy(), agent.std
        agent.update(*collected)
        ratios.append(mean_kl(old, (agent.actor(state).numpy(), agent.std)) / config.delta)
    assert np.mean(np.array(ratios) <= 1.5) >= 0.95
    assert np.median(ratios) > 0.5  # the region is used
    assert agent.failures == 0


@pytest.mark.parametrize("name", ["rewards", "states"])
def test_what_is_no_number_is_an_error(name):
    agent = make()
    states, actions, rewards, done = batch(agent)
    (rewards if name == "rewards" else states)[2] = np.nan
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        agent.update(states, actions, rewards, done)


# advantages and workers


def test_advantage_by_hand():
    """Two workers; the first one's episode ends after its second step."""
    agent = make(gamma=0.5, gae_lambda=0.5)
    value = np.float32([[1, 0], [2, 0], [3, 0], [6, 8]])
    reward, done = np.float32([[1, 1], [1, 0], [1, 0]]), np.float32([[0, 0], [1, 0], [0, 0]])
    # first: 1+2/2-1 = 1, 1-2 = -1, 1+6/2-3 = 1, and 1 + (-1)/4; second: 1, 0, 8/2 = 4, then 4/4 = 1 and 1 + 1/4
    np.testing.assert_allclose(agent.advantage(value, reward, done), [[0.75, 1.25], [-1, 1], [1, 4]])


def test_a_worker_goes_on_where_it_stopped_and_begins_anew_where_an_episode_ends():
    agent = make(2, None, state_dim=1, reward_scale=0.5)
    worker = Worker([Countdown(0), Countdown(1)])
    states, actions, rewards, done, episodes = worker.collect(agent, 2)
    np.testing.assert_array_equal(states[..., 0], [[0, 1], [1, 2], [2, 1]])
    np.testing.assert_array_equal(rewards, [[0.5, 1], [1, 1.5]])
    np.testing.assert_array_equal(done, [[0, 0], [0, 1]])
    assert actions.shape == (2, 2) and episodes == [(5.0, 2)]  # the environment's own reward: 2 + 3
    states, _, _, done, episodes = worker.collect(agent, 3)
    np.testing.assert_array_equal(states[..., 0], [[2, 1], [0, 2], [1, 1], [2, 2]])
    np.testing.assert_array_equal(done, [[1, 0], [0, 1], [0, 0]])
    assert episodes == [(6.0, 3), (5.0, 2)]


def test_a_worker_hands_over_what_it_saw_across_true_ends_and_time_limits():
    """A true end is worth nothing more, a time limit what the critic says of the state that was cut off."""
    agent = make(2, None, state_dim=2, gamma=0.9, reward_scale=0.1)
    agent.normaliser.update(np.float32([[0, 0], [1, 5]]))
    states, _, rewards, done, episodes = Worker([Ends(gym.spaces.Discrete(2))]).collect(agent, 12)
    # true end after 3 steps, time limit after 5, true end after 3, and one step of the next episode
    seen = [(0, t) for t in range(3)] + [(1, t) for t in range(5)] + [(2, t) for t in range(3)] + [(3, 0), (3, 1)]
    np.testing.assert_array_equal(states[:, 0], seen)
    np.testing.assert_array_equal(done[:, 0], np.isin(range(12), [2, 7, 10]))
    expected = [0.1 * (t + 1) for _, t in seen[:12]]
    cut_off = agent.get_value(np.float32([1, 5]))
    expected[7] += 0.9 * cut_off
    assert min(abs(cut_off - agent.get_value(np.float32(other))) for other in ([1, 4], [2, 0], [0, 3])) > 1e-3
    np.testing.assert_allclose(rewards[:, 0], expected, rtol=1e-5)
    assert episodes == [(6.0, 3), (15.0, 5), (6.0, 3)]  # the environment's own rewards


def test_an_end_at_the_time_limit_is_an_end():
    agent = make(2, None, state_dim=2, gamma=0.9, reward_scale=0.1)
    _, _, rewards, done, _ = Worker([EndsAtTheLimit(gym.spaces.Discrete(2))]).collect(agent, 3)
    np.testing.assert_allclose(rewards[:, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(done[:, 0], [0, 0, 1])


def test_a_time_limit_is_not_an_end():
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5; taken for an end, the limit lowers it."""
    values = {}
    for wrapper in (gym.Wrapper, TimeLimitEnds):
        agent = make(2, None, state_dim=2, gamma=0.8)
        worker = Worker([wrapper(gym.wrappers.TimeLimit(Constant(), 10)) for _ in range(4)])
        for _ in range(60):
            agent.update(*worker.collect(agent, 5)[:-1])
        values[wrapper] = agent.get_value(np.ones(2))
    assert values[gym.Wrapper] == pytest.approx(5, abs=0.3)
    assert values[TimeLimitEnds] < 4.5


def test_train_hands_the_agent_all_that_the_workers_collect(tmp_path, monkeypatch):
    """Segments follow one another without a gap, in every environment, and every episode is logged."""
    batches, own = [], ACKTR.update

    def update(self, *batch):
        batches.append(batch)
        own(self, *batch)

    monkeypatch.setattr(ACKTR, "update", update)
    agent = make(2, None, state_dim=2)
    config = Config(env="Ends-v0", steps=100, workers=3, n_steps=4, out=tmp_path)
    train(config, agent, [Ends(gym.spaces.Discrete(2)) for _ in range(3)])
    states = np.concatenate([batch[0][:-1] for batch in batches])
    assert agent.steps == 3 * len(states) == agent.normaliser.count and len(batches) * 4 == len(states)
    expected = [(episode, t) for episode in range(99) for t in range(5 if episode % 2 else 3)][: len(states)]
    for w in range(3):
        np.testing.assert_array_equal(states[:, w], expected)
    table = np.loadtxt(tmp_path / "model/acktr/Ends-v0/episodes.csv", delimiter=",", skiprows=1)
    lengths = np.diff(table[:, 1], prepend=0)
    np.testing.assert_array_equal(lengths, [5 if (i // 3) % 2 else 3 for i in range(len(table))])
    np.testing.assert_array_equal(table[:, 2], lengths * (lengths + 1) / 2)


# acting


def test_actions_come_from_the_policy():
    agent = make(2, None)
    agent.normaliser.update(np.random.default_rng(0).normal(2, 3, (50, 3)))
    agent.actor.all_weights[-1].assign([0.0, 1.0])
    agent._refresh()
    state = np.ones(3)
    logits = agent.actor(agent.normaliser(state)[None]).numpy()[0]
    actions = agent.get_action(np.tile(state, (20_000, 1)))
    assert actions.mean() == pytest.approx(special.softmax(logits)[1], abs=0.015)
    assert agent.get_action(state, greedy=True) == 1
    agent = make(log_std=0.5)
    actions = agent.get_action(np.tile(state, (20_000, 1)))
    mean = agent.get_action(state, greedy=True)
    np.testing.assert_allclose(mean, agent.actor(state[None].astype(np.float32))[0], atol=1e-6)
    assert stats.kstest(actions[:, 0], "norm", (mean[0], np.exp(0.5))).pvalue > 1e-4


def test_the_fishers_actions_are_drawn_from_the_policy():
    agent = make(2, None)
    output, n = np.float32([[0.0, 1.0]]), 20_000
    actions = agent.draw(np.tile(output, (n, 1)), agent._noise((n, 2))).numpy()
    assert actions.mean() == pytest.approx(special.softmax(output)[0, 1], abs=0.015)
    agent = make(log_std=0.5)
    actions = agent.draw(np.full((n, 1), 2.0, np.float32), agent._noise((n, 1))).numpy()
    assert stats.kstest(actions[:, 0], "norm", (2, np.exp(0.5))).pvalue > 1e-4


def test_a_mean_through_tanh_stays_within_the_bounds():
    for kind, size in ((1, BOUND), 2.0), ((2, None), 100.0):  # a mean has bounds, logits have none
        agent = make(*kind, mean="tanh")
        agent.actor.all_weights[-1].assign(np.full(kind[0], 100.0))
        agent._refresh()
        np.testing.assert_allclose(agent.policy(np.ones(3)), size, atol=2.0 if kind[1] is None else 1e-6)


def test_an_update_inverts_with_the_agents_damping():
    agent = make(damping=0.04)
    agent.update(*batch(agent))
    for made in [*agent.actor_blocks, *agent.critic_blocks]:
        pairs = (made.A, made.A_inverse), (made.S, made.S_inverse)
        added = [np.diag(np.linalg.inv(i.numpy().astype(float)) - f.numpy()).mean() for f, i in pairs]
        assert np.prod(added) == pytest.approx(0.04, rel=0.02)  # (root pi) (root / pi)


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load_bring_back_the_statistics_too(tmp_path, hdf5):
    agent, other = make(seed=1), make(seed=2)
    agent.update(*batch(agent))
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    state = np.ones(3)
    np.testing.assert_array_equal(other.get_action(state, greedy=True), agent.get_action(state, greedy=True))
    assert other.get_value(state) == agent.get_value(state) and other.std == agent.std


# the run


def run(tmp_path, env_id="CartPole-v1", **settings):
    config = Config(**{"env": env_id, "train": True, "out": tmp_path, **PRESETS.get(env_id, {}), **settings})
    envs = [environments.make(env_id, config.seed + 1000 * w) for w in range(config.workers)]
    agent = ACKTR(*environments.dimensions(envs[0]), **keywords(config, ACKTR), total_steps=config.steps)
    train(config, agent, envs)
    return agent


def state_of(agent):
    """Weights, factors, inverses and statistics in one vector."""
    blocks = [x for each in [*agent.actor_blocks, *agent.critic_blocks] for x in vars(each).values()]
    arrays = [*agent.weights, *blocks, agent.normaliser.mean, agent.normaliser.var]
    return np.concatenate([np.ravel(x) for x in arrays])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path, env_id, monkeypatch):
    """Stopped in the middle of every episode, and in the middle between two refreshes of the inverses."""
    settings = dict(steps=2800, n_steps=7, workers=4, refresh=3)
    whole = state_of(run(tmp_path / "whole", env_id, **settings))
    own, calls = ACKTR.update, itertools.count(1)

    def update(self, *batch):
        own(self, *batch)
        if next(calls) == 58:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ACKTR, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", env_id, **settings)
    resumed = run(tmp_path / "parts", env_id, resume=True, **settings)
    np.testing.assert_array_equal(state_of(resumed), whole)
    tables = [
        np.loadtxt(next(tmp_path.glob(f"{name}/model/*/*/episodes.csv")), delimiter=",", skiprows=1)
        for name in ("whole", "parts")
    ]
    np.testing.assert_array_equal(tables[0][:, :4], tables[1][:, :4])
    assert (state_of(run(tmp_path / "other", env_id, seed=1, **settings)) != whole).any()


@pytest.mark.xla
@pytest.mark.parametrize("env_id, steps, at_least", [("CartPole-v1", 80_000, 475), ("Pendulum-v1", 150_000, -220)])
def test_learns(tmp_path, env_id, steps, at_least):
    agent, env, rewards = run(tmp_path, env_id, steps=steps), environments.make(env_id, 999), []
    for _ in range(20):
        state, _ = env.reset()
        done = False
        rewards.append(0.0)
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True))
            rewards[-1] += reward
            done = terminated or truncated
    assert np.mean(rewards) >= at_least
    assert agent.failures == 0
