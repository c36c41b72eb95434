"""REINFORCE: returns and gradients by independent arithmetic, baselines, and that it learns."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from common import command, environments, playing
from reinforce.agent import PolicyGradient
from reinforce.main import PRESETS, Config, train
from reinforce.main import test as play_with_weights


def make(**settings):
    return PolicyGradient(3, 2, **{"reward_scale": 1.0, "hidden": (8,), **settings})


def spy(agent):
    """The arguments and the results of each of the agent's compiled updates, as they come."""
    seen, update = [], agent._update
    agent._update = lambda *arguments: seen.append((arguments, update(*arguments))) or seen[-1][1]
    return seen


def play_path(agent, rewards, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((len(rewards) + 1, 3)).astype(np.float32)
    for state, reward in zip(states, rewards, strict=False):
        agent.store_transition(state, rng.integers(2), reward)
    return states


def probabilities(agent, states):
    logits = agent.actor(states).numpy().astype(float)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_returns_by_hand():
    agent = make(gamma=0.5, baseline="none")
    play_path(agent, [1.0, 2.0, 4.0])
    agent.finish_path()
    play_path(agent, [8.0])
    np.testing.assert_allclose(agent._discount_and_norm_rewards(), [3.0, 4.0, 4.0, 8.0])


def test_rewards_are_scaled_and_the_value_of_what_was_cut_is_not():
    agent = make(gamma=0.5, baseline="value", reward_scale=0.1)
    states = play_path(agent, [10.0, 20.0, 40.0])
    tail = agent.critic(states).numpy()[3, 0]
    agent.finish_path(states[3], False)
    np.testing.assert_allclose(agent.return_buffer, [3 + tail / 8, 4 + tail / 4, 4 + tail / 2], rtol=1e-5)


def test_normalised_returns_by_hand():
    agent = make(gamma=0.5)
    play_path(agent, [1.0, 2.0, 4.0])
    np.testing.assert_allclose(agent._discount_and_norm_rewards(), [-2 / 2**0.5, 1 / 2**0.5, 1 / 2**0.5], atol=1e-6)
    play_path(agent, [8.0])  # normalised is the batch, not each path
    returns = np.array([3.0, 4.0, 4.0, 8.0])
    np.testing.assert_allclose(
        agent._discount_and_norm_rewards(), (returns - 4.75) / np.sqrt(np.mean((returns - 4.75) ** 2)), atol=1e-6
    )


def test_equal_returns_do_not_divide_by_zero():
    """The printed listing divides by the deviation as it is."""
    agent = make()
    play_path(agent, [1.0])
    agent.learn()
    assert np.isfinite(agent.policy(np.zeros(3))).all()


@pytest.mark.parametrize("gamma_t, entropy", [(False, 0.0), (True, 0.0), (False, 0.3)])
def test_loss_is_equation_5_2_over_a_batch_of_paths(gamma_t, entropy):
    """Two paths of different lengths, padded; the loss is the sum over steps divided by the number of paths."""
    agent = make(gamma=0.5, baseline="none", gamma_t=gamma_t, entropy=entropy)
    agent.actor.all_weights[-2].assign(100 * agent.actor.all_weights[-2])  # a policy that is not all but uniform
    first = play_path(agent, [1.0, 2.0, 4.0])
    agent.finish_path()
    second = play_path(agent, [8.0], seed=1)
    states, actions = np.concatenate([first[:3], second[:1]]), np.array(agent.action_buffer)
    pi = probabilities(agent, states)
    H = -np.sum(pi * np.log(pi))
    pi = pi[np.arange(4), actions]
    weight = np.array([3.0, 4.0, 4.0, 8.0]) * ([1, 0.5, 0.25, 1] if gamma_t else 1)
    report = agent.learn()
    assert report["actor_loss"] == pytest.approx(-(np.sum(np.log(pi) * weight) + entropy * H) / 2, rel=1e-4)
    assert report["entropy"] == pytest.approx(H / 4, rel=1e-4)  # a step's, without the padding
    assert report.keys() == {"actor_loss", "entropy"}


def test_loss_is_equation_5_3_and_the_baseline_is_fitted_after_it():
    """A path that ended and one that was cut; b(s) is what it was before its own step."""
    agent = make(gamma=0.5, baseline="value", c_update_epochs=1)
    first = play_path(agent, [1.0, 2.0, 4.0])
    agent.finish_path()
    second = play_path(agent, [8.0, 16.0], seed=1)
    agent.finish_path(second[2], False)
    states, actions = np.concatenate([first[:3], second[:2]]), np.array(agent.action_buffer)
    value = agent.critic(np.concatenate([states, second[2:]])).numpy()[:, 0].astype(float)
    returns = np.array([3, 4, 4, 16 + value[-1] / 4, 16 + value[-1] / 2])
    log_pi = np.log(probabilities(agent, states)[np.arange(5), actions])
    seen, advantage = spy(agent), returns - value[:-1]
    report = agent.learn()
    np.testing.assert_allclose(seen[0][0][2][:5], advantage, rtol=1e-4)
    assert report["actor_loss"] == pytest.approx(-np.sum(log_pi * advantage) / 2, rel=1e-4)
    assert report["critic_loss"] == pytest.approx(np.mean(advantage**2), rel=1e-4)


def test_the_baselines_loss_is_the_mean_over_its_steps():
    agent, twin = (make(baseline="value", c_update_epochs=3, lr_c=0.1) for _ in range(2))
    play_path(agent, [1.0, 2.0, 4.0])
    seen = spy(agent)
    report = agent.learn()
    states, _, _, returns, mask, *_ = seen[0][0]
    losses = [float(twin.train_critic(returns, states, mask)) for _ in range(3)]
    assert report["critic_loss"] == pytest.approx(np.mean(losses), rel=1e-3) and losses[2] < 0.9 * losses[0]


def test_the_entropy_term_has_its_gradient():
    agent, found = make(entropy=0.3), []
    agent.actor_opt = SimpleNamespace(apply=lambda gradients: found.append(gradients[-1].numpy()))
    states = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    agent.actor.all_weights[-1].assign([0.5, -0.5])
    agent.train_actor(states, np.zeros(4, int), np.zeros(4), np.array([1, 1, 1, 0]), 2.0)
    p = probabilities(agent, states[:3])
    H = -(p * np.log(p)).sum(1, keepdims=True)
    np.testing.assert_allclose(found[0], 0.3 * (p * (np.log(p) + H)).sum(0) / 2, rtol=1e-4)


def test_baseline_is_unbiased_as_equation_5_4_says():
    """Monte Carlo: the gradient of any b(s) averages to zero, and a good one lowers the variance, Eq. (5.5)."""
    agent, rng, found = make(), np.random.default_rng(0), []
    agent.actor.all_weights[-1].assign([0.5, -0.5])
    agent._refresh()
    agent.actor_opt = SimpleNamespace(apply=lambda gradients: found.append(-gradients[-1].numpy()[1]))
    state, batch, batches = np.array([1.0, -1.0, 0.5], np.float32), 100, 200
    p = probabilities(agent, state[None])[0, 1]
    actions = np.array([[agent.get_action(state) for _ in range(batch)] for _ in range(batches)], np.int32)

    def gradient(weight):
        """dJ / d bias_1 of each batch, [batches]."""
        found.clear()
        for a, w in zip(actions, weight, strict=True):
            agent.train_actor(np.tile(state, (batch, 1)), a, w.astype(np.float32), np.ones(batch), float(batch))
        return np.array(found)

    error = np.sqrt(p * (1 - p) / actions.size)
    assert gradient(np.full(actions.shape, 7.0)).mean() == pytest.approx(0, abs=4 * 7 * error)
    assert gradient(7.0 + actions).mean() == pytest.approx(p * (1 - p), abs=4 * 8 * error)  # it knows the action
    rewards = 5.0 + actions + rng.standard_normal(actions.shape)
    plain, based = gradient(rewards), gradient(rewards - 5.5)
    assert plain.mean() == pytest.approx(based.mean(), abs=4 * 5.5 * error)
    assert based.var() < plain.var() / 5


@pytest.mark.parametrize("baseline, expected", [("none", 0.25), ("value", 0.25), ("normalise", -0.1871)])
def test_the_mean_gradient_of_a_bandit(baseline, expected):
    """All 81 batches of 4, each with its probability: V(s) leaves the mean alone, normalising turns it round here.

    One arm pays 1, the other 10 with probability 1/5 and else nothing; the policy takes both alike.
    """
    agent, found = make(baseline=baseline), []
    agent.critic.all_weights[-1].assign([1.5])  # b(s), as the state is 0
    agent.actor_opt = SimpleNamespace(apply=lambda gradients: found.append(-gradients[-1].numpy()[1]))
    chances = []
    for batch in itertools.product([(0, 1.0, 0.5), (1, 0.0, 0.4), (1, 10.0, 0.1)], repeat=4):
        for action, reward, _ in batch:
            agent.store_transition(np.zeros(3), action, reward)
            agent.finish_path()
        weight = agent._discount_and_norm_rewards().astype(np.float32)
        agent.train_actor(np.zeros((4, 3), np.float32), np.array(agent.action_buffer), weight, np.ones(4), 4.0)
        for buffer in (agent.state_buffer, agent.action_buffer, agent.return_buffer, agent.time_buffer):
            buffer.clear()
        chances.append(np.prod([chance for _, _, chance in batch]))
    assert sum(chances) == pytest.approx(1)
    assert np.dot(chances, found) == pytest.approx(expected, abs=1e-4)


def test_value_baseline_is_subtracted_and_fitted():
    agent = make(baseline="value", gamma=0.5)
    states = play_path(agent, [1.0, 2.0, 4.0])
    value = agent.critic(states[:3]).numpy()[:, 0]
    np.testing.assert_allclose(agent._discount_and_norm_rewards(), [3, 4, 4] - value, rtol=1e-5)
    for _ in range(30):
        agent.learn()
        play_path(agent, [1.0, 2.0, 4.0])
    np.testing.assert_allclose(agent.value(states[:3])[:, 0], [3, 4, 4], atol=0.3)


def test_a_time_limit_is_not_an_end():
    agent = make(baseline="value", gamma=0.5)
    states = play_path(agent, [1.0, 2.0])
    tail = agent.critic(states).numpy()[2, 0]
    agent.finish_path(states[2], False)
    np.testing.assert_allclose(agent.return_buffer, [2 + tail / 4, 2 + tail / 2], rtol=1e-5)
    agent.return_buffer.clear()
    play_path(agent, [1.0, 2.0])
    agent.finish_path(states[2], True)  # the negative control
    np.testing.assert_allclose(agent.return_buffer, [2, 2])


def test_episode_lengths_do_not_recompile():
    agent = make()
    for length in (1, 9, 77, 400):
        play_path(agent, np.ones(length))
        agent.learn()
    assert len(agent.compiled_functions) == 1
    assert agent.state_buffer == agent.action_buffer == agent.reward_buffer == agent.return_buffer == []


@pytest.mark.parametrize("end_lr", [1.0, 0.5, 0.0])
def test_learning_rates_fall_linearly_until_the_last_step(end_lr):
    agent, rates = make(learning_rate=0.4, lr_c=0.8, end_lr=end_lr, total_steps=80, baseline="value"), []
    for _ in range(6):
        play_path(agent, np.ones(20))
        agent.learn()
        rates.append((agent.actor_opt.learning_rate.numpy(), agent.critic_opt.learning_rate.numpy()))
    np.testing.assert_allclose(rates, [(0.4 * x, 0.8 * x) for x in np.interp(range(6), [0, 4], [1, end_lr])], rtol=1e-6)


def test_a_setting_that_is_changed_takes_effect():
    agents = [make(seed=1), make(seed=1)]
    for i, entropy in enumerate([0.0, 3.0]):
        losses = []
        for agent in agents:
            play_path(agent, [1.0, 2.0, 4.0], seed=i)
            losses.append(agent.learn()["actor_loss"])
        assert (losses[0] == losses[1]) == (entropy == 0)
        agents[0].entropy = 3.0


def test_learning_from_nothing_is_refused():
    with pytest.raises(RuntimeError, match="store_transition"):
        make().learn()


def test_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="mean"):
        make(baseline="mean")


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load(tmp_path, hdf5):
    agent, other = (make(seed=seed) for seed in (1, 2))
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    states = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(other.policy(states), agent.policy(states))


def test_greedy_and_sampled_tests(tmp_path, monkeypatch):
    agent, played = make(), {}
    agent.save(tmp_path / "model/reinforce/CartPole-v1")
    monkeypatch.setattr(playing, "play", lambda config, get_action: {get_action(np.ones(3)) for _ in range(50)})
    for sampled in (False, True):
        played[sampled] = len(play_with_weights(Config(test=True, out=tmp_path, sampled=sampled), agent))
    assert played == {False: 1, True: 2}


def test_the_books_own_loop_runs():
    """The CartPole loop of section 5.10.2, with today's signature of reset and step."""
    env = environments.make("CartPole-v0", 0).unwrapped
    agent = PolicyGradient(action_num=env.action_space.n, state_dim=env.observation_space.shape[0])
    for _ in range(3):
        state, _ = env.reset()
        before = agent.policy(state)
        for _ in range(200):
            action = agent.get_action(state)
            next_state, reward, done, _, _ = env.step(action)
            agent.store_transition(state, action, reward)
            state = next_state
            if done:
                break
        agent.learn()
    assert (agent.policy(state) != before).any()


def test_the_main_loop_tells_an_end_from_a_time_limit(tmp_path, ends):
    settings = dict(batch_size=2, gamma=0.5, reward_scale=1.0, baseline="value")
    config = Config(train=True, out=tmp_path, steps=None, episodes=4, **settings)
    agent = PolicyGradient(2, 2, **command.keywords(config, PolicyGradient))
    seen = spy(agent)
    value_where_cut = float(agent.value([1, 5])[0])
    train(config, agent, ends)
    (states, _, _, returns, mask, paths, _), _ = seen[0]
    np.testing.assert_array_equal(states[:8], [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3], [1, 4]])
    cut = np.array([57 / 16, 41 / 8, 25 / 4, 6.5, 5]) + value_where_cut / np.array([32, 16, 8, 4, 2])
    np.testing.assert_allclose(returns[:8], [2.75, 3.5, 3, *cut], rtol=1e-5)
    assert abs(value_where_cut) > 0.1 and (mask.sum(), paths, len(seen)) == (8, 2, 2)


def run_training(tmp_path, resume=False, **settings):
    config = Config(train=True, out=tmp_path, seed=3, hidden=(16,), resume=resume, **settings)
    env = environments.make(config.env, config.seed)
    agent = PolicyGradient(*environments.dimensions(env)[:2], **command.keywords(config, PolicyGradient))
    train(config, agent, env)
    return np.concatenate([w.numpy().ravel() for w in (*agent.actor.all_weights, *agent.critic.all_weights)])


def test_the_hidden_layers_are_of_tanh_or_relu_and_do_not_load_as_one_another(tmp_path):
    state = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for act, function in ("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0)):
        agent = make(act=act, seed=1)
        for model in agent.actor, agent.critic:
            W, b, V, c = (weight.numpy() for weight in model.all_weights)
            np.testing.assert_allclose(model(state), function(state @ W + b) @ V + c, atol=1e-5)
        agent.save(tmp_path / act)
        agent.load(tmp_path / act)
    with pytest.raises(command.UserError, match="another network"):
        agent.load(tmp_path / "tanh")


def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path):
    """The run is cut between two updates, with paths in the buffers."""
    whole = run_training(tmp_path / "a", episodes=20, baseline="value")
    again = run_training(tmp_path / "b", episodes=10, baseline="value")
    assert (whole != again).any()
    np.testing.assert_array_equal(run_training(tmp_path / "b", episodes=20, baseline="value", resume=True), whole)


@pytest.mark.xla
@pytest.mark.parametrize("baseline, at_least", [("none", 100), ("normalise", 400), ("value", 200)])
def test_learns(tmp_path, baseline, at_least):
    config = Config(train=True, out=tmp_path, baseline=baseline, **PRESETS["CartPole-v1"])
    env = environments.make(config.env, 0)
    agent = PolicyGradient(*environments.dimensions(env)[:2], **command.keywords(config, PolicyGradient))
    train(config, agent, env)
    total = 0.0
    for _ in range(20):
        state, _ = env.reset()
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True))
            total += reward
            done = terminated or truncated
    assert total / 20 >= at_least
