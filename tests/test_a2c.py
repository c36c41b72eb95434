"""A2C: the sum of the workers' gradients, advantages, time limits, resuming, and that it learns."""

import itertools
import os
import signal
import subprocess
import sys

import gym
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, Constant, Ends, EndsAtTheLimit, PointAtTheLimit
from scipy import special, stats

from a2c.agent import A2C, Worker
from a2c.main import PRESETS, Config, train
from common import environments
from common.command import keywords

BOUND = np.float32([2.0])
KINDS = pytest.mark.parametrize("action_dim, action_bound", [(1, BOUND), (2, None)], ids=["continuous", "discrete"])


def make(action_dim=1, action_bound=BOUND, state_dim=3, **settings):
    return A2C(state_dim, action_dim, action_bound, **{"hidden": (8,), "reward_scale": 1.0, **settings})


def batch(agent, n_steps=5, workers=4):
    """What workers might have collected, at random: states, actions, rewards, done."""
    rng, shape = np.random.default_rng(0), (n_steps, workers)
    return (
        rng.normal(size=(n_steps + 1, workers, agent.state_dim)).astype(np.float32),
        rng.integers(2, size=shape) if agent.discrete else rng.normal(size=(*shape, 1)).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        (rng.random(shape) < 0.3).astype(np.float32),
    )


# gradients


@KINDS
def test_the_sum_of_the_workers_gradients_is_the_gradient_on_the_joined_batch(action_dim, action_bound):
    agent = make(action_dim, action_bound, entropy=0.1)
    joined = batch(agent)
    whole = agent.gradients(*joined)
    each = [agent.gradients(*(x[:, w : w + 1] for x in joined)) for w in range(4)]
    for part in (0, 1):  # g_psi, g_theta
        for i, gradient in enumerate(whole[part]):
            total = sum(worker[part][i].numpy() for worker in each)
            assert np.abs(total).max() > 0
            np.testing.assert_allclose(gradient, total, rtol=1e-4, atol=1e-5)


class Descent:
    """An optimiser with the plain rule and learning rate 1."""

    def __init__(self, variable):
        self.variable, self.learning_rate = variable, tf.Variable(0.0)

    def apply(self, gradient, learning_rate):
        self.variable.assign_sub(gradient)
        self.learning_rate.assign(learning_rate)


@pytest.mark.parametrize("max_grad_norm", [1e9, 1e-2])
def test_one_update_descends_on_the_sum_per_step_taken_and_no_further_than_the_norm(max_grad_norm):
    agent = make(max_grad_norm=max_grad_norm)
    joined = batch(agent)
    g_psi, g_theta, _ = agent.gradients(*joined)
    before = [agent.psi.numpy(), agent.theta.numpy()]
    agent.critic_opt, agent.actor_opt = Descent(agent.psi), Descent(agent.theta)
    _, *after = agent._update(*joined, np.float32(0))
    for old, new, variable, g in zip(before, after, (agent.psi, agent.theta), (g_psi, g_theta), strict=True):
        mean = g.numpy() / 20
        shortened = mean * min(1, max_grad_norm / np.sqrt((mean**2).sum()))
        np.testing.assert_allclose(old - new, shortened, rtol=1e-2, atol=1e-5)
        np.testing.assert_array_equal(new, variable)


@pytest.mark.parametrize("end_lr", [1.0, 0.5, 0.0])
def test_learning_rates_fall_linearly_until_the_last_step(end_lr):
    agent, rates = make(lr_a=0.4, lr_c=0.8, end_lr=end_lr, total_steps=80), []
    agent.critic_opt, agent.actor_opt = Descent(agent.psi), Descent(agent.theta)
    for _ in range(6):
        agent.update(*batch(agent))  # 20 steps each
        rates.append((agent.actor_opt.learning_rate.numpy(), agent.critic_opt.learning_rate.numpy()))
    np.testing.assert_allclose(rates, [(0.4 * x, 0.8 * x) for x in np.interp(range(6), [0, 4], [1, end_lr])], rtol=1e-6)


def test_an_update_sees_states_by_the_statistics_of_those_before_it():
    agent, seen = make(), []
    before = np.random.default_rng(1).normal(2, 3, (50, 3))
    agent.normaliser.update(before)
    states, actions, rewards, done = batch(agent)
    update = agent._update
    agent._update = lambda *arguments: seen.append(arguments[0]) or update(*arguments)
    agent.update(states, actions, rewards, done)
    np.testing.assert_allclose(seen[0], (states - before.mean(0)) / before.std(0), rtol=1e-4, atol=1e-6)
    after = np.concatenate([before, states[:-1].reshape(-1, 3)])  # each state once: the last begin the next segment
    np.testing.assert_allclose(agent.normaliser.mean, after.mean(0), rtol=1e-5)


@KINDS
def test_the_report_is_of_the_policy_and_the_gradients_before_the_step(action_dim, action_bound):
    agent = make(action_dim, action_bound, entropy=0.3, gae_lambda=0.0, gamma=0.5, max_grad_norm=0.1)
    states, actions, rewards, done = batch(agent)
    g_psi, g_theta, _ = agent.gradients(states, actions, rewards, done)
    value = agent.critic(states.reshape(-1, 3)).numpy().reshape(6, 4)
    adv = rewards + 0.5 * (1 - done) * value[1:] - value[:-1]
    output = agent.actor(states[:-1].reshape(-1, 3)).numpy()
    if agent.discrete:
        log_pi = special.log_softmax(output, 1)
        entropy = -(np.exp(log_pi) * log_pi).sum(1).mean()
        log_pi = log_pi[np.arange(20), actions.ravel()]
    else:
        log_pi, entropy = stats.norm.logpdf(actions.reshape(20, 1), output)[:, 0], stats.norm.entropy()
    assert agent.update(states, actions, rewards, done) == pytest.approx(
        dict(
            actor_loss=-np.mean(log_pi * adv.ravel()) - 0.3 * entropy,
            critic_loss=np.mean(adv**2),
            entropy=entropy,
            actor_grad_norm=np.linalg.norm(g_theta) / 20,
            critic_grad_norm=np.linalg.norm(g_psi) / 20,
        ),
        rel=1e-3,
    )


SETTINGS = dict(gamma=0.5, gae_lambda=0.1, lr_a=0.1, lr_c=0.1, end_lr=0.5, entropy=2.0, max_grad_norm=0.01)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_counts_at_any_time(name):
    """After the first update too: the compiled one takes settings as data."""

    change = {name: SETTINGS[name]}
    settings = dict(lr_a=0.2, lr_c=0.3, entropy=0.1, max_grad_norm=10.0)
    late, fresh = make(**settings), make(**settings | change)
    start = late.psi.numpy(), late.theta.numpy()
    for agent in (late, fresh):
        agent.critic_opt, agent.actor_opt = Descent(agent.psi), Descent(agent.theta)

    def update(agent):
        for variable, value in zip((agent.psi, agent.theta), start, strict=True):
            variable.assign(value)
        agent._update(*batch(agent), np.float32(0.5))
        rates = agent.actor_opt.learning_rate.numpy(), agent.critic_opt.learning_rate.numpy()
        return np.concatenate([rates, agent.psi.numpy(), agent.theta.numpy()])

    unchanged = update(late)
    setattr(late, name, SETTINGS[name])
    changed = update(late)
    np.testing.assert_allclose(changed, update(fresh), rtol=1e-4, atol=1e-6)
    assert np.abs(changed - unchanged).max() > 1e-3


def test_gradients_by_hand():
    """Those of the outputs' biases and of log-std, which need no chain rule."""
    agent = make(entropy=0.3, gae_lambda=0.0, gamma=0.5, log_std=0.5)
    states, actions, rewards, done = batch(agent)
    value = agent.critic(states.reshape(-1, 3)).numpy().reshape(6, 4)
    adv = rewards + 0.5 * (1 - done) * value[1:] - value[:-1]  # R_t + gamma V(S_t+1) - V(S_t)
    g_psi, g_theta, (_, J_psi, _) = agent.gradients(states, actions, rewards, done)
    assert J_psi.numpy() == pytest.approx((adv**2).sum(), rel=1e-4)
    np.testing.assert_allclose(g_psi[-1], [-2 * adv.sum()], rtol=1e-3)
    error = actions[..., 0] - agent.actor(states[:-1].reshape(-1, 3)).numpy().reshape(5, 4)
    var = np.exp(1.0)
    np.testing.assert_allclose(g_theta[-2], [-(2 * error / var * adv).sum()], rtol=1e-3)  # the mean is 2 x the output
    np.testing.assert_allclose(g_theta[-1], [-((error**2 / var - 1) * adv).sum() - 0.3 * 20], rtol=1e-3)


def test_discrete_gradients_by_hand():
    agent = make(2, None, entropy=0.3)
    states, actions, rewards, done = batch(agent)
    value = agent.critic(states.reshape(-1, 3)).numpy().reshape(6, 4)
    adv = agent.advantage(value, rewards, done).numpy()[..., None]
    logp = special.log_softmax(agent.actor(states[:-1].reshape(-1, 3)).numpy(), 1).reshape(5, 4, 2)
    p, H = np.exp(logp), -(np.exp(logp) * logp).sum(-1, keepdims=True)
    expected = -((np.eye(2)[actions] - p) * adv).sum((0, 1)) + 0.3 * (p * (logp + H)).sum((0, 1))
    np.testing.assert_allclose(agent.gradients(states, actions, rewards, done)[1][-2:], expected, rtol=1e-3, atol=1e-5)


# advantages


def test_advantage_by_hand():
    """Two workers; the first one's episode ends after its second step."""
    agent = make(gamma=0.5, gae_lambda=0.5)
    value = np.float32([[1, 0], [2, 0], [3, 0], [6, 8]])
    reward, done = np.float32([[1, 1], [1, 0], [1, 0]]), np.float32([[0, 0], [1, 0], [0, 0]])
    # first: 1+2/2-1 = 1, 1-2 = -1, 1+6/2-3 = 1, and 1 + (-1)/4; second: 1, 0, 8/2 = 4, then 4/4 = 1 and 1 + 1/4
    np.testing.assert_allclose(agent.advantage(value, reward, done), [[0.75, 1.25], [-1, 1], [1, 4]])


def test_limits_of_lambda():
    states, _, reward, done = batch(make())
    value = np.sin(states[..., 0])
    one_step = reward + 0.9 * (1 - done) * value[1:] - value[:-1]
    np.testing.assert_allclose(make(gamma=0.9, gae_lambda=0).advantage(value, reward, done), one_step, atol=1e-6)
    returns = [value[-1]]
    for t in reversed(range(5)):
        returns.insert(0, reward[t] + 0.9 * (1 - done[t]) * returns[0])
    np.testing.assert_allclose(
        make(gamma=0.9, gae_lambda=1).advantage(value, reward, done), np.array(returns[:-1]) - value[:-1], atol=1e-5
    )


# workers


class Countdown(gym.Env):
    """The state counts up from `start` and the episode ends, truly, at 3; the reward is the new state."""

    observation_space = gym.spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, start):
        self.start = start

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.start
        return np.float32([self.state]), {}

    def step(self, action):
        self.state += 1
        return np.float32([self.state]), float(self.state), self.state == 3, False, {}


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


class TimeLimitEnds(gym.Wrapper):
    """Takes a time limit for an end, as the printed listings do."""

    def step(self, action):
        state, reward, terminated, truncated, info = self.env.step(action)
        return state, reward, terminated or truncated, False, info


def test_a_time_limit_is_not_an_end():
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5; taken for an end, the limit lowers it."""
    values = {}
    for wrapper in (gym.Wrapper, TimeLimitEnds):
        agent = make(2, None, state_dim=2, gamma=0.8, lr_c=2e-2)
        worker = Worker([wrapper(gym.wrappers.TimeLimit(Constant(), 10)) for _ in range(4)])
        for _ in range(300):
            agent.update(*worker.collect(agent, 5)[:-1])
        values[wrapper] = agent.get_value(np.ones(2))
    assert values[gym.Wrapper] == pytest.approx(5, abs=0.3)
    assert values[TimeLimitEnds] < 4.5


def test_a_worker_hands_over_what_it_saw_across_true_ends_and_time_limits():
    """A true end is worth nothing more, a time limit what the critic says of the state that was cut off."""
    agent = make(2, None, state_dim=2, gamma=0.9, reward_scale=0.1)
    agent.normaliser.update(np.float32([[0, 0], [1, 5]]))
    worker = Worker([Ends(gym.spaces.Discrete(2)), Ends(gym.spaces.Discrete(2))])
    states, _, rewards, done, episodes = worker.collect(agent, 12)
    # true end after 3 steps, time limit after 5, true end after 3, and one step of the next episode
    seen = [(0, t) for t in range(3)] + [(1, t) for t in range(5)] + [(2, t) for t in range(3)] + [(3, 0), (3, 1)]
    ends = [2, 7, 10]
    np.testing.assert_array_equal(done[:, 0], np.isin(range(12), ends))
    expected = [0.1 * (t + 1) for _, t in seen[:12]]
    cut_off = agent.get_value(np.float32([1, 5]))
    expected[7] += 0.9 * cut_off
    assert min(abs(cut_off - agent.get_value(np.float32(other))) for other in ([1, 4], [2, 0], [0, 3])) > 1e-3
    for w in range(2):
        np.testing.assert_array_equal(states[:, w], seen)
        np.testing.assert_allclose(rewards[:, w], expected, rtol=1e-5)
    assert episodes == [(6.0, 3)] * 2 + [(15.0, 5)] * 2 + [(6.0, 3)] * 2  # the environment's own rewards


class Points(gym.Wrapper):
    """Its last reward but one is a point for the other side, the others are 0 but for the last."""

    def step(self, action):
        state, reward, terminated, truncated, info = self.env.step(action)
        return state, {2: -1.0, 3: 1.0}.get(reward, 0.0), terminated, truncated, info


def test_no_more_is_to_come_after_a_point_if_points_end_a_path():
    for reset_at_points, expected in (True, [0, 1, 1, 0, 1, 1]), (False, [0, 0, 1, 0, 0, 1]):
        agent = make(2, None, state_dim=1, reset_at_points=reset_at_points)
        _, _, rewards, done, episodes = Worker([Points(Countdown(0))]).collect(agent, 6)
        np.testing.assert_array_equal(rewards[:, 0], [0, -1, 1, 0, -1, 1])
        np.testing.assert_array_equal(done[:, 0], expected)
        assert episodes == [(0.0, 3)] * 2  # a point does not end the game


def test_no_more_is_to_come_after_a_point_at_the_time_limit():
    for reset_at_points in (True, False):
        agent = make(2, None, state_dim=2, gamma=0.9, reset_at_points=reset_at_points)
        worker = Worker([PointAtTheLimit(gym.spaces.Discrete(2))])
        _, _, rewards, done, _ = worker.collect(agent, 8)
        cut_off = 0.0 if reset_at_points else 0.9 * agent.get_value(np.float32([1, 5]))
        assert rewards[7, 0] == pytest.approx(1 + cut_off) and done[7, 0] == 1


def test_an_end_at_the_time_limit_is_an_end():
    agent = make(2, None, state_dim=2, gamma=0.9, reward_scale=0.1)
    _, _, rewards, done, _ = Worker([EndsAtTheLimit(gym.spaces.Discrete(2))]).collect(agent, 3)
    np.testing.assert_allclose(rewards[:, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(done[:, 0], [0, 0, 1])


def test_train_hands_the_agent_all_that_the_workers_collect(tmp_path, monkeypatch):
    """Segments follow one another without a gap, in every environment, and every episode is logged."""
    batches, own = [], A2C.update

    def update(self, *batch):
        batches.append(batch)
        own(self, *batch)

    monkeypatch.setattr(A2C, "update", update)
    agent = make(2, None, state_dim=2)
    config = Config(env="Ends-v0", steps=100, workers=3, n_steps=4, out=tmp_path)
    train(config, agent, [Ends(gym.spaces.Discrete(2)) for _ in range(3)])
    states = np.concatenate([batch[0][:-1] for batch in batches])
    assert agent.steps == 3 * len(states) == agent.normaliser.count and len(batches) * 4 == len(states)
    expected = [(episode, t) for episode in range(99) for t in range(5 if episode % 2 else 3)][: len(states)]
    for w in range(3):
        np.testing.assert_array_equal(states[:, w], expected)
    for before, after in itertools.pairwise(batches):
        np.testing.assert_array_equal(before[0][-1], after[0][0])
    table = np.loadtxt(tmp_path / "model/a2c/Ends-v0/episodes.csv", delimiter=",", skiprows=1)
    assert 100 <= table[-1, 1] <= agent.steps
    lengths = np.diff(table[:, 1], prepend=0)
    np.testing.assert_array_equal(lengths, [5 if (i // 3) % 2 else 3 for i in range(len(table))])
    np.testing.assert_array_equal(table[:, 2], lengths * (lengths + 1) / 2)


# acting


@pytest.mark.parametrize("folder", ["a2c", "a3c"])
def test_numpy_multiplies_in_one_thread(folder):
    """A few states at a time are done before threads agree: on two busy cores Pong took five times as long."""
    count = "print({x['num_threads'] for x in t.threadpool_info()} <= {1})"
    code = f"import {folder}.main, numpy, threadpoolctl as t; {count}"
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.stdout == "True\n", result.stderr


def test_the_acting_copies_normalise_states():
    agent, state = make(2, None), np.ones((5, 3))
    agent.normaliser.update(np.random.default_rng(0).normal(2, 3, (50, 3)))
    np.testing.assert_allclose(agent.policy(state), agent.actor(agent.normaliser(state)), atol=1e-6)
    np.testing.assert_allclose(agent.value(state), agent.critic(agent.normaliser(state)), atol=1e-6)


def test_actions_come_from_the_policy():
    agent = make(2, None)
    agent.normaliser.update(np.random.default_rng(0).normal(2, 3, (50, 3)))
    agent.actor.all_weights[-1].assign([0.0, 1.0])
    agent._refresh()
    state = np.ones(3)
    logits = agent.actor(agent.normaliser(state)[None]).numpy()[0]
    drawn = agent.get_action(np.tile(state, (20_000, 1)))
    assert drawn.mean() == pytest.approx(special.softmax(logits)[1], abs=0.015)
    assert agent.get_action(state, greedy=True) == 1
    agent = make(log_std=0.5)
    drawn = agent.get_action(np.tile(state, (20_000, 1)))
    mean = agent.get_action(state, greedy=True)
    np.testing.assert_allclose(mean, agent.actor(state[None].astype(np.float32))[0], atol=1e-6)
    assert drawn.shape == (20_000, 1)
    assert stats.kstest(drawn[:, 0], "norm", (mean[0], np.exp(0.5))).pvalue > 1e-4


def test_a_mean_through_tanh_stays_within_the_bounds():
    for kind, size in ((1, BOUND), 2.0), ((2, None), 100.0):  # a mean has bounds, logits have none
        agent = make(*kind, mean="tanh")
        agent.actor.all_weights[-1].assign(np.full(kind[0], 100.0))
        agent._refresh()
        np.testing.assert_allclose(agent.policy(np.ones(3)), size, atol=1.0 if kind[1] is None else 1e-6)


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


def test_a_loss_that_is_no_number_is_an_error():
    agent = make()
    states, actions, rewards, done = batch(agent)
    with pytest.raises(FloatingPointError, match="nan"):
        agent.update(states, actions, rewards * np.float32("nan"), done)


# the run


def run(tmp_path, env_id="CartPole-v1", **settings):
    config = Config(**{"env": env_id, "train": True, "out": tmp_path, **PRESETS.get(env_id, {}), **settings})
    envs = [environments.make(env_id, config.seed + 1000 * w) for w in range(config.workers)]
    agent = A2C(*environments.dimensions(envs[0]), **keywords(config, A2C), total_steps=config.steps)
    train(config, agent, envs)
    return agent


def test_same_seed_same_run(tmp_path):
    runs = (run(tmp_path / str(i), steps=2000, seed=seed) for i, seed in enumerate((3, 3, 4)))
    first, again, other = (np.concatenate(agent.get_weights()[:2]) for agent in runs)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_resume_goes_on_with_weights_optimisers_and_statistics(tmp_path):
    before = run(tmp_path, steps=1000)
    count, iterations = before.normaliser.count.copy(), before.actor_opt.iterations
    resumed = run(tmp_path, steps=2000, resume=True)
    assert iterations < resumed.actor_opt.iterations
    assert resumed.actor_opt.iterations * 64 == resumed.normaliser.count > count  # 8 workers, 8 steps
    table = np.loadtxt(tmp_path / "model/a2c/CartPole-v1/episodes.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 0], np.arange(1, len(table) + 1))
    np.testing.assert_array_equal(table[:, 2], np.diff(table[:, 1], prepend=0))  # reward 1 a step


gym.register("PongShort-v0", "common.pong:make", max_episode_steps=500)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "PongShort-v0"])
def test_resume_equals_uninterrupted(tmp_path, env_id, monkeypatch):
    """Stopped by Ctrl-C in the middle of every episode."""
    monkeypatch.setitem(PRESETS, "PongShort-v0", PRESETS["Pong-v0"])
    settings = dict(steps=2400, n_steps=7, workers=4)
    whole = run(tmp_path / "whole", env_id, **settings)
    own, calls = A2C.update, itertools.count(1)

    def update(self, *batch):
        own(self, *batch)
        if next(calls) == 37:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(A2C, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", env_id, **settings)
    resumed = run(tmp_path / "parts", env_id, resume=True, **settings)
    for new, expected in zip(resumed.get_weights()[:2], whole.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(new, expected)
    tables = [
        np.loadtxt(tmp_path / name / "model/a2c" / env_id / "episodes.csv", delimiter=",", skiprows=1)
        for name in ("whole", "parts")
    ]
    np.testing.assert_array_equal(tables[0][:, :4], tables[1][:, :4])


@pytest.mark.xla
@pytest.mark.parametrize("env_id, steps, at_least", [("CartPole-v1", 150_000, 450), ("Pendulum-v1", 600_000, -220)])
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
