"""The mathematics of chapter 6 by independent means: NumPy, SciPy, TFP, numerical integration, Monte Carlo."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats
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
