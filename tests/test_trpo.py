"""TRPO: GAE, conjugate gradient, Hessian, natural step and line search by independent means, and that it learns."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from scipy import stats

from common import environments
from common.command import keywords
from trpo.agent import TRPO, GAE_Buffer
from trpo.main import PRESETS, Config, train

BOUND = np.array([2.0, 3.0], np.float32)


def make(**settings):
    return TRPO(3, 2, BOUND, **{"hidden": (4,), "batch_size": 64, "damping": 0.0, **settings})


def batch(agent, n=64, seed=0):
    """states, actions, adv, old_log_prob, old_mean, old_log_std as the buffer gives them."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n, 3)).astype(np.float32)
    actions, _, logp, mean, log_std = zip(*(agent.get_action(s) for s in states), strict=True)
    adv = rng.standard_normal(n).astype(np.float32)
    return states, np.array(actions), adv, *(np.array(x, np.float32) for x in (logp, mean)), np.tile(log_std[0], (n, 1))


def explicit_hessian(agent, states, mean, log_std):
    """The Hessian of the mean KL by central differences of its gradient."""
    theta = agent.get_pi_params().numpy().astype(np.float64)

    def gradient(params):
        agent.set_pi_params(params.astype(np.float32))
        with tf.GradientTape() as tape:
            kl = agent.kl(states, mean, log_std)
        return agent._flat_concat(tape.gradient(kl, agent.actor_weights)).numpy()

    step = 1e-2
    rows = [(gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step) for e in np.eye(len(theta))]
    agent.set_pi_params(theta.astype(np.float32))
    return np.array(rows)


# the buffer


def fill(lam, last_val, rewards=(1.0, -2.0, 0.5), values=(0.3, 0.1, -0.4)):
    buf = GAE_Buffer(1, 1, len(rewards), gamma=0.9, lam=lam)
    for reward, value in zip(rewards, values, strict=True):
        buf.store([0], [0], reward, value, 0, [0], [0])
    buf.finish_path(last_val)
    return buf, np.array(rewards), np.array([*values, last_val])


def test_gae_by_hand():
    buf, r, v = fill(0.8, 2.0)
    delta = r + 0.9 * v[1:] - v[:-1]
    expected = [delta[0] + 0.72 * (delta[1] + 0.72 * delta[2]), delta[1] + 0.72 * delta[2], delta[2]]
    np.testing.assert_allclose(buf.adv_buf, expected, rtol=1e-5)


def test_gae_with_lambda_0_is_the_td_error_and_with_1_the_monte_carlo_advantage():
    buf, r, v = fill(0.0, 2.0)
    np.testing.assert_allclose(buf.adv_buf, r + 0.9 * v[1:] - v[:-1], rtol=1e-5)
    buf, r, v = fill(1.0, 2.0)
    returns = [1 + 0.9 * (-2 + 0.9 * (0.5 + 0.9 * 2)), -2 + 0.9 * (0.5 + 0.9 * 2), 0.5 + 0.9 * 2]
    np.testing.assert_allclose(buf.adv_buf, returns - v[:-1], rtol=1e-5)
    np.testing.assert_allclose(buf.ret_buf, returns, rtol=1e-5)


def test_paths_do_not_leak_into_each_other():
    buf = GAE_Buffer(1, 1, 4, gamma=0.9, lam=0.8)
    for reward in (1.0, 2.0):
        buf.store([0], [0], reward, 0, 0, [0], [0])
        buf.store([0], [0], reward, 0, 0, [0], [0])
        buf.finish_path(0)
    np.testing.assert_allclose(buf.ret_buf, [1.9, 1, 3.8, 2], rtol=1e-6)
    assert buf.is_full()
    with pytest.raises(IndexError):
        buf.store([0], [0], 0, 0, 0, [0], [0])


def test_get_normalises_advantages_and_keeps_all_dimensions():
    """The listing's mean and log-std buffers are one-dimensional: they hold one action dimension."""
    buf = GAE_Buffer(3, 2, 5)
    for i in range(5):
        buf.store([i] * 3, [i, -i], i, 0, 0.5, [i, 2 * i], [3, 4])
    buf.finish_path(0)
    states, actions, adv, _, logp, mean, log_std = buf.get()
    assert adv.mean() == pytest.approx(0, abs=1e-6) and adv.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(mean[4], [4, 8])
    np.testing.assert_array_equal(log_std[0], [3, 4])
    assert states.shape == (5, 3) and actions.shape == (5, 2) and logp.shape == (5,)


# the step


def test_surrogate_and_its_gradient_5_26_5_28():
    agent = make()
    states, actions, adv, logp, mean, log_std = batch(agent)
    expected_logp = stats.norm.logpdf(actions, mean, np.exp(log_std)).sum(1)
    np.testing.assert_allclose(logp, expected_logp, rtol=1e-4, atol=1e-4)
    g, loss = agent.gradient(states, actions, adv, logp)
    assert loss.numpy() == pytest.approx(-adv.mean(), rel=1e-3, abs=1e-5)  # the ratio is 1
    theta, step = agent.get_pi_params().numpy(), 1e-2
    for i in (0, 5, len(theta) - 1):  # a weight, a bias and a log-std
        values = []
        for sign in (1, -1):
            agent.set_pi_params(theta + sign * step * np.eye(len(theta), dtype=np.float32)[i])
            new = stats.norm.logpdf(actions, agent.actor(states), np.exp(agent.log_std)).sum(1)
            values.append(-np.mean(np.exp(new - logp) * adv))
        assert g[i].numpy() == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.05, abs=3e-3)


def test_kl_is_old_against_new():
    """The listing has KL(new || old)."""
    agent = make()
    states, *_, mean, log_std = batch(agent)
    agent.log_std.assign([0.5, -0.7])
    std, old_std = np.exp(agent.log_std.numpy()), np.exp(log_std)
    old_new = (np.log(std / old_std) + (old_std**2 + (mean - agent.actor(states)) ** 2) / (2 * std**2) - 0.5).numpy()
    new_old = np.mean(np.sum(np.log(old_std / std) + std**2 / (2 * old_std**2) - 0.5, 1))
    kl = agent.kl(states, mean, log_std).numpy()
    assert kl == pytest.approx(old_new.sum(1).mean(), rel=1e-4)
    assert abs(kl - new_old) > 0.1


def test_hvp_equals_the_explicit_hessian_and_damping_is_added():
    agent = make(damping=0.1)
    states, *_, mean, log_std = batch(agent)
    H = explicit_hessian(agent, states, mean, log_std)
    x = np.random.default_rng(1).standard_normal(len(H)).astype(np.float32)
    np.testing.assert_allclose(agent.hvp(states, mean, log_std, x), H @ x + 0.1 * x, rtol=0.02, atol=0.02)


def test_cg_solves_as_scipy_does():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((8, 8))
    A, b = (M @ M.T + 3 * np.eye(8)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    agent = make(cg_iters=20)
    x = agent.cg(lambda v: tf.linalg.matvec(A, v), tf.constant(b))
    np.testing.assert_allclose(x, scipy.linalg.solve(A, b), rtol=1e-3, atol=1e-4)


def test_full_step_is_the_best_on_the_quadratic_model_5_29_5_30():
    """No direction of 20,000 random ones gains more within (1/2) d'Hd <= delta."""
    agent = make(damping=0.1, cg_iters=50)
    states, actions, adv, logp, mean, log_std = batch(agent)
    g = -agent.gradient(states, actions, adv, logp)[0].numpy()
    H = explicit_hessian(agent, states, mean, log_std) + 0.1 * np.eye(len(g))
    x = agent.cg(lambda v: agent.hvp(states, mean, log_std, v), tf.constant(g)).numpy()
    step = np.sqrt(2 * agent.delta / (x @ H @ x)) * x
    assert step @ H @ step / 2 == pytest.approx(agent.delta, rel=1e-2)
    rng = np.random.default_rng(1)
    others = np.concatenate(
        [rng.standard_normal((10000, len(g))), x / np.abs(x).max() + 0.3 * rng.standard_normal((10000, len(g)))]
    )
    others *= np.sqrt(2 * agent.delta / np.einsum("ni,ij,nj->n", others, H, others))[:, None]
    assert (others @ g).max() <= step @ g * 1.01


def test_line_search_rejects_an_uphill_step_and_restores_the_policy():
    agent = make()
    data = batch(agent)
    g, loss = agent.gradient(*data[:4])
    before = agent.get_pi_params().numpy()
    _, loss_after, accepted = agent.line_search(0.01 * g, loss, *data)
    assert not accepted and loss_after == loss
    np.testing.assert_array_equal(agent.get_pi_params(), before)


def test_line_search_shortens_a_step_that_breaks_the_constraint():
    agent = make(delta=0.01, backtrack_iters=60)
    data = batch(agent)
    g, loss = agent.gradient(*data[:4])
    kl, loss_after, accepted = agent.line_search(-10.0 * g, loss, *data)
    assert accepted and 0 < kl <= 0.01 and loss_after < loss
    assert agent.kl(data[0], *data[4:]).numpy() == pytest.approx(float(kl), rel=1e-4)


@pytest.mark.parametrize("k", [0, 3])
def test_line_search_tries_the_whole_step_and_then_k_shorter_ones(k):
    agent = make(delta=1e9, backtrack_iters=k, backtrack_coeff=0.5)
    data, before = batch(agent), agent.get_pi_params().numpy()
    g, loss = agent.gradient(*data[:4])
    losses = iter([loss + 1] * k + [loss - 1])
    agent.pi_loss = lambda *_: next(losses)
    *_, accepted = agent.line_search(-g, loss, *data)
    assert accepted
    np.testing.assert_allclose(agent.get_pi_params(), before - 0.5**k * g, rtol=1e-5)


def test_parameters_round_trip_with_log_std_last():
    agent = make()
    params = np.arange(len(agent.get_pi_params()), dtype=np.float32)
    agent.set_pi_params(params)
    np.testing.assert_array_equal(agent.get_pi_params(), params)
    np.testing.assert_array_equal(agent.log_std, params[-2:])


def test_value_fit_5_34():
    agent = make()
    states, _, returns, *_ = batch(agent)
    expected = np.mean((agent.critic(states).numpy()[:, 0] - returns) ** 2)
    assert agent.train_vf(states, returns).numpy() == pytest.approx(expected, rel=1e-5)
    assert agent.train_vf(states, returns).numpy() < expected


# the run


def test_200_updates_keep_the_constraint_and_never_worsen_the_surrogate():
    env = environments.make("Pendulum-v1", 0)
    agent = TRPO(3, 1, np.float32([2]), batch_size=400, hidden=(16,), c_update_epochs=2)
    accepted_steps = 0
    state, _ = env.reset()
    for _ in range(200):
        while not agent.buf.is_full():
            action, *rest = agent.get_action(state)
            next_state, reward, terminated, truncated, _ = env.step(action)
            agent.buf.store(state, action, 0.1 * reward, *rest)
            state = next_state
            if truncated:
                agent.finish_path(terminated, state)
                state, _ = env.reset()
        data = [x.copy() for x in agent.buf.get()]  # `get` only reads: `update` sees the same
        agent.buf.ptr = agent.buf.max_size
        loss_old, _, _, accepted = agent.update()
        states, actions, adv, _, logp, mean, log_std = data
        new_logp = stats.norm.logpdf(actions, agent.actor(states), np.exp(agent.log_std)).sum(1)
        std, old_std = np.exp(agent.log_std.numpy()), np.exp(log_std)
        kl = np.log(std / old_std) + (old_std**2 + (mean - agent.actor(states).numpy()) ** 2) / (2 * std**2) - 0.5
        assert kl.sum(1).mean() <= agent.delta * 1.001 + 1e-6
        assert -np.mean(np.exp(new_logp - logp) * adv) <= loss_old + 1e-5
        accepted_steps += accepted
    assert accepted_steps > 180


def test_a_time_limit_is_not_an_end(constant):
    """Reward 1 for ever is worth 1 / (1 - gamma) = 10; taken for an end, the limit would halve it."""
    values = {}
    for time_limit_ends in (False, True):
        agent = TRPO(2, 2, None, batch_size=50, lr_c=1e-2, gamma=0.9, hidden=(8,))
        for _ in range(250):
            state, _ = constant.reset()
            done = False
            while not done:
                action, *rest = agent.get_action(state)
                agent.buf.store(state, action, 1.0, *rest)
                state, _, terminated, truncated, _ = constant.step(0)
                done = terminated or truncated
            agent.finish_path(truncated if time_limit_ends else terminated, state)
            if agent.buf.is_full():
                agent.update()
        values[time_limit_ends] = agent.value(np.ones(2))[0]
    assert values[False] == pytest.approx(10, abs=0.5)
    assert values[True] < 8


def run(tmp_path, env_id="Pendulum-v1", **settings):
    config = Config(**{"env": env_id, "out": tmp_path, **PRESETS.get(env_id, {}), **settings})
    env = environments.make(env_id, config.seed)
    agent = TRPO(*environments.dimensions(env), **keywords(config, TRPO))
    train(config, agent, env)
    return agent


def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path):
    settings = dict(seed=3, batch_size=300, hidden=(16,))
    whole = run(tmp_path / "a", steps=2000, **settings).get_pi_params().numpy()
    half = run(tmp_path / "b", steps=1000, **settings).get_pi_params().numpy()
    assert (whole != half).any()
    resumed = run(tmp_path / "b", steps=2000, resume=True, **settings).get_pi_params().numpy()
    np.testing.assert_array_equal(resumed, whole)


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load_bring_back_the_log_std_too(tmp_path, hdf5):
    agent, other = make(seed=1), make(seed=2)
    agent.log_std.assign([0.4, -0.6])
    agent._refresh()
    agent.save(tmp_path, hdf5)
    other.load(tmp_path)
    np.testing.assert_array_equal(agent.get_pi_params(), other.get_pi_params())
    action, _, _, mean, _ = agent.get_action(np.ones(3), greedy=True)
    np.testing.assert_array_equal(action, mean)
    np.testing.assert_array_equal(other.get_action(np.ones(3), greedy=True)[0], action)


def test_discrete_log_probability():
    agent = TRPO(3, 4, None, batch_size=8, hidden=(8,))
    state = np.ones(3, np.float32)
    action, _, logp, logits, _ = agent.get_action(state)
    p = np.exp(logits) / np.exp(logits).sum()
    assert logp == pytest.approx(np.log(p[action]), rel=1e-4)


@pytest.mark.parametrize("env_id, steps, at_least", [("Pendulum-v1", 100_000, -250), ("CartPole-v1", 50_000, 400)])
def test_learns(tmp_path, env_id, steps, at_least):
    agent, env, rewards = run(tmp_path, env_id, steps=steps), environments.make(env_id, 999), []
    for _ in range(30):
        state, _ = env.reset()
        done = False
        rewards.append(0.0)
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True)[0])
            rewards[-1] += reward
            done = terminated or truncated
    assert np.mean(rewards) >= at_least
