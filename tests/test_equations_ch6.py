"""The mathematics of chapter 6 by independent means: NumPy, SciPy, TFP, numerical integration, Monte Carlo.

First what the folders compute, by their own methods; then, on small examples, the statements that nobody computes.
"""

import itertools
from types import SimpleNamespace

import gym
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, optimize, special, stats
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from ddpg.agent import DDPG
from sac.agent import SAC, log_one_minus_tanh_squared
from sac.agent import PolicyNetwork as SACPolicy
from sac.agent import ReplayBuffer as SACReplay
from td3.agent import TD3, PolicyNetwork, ReplayBuffer

RANGE = np.array([2.0, 0.5], np.float32)
N = 16


def batch(seed=0):
    """state, action, reward, next_state, done of 16 transitions, half of them ends."""
    rng = np.random.default_rng(seed)
    state, next_state = rng.standard_normal((2, N, 3)).astype(np.float32)
    action = (rng.uniform(-1, 1, (N, 2)) * RANGE).astype(np.float32)
    done = np.float32(np.arange(N) % 2)[:, None]
    return state, action, rng.standard_normal((N, 1)).astype(np.float32), next_state, done


def float64(model):
    return [w.numpy().astype(float) for w in model.all_weights]


def mlp(model, x, out=lambda z: z):
    """The network in NumPy from its weights alone (a model, or a list of them): relu layers, then `out`."""
    arrays = model if isinstance(model, list) else [w.numpy() for w in model.all_weights]
    weights, biases = arrays[::2], arrays[1::2]
    for W, b in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(x @ W + b, 0)
    return out(x @ weights[-1] + biases[-1])


def scatter(model, seed, scale=0.7):
    """Weights large enough that every term of a formula counts."""
    rng = np.random.default_rng(seed)
    for w in model.all_weights:
        w.assign(rng.normal(0, scale, w.shape))


def ddpg(**settings):
    agent = DDPG(2, 3, RANGE, hidden=(8, 8), **settings)
    for i, model in enumerate((agent.actor, agent.critic, agent.actor_target, agent.critic_target)):
        scatter(model, i)
    return agent


def td3(**settings):
    agent = TD3(3, 2, ReplayBuffer(100), 8, RANGE, **settings)
    for i, model in enumerate(net for pair in agent.pairs for net in pair):
        scatter(model, i)
    return agent


def sac(**settings):
    agent = SAC(3, 2, SACReplay(100), 8, RANGE, **settings)
    for i, model in enumerate([net for pair in agent.pairs for net in pair] + [agent.policy_net]):
        scatter(model, i)
    return agent


def concat(*arrays):
    return np.concatenate(arrays, 1)


def both_are_smaller_somewhere(net1, net2, x):
    """Shift net2 so that min(net1, net2) takes each of them on some rows of x."""
    net2.all_weights[-1].assign_add([np.median(mlp(net1, x) - mlp(net2, x))])
    smaller = mlp(net1, x) < mlp(net2, x)
    assert 0 < smaller.sum() < len(x)


def recorded(optimizer, step):
    """What step() returns, and the gradients that it hands the optimiser."""
    gradients = []
    optimizer.apply = gradients.extend
    return step(), gradients


def assert_slopes(gradients, loss, weights):
    """The gradients are those of loss(weights), by central differences along random directions in float64."""
    rng = np.random.default_rng(5)
    for _ in range(4):
        direction = [rng.standard_normal(w.shape) for w in weights]
        up, down = (loss([w + h * d for w, d in zip(weights, direction, strict=True)]) for h in (1e-6, -1e-6))
        slope = sum((np.asarray(g) * d).sum() for g, d in zip(gradients, direction, strict=True))
        assert slope == pytest.approx((up - down) / 2e-6, rel=5e-3, abs=1e-3)


# DDPG


def test_ddpg_target_and_loss_6_3_6_4():
    agent, (s, a, r, s_, done) = ddpg(gamma=0.9), batch()
    next_action = RANGE * mlp(agent.actor_target, s_, np.tanh)
    y = r + 0.9 * (1 - done) * mlp(agent.critic_target, concat(s_, next_action))
    expected = np.mean((y - mlp(agent.critic, concat(s, a))) ** 2)
    assert agent.train_critic(s, a, r, s_, done).numpy() == pytest.approx(expected, rel=1e-4)


def test_ddpg_ends_do_not_bootstrap():
    """The listing stores no `done`: its target goes on beyond the end."""
    agent, (s, a, r, s_, done) = ddpg(), batch()
    loss = ddpg().train_critic(s, a, r, s_, np.ones_like(done)).numpy()
    assert loss == pytest.approx(np.mean((r - mlp(agent.critic, concat(s, a))) ** 2), rel=1e-4)
    assert abs(loss - agent.train_critic(s, a, r, s_, 0 * done).numpy()) > 1e-2


def test_ddpg_policy_gradient_6_6_by_the_chain_rule():
    """grad_a Q by central differences, times the Jacobian of pi, equals the gradient that the actor follows."""
    agent, (s, *_) = ddpg(), batch()
    action = RANGE * mlp(agent.actor, s, np.tanh).astype(np.float64)
    step, grad_a = 1e-3, np.zeros((N, 2))
    for j in range(2):
        e = step * np.eye(2)[j]
        up, down = (mlp(agent.critic, concat(s.astype(float), a)) for a in (action + e, action - e))
        grad_a[:, j] = (up - down)[:, 0] / (2 * step)
    with tf.GradientTape() as tape:
        output = agent.actor(s)
    expected = tape.gradient(
        output, agent.actor.trainable_weights, output_gradients=tf.constant(-grad_a / N, tf.float32)
    )
    recorded = []
    agent.actor_opt.apply = lambda grads: recorded.extend(grads)
    loss = agent.train_actor(s)
    assert loss.numpy() == pytest.approx(-mlp(agent.critic, concat(s, action)).mean(), rel=1e-4)
    for got, want in zip(recorded, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0.05, atol=5e-3)


def test_ddpg_moving_average_6_7_6_8():
    agent = ddpg(tau=0.1)
    for net, target in (agent.actor, agent.actor_target), (agent.critic, agent.critic_target):
        before = [(w.numpy(), t.numpy()) for w, t in zip(net.all_weights, target.all_weights, strict=True)]
        agent.ema_update()
        for (w, t), new in zip(before, target.all_weights, strict=True):
            np.testing.assert_allclose(new, 0.1 * w + 0.9 * t, rtol=1e-5, atol=1e-6)


def test_ou_process_6_1_has_its_correlation_and_variance():
    agent = DDPG(
        2, 3, np.ones(2, np.float32) * 100, hidden=(8,), noise="ou", ou_theta=0.2, var=1e-4, memory_capacity=10
    )
    agent.actor.all_weights[-2].assign(tf.zeros((8, 2)))
    agent.policy.refresh()
    x = np.array([agent.get_action(np.zeros(3)) for _ in range(20000)])[100:]
    np.testing.assert_allclose(x.std(0), 1.0, rtol=0.1)  # sqrt(1e-4) * 100
    np.testing.assert_allclose([np.corrcoef(c[1:], c[:-1])[0, 1] for c in x.T], 0.8, atol=0.02)


def test_noise_scale_is_a_standard_deviation_from_a_variance():
    """The listing's VAR is handed to np.random.normal as the standard deviation."""
    agent = DDPG(2, 3, np.ones(2, np.float32) * 10, hidden=(8,), var=0.01, memory_capacity=10)
    actions = np.array([agent.get_action(np.zeros(3)) for _ in range(5000)])
    np.testing.assert_allclose(actions.std(0), 10 * np.sqrt(0.01), rtol=0.06)


# TD3


def smoothed(agent, next_state, noise, sigma):
    epsilon = np.clip(sigma * noise, -2 * sigma, 2 * sigma)
    return RANGE * np.clip(mlp(agent.target_policy_net, next_state, np.tanh) + epsilon, -1, 1)


@pytest.mark.parametrize("single_q", [False, True])
@pytest.mark.parametrize("no_smoothing", [False, True])
def test_td3_target_6_14_6_16(single_q, no_smoothing):
    agent, (_, _, r, s_, done) = td3(single_q=single_q, no_smoothing=no_smoothing), batch()
    noise = np.random.default_rng(1).standard_normal((N, 2)).astype(np.float32)
    noise[:4] *= 5  # beyond c
    x = concat(s_, smoothed(agent, s_, noise, 0.0 if no_smoothing else 0.6))
    both_are_smaller_somewhere(agent.target_q_net1, agent.target_q_net2, x[done[:, 0] == 0])
    q1, q2 = mlp(agent.target_q_net1, x), mlp(agent.target_q_net2, x)
    y = r + 0.9 * (1 - done) * (q1 if single_q else np.minimum(q1, q2))
    np.testing.assert_allclose(agent.target_q(r, s_, done, 0.6, 0.9, noise), y, rtol=1e-3, atol=1e-4)
    assert (q1 < q2).any() and (q2 < q1).any()


def test_smoothing_noise_is_scaled_clipped_and_kept_in_the_bounds():
    """The listing's noise ignores the action range, and its target actions leave the bounds."""
    policy = PolicyNetwork(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    action = policy.evaluate(np.zeros((20000, 3), np.float32), 0.2).numpy()
    assert (np.abs(action) <= 0.4 * RANGE + 0.01).all() and (np.abs(action) > 0.39 * RANGE).any(0).all()
    clipped = stats.norm.expect(lambda z: np.clip(z, -2, 2) ** 2) ** 0.5
    np.testing.assert_allclose(action.std(0), 0.2 * clipped * RANGE, rtol=0.02)
    assert (np.abs(policy.evaluate(np.zeros((1000, 3), np.float32), 5.0)) <= RANGE).all()
    explored = np.array([policy.get_action(np.zeros(3), 5.0) for _ in range(200)])
    assert (np.abs(explored) <= RANGE).all()


def test_td3_critic_and_policy_losses():
    agent, (s, a, r, *_) = td3(), batch()

    def q_loss(weights):
        return np.mean((r - mlp(weights, concat(s, a))) ** 2)

    def policy_loss(weights):
        return -np.mean(mlp(agent.q_net1, concat(s, RANGE * mlp(weights, s, np.tanh))))

    for net, optimizer in ((agent.q_net1, agent.q_optimizer1), (agent.q_net2, agent.q_optimizer2)):
        loss, gradients = recorded(optimizer, lambda net=net, opt=optimizer: agent.train_q(net, opt, s, a, r))
        assert loss.numpy() == pytest.approx(q_loss(float64(net)), rel=1e-4)
        assert_slopes(gradients, q_loss, float64(net))
    loss, gradients = recorded(agent.policy_optimizer, lambda: agent.train_policy(s))
    assert loss.numpy() == pytest.approx(policy_loss(float64(agent.policy_net)), rel=1e-3)
    assert_slopes(gradients, policy_loss, float64(agent.policy_net))


def test_td3_soft_update():
    agent = td3()
    w, t = agent.q_net1.all_weights[0].numpy(), agent.target_q_net1.all_weights[0].numpy()
    assert agent.target_soft_update(agent.q_net1, agent.target_q_net1, 0.25) is agent.target_q_net1
    np.testing.assert_allclose(agent.target_q_net1.all_weights[0], 0.25 * w + 0.75 * t, rtol=1e-5, atol=1e-6)


# SAC


def squashed(policy, state, noise):
    """Action and log_prob of the policy (a model or its weights) in float64: a = RANGE tanh(u), u Gaussian."""
    mean, log_std = np.split(mlp(policy, state), 2, 1)
    std = np.exp(np.clip(log_std.astype(float), -20, 2))
    u = mean + std * noise
    slope = np.log(RANGE) - 2 * np.log(np.cosh(u))  # log da/du, as 1 - tanh^2 = 1 / cosh^2
    return RANGE * np.tanh(u), (stats.norm.logpdf(u, mean, std) - slope).sum(1, keepdims=True)


def test_evaluate_6_27_is_the_squashed_gaussian_with_its_log_std_clipped():
    policy, s, noise = SACPolicy(3, 2, 8, RANGE), batch()[0], np.random.default_rng(1).standard_normal((N, 2))
    scatter(policy, 3, 0.5)
    policy.all_weights[-1].assign([0.1, -0.2, 1.0, -1.0])  # one log-std beyond its bound of 2 in half of the rows
    action, log_prob, z, mean, log_std = policy.evaluate(s, noise=noise.astype(np.float32))
    raw_mean, raw_log_std = np.split(mlp(policy, s), 2, 1)
    assert 3 < (raw_log_std > 2).sum() < N
    np.testing.assert_allclose(mean, raw_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_std, np.minimum(raw_log_std, 2), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z, noise, rtol=1e-6)
    expected_action, expected_log_prob = squashed(policy, s, noise)
    np.testing.assert_allclose(action, expected_action, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_prob, expected_log_prob, rtol=1e-3, atol=1e-3)


def test_evaluate_draws_new_noise_for_every_row_and_dimension():
    policy = SACPolicy(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    z = np.concatenate([policy.evaluate(np.zeros((2000, 3), np.float32))[2] for _ in range(2)])
    assert len(np.unique(z)) > 7900
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=0.05)


def test_log_prob_is_that_of_tfps_squashed_gaussian():
    policy = SACPolicy(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    scatter(policy, 3, 0.3)
    state = batch()[0]
    action, log_prob, _, mean, log_std = policy.evaluate(state)
    chain = tfd.TransformedDistribution(
        tfd.Independent(tfd.Normal(mean, tf.exp(log_std)), 1),
        tfb.Chain([tfb.Scale(RANGE), tfb.Tanh()]),
    )
    inside = (np.abs(action) < 0.99 * RANGE).all(1)  # inverting tanh in float32 loses its digits beyond
    assert inside.sum() > 3
    np.testing.assert_allclose(log_prob[:, 0][inside], chain.log_prob(action)[inside], rtol=2e-3, atol=2e-3)


def test_density_integrates_to_one():
    """p(a) = exp(log_prob) as a function of the noise, integrated over the action of a one-dimensional policy."""
    policy = SACPolicy(3, 1, 8, 2.0)
    policy.all_weights[-1].assign([0.3, -0.5])
    z = np.linspace(-8, 8, 20001, dtype=np.float32)[:, None]
    action, log_prob, *_ = policy.evaluate(np.zeros((len(z), 3), np.float32), noise=z)
    assert integrate.trapezoid(np.exp(log_prob[:, 0]), action[:, 0]) == pytest.approx(1, abs=1e-3)


def test_log_prob_is_finite_and_exact_where_tanh_saturates():
    u = np.array([0.0, 1.0, 8.0, 20.0, 90.0, -90.0], np.float32)
    exact = 2 * (np.log(2) - np.abs(u.astype(float)) - np.log1p(np.exp(-2 * np.abs(u.astype(float)))))
    np.testing.assert_allclose(log_one_minus_tanh_squared(tf.constant(u)), exact, rtol=1e-4, atol=1e-6)


def test_soft_target_6_19_6_20():
    agent, (_, _, r, s_, done) = sac(alpha=0.3), batch()
    noise = np.random.default_rng(1).standard_normal((N, 2)).astype(np.float32)
    action, log_prob = squashed(agent.policy_net, s_, noise)
    x = concat(s_, action)
    both_are_smaller_somewhere(agent.target_soft_q_net1, agent.target_soft_q_net2, x[done[:, 0] == 0])
    q = np.minimum(mlp(agent.target_soft_q_net1, x), mlp(agent.target_soft_q_net2, x))
    y = r + 0.9 * (1 - done) * (q - 0.3 * log_prob)
    np.testing.assert_allclose(agent.target_q(r, s_, done, 0.9, noise), y, rtol=1e-3, atol=1e-3)


def test_policy_loss_6_28_falls_and_returns_the_log_prob():
    agent, (s, *_) = sac(alpha=0.3, policy_lr=1e-3), batch()
    noise = np.random.default_rng(1).standard_normal((N, 2)).astype(np.float32)
    both_are_smaller_somewhere(agent.soft_q_net1, agent.soft_q_net2, concat(s, squashed(agent.policy_net, s, noise)[0]))

    def loss(weights):
        action, log_prob = squashed(weights, s, noise)
        q = np.minimum(*(mlp(net, concat(s, action)) for net in (agent.soft_q_net1, agent.soft_q_net2)))
        return np.mean(0.3 * log_prob - q)

    before, log_prob = loss(float64(agent.policy_net)), squashed(agent.policy_net, s, noise)[1]
    got = agent.train_policy(s, noise)
    assert got[0].numpy() == pytest.approx(before, rel=1e-4)
    np.testing.assert_allclose(got[1], log_prob, rtol=1e-4, atol=1e-4)
    assert loss(float64(agent.policy_net)) < before
    _, gradients = recorded(agent.policy_optimizer, lambda: agent.train_policy(s, noise))
    assert_slopes(gradients, loss, float64(agent.policy_net))


@pytest.mark.parametrize("entropy, direction", [(-5.0, 1), (5.0, -1)])
def test_alpha_6_29_rises_when_entropy_is_below_kappa(entropy, direction):
    agent = sac()
    log_prob = tf.fill((N, 1), -entropy)
    loss = agent.train_alpha(log_prob, -2.0)
    assert loss.numpy() == pytest.approx(-1.0 * (-entropy - 2.0))  # alpha = 1
    assert np.sign(agent.log_alpha.numpy()) == direction
    assert agent.alpha.numpy() == pytest.approx(np.exp(agent.log_alpha.numpy()))


def test_alpha_6_29_loss_and_slope():
    agent, log_prob = sac(alpha=0.5), np.random.default_rng(0).standard_normal((N, 1)).astype(np.float32)
    loss, gradients = recorded(agent.alpha_optimizer, lambda: agent.train_alpha(log_prob, -2.0))
    assert loss.numpy() == pytest.approx(-0.5 * (log_prob.mean() - 2), rel=1e-5)
    assert gradients[0].numpy() == pytest.approx(
        -0.5 * (log_prob.mean() - 2), rel=1e-5
    )  # d alpha / d log(alpha) = alpha


def test_sac_critic_loss_6_25():
    agent, (s, a, r, *_) = sac(), batch()

    def q_loss(weights):
        return np.mean((r - mlp(weights, concat(s, a))) ** 2)

    for net, opt in ((agent.soft_q_net1, agent.soft_q_optimizer1), (agent.soft_q_net2, agent.soft_q_optimizer2)):
        loss, gradients = recorded(opt, lambda net=net, opt=opt: agent.train_q(net, opt, s, a, r))
        assert loss.numpy() == pytest.approx(q_loss(float64(net)), rel=1e-4)
        assert_slopes(gradients, q_loss, float64(net))


def test_sac_soft_update():
    agent = sac()
    w, t = agent.soft_q_net1.all_weights[0].numpy(), agent.target_soft_q_net1.all_weights[0].numpy()
    assert agent.target_soft_update(agent.soft_q_net1, agent.target_soft_q_net1, 0.25) is agent.target_soft_q_net1
    np.testing.assert_allclose(agent.target_soft_q_net1.all_weights[0], 0.25 * w + 0.75 * t, rtol=1e-5, atol=1e-6)


# Statements of the chapter that no folder computes, in NumPy on small examples

GAMMA, ALPHA = 0.8, 0.4
P = np.random.default_rng(0).dirichlet(np.ones(4), (4, 3))  # P[s, a, s']
R = np.random.default_rng(1).normal(0, 1, (4, 3))


def complex_slope(f, x):
    """The gradient of f at x [n] by complex steps: exact to rounding."""
    return np.array([f(x + 1e-20j * e).imag / 1e-20 for e in np.eye(len(x))])


def test_ou_process_6_1_tends_to_its_mean_and_to_the_variance_sigma_squared_over_two_theta():
    """Moments of x + theta (mu - x) dt + sigma sqrt(dt) w, step by step, for ever shorter dt; the class has dt = 1."""
    theta, mu, sigma = 0.5, 3.0, 0.7
    gaps = []
    for dt in (1.0, 0.1, 0.01):
        mean, variance, correlation = -5.0, 0.0, 1.0
        for _ in range(int(60 / dt)):
            mean, variance = mean + theta * (mu - mean) * dt, (1 - theta * dt) ** 2 * variance + sigma**2 * dt
        for _ in range(round(1 / dt)):
            correlation *= 1 - theta * dt
        assert mean == pytest.approx(mu, abs=1e-6)
        assert variance == pytest.approx(sigma**2 * dt / (1 - (1 - theta * dt) ** 2))
        gaps.append((abs(variance - sigma**2 / (2 * theta)), abs(correlation - np.exp(-theta))))
    assert (np.diff(gaps, axis=0) < 0).all() and np.max(gaps[2]) < 0.002
    agent = DDPG(1, 3, np.ones(1, np.float32), hidden=(8,), noise="ou", ou_theta=0.2, memory_capacity=10)
    x, agent.ou[:] = [], 1.0
    for noise in (0.0, 1.0):
        agent.rng = SimpleNamespace(standard_normal=lambda *_, noise=noise: np.float32([noise]))
        agent.get_action(np.zeros(3))
        x.append(agent.ou[0])
    assert x[0] == pytest.approx(0.8)
    assert (x[1] - 0.8 * x[0]) ** 2 / (1 - 0.8**2) == pytest.approx(1)


def test_bellmans_equation_of_a_deterministic_policy_6_2_6_3():
    pi, d = np.array([2, 0, 1, 1]), np.eye(12).reshape(4, 3, 12)
    step = np.einsum("sat,tb->satb", P, np.eye(3)[pi]).reshape(12, 12)  # from (s, a) to (s', pi(s'))
    q = sum(GAMMA**t * d @ np.linalg.matrix_power(step, t) @ R.ravel() for t in range(150))  # the definition
    np.testing.assert_allclose(q, R + GAMMA * P @ q[np.arange(4), pi], atol=1e-10)


BEND, PULL, TILT = np.random.default_rng(2).normal(0, 1, (3, 4, 4))


def move(a):
    """P(s'|s, a) of four states and one real action for each, a [4]."""
    e = np.exp(BEND + a[:, None] * PULL)
    return e / e.sum(1, keepdims=True)


def gain(a):
    return np.sin(TILT[0] * a) + TILT[1] * a - a**2 / 2


def follow(theta):
    """J from a uniform start, V, and rho of the policy a = tanh(theta[s])."""
    a = np.tanh(theta)
    v = np.linalg.solve(np.eye(4) - GAMMA * move(a), gain(a))
    return v.mean(), v, np.linalg.solve((np.eye(4) - GAMMA * move(a)).T, np.full(4, 0.25))


def test_the_deterministic_policy_gradient_6_5_6_6():
    """Exact for the policy's own discounted visits; for another policy's states it is an approximation that climbs."""
    theta, other = np.array([0.3, -0.8, 0.5, 1.0]), np.array([-1.0, 0.7, 0.0, -0.4])
    exact = complex_slope(lambda x: follow(x)[0], theta)
    _, v, rho = follow(theta)

    def q(a):
        return gain(a) + GAMMA * move(a) @ v

    a = np.tanh(theta)
    grad_a = np.array([complex_slope(lambda x, s=s: q(x)[s], a)[s] for s in range(4)])
    chain = grad_a * (1 - a**2)  # the second line of (6.5), for each state
    whole = np.array([complex_slope(lambda x, s=s: q(np.tanh(x))[s], theta)[s] for s in range(4)])
    np.testing.assert_allclose(chain, whole, atol=1e-12)  # the first line
    np.testing.assert_allclose(rho * chain, exact, atol=1e-10)
    off_policy = follow(other)[2] * chain
    assert np.abs(off_policy - exact).max() > 0.01
    assert follow(theta + 0.01 * off_policy)[0] > follow(theta)[0]
    sample = np.random.default_rng(3).choice(4, 20_000, p=rho / rho.sum())
    mean = np.bincount(sample, minlength=4) / len(sample) * chain  # (6.6)
    np.testing.assert_allclose(mean, exact / rho.sum(), atol=0.02 * np.abs(chain).max())


def test_the_greedy_backup_6_9_finds_the_best_policy():
    q = np.zeros((4, 3))
    for _ in range(150):
        q = R + GAMMA * P @ q.max(1)
    values = []
    for pi in itertools.product(range(3), repeat=4):
        rows = np.arange(4), np.array(pi)
        values.append(np.linalg.solve(np.eye(4) - GAMMA * P[rows], R[rows]))
    np.testing.assert_allclose(q.max(1), np.max(values, 0), atol=1e-10)


NOISE = np.array([-0.6, 0.0, 0.6])  # each as likely as the others


def noisy(target):
    """(6.10): the table with every combination of independent noise, [combinations, actions]."""
    return target + np.array(list(itertools.product(NOISE, repeat=len(target))))


@pytest.mark.parametrize("target", [[1.0, 1.0, 1.0], [1.0, 0.8, 0.3], [-2.0, -1.5, -1.2]])
def test_the_maximum_overestimates_6_10_6_11(target):
    target = np.array(target)
    approx = noisy(target)
    np.testing.assert_allclose(approx.mean(0), target, atol=1e-12)  # no entry is biased
    z = GAMMA * (approx.max(1) - target.max())
    assert z.mean() > 0.02
    assert (z < 0).any()  # the mean is positive, not every Z


def test_noise_that_never_changes_the_best_action_does_no_harm_6_11():
    """E[Z] > 0, as the text says, holds where noise can reverse an order; else it is 0."""
    target = np.array([3.0, 0.0, 0.5])
    assert (noisy(target).max(1) - target.max()).mean() == pytest.approx(0, abs=1e-12)


def test_for_two_equal_actions_and_normal_noise_the_error_is_known_6_11():
    def density_times_maximum(z):
        return z * 2 * stats.norm.pdf(z) * stats.norm.cdf(z)

    assert integrate.quad(density_times_maximum, -9, 9)[0] == pytest.approx(1 / np.sqrt(np.pi))
    draws = np.random.default_rng(4).standard_normal((200_000, 2)).max(1).mean()
    assert draws == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)


def test_a_table_overestimates_too_6_9():
    """The text says that a table has no such problem. It has, as long as its entries are means of random rewards.

    A state with two actions that earn 1 or -1 with equal chance, each tried n times: the table holds the two means.
    """
    bias = []
    for n in (1, 4, 10):
        chance = stats.binom.pmf(np.arange(n + 1), n, 0.5)
        means = 2 * np.arange(n + 1) / n - 1
        assert chance @ means == pytest.approx(0, abs=1e-12)
        bias.append(chance @ np.maximum.outer(means, means) @ chance)
    assert bias[0] == pytest.approx(0.5) and bias[0] > bias[1] > bias[2] > 0.1


@pytest.mark.parametrize("target", [[1.0, 1.0], [1.0, 0.8]])
def test_two_critics_cure_the_overestimation_6_12_6_13_6_14(target):
    """The action is the best one of the first table, phi_1 of (6.12), (6.13); both tables have noise of their own."""
    target = np.array(target)
    first, second, smaller, true = [], [], [], []
    for q1, q2 in itertools.product(noisy(target), repeat=2):
        a = q1.argmax()
        first.append(q1[a])
        second.append(q2[a])
        smaller.append(min(q1[a], q2[a]))  # (6.14)
        true.append(target[a])
    assert np.mean(first) > target.max() + 0.05
    assert np.mean(second) == pytest.approx(np.mean(true))  # the second table knows nothing of the choice
    assert np.mean(smaller) < np.mean(second) <= target.max()  # the smaller one: too low, if anything


def test_smoothing_6_15_6_16_flattens_a_narrow_peak_and_wants_its_gamma():
    """E[Q(a + eps)]: a curvature costs half of itself times the variance, a narrow peak almost all of its height."""
    z, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    sigma = 0.2

    def smoothed(q, a):
        return weight @ q(a + sigma * z)

    assert smoothed(lambda a: 1 - 3 * a**2, 0.0) == pytest.approx(1 - 3 * sigma**2)

    def hill_and_peak(a):
        return 0.8 * np.exp(-(a**2)) + np.exp(-(((a - 1) / 0.02) ** 2))

    grid, eps = np.linspace(-1, 2, 301), np.linspace(-6, 6, 4001)
    chance = stats.norm.pdf(eps) / stats.norm.pdf(eps).sum()
    assert grid[hill_and_peak(grid).argmax()] == pytest.approx(1)
    assert grid[np.argmax([chance @ hill_and_peak(a + sigma * eps) for a in grid])] < 0.3
    as_printed = corrected = 0.0
    for _ in range(200):
        as_printed, corrected = 1 + as_printed, 1 + GAMMA * corrected  # reward 1, Q the same everywhere
    assert corrected == pytest.approx(1 / (1 - GAMMA)) and as_printed == 200


# Soft policy iteration (6.17 to 6.24) on the MDP P, R


def entropy(pi):
    return -(pi * np.log(pi)).sum(-1)


def soft_values(pi):
    """V [4] by definition (6.18): discounted rewards and entropies of all steps, added up; Q [4, 3] by (6.19)."""
    move, v = np.einsum("sa,sat->st", pi, P), np.zeros(4)
    for t in range(150):
        v = v + GAMMA**t * np.linalg.matrix_power(move, t) @ ((pi * R).sum(1) + ALPHA * entropy(pi))
    return v, R + GAMMA * P @ v


def soft_backup(pi, q):
    """(6.21), with V of (6.20)."""
    return R + GAMMA * P @ (pi * (q - ALPHA * np.log(pi))).sum(1)


def softest(q):
    """(6.23)."""
    e = np.exp((q - q.max(1, keepdims=True)) / ALPHA)
    return e / e.sum(1, keepdims=True)


SOME = np.random.default_rng(5).dirichlet(np.ones(3), 4)


def test_soft_values_6_17_to_6_20():
    v, q = soft_values(SOME)
    np.testing.assert_allclose(v, (SOME * (q - ALPHA * np.log(SOME))).sum(1), atol=1e-10)  # (6.20)
    np.testing.assert_allclose(v, (SOME * q).sum(1) + ALPHA * entropy(SOME), atol=1e-10)
    start = np.array([0.4, 0.3, 0.2, 0.1])
    chance, total, states = start, 0.0, np.eye(4)  # (6.17) by following the distribution of states
    for t in range(150):
        total += GAMMA**t * chance @ ((SOME * R).sum(1) + ALPHA * entropy(SOME))
        chance = np.einsum("s,sa,sat->t", chance @ states, SOME, P)
    assert total == pytest.approx(start @ v)


def test_soft_policy_evaluation_converges_from_anywhere_6_21():
    """A contraction by gamma, whose fixed point is the soft Q."""
    rng = np.random.default_rng(6)
    q, other = rng.normal(0, 10, (2, 4, 3))
    for _ in range(150):
        new, new_other = soft_backup(SOME, q), soft_backup(SOME, other)
        assert np.abs(new - new_other).max() <= GAMMA * np.abs(q - other).max() + 1e-12
        q, other = new, new_other
    np.testing.assert_allclose(q, soft_values(SOME)[1], atol=1e-10)


def test_the_softmax_solves_6_22_as_scipy_does_6_23():
    q = soft_values(SOME)[1]
    best = softest(q)
    for s in range(4):
        found = optimize.minimize(
            lambda x, s=s: -(special.softmax(x) @ q[s] + ALPHA * entropy(special.softmax(x))), [0.1, 0, 0]
        )
        np.testing.assert_allclose(best[s], special.softmax(found.x), atol=1e-5)
        assert -found.fun == pytest.approx(ALPHA * np.log(np.exp(q[s] / ALPHA).sum()))  # alpha log Z(s)


CHOICES = np.random.default_rng(7).dirichlet(np.ones(3), (4, 5))  # Pi: five distributions in each of four states


def project(q, choices=CHOICES):
    """(6.24): in each state that member of Pi whose KL to the softmax of q is least."""
    kl = (choices * np.log(choices / softest(q)[:, None])).sum(2)
    return choices[np.arange(4), kl.argmin(1)]


def test_the_projection_6_24_is_the_minimum_of_6_26():
    """alpha KL(pi || exp(Q / alpha) / Z) = E[alpha log pi - Q] + alpha log Z, and Z knows nothing of pi."""
    q = soft_values(SOME)[1]
    loss = (CHOICES * (ALPHA * np.log(CHOICES) - q[:, None])).sum(2)  # (6.26)
    kl = (CHOICES * np.log(CHOICES / softest(q)[:, None])).sum(2)
    log_z = np.log(np.exp(q / ALPHA).sum(1))
    np.testing.assert_allclose(ALPHA * kl, loss + ALPHA * log_z[:, None], atol=1e-10)
    np.testing.assert_array_equal(project(q), CHOICES[np.arange(4), loss.argmin(1)])


@pytest.mark.parametrize("improve", [softest, project], ids=["all policies", "a restricted set"])
def test_soft_policy_improvement_is_monotone_6_22_to_6_24(improve):
    pi = CHOICES[:, 0]
    q, gains = soft_values(pi)[1], []
    for _ in range(8):
        new = soft_values(improve(q))[1]
        gains.append(new - q)
        q = new
    assert np.min(gains) > -1e-9
    assert gains[0].max() > 0.05 and np.abs(gains[-1]).max() < 1e-6


def soft_policy_iteration(improve, pi):
    for _ in range(30):
        pi = improve(soft_values(pi)[1])
    return pi


def test_theorem_6_1_all_policies():
    """Against policies from anywhere, and against the neighbours of the best one."""
    star, rng = soft_policy_iteration(softest, SOME), np.random.default_rng(8)
    best = soft_values(star)[1]
    anywhere = rng.dirichlet(np.ones(3), (200, 4))
    near = special.softmax(np.log(star) + rng.normal(0, 0.2, (100, 4, 3)), 2)
    for pi in [*anywhere, *near]:
        assert (best >= soft_values(pi)[1] - 1e-9).all()
    np.testing.assert_allclose(best, soft_values(soft_policy_iteration(softest, CHOICES[:, 1]))[1], atol=1e-8)


def test_theorem_6_1_a_restricted_set_of_policies():
    """All 625 policies of Pi, one by one."""
    best = soft_values(soft_policy_iteration(project, CHOICES[:, 0]))[1]
    for choice in itertools.product(range(5), repeat=4):
        pi = CHOICES[np.arange(4), list(choice)]
        move = np.einsum("sa,sat->st", pi, P)
        v = np.linalg.solve(np.eye(4) - GAMMA * move, (pi * R).sum(1) + ALPHA * entropy(pi))
        assert (best >= R + GAMMA * P @ v - 1e-9).all()


def test_a_set_that_ties_states_together_has_no_monotone_improvement_6_24():
    """Policies that act alike in all states, the KL averaged over the states, as a network and (6.26) do it."""
    tied = np.random.default_rng(39).dirichlet(np.ones(3), 40)
    q = soft_values(np.tile(tied[0], (4, 1)))[1]
    kl = (tied[:, None] * np.log(tied[:, None] / softest(q))).sum(2).mean(1)
    new = soft_values(np.tile(tied[kl.argmin()], (4, 1)))[1]
    assert (new - q).min() < -0.01


def test_the_soft_bellman_residual_6_25_is_0_at_the_soft_q():
    """With the mean of V inside, as printed. One sample of S' adds its variance to the loss, not to the gradient."""
    v, q = soft_values(SOME)
    residual = q - R - GAMMA * P @ (SOME * (q - ALPHA * np.log(SOME))).sum(1)
    np.testing.assert_allclose(residual, 0, atol=1e-10)
    guess = q[0, 0] + 0.7
    sampled = guess - R[0, 0] - GAMMA * v  # one for each s'
    assert P[0, 0] @ sampled == pytest.approx(0.7)
    variance = P[0, 0] @ (v - P[0, 0] @ v) ** 2
    assert P[0, 0] @ sampled**2 == pytest.approx(0.7**2 + GAMMA**2 * variance)


@pytest.mark.parametrize("log_std", [-0.7, -2.0])
def test_reparameterised_and_likelihood_ratio_gradients_agree_6_26_6_27_6_28(log_std):
    """A squashed Gaussian, a = tanh(m + exp(l) eps), and a Q of one action.

    The reparameterised one "often" has less variance: by far where the policy is narrow, not always where it is wide.
    """
    z, weight = np.polynomial.hermite_e.hermegauss(100)
    weight, m = weight / weight.sum(), 0.3

    def q(a):
        return np.sin(2 * a) - a**2

    def log_prob(u, m, log_std):
        """Of a = tanh(u)."""
        return -(((u - m) / np.exp(log_std)) ** 2) / 2 - log_std - np.log(2 * np.pi) / 2 - np.log(1 - np.tanh(u) ** 2)

    def loss(m, log_std):
        """(6.26), as an integral over u: no sample, no noise."""

        def weighed(u):
            log_pi = log_prob(u, m, log_std)
            return np.exp(log_pi) * (1 - np.tanh(u) ** 2) * (ALPHA * log_pi - q(np.tanh(u)))

        return integrate.quad(weighed, m - 8 * np.exp(log_std), m + 8 * np.exp(log_std), epsabs=1e-12)[0]

    h = 1e-4
    exact = [
        (loss(m + h, log_std) - loss(m - h, log_std)) / (2 * h),
        (loss(m, log_std + h) - loss(m, log_std - h)) / (2 * h),
    ]

    def inside(x, eps):
        """(6.28), before the mean."""
        u = x[0] + np.exp(x[1]) * eps  # (6.27)
        return ALPHA * log_prob(u, *x) - q(np.tanh(u))

    x = np.array([m, log_std])
    reparameterised = np.array([complex_slope(lambda y, e=e: inside(y, e), x) for e in z])
    u = m + np.exp(log_std) * z
    score = np.stack([z / np.exp(log_std), z**2 - 1], 1)
    ratio = score * (ALPHA * log_prob(u, m, log_std) - q(np.tanh(u)))[:, None]
    np.testing.assert_allclose(weight @ reparameterised, exact, atol=1e-5)
    np.testing.assert_allclose(weight @ ratio, exact, atol=1e-5)
    variance = [weight @ (g - weight @ g) ** 2 for g in (reparameterised, ratio)]
    if log_std == -2:
        assert (variance[0] < variance[1] / 20).all()
    else:
        assert variance[0][0] > variance[1][0]


def test_alpha_6_29_is_the_multiplier_of_the_entropy_constraint():
    """max E[Q] under H >= kappa: SciPy's answer, the dual's minimum, and where descent on (6.29) ends, are one."""
    q, kappa = np.array([1.0, 0.2, -0.5]), 0.8

    def policy(alpha):
        e = np.exp((q - q.max()) / alpha)
        return e / e.sum()

    primal = optimize.minimize(
        lambda x: -special.softmax(x) @ q,
        [0.1, 0, 0],
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: entropy(special.softmax(x)) - kappa},
        options={"ftol": 1e-14, "maxiter": 500},
    )

    def dual(alpha):
        """The maximum over pi of E[Q] + alpha (H - kappa)."""
        return alpha * np.log(np.exp(q / alpha).sum()) - alpha * kappa

    lowest = optimize.minimize_scalar(dual, bounds=(0.01, 5), method="bounded", options={"xatol": 1e-8})
    assert lowest.fun == pytest.approx(-primal.fun, abs=1e-6)
    np.testing.assert_allclose(policy(lowest.x), special.softmax(primal.x), atol=1e-4)
    alpha = 2.0
    for _ in range(500):
        p = policy(alpha)
        slope = p @ (-np.log(p) - kappa)  # of (6.29), the policy held fast
        assert slope == pytest.approx((dual(alpha + 1e-6) - dual(alpha - 1e-6)) / 2e-6, abs=1e-6)
        alpha -= 0.1 * slope
    assert alpha == pytest.approx(lowest.x, abs=1e-3)
    assert entropy(policy(alpha)) == pytest.approx(kappa, abs=1e-3)


def test_pendulums_reward_6_5_1():
    """Of the angle, the speed and the torque; the text says acceleration for the last one."""
    env = gym.make("Pendulum-v1", disable_env_checker=True)
    state = env.reset(seed=0)[0]
    for torque in (-2.0, 0.5, 2.0):
        angle, speed = np.arctan2(state[1], state[0]), state[2]
        state, reward, *_ = env.step(np.array([torque], np.float32))
        assert reward == pytest.approx(-(angle**2 + 0.1 * speed**2 + 0.001 * torque**2), rel=1e-4)
        assert np.hypot(*state[:2]) == pytest.approx(1, abs=1e-6)
