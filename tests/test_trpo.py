"""TRPO: GAE, conjugate gradient, Hessian, natural step and line search by independent means, and that it learns."""

import copy

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from scipy import stats
from test_pong import ENDS

from common import environments, vectors
from common.command import UserError, keywords
from trpo.agent import TRPO, GAE_Buffer
from trpo.main import PRESETS, Config, train, train_side_by_side

BOUND = np.array([2.0, 3.0], np.float32)


def make(**settings):
    """A small agent with a log-std of its own for each dimension."""
    agent = TRPO(3, 2, BOUND, **{"hidden": (4,), "batch_size": 64, "damping": 0.0, **settings})
    agent.log_std.assign([0.3, -0.4])
    agent._refresh()
    return agent


def batch(agent, n=64, seed=0):
    """states, actions, adv, old_log_prob, old_mean, old_log_std as the buffer gives them."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n, 3)).astype(np.float32)
    actions, _, logp, mean, log_std = zip(*(agent.get_action(s) for s in states), strict=True)
    adv = rng.standard_normal(n).astype(np.float32)
    return states, np.array(actions), adv, *(np.array(x, np.float32) for x in (logp, mean)), np.tile(log_std[0], (n, 1))


def fill_buffer(agent, seed=0):
    """Made-up steps until the buffer is full, in paths of 16 steps; returns what `get` will give, as copies."""
    rng = np.random.default_rng(seed)
    while not agent.buf.is_full():
        state = rng.standard_normal(3).astype(np.float32)
        action, *rest = agent.get_action(state)
        agent.buf.store(state, action, rng.standard_normal(), *rest)
        if agent.buf.ptr % 16 == 0:
            agent.finish_path(False, state)
    data = [x.copy() for x in agent.buf.get()]  # `get` only reads: `update` sees the same
    agent.buf.ptr = agent.buf.path_start_idx = agent.buf.max_size
    return data


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
    with pytest.raises(RuntimeError, match="full with 4 steps: call finish_path and update first"):
        buf.store([0], [0], 0, 0, 0, [0], [0])
    assert buf.is_full()


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


def test_rewards_are_scaled_in_both_estimates():
    buf = GAE_Buffer(1, 1, 2, gamma=0.9, lam=0.8, reward_scale=0.5)
    buf.store([0], [0], 4.0, 0.3, 0, [0], [0])
    buf.store([0], [0], -2.0, 0.1, 0, [0], [0])
    buf.finish_path(0.7)
    deltas = [2 + 0.9 * 0.1 - 0.3, -1 + 0.9 * 0.7 - 0.1]
    np.testing.assert_allclose(buf.adv_buf, [deltas[0] + 0.72 * deltas[1], deltas[1]], rtol=1e-5)
    np.testing.assert_allclose(buf.ret_buf, [2 + 0.9 * (-1 + 0.9 * 0.7), -1 + 0.9 * 0.7], rtol=1e-5)


def test_equal_advantages_are_normalised_to_0():
    """The listing divides by their deviation, 0."""
    buf = GAE_Buffer(1, 1, 2)
    for _ in range(2):
        buf.store([0], [0], 1.0, 0, 0, [0], [0])
        buf.finish_path(0)
    np.testing.assert_array_equal(buf.get()[2], 0)


@pytest.mark.parametrize("steps, message", [(10, "10 of 64 steps"), (64, "not closed: call finish_path first")])
def test_update_before_the_batch_is_whole_is_refused(steps, message):
    agent = make()
    before = agent.get_pi_params().numpy()
    for i in range(steps):
        action, *rest = agent.get_action(np.full(3, i))
        agent.buf.store(np.full(3, i), action, 1.0, *rest)
    with pytest.raises(RuntimeError, match=message):
        agent.update()
    assert agent.buf.ptr == steps
    np.testing.assert_array_equal(agent.get_pi_params(), before)


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
    agent.log_std.assign([0.9, -1.3])
    std, old_std = np.exp(agent.log_std.numpy()), np.exp(log_std)
    old_new = (np.log(std / old_std) + (old_std**2 + (mean - agent.actor(states)) ** 2) / (2 * std**2) - 0.5).numpy()
    new_old = np.mean(np.sum(np.log(old_std / std) + std**2 / (2 * old_std**2) - 0.5, 1))
    kl = agent.kl(states, mean, log_std).numpy()
    assert kl == pytest.approx(old_new.sum(1).mean(), rel=1e-4)
    assert abs(kl - new_old) > 0.1


@pytest.mark.parametrize("discrete", [False, True])
def test_hvp_equals_the_explicit_hessian_and_damping_is_added(discrete):
    agent = TRPO(3, 3, None, hidden=(4,), damping=0.1) if discrete else make(damping=0.1)
    if discrete:  # logits of several sizes, for at the start they are all near 0
        agent.actor.all_weights[-1].assign([0.4, -0.9, 0.1])
        agent._refresh()
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


@pytest.mark.parametrize("iters, x", [(1, [0.4, 0.4]), (2, [1.0, 0.25])])
def test_cg_takes_as_many_steps_as_it_is_told(iters, x):
    """A = diag(1, 4), b = (1, 1): first (b'b / b'Ab) b = 2/5 b, then the solution."""
    A = tf.constant([[1.0, 0.0], [0.0, 4.0]])
    found = make(cg_iters=iters).cg(lambda v: tf.linalg.matvec(A, v), tf.constant([1.0, 1.0]))
    np.testing.assert_allclose(found, x, rtol=1e-5)


def test_full_step_is_the_best_on_the_quadratic_model_5_29_5_30():
    """No direction of 20,000 random ones gains more within (1/2) d'Hd <= delta."""
    agent = make(damping=0.1, cg_iters=50)
    states, actions, adv, logp, mean, log_std = batch(agent)
    g = -agent.gradient(states, actions, adv, logp)[0].numpy()
    H = explicit_hessian(agent, states, mean, log_std) + 0.1 * np.eye(len(g))
    step = agent.natural_step(tf.constant(g), agent.delta, states, mean, log_std).numpy()
    assert step @ H @ step / 2 == pytest.approx(agent.delta, rel=1e-2)
    rng = np.random.default_rng(1)
    near = step / np.abs(step).max() + 0.3 * rng.standard_normal((10000, len(g)))
    others = np.concatenate([rng.standard_normal((10000, len(g))), near])
    others *= np.sqrt(2 * agent.delta / np.einsum("ni,ij,nj->n", others, H, others))[:, None]
    assert (others @ g).max() <= step @ g * 1.01


def test_full_step_is_equation_5_30():
    """sqrt(2 delta / g'H^-1 g) H^-1 g, with the explicit Hessian and SciPy's solution."""
    agent = make(damping=0.1, cg_iters=50, delta=0.03)
    states, actions, adv, logp, mean, log_std = batch(agent)
    g = -agent.gradient(states, actions, adv, logp)[0].numpy()
    H = explicit_hessian(agent, states, mean, log_std) + 0.1 * np.eye(len(g))
    x = scipy.linalg.solve(H, g)
    expected = np.sqrt(2 * 0.03 / (g @ x)) * x
    step = agent.natural_step(tf.constant(g), agent.delta, states, mean, log_std).numpy()
    assert np.linalg.norm(step - expected) < 0.02 * np.linalg.norm(expected)
    plain = np.sqrt(2 * 0.03 / (g @ H @ g)) * g
    assert np.linalg.norm(step - plain) > 0.2 * np.linalg.norm(expected)  # the plain gradient is another direction


@pytest.mark.parametrize("accepted_at", [0, 2])
def test_the_compiled_update_is_the_steps_that_the_methods_take(accepted_at):
    """The natural step from the gradient, shortened by alpha^j, then the value fit on each minibatch in turn."""
    settings = dict(damping=0.1, delta=0.01, backtrack_coeff=0.5, minibatch_size=16, c_update_epochs=2, lr_c=0.1)
    agent, twin = make(seed=4, **settings), make(seed=4, **settings)
    for each in (agent, twin):
        each.critic_opt.epsilon = 1.0  # Adam's steps then grow with the gradients
    states, actions, adv, returns, logp, mean, log_std = fill_buffer(agent)
    fill_buffer(twin)
    loss_gradient, loss = twin.gradient(states, actions, adv, logp)
    step = twin.natural_step(-loss_gradient, 0.01, states, mean, log_std)
    old = twin.get_pi_params()
    if accepted_at:
        twin.set_pi_params(old + step)
        step *= np.sqrt(8 * 0.01 / float(twin.kl(states, mean, log_std)))  # KL about 8 delta, 2 delta, delta / 2
        agent.natural_step = lambda *_: step
    new = old + 0.5**accepted_at * step
    report = agent.update()
    assert report["accepted"] == 1 and report["actor_loss_before"] == pytest.approx(float(loss), abs=1e-5)
    np.testing.assert_allclose(agent.get_pi_params(), new, rtol=1e-3, atol=1e-5)
    twin.set_pi_params(new)
    assert report["kl"] == pytest.approx(float(twin.kl(states, mean, log_std)), rel=1e-2)
    assert report["actor_loss"] == pytest.approx(float(twin.pi_loss(states, actions, adv, logp)), rel=1e-2)
    assert report["entropy"] == pytest.approx(stats.norm.entropy(0, np.exp([0.3, -0.4])).sum(), rel=1e-5)  # the old's
    batches = twin._minibatches()
    assert batches.shape == (2 * 4, 16)
    losses = [twin.train_vf(states[k], returns[k]) for k in batches]
    assert report["critic_loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    for a, b in zip(agent.critic.trainable_weights, twin.critic.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(agent.policy(states), agent.actor(states), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(agent.value(states), agent.critic(states), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(agent.log_std_now, agent.log_std)


def test_each_epoch_takes_every_step_once():
    agent = make(minibatch_size=16, c_update_epochs=3)
    epochs = agent._minibatches().reshape(3, 64)
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs) and (epochs[0] != epochs[1]).any()


def test_delta_and_learning_rate_fall_linearly():
    agent = make(delta=1e-3, lr_c=4e-3, end_lr=0.5, total_steps=256)
    agent.natural_step = lambda g, delta, *_: delta
    agent.line_search = lambda step, delta, *_: (step, delta, True)  # `update` returns both: as kl and as actor_loss
    seen = []
    for _ in range(6):
        fill_buffer(agent)
        report = agent.update()
        seen.append((report["kl"], report["actor_loss"], float(agent.critic_opt.learning_rate)))
    parts = [1, 0.875, 0.75, 0.625, 0.5, 0.5]  # 64 steps an update, and no less once the steps are over
    np.testing.assert_allclose(seen, [(1e-3 * part, 1e-3 * part, 4e-3 * part) for part in parts], rtol=1e-5)


def test_settings_count_after_the_first_update_too():
    """In a notebook one changes delta between two updates."""
    agent = make()
    fill_buffer(agent)
    assert 1e-3 < agent.update()["kl"] <= 0.02
    agent.delta, agent.lr_c = 1e-5, 0.0
    fill_buffer(agent)
    critic = agent.critic.all_weights[0].numpy()
    assert 0 < agent.update()["kl"] <= 1e-5
    np.testing.assert_array_equal(agent.critic.all_weights[0], critic)
    agent.gamma, agent.gae_lambda, agent.reward_scale = 0.5, 0.25, 3.0
    data = fill_buffer(agent)
    assert data[3][-1] == pytest.approx(3 * agent.buf.rew_buf[-1] + 0.5 * agent.value(data[0][-1])[0], rel=1e-4)
    assert (agent.buf.gamma, agent.buf.lam) == (0.5, 0.25)


def test_line_search_rejects_an_uphill_step_and_restores_the_policy():
    agent = make()
    data = batch(agent)
    g, loss = agent.gradient(*data[:4])
    before = agent.get_pi_params().numpy()
    _, loss_after, accepted = agent.line_search(0.01 * g, agent.delta, loss, *data)
    assert not accepted and loss_after == loss
    np.testing.assert_array_equal(agent.get_pi_params(), before)


def test_line_search_rejects_a_step_that_gains_nothing():
    """The listing takes it."""
    agent = make()
    data = batch(agent)
    loss = agent.pi_loss(*data[:4])
    kl, _, accepted = agent.line_search(tf.zeros_like(agent.get_pi_params()), agent.delta, loss, *data)
    assert not accepted and kl == 0


def test_line_search_shortens_a_step_that_breaks_the_constraint():
    agent = make(delta=0.01, backtrack_iters=60)
    data = batch(agent)
    g, loss = agent.gradient(*data[:4])
    kl, loss_after, accepted = agent.line_search(-10.0 * g, agent.delta, loss, *data)
    assert accepted and 0 < kl <= 0.01 and loss_after < loss
    assert agent.kl(data[0], *data[4:]).numpy() == pytest.approx(float(kl), rel=1e-4)


@pytest.mark.parametrize("k", [0, 3])
def test_line_search_tries_the_whole_step_and_then_k_shorter_ones(k):
    agent = make(delta=1e9, backtrack_iters=k, backtrack_coeff=0.5)
    data, before = batch(agent), agent.get_pi_params().numpy()
    g, loss = agent.gradient(*data[:4])
    losses = iter([loss + 1] * k + [loss - 1])
    agent.pi_loss = lambda *_: next(losses)
    *_, accepted = agent.line_search(-g, agent.delta, loss, *data)
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
            action = agent.act(state)
            next_state, reward, terminated, truncated, _ = env.step(action)
            agent.buf.store(state, action, reward)
            state = next_state
            if truncated:
                agent.finish_path(terminated, state)
                state, _ = env.reset()
        data = [x.copy() for x in agent.buf.get()]  # `get` only reads: `update` sees the same
        agent.buf.ptr = agent.buf.path_start_idx = agent.buf.max_size
        report = agent.update()
        loss_old, accepted = report["actor_loss_before"], report["accepted"]
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
        agent = TRPO(2, 2, None, batch_size=50, lr_c=1e-2, gamma=0.9, reward_scale=1.0, hidden=(8,))
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


@pytest.mark.parametrize("batch_size", [3, 4])  # a batch is full at a true end; at a time limit; both also in between
def test_the_loop_bootstraps_at_limits_and_full_batches_but_not_at_ends(monkeypatch, tmp_path, ends, batch_size):
    """Each path's returns by their definition: the value of its last state, never of the state after a reset."""
    agent, batches = TRPO(2, 2, None, batch_size=batch_size, gamma=0.9, reward_scale=0.5, hidden=(8,)), []

    def value(states):
        return (100 + np.array(states) @ [10, 1])[..., None]

    monkeypatch.setattr(agent, "value", value)
    monkeypatch.setattr(agent, "update", lambda: batches.append([x.copy() for x in agent.buf.get()]))
    train(Config(env="Ends-v0", steps=16, out=tmp_path), agent, ends)
    states, returns = (np.concatenate([batch[i] for batch in batches]) for i in (0, 3))
    steps = [(e, t) for e in range(4) for t in range(1, 4 if e % 2 == 0 else 6)][: len(states)]
    assert len(steps) == 16 // batch_size * batch_size
    np.testing.assert_array_equal(states, [(e, t - 1) for e, t in steps])
    expected, G = [], 0.0
    for i, (e, t) in reversed(list(enumerate(steps, 1))):
        if (e % 2, t) == (0, 3):  # a true end
            G = 0.0
        elif t == 5 or i % batch_size == 0:
            G = value((e, t))[0]
        G = 0.5 * t + 0.9 * G  # the reward is the step's number
        expected.append(G)
    np.testing.assert_allclose(returns, expected[::-1], rtol=1e-5)


def test_side_by_side_bootstraps_at_limits_and_full_batches_but_not_at_ends(monkeypatch, tmp_path):
    """Two environments, 7 steps of each an update; their first episode, cut after 5 steps, is number 1."""
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    sizes = dict(batch_size=14, environments=2, workers=2, gamma=0.9, reward_scale=0.5, hidden=(8,))
    config, batches = Config(env="ends:Ends-v1", steps=26, out=tmp_path, **sizes), []
    agent = TRPO(2, 2, None, **keywords(config, TRPO))

    def value(states):
        return (100 + np.array(states) @ [10, 1])[..., None]

    monkeypatch.setattr(agent, "value", value)
    monkeypatch.setattr(agent, "update", lambda: batches.append([x.copy() for x in agent.buf.get()]))
    train_side_by_side(config, agent, environments.make(config.env, 0))
    first = [[(1, t) for t in range(5)], [(2, 0), (2, 1)]], [False, False]  # paths, and whether the task ended
    second = [[(2, 2)], [(3, t) for t in range(5)], [(4, 0)]], [True, False, False]
    for (states, actions, _, returns, logp, logits, _), (paths, ends) in zip(batches, (first, second), strict=True):
        expected = []
        for path, end in zip(paths, ends, strict=True):
            episode, last = path[-1]
            G, discounted = 0.0 if end else value((episode, last + 1))[0], []
            for _, t in reversed(path):
                G = 0.5 * (t + 1) + 0.9 * G  # the reward is the step's number
                discounted.append(G)
            expected += discounted[::-1]
        np.testing.assert_array_equal(states, [step for path in paths for step in path] * 2)
        np.testing.assert_allclose(returns, expected * 2, rtol=1e-5)
        pi = agent.pi(states)
        np.testing.assert_allclose(logits, pi.logits, atol=1e-6)
        np.testing.assert_allclose(logp, pi.log_prob(actions), atol=1e-6)


def test_side_by_side_resumes_a_run_of_one_process(tmp_path):
    """That one stops after 2 episodes of 200 steps, with 160 steps of a batch of 240."""
    settings = dict(batch_size=240, environments=3, workers=1, hidden=(8,))
    assert run(tmp_path, steps=300, **settings).buf.ptr == 160
    config = Config(train=True, resume=True, out=tmp_path, steps=1000, **settings)
    env = environments.make(config.env, 0)
    agent = TRPO(*environments.dimensions(env), **keywords(config, TRPO))
    train_side_by_side(config, agent, env)
    assert (agent.steps, agent.buf.ptr) == (240 + 3 * 240, 0)


@pytest.mark.parametrize("action_dim, action_bound", [(2, BOUND), (4, None)])
def test_estimates_of_a_path_are_those_of_the_networks(action_dim, action_bound):
    """As TensorFlow Probability has them, whether `finish_path` takes them or `get_action` one by one."""
    agent = TRPO(3, action_dim, action_bound, normalising=True, log_std=-0.7, hidden=(8,), batch_size=9)
    agent.actor.all_weights[-1].assign(tf.linspace(0.2, 0.9, action_dim))
    states = np.random.default_rng(0).normal(2, 3, (9, 3)).astype(np.float32)
    agent.normaliser.update(states)
    agent._refresh()
    twin = copy.deepcopy(agent.rng)
    for i, state in enumerate(states):
        agent.buf.store(state, agent.act(state), 1.0)
        if i in (3, 8):
            agent.finish_path(True, state)
    _, actions, _, _, logp, means, log_stds = agent.buf.get()
    seen = agent.normaliser(states)
    pi, ours = agent.pi(seen), [agent.buf.val_buf, logp, means, log_stds]
    expected = [agent.critic(seen)[:, 0], pi.log_prob(actions)]
    expected += [pi.logits, 0] if action_bound is None else [pi.mean(), -0.7]
    agent.rng = twin
    one_by_one = list(zip(*map(agent.get_action, states), strict=True))
    np.testing.assert_array_equal(np.array(one_by_one[0]), actions)
    for each, other, right in zip(ours, one_by_one[1:], expected, strict=True):
        np.testing.assert_allclose(each, np.zeros_like(each) + right, atol=1e-5)
        np.testing.assert_allclose(np.array(other), each, atol=1e-5)


def test_the_buffer_keeps_the_estimates_that_it_is_given():
    buf = GAE_Buffer(1, 2, size=2)
    buf.store([0], [1, 2], 1.0, 0.3, -4.0, [5, 6], [7, 8])
    buf.store([0], [1, 2], 1.0, 0.4, -9.0, [1, 3], [2, 4])
    buf.finish_path(0.0)
    *_, logp, means, log_stds = buf.get()
    np.testing.assert_array_equal(buf.val_buf, np.float32([0.3, 0.4]))
    np.testing.assert_array_equal(logp, [-4, -9])
    np.testing.assert_array_equal([*means, *log_stds], [[5, 6], [1, 3], [7, 8], [2, 4]])


def test_the_books_own_loop_runs():
    """The main loop of section 5.10.5, with today's signature of reset and step."""
    env = environments.make("Pendulum-v1", 0).unwrapped
    agent = TRPO(env.observation_space.shape[0], env.action_space.shape[0], env.action_space.high, batch_size=100)
    before = agent.log_std.numpy().copy()
    for _ in range(2):
        state, _ = env.reset()
        for _ in range(150):
            action, value, logp, mean, log_std = agent.get_action(state)
            next_state, reward, done, _, _ = env.step(action)
            agent.buf.store(state, action, reward, value, logp, mean, log_std)
            state = next_state
            if agent.buf.is_full():
                agent.finish_path(done, next_state)
                agent.update()
            if done:
                break
        agent.finish_path(done, next_state)
    assert agent.buf.reward_scale == 0.1 and agent.buf.ptr == 0
    assert (agent.log_std.numpy() != before).all()  # the listing neither trains nor saves it


def run(tmp_path, env_id="Pendulum-v1", total_steps=None, **settings):
    config = Config(**{"env": env_id, "out": tmp_path, **PRESETS.get(env_id, {}), **settings})
    env = environments.make(env_id, config.seed)
    agent = TRPO(*environments.dimensions(env), **keywords(config, TRPO), total_steps=total_steps)
    train(config, agent, env)
    return agent


def test_a_mean_through_tanh_stays_within_the_bounds(tmp_path):
    agent, linear = make(mean="tanh"), make()
    for each in (agent, linear):
        each.actor.all_weights[-1].assign([9.0, -9.0])
        each._refresh()
    np.testing.assert_allclose(agent.get_action(np.zeros(3), greedy=True)[0], BOUND * [1, -1], rtol=1e-4)
    assert (np.abs(linear.get_action(np.zeros(3), greedy=True)[0]) > 8 * BOUND).all()
    agent.save(tmp_path)
    with pytest.raises(UserError):
        linear.load(tmp_path)
    assert TRPO(3, 2, None, mean="tanh", hidden=(4,)).actor.all_layers[-1].act is None  # logits have no bounds


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
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    np.testing.assert_array_equal(agent.get_pi_params(), other.get_pi_params())
    action, _, _, mean, _ = agent.get_action(np.ones(3), greedy=True)
    np.testing.assert_array_equal(action, agent.policy(np.ones(3)))
    np.testing.assert_allclose(action, mean, rtol=1e-5)  # of a batch of one
    np.testing.assert_array_equal(other.get_action(np.ones(3), greedy=True)[0], action)


def test_normalising_is_learning_from_states_of_mean_0_and_deviation_1(tmp_path):
    settings = dict(log_std=-0.5, batch_size=49, minibatch_size=7, seed=1)
    agent, twin = TRPO(3, 2, BOUND, normalising=True, **settings), TRPO(3, 2, BOUND, **settings)
    assert agent.log_std_now == pytest.approx(-0.5)
    before, batch = np.random.default_rng(0).normal([5, -2, 0], [2, 1, 30], (2, 50, 3)).astype(np.float32)
    mean, std = before.mean(0), before.std(0)
    agent.normaliser.update(before)
    scaled = agent.normaliser(batch)
    np.testing.assert_allclose(scaled, (batch - mean) / std, rtol=1e-5, atol=1e-6)
    for learner, states in (agent, batch), (twin, scaled):  # a last bit that differs would grow in the update
        for t, state in enumerate(states[:-1]):
            action, *rest = learner.get_action(state)
            learner.buf.store(state, action, t % 3, *rest)
        learner.finish_path(False, states[-1])
        learner.update()  # by the statistics that it acted with
    for name in "actor", "critic":
        mine, its = (vectors.join(getattr(each, name).all_weights) for each in (agent, twin))
        np.testing.assert_allclose(mine, its, atol=1e-6)
    np.testing.assert_allclose(agent.normaliser.mean, np.concatenate([before, batch[:-1]]).mean(0), rtol=1e-5)
    agent.save(tmp_path)
    other = TRPO(3, 2, BOUND, normalising=True)
    other.load(tmp_path)
    np.testing.assert_array_equal(other.policy(batch), agent.policy(batch))
    with pytest.raises(UserError, match="another network: its weights differ in count, mean, var"):
        twin.load(tmp_path)


def test_discrete_surrogate_and_divergence():
    agent = TRPO(3, 4, None, hidden=(8,))
    rng = np.random.default_rng(0)
    states, adv = rng.standard_normal((32, 3)).astype(np.float32), rng.standard_normal(32).astype(np.float32)
    actions, old_logits = rng.integers(4, size=32), rng.standard_normal((32, 4)).astype(np.float32)
    logits = agent.actor(states).numpy()
    new, old = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (logits, old_logits))
    i = np.arange(32), actions
    loss = agent.pi_loss(states, actions, adv, np.log(old[i]))
    assert loss.numpy() == pytest.approx(-np.mean(new[i] / old[i] * adv), rel=1e-4)
    kl = agent.kl(states, old_logits, np.zeros((32, 4), np.float32))
    assert kl.numpy() == pytest.approx(np.mean(np.sum(old * np.log(old / new), 1)), rel=1e-4)


def test_discrete_log_probability():
    agent = TRPO(3, 4, None, batch_size=8, hidden=(8,))
    state = np.ones(3, np.float32)
    action, _, logp, logits, _ = agent.get_action(state)
    p = np.exp(logits) / np.exp(logits).sum()
    assert logp == pytest.approx(np.log(p[action]), rel=1e-4)


@pytest.mark.xla
@pytest.mark.parametrize("env_id, steps, at_least", [("Pendulum-v1", 100_000, -250), ("CartPole-v1", 50_000, 400)])
def test_learns(tmp_path, env_id, steps, at_least):
    agent, env, rewards = run(tmp_path, env_id, steps, steps=steps), environments.make(env_id, 999), []
    for _ in range(30):
        state, _ = env.reset()
        done = False
        rewards.append(0.0)
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True)[0])
            rewards[-1] += reward
            done = terminated or truncated
    assert np.mean(rewards) >= at_least
