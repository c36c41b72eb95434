"""PPO: losses by independent arithmetic, what the printed listing gets wrong, and that it learns."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

from common import command, environments, vectors
from ppo.agent import PPO
from ppo.main import PRESETS, Config, train

BOUND = np.array([2.0, 3.0], np.float32)


def make(method="clip", **settings):
    return PPO(3, 2, BOUND, method, **{"hidden": (8,), **settings})


def batch(n=32, seed=0):
    rng = np.random.default_rng(seed)
    state, action = (rng.standard_normal((n, d)).astype(np.float32) for d in (3, 2))
    return state, action, rng.standard_normal(n).astype(np.float32)


def shifted(agent, state):
    """An old policy that differs from the agent's in mean and log-std."""
    return agent.distribution(agent.actor(state) + 0.3, agent.log_std + 0.2)


def joint_ratio(agent, state, action):
    """pi / pi_old as the product over the action's dimensions, by SciPy."""
    mean, std = agent.actor(state).numpy(), np.exp(agent.log_std.numpy())
    old_mean, old_std = mean + 0.3, std * np.exp(0.2)
    return (stats.norm.pdf(action, mean, std) / stats.norm.pdf(action, old_mean, old_std)).prod(1)


def test_clip_loss_is_equation_5_38():
    agent, (state, action, adv) = make(), batch()
    ratio = joint_ratio(agent, state, action)
    expected = -np.mean([min(r * a, min(max(r, 0.8), 1.2) * a) for r, a in zip(ratio, adv, strict=True)])
    assert agent.train_actor(state, action, adv, shifted(agent, state)).numpy() == pytest.approx(expected, rel=1e-4)
    assert (ratio > 1.2).any() and (ratio < 0.8).any()  # both sides of the clip were met


def test_penalty_loss_is_equation_5_37():
    agent, (state, action, adv) = make("penalty", lam=0.7), batch()
    ratio = joint_ratio(agent, state, action)
    std = np.exp(agent.log_std.numpy())
    old_std = std * np.exp(0.2)
    kl_old_new = np.sum(np.log(std / old_std) + (old_std**2 + 0.3**2) / (2 * std**2) - 0.5)  # closed form, old first
    expected = -(np.mean(ratio * adv) - 0.7 * kl_old_new)
    assert agent.train_actor(state, action, adv, shifted(agent, state)).numpy() == pytest.approx(expected, rel=1e-4)


def test_ratio_is_joint_over_action_dimensions():
    """The printed listing takes one ratio for each dimension, and clips each on its own."""
    agent, (state, action, adv) = make(), batch()
    pi, old = agent.pi(state), shifted(agent, state)
    per_dimension = tf.exp(pi.distribution.log_prob(action) - old.distribution.log_prob(action))
    printed = -np.mean(np.minimum(per_dimension * adv[:, None], np.clip(per_dimension, 0.8, 1.2) * adv[:, None]))
    assert abs(agent.train_actor(state, action, adv, old).numpy() - printed) > 1e-3


@pytest.mark.parametrize("method", ["clip", "penalty"])
def test_the_gradient_is_that_of_finite_differences(method, monkeypatch):
    """Of the loss by SciPy, with KL and the bonus for entropy, in a bias of the means and in the deviations."""
    agent, (state, action, adv) = make(method, lam=0.7, entropy=0.3), batch()
    old_mean, old_log_std, old = agent.actor(state).numpy() + 0.3, agent.log_std.numpy() + 0.2, shifted(agent, state)

    def loss(variable, value):
        variable.assign(value)
        mean, log_std = agent.actor(state).numpy().astype(float), agent.log_std.numpy().astype(float)
        std, old_std = np.exp(log_std), np.exp(old_log_std)
        ratio = np.exp((stats.norm.logpdf(action, mean, std) - stats.norm.logpdf(action, old_mean, old_std)).sum(1))
        if method == "clip":
            surrogate = np.minimum(ratio * adv, np.clip(ratio, 0.8, 1.2) * adv)
        else:
            kl = np.log(std / old_std) + (old_std**2 + (old_mean - mean) ** 2) / (2 * std**2) - 0.5
            surrogate = ratio * adv - 0.7 * kl.sum(1)
        return -np.mean(surrogate) - 0.3 * stats.multivariate_normal.entropy(np.zeros(2), np.diag(std**2))

    seen = []
    monkeypatch.setattr(agent.actor_opt, "apply", seen.append)
    agent.train_actor(state, action, adv, old)
    for variable, gradient in zip(agent.actor_weights[-2:], seen[0][-2:], strict=True):
        start, steps = variable.numpy(), 1e-3 * np.eye(2)
        slope = [(loss(variable, start + step) - loss(variable, start - step)) / 2e-3 for step in steps]
        variable.assign(start)
        np.testing.assert_allclose(gradient, slope, rtol=0.02, atol=1e-3)


def test_critic_loss_is_equation_5_34():
    agent, (state, _, returns) = make(), batch()
    expected = np.mean((agent.critic(state).numpy()[:, 0] - returns) ** 2)
    assert agent.train_critic(returns, state).numpy() == pytest.approx(expected, rel=1e-5)
    assert (
        agent.train_critic(returns[:, None], state).numpy() < expected
    )  # the book's column of returns, one step later


def test_discrete_clip_loss():
    agent = PPO(3, 4, None, hidden=(8,))
    state, _, adv = batch()
    action = np.arange(32) % 4
    logits = agent.actor(state).numpy()
    old_logits = logits + np.array([0.5, 0, 0, -0.5], np.float32)
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (logits, old_logits))
    ratio = (p / q)[np.arange(32), action]
    expected = -np.mean(np.minimum(ratio * adv, np.clip(ratio, 0.8, 1.2) * adv))
    loss = agent.train_actor(state, action, adv, tfd.Categorical(logits=old_logits))
    assert loss.numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kl, factor", [(0.001, 0.5), (0.0066, 0.5), (0.0068, 1), (0.0149, 1), (0.0151, 2), (1.0, 2)])
def test_lambda_adapts_as_in_algorithm_5_23(kl, factor):
    agent = make("penalty", kl_target=0.01, lam=0.5)
    agent._adapt_lam(kl)
    assert agent.lam.numpy() == 0.5 * factor


def fill(agent, n=64, seed=1):
    """One finished path of n made-up steps; returns its states."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n, 3)).astype(np.float32)
    for state in states:
        agent.store_transition(state, agent.get_action(state), rng.standard_normal())
    agent.finish_path(np.zeros(3), True)
    return states


def test_lambda_adapts_to_the_divergence_of_new_from_old(monkeypatch):
    """KL(old || new) over the batch; the other direction is another number."""
    agent, seen = make("penalty", lr_a=3e-2, kl_target=1e9), []
    states = fill(agent)
    monkeypatch.setattr(agent, "_adapt_lam", seen.append)
    mean, std = agent.actor(states).numpy(), np.exp(agent.log_std.numpy())
    agent.update()
    new_mean, new_std = agent.actor(states).numpy(), np.exp(agent.log_std.numpy())

    def kl(m0, s0, m1, s1):
        return np.mean(np.sum(np.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5, 1))

    assert seen[0] == pytest.approx(kl(mean, std, new_mean, new_std), rel=1e-3)
    assert abs(seen[0] / kl(new_mean, new_std, mean, std) - 1) > 0.05


@pytest.mark.parametrize("method", ["clip", "penalty"])
def test_the_compiled_update_is_the_steps_that_the_methods_take(monkeypatch, method):
    """M actor steps against one old policy, then B critic steps, on normalised advantages, each on a minibatch."""
    settings = dict(lr_a=2e-2, a_update_epochs=3, c_update_epochs=2, minibatch_size=16, lam=1e-3, end_lr=1.0, seed=4)
    agent, twin = make(method, **settings), make(method, **settings)
    drawn, minibatches = [], agent._minibatches
    monkeypatch.setattr(agent, "_minibatches", lambda epochs: drawn.append(minibatches(epochs)) or drawn[-1])
    states = fill(agent)
    actions, returns = np.array(agent.action_buffer), np.array(agent.cumulative_reward_buffer, np.float32)
    adv = np.array(agent.adv_buffer)
    adv = ((adv - np.mean(adv)) / np.std(adv)).astype(np.float32)
    report = agent.update()

    (actor_batches, critic_batches), old_mean, old_log_std = drawn, twin.actor(states), tf.identity(twin.log_std)
    assert (len(actor_batches), len(critic_batches)) == (3 * 4, 2 * 4)
    actor_losses, critic_losses = [], []
    for k in actor_batches:
        old_pi = twin.distribution(tf.gather(old_mean, k), old_log_std)
        actor_losses.append(twin.train_actor(states[k], actions[k], adv[k], old_pi))
    for k in critic_batches:
        critic_losses.append(twin.train_critic(returns[k], states[k]))
    assert report["actor_loss"] == pytest.approx(np.mean(actor_losses), rel=1e-3)
    assert report["critic_loss"] == pytest.approx(np.mean(critic_losses), rel=1e-3)
    for a, b in zip(agent.actor_weights, twin.actor_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(agent.critic.trainable_weights, twin.critic.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert abs(twin.actor(states) - old_mean).numpy().max() > 0.3  # far enough to tell one old policy from another


@pytest.mark.parametrize("method", ["clip", "penalty"])
def test_the_report_tells_the_new_policy_from_the_old(method):
    agent = make(method, lr_a=2e-2, a_update_epochs=2, minibatch_size=16, epsilon=0.3, lam=0.7, kl_target=1e9)
    agent.log_std.assign([0.4, -0.6])
    agent._refresh()
    states, std = fill(agent), np.exp([0.4, -0.6])
    actions, mean = np.array(agent.action_buffer), agent.actor(states).numpy()
    report = agent.update()
    new_mean, new_std = agent.actor(states).numpy(), np.exp(agent.log_std.numpy())
    ratio = np.prod(stats.norm.pdf(actions, new_mean, new_std) / stats.norm.pdf(actions, mean, std), 1)
    outside = np.mean((ratio < 0.7) | (ratio > 1.3))
    assert report["clip_fraction"] == outside and 0.1 < outside < 0.9 and (ratio < 0.7).any() and (ratio > 1.3).any()
    assert report["entropy"] == pytest.approx(stats.norm.entropy(mean[0], std).sum(), rel=1e-5)
    kl = np.log(new_std / std) + (std**2 + (mean - new_mean) ** 2) / (2 * new_std**2) - 0.5
    assert report["kl"] == pytest.approx(np.mean(kl.sum(1)), rel=1e-3)
    assert report.get("lam") == (pytest.approx(0.7) if method == "penalty" else None)  # what it used; now it is 0.35


def test_each_epoch_takes_every_step_once():
    agent = make(minibatch_size=16)
    agent.state_buffer = list(range(64))
    epochs = agent._minibatches(3).reshape(3, 64)
    assert all(sorted(epoch) == list(range(64)) for epoch in epochs) and (epochs[0] != epochs[1]).any()


def test_learning_rates_fall_linearly():
    agent = make(lr_a=1e-3, lr_c=4e-3, end_lr=0.5, total_steps=256)
    rates = []
    for _ in range(6):
        fill(agent)
        agent.update()
        rates.append((float(agent.actor_opt.learning_rate), float(agent.critic_opt.learning_rate)))
    parts = [1, 0.875, 0.75, 0.625, 0.5, 0.5]  # 64 steps an update, and no less once the steps are over
    np.testing.assert_allclose(rates, [(1e-3 * part, 4e-3 * part) for part in parts], rtol=1e-5)


def test_settings_count_after_the_first_update_too():
    """In a notebook one changes epsilon between two updates."""

    def moved(epsilon):
        agent = make(lr_a=1e-2, seed=3)
        fill(agent)
        agent.update()
        agent.epsilon = epsilon
        states = fill(agent)
        old = agent.pi(states)
        agent.update()
        return float(np.mean(old.kl_divergence(agent.pi(states))))

    assert moved(1e-4) < moved(0.2) / 2


def test_a_setting_that_was_none_may_become_a_number():
    agent = make(total_steps=None)
    for total_steps in None, 64 / 0.5:  # half of the budget is over at the second update
        agent.total_steps = total_steps
        fill(agent)
        agent.update()
    assert float(agent.actor_opt.learning_rate) == pytest.approx(agent.lr_a / 2)


@pytest.mark.parametrize("stored", [0, 5])
def test_update_without_a_finished_path_is_refused(stored):
    agent = make()
    for _ in range(stored):
        agent.store_transition(np.zeros(3), np.zeros(2), 1.0)
    with pytest.raises(RuntimeError, match="call finish_path"):
        agent.update()
    assert len(agent.state_buffer) == stored


def test_lambda_adapts_in_training_and_reaches_the_compiled_loss():
    """The listing calls the method 'penalty' in one place and 'kl_pen' in another: lambda never moves."""
    agent = make("penalty", lam=0.5, a_update_epochs=1)
    rng = np.random.default_rng(1)

    def one_update():
        for _ in range(64):
            agent.store_transition(
                rng.standard_normal(3), rng.standard_normal(2).astype(np.float32), rng.standard_normal()
            )
        agent.finish_path(np.zeros(3), True)
        agent.update()

    one_update()
    assert agent.lam.numpy() in (0.25, 1.0)
    agent.lam = 1e9  # were lambda a constant of the compiled graph, this would change nothing
    before = agent.pi(np.zeros((1, 3), np.float32))
    agent.a_update_epochs = 20
    one_update()
    assert agent.lam.numpy() == 5e8  # the divergence was far below its target
    moved_little = before.kl_divergence(agent.pi(np.zeros((1, 3), np.float32))).numpy()[0]
    agent.lam = 0.0
    one_update()
    assert before.kl_divergence(agent.pi(np.zeros((1, 3), np.float32))).numpy()[0] > 3 * moved_little


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="kl_pen"):
        make("kl_pen")


def play_path(agent, rewards, done):
    rng = np.random.default_rng(2)
    states = rng.standard_normal((len(rewards) + 1, 3)).astype(np.float32)
    for state, reward in zip(states, rewards, strict=False):
        agent.store_transition(state, np.zeros(2, np.float32), reward)
    agent.finish_path(states[-1], done)
    return agent.critic(states).numpy()[:, 0]


def test_entropy_is_part_of_the_objective():
    """What it adds to both losses, by SciPy: of a Gaussian for both dimensions, of a choice by its probabilities."""
    (state, action, adv), logits = batch(), np.array([0.0, 2.0, -1.0], np.float32)
    gaussian = stats.multivariate_normal.entropy(np.zeros(2), np.diag(np.exp([1.0, -1.4])))
    choice = stats.entropy(np.exp(logits))
    for bound, method, expected in (BOUND, "clip", gaussian), (BOUND, "penalty", gaussian), (None, "clip", choice):
        losses = []
        for entropy in (0.0, 0.3):
            agent = PPO(3, 2 if bound is not None else 3, bound, method, hidden=(8,), entropy=entropy)
            agent.log_std.assign([0.5, -0.7] if bound is not None else [])
            agent.actor.all_weights[-2].assign(tf.zeros_like(agent.actor.all_weights[-2]))
            if bound is None:
                agent.actor.all_weights[-1].assign(logits)
            old = agent.pi(state)
            losses.append(
                agent.train_actor(state, action if bound is not None else np.arange(32) % 3, adv, old).numpy()
            )
        assert losses[0] - losses[1] == pytest.approx(0.3 * expected, rel=1e-4)


@pytest.mark.parametrize("done", [True, False])
def test_lambda_1_gives_the_books_discounted_sum(done):
    agent = make(gamma=0.9, gae_lambda=1.0, reward_scale=1.0)
    value = play_path(agent, [1.0, -2.0, 0.5], done)
    tail = 0.0 if done else value[3]
    expected = [1 + 0.9 * (-2 + 0.9 * (0.5 + 0.9 * tail)), -2 + 0.9 * (0.5 + 0.9 * tail), 0.5 + 0.9 * tail]
    np.testing.assert_allclose(agent.cumulative_reward_buffer, expected, rtol=1e-5)
    np.testing.assert_allclose(agent.adv_buffer, expected - value[:3], rtol=1e-4)


def test_advantage_by_hand():
    agent = make(gamma=0.9, gae_lambda=0.8, reward_scale=0.5)
    v = play_path(agent, [1.0, -2.0], False)
    delta = [0.5 + 0.9 * v[1] - v[0], -1.0 + 0.9 * v[2] - v[1]]
    np.testing.assert_allclose(agent.adv_buffer, [delta[0] + 0.72 * delta[1], delta[1]], rtol=1e-5)


def test_the_critic_learns_the_discounted_sum_whatever_lambda_is():
    agent = make(gamma=0.9, gae_lambda=0.5, reward_scale=0.5)
    play_path(agent, [1.0, -2.0, 4.0], True)
    np.testing.assert_allclose(agent.cumulative_reward_buffer, [0.5 + 0.9 * (-1 + 0.9 * 2), -1 + 0.9 * 2, 2], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 4, 7])  # a batch is full at a true end; at a time limit; in between
def test_the_loop_closes_a_path_at_ends_limits_and_full_batches(monkeypatch, tmp_path, ends, batch_size):
    """done is a true end only, and the state is the last one of the episode, not the first one of the next."""
    closed, original = [], PPO.finish_path

    def finish_path(self, state, done):
        if self.reward_buffer:  # else there is no path to close
            closed.append((*state, done))
        original(self, state, done)

    monkeypatch.setattr(PPO, "finish_path", finish_path)
    config = Config(train=True, env="Ends-v0", steps=16, batch_size=batch_size, hidden=(8,), out=tmp_path)
    train(config, PPO(2, 2, None, hidden=(8,)), ends)
    steps = [(e, t, t == 3 and e % 2 == 0) for e in range(4) for t in range(1, 4 if e % 2 == 0 else 6)]
    assert closed == [(e, t, done) for i, (e, t, done) in enumerate(steps, 1) if done or t == 5 or i % batch_size == 0]


def test_a_time_limit_is_not_an_end(constant):
    """Reward 1 for ever is worth 1 / (1 - gamma) = 10; taken for an end, the limit would halve it."""
    values = {}
    for time_limit_ends in (False, True):
        agent = PPO(2, 2, None, gamma=0.9, reward_scale=1.0, lr_c=1e-2, hidden=(8,))
        for _ in range(250):
            state, _ = constant.reset()
            done = False
            while not done:
                agent.store_transition(state, 0, 1.0)
                state, _, terminated, truncated, _ = constant.step(0)
                done = terminated or truncated
            agent.finish_path(state, truncated if time_limit_ends else terminated)
            if len(agent.state_buffer) >= 50:
                agent.update()
        values[time_limit_ends] = agent.value(np.ones(2))[0]
    assert values[False] == pytest.approx(10, abs=0.5)
    assert values[True] < 8


def test_stored_action_is_the_sampled_one():
    """The listing clips first and then takes the likelihood of the clipped action under the unclipped Gaussian."""
    agent = make()
    agent.log_std.assign([3.0, 3.0])
    agent._refresh()
    actions = np.array([agent.get_action(np.zeros(3)) for _ in range(2000)])
    assert (np.abs(actions) > BOUND).mean() > 0.5
    np.testing.assert_allclose(actions.std(0), np.exp(3.0), rtol=0.1)


def test_sampling_frequencies_of_discrete_actions():
    agent = PPO(3, 3, None, hidden=(8,))
    state = np.array([1.0, -1.0, 0.5], np.float32)
    agent.actor.all_weights[-1].assign([0.0, 1.0, -1.0])
    agent._refresh()
    logits = agent.actor(state[None]).numpy()[0].astype(float)
    counts = np.bincount([agent.get_action(state) for _ in range(6000)], minlength=3)
    expected = 6000 * np.exp(logits) / np.exp(logits).sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-4
    assert agent.get_action(state, greedy=True) == np.argmax(logits)


def test_update_changes_every_trainable_weight_and_acting_none():
    agent = make()
    state, _, reward = batch(64)
    before = [variable.numpy() for variable in (*agent.actor_weights, *agent.critic.trainable_weights)]
    for s, r in zip(state, reward, strict=True):
        agent.store_transition(s, agent.get_action(s), r)
    agent.finish_path(state[0], False)
    after_acting = [variable.numpy() for variable in (*agent.actor_weights, *agent.critic.trainable_weights)]
    assert all((a == b).all() for a, b in zip(before, after_acting, strict=True))
    agent.update()
    after = [variable.numpy() for variable in (*agent.actor_weights, *agent.critic.trainable_weights)]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    np.testing.assert_allclose(agent.policy(state), agent.actor(state), rtol=1e-5, atol=1e-6)
    assert agent.state_buffer == agent.action_buffer == agent.reward_buffer == agent.cumulative_reward_buffer == []


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load_bring_back_everything_that_acts(tmp_path, hdf5):
    agent, other = make(seed=1), make(seed=2)
    agent.log_std.assign([0.4, -0.6])
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    assert other.log_std.numpy().tolist() == agent.log_std.numpy().tolist()
    np.testing.assert_array_equal(other.std, np.exp(agent.log_std.numpy()))
    states = batch()[0]
    np.testing.assert_array_equal(other.policy(states), agent.policy(states))
    np.testing.assert_array_equal(other.value(states), agent.value(states))


def test_normalising_is_learning_from_states_of_mean_0_and_deviation_1(tmp_path):
    agent, twin = make(normalising=True, log_std=-0.5, seed=1), make(log_std=-0.5, seed=1)
    assert agent.std == pytest.approx(np.exp(-0.5))
    before, batch = np.random.default_rng(0).normal([5, -2, 0], [2, 1, 30], (2, 50, 3)).astype(np.float32)
    mean, std = before.mean(0), before.std(0)
    agent.normaliser.update(before)
    scaled = agent.normaliser(batch)
    np.testing.assert_allclose(scaled, (batch - mean) / std, rtol=1e-5, atol=1e-6)
    for learner, states in (agent, batch), (twin, scaled):  # a last bit that differs would grow in the update
        for state in states[:-1]:
            learner.store_transition(state, learner.get_action(state), 1.0)
        learner.finish_path(states[-1], False)
        learner.update()  # by the statistics that it acted with
    for name in "actor", "critic":
        mine, its = (vectors.join(getattr(each, name).all_weights) for each in (agent, twin))
        np.testing.assert_allclose(mine, its, atol=1e-6)
    np.testing.assert_allclose(agent.normaliser.mean, np.concatenate([before, batch[:-1]]).mean(0), rtol=1e-5)
    agent.save(tmp_path)
    other = make(normalising=True)
    other.load(tmp_path)
    np.testing.assert_array_equal(other.policy(batch), agent.policy(batch))
    with pytest.raises(command.UserError, match="another network: its weights differ in count, mean, var"):
        twin.load(tmp_path)


def test_the_hidden_layers_are_of_tanh_or_relu_and_do_not_load_as_one_another(tmp_path):
    state = batch()[0]
    for act, function in ("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0)):
        agent = make(act=act, seed=1)
        for model in agent.actor, agent.critic:
            W, b, V, c = (weight.numpy() for weight in model.all_weights)
            scale = BOUND if model is agent.actor else 1
            np.testing.assert_allclose(model(state), (function(state @ W + b) @ V + c) * scale, atol=1e-5)
        agent.save(tmp_path / act)
        agent.load(tmp_path / act)
    with pytest.raises(command.UserError, match="another network"):
        agent.load(tmp_path / "tanh")


def run_training(tmp_path, resume=False, **settings):
    config = Config(train=True, out=tmp_path, seed=3, batch_size=300, hidden=(16,), resume=resume, **settings)
    env = environments.make(config.env, config.seed)
    agent = PPO(*environments.dimensions(env), **command.keywords(config, PPO))
    train(config, agent, env)
    return np.concatenate([w.numpy().ravel() for w in (*agent.actor_weights, *agent.critic.all_weights)])


def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path):
    whole = run_training(tmp_path / "a", steps=2000)
    again = run_training(tmp_path / "b", steps=1000)
    assert (whole != again).any()
    np.testing.assert_array_equal(run_training(tmp_path / "b", steps=2000, resume=True), whole)


def test_the_books_own_loop_runs():
    """The main loop of section 5.10.6, with today's signature of reset and step."""
    env = environments.make("Pendulum-v1", 0).unwrapped
    agent = PPO(env.observation_space.shape[0], env.action_space.shape[0], env.action_space.high)
    before = agent.log_std.numpy().copy()
    for _ in range(2):
        state, _ = env.reset()
        for _ in range(200):
            action = agent.get_action(state)
            state_, reward, done, _, _ = env.step(action)
            agent.store_transition(state, action, reward)
            state = state_
            if len(agent.state_buffer) >= 100:
                agent.finish_path(state_, done)
                agent.update()
            if done:
                break
        agent.finish_path(state_, done)
    assert (agent.log_std.numpy() != before).all()  # the listing neither trains nor saves it


def greedy_mean(agent, env_id, episodes):
    env, total = environments.make(env_id, 999), 0.0
    for _ in range(episodes):
        state, _ = env.reset()
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True))
            total += reward
            done = terminated or truncated
    return total / episodes


@pytest.mark.xla
@pytest.mark.parametrize(
    "env_id, method, at_least",
    [("Pendulum-v1", "clip", -250), ("Pendulum-v1", "penalty", -250), ("CartPole-v1", "clip", 475)],
)
def test_learns(tmp_path, env_id, method, at_least):
    config = Config(**{"env": env_id, "method": method, "out": tmp_path, **PRESETS.get(env_id, {})})
    env = environments.make(env_id, 0)
    agent = PPO(*environments.dimensions(env), **command.keywords(config, PPO), total_steps=config.steps)
    train(config, agent, env)
    assert greedy_mean(agent, env_id, 50) >= at_least
