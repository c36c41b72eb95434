"""DDPG, TD3 and SAC as they run: memory, delayed updates, time limits, resume, saving, learning."""

import functools
import importlib
import inspect

import gym
import numpy as np
import pytest
import tensorflow as tf

from common import environments, memory
from common.command import UserError, keywords
from ddpg.agent import DDPG
from sac.agent import SAC
from td3.agent import TD3, ReplayBuffer

ALGORITHMS = ["ddpg", "td3", "sac"]


def build(algorithm, env_id="Pendulum-v1", **settings):
    """(config, agent, env) as the folder's main builds them."""
    main, agent = (importlib.import_module(f"{algorithm}.{name}") for name in ("main", "agent"))
    config = main.Config(**{"env": env_id, **settings})
    env = environments.make(env_id, config.seed)
    state_dim, action_dim, action_range = environments.dimensions(env)
    cls = getattr(agent, algorithm.upper())
    settings = keywords(config, cls)
    if cls is DDPG:
        return config, DDPG(action_dim, state_dim, action_range, **settings), env
    buffer = agent.ReplayBuffer(config.replay_buffer_size)
    return config, cls(state_dim, action_dim, buffer, action_range=action_range, **settings), env


def all_weights(agent):
    parts = [part for network in agent._networks().values() for part in network]
    return [w.numpy() for part in parts for w in getattr(part, "all_weights", [part])]


def get_action(agent, state, greedy=True):
    if isinstance(agent, DDPG):
        return agent.get_action(state, greedy)
    if isinstance(agent, TD3):
        return agent.policy_net.get_action(state, 0.1, greedy)
    return agent.policy_net.get_action(state, greedy)


def remember(agent, n, action_range=(2.0,), done=None, reward=None):
    """Steps between random states; a third of them are ends unless `done` says otherwise."""
    rng = np.random.default_rng(0)
    for i in range(n):
        s, s_ = rng.standard_normal((2, 3))
        action, r = rng.uniform(-1, 1, len(action_range)) * action_range, rng.standard_normal()
        step = (s, action, r if reward is None else reward, s_, i % 3 == 0 if done is None else done)
        agent.store_transition(*step) if isinstance(agent, DDPG) else agent.replay_buffer.push(*step)


class OldGym:
    """An environment as the book's listings call it: gym's interface before 0.26."""

    def __init__(self, env):
        self.env, self.observation_space, self.action_space = env, env.observation_space, env.action_space

    def seed(self, seed):
        self.env.reset(seed=seed)

    def reset(self):
        return self.env.reset()[0]

    def step(self, action):
        state, reward, terminated, _, info = self.env.step(action)
        return state, reward, terminated, info


class Tour(gym.Env):
    """State: episode, step, and a third of another size. Even episodes end at step 3, odd ones are cut at step 5."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (3,), np.float32)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    episode = -1

    def state(self):
        return np.array([self.episode, self.k, 0.5], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.k = self.episode + 1, 0
        return self.state(), {}

    def step(self, action):
        self.k += 1
        ends = self.episode % 2 == 0 and self.k == 3
        return self.state(), 10.0 * self.episode + self.k, np.bool_(ends), self.k == 5, {}


def learn(agent, steps):
    if isinstance(agent, DDPG):
        return agent.learn(steps)
    if isinstance(agent, TD3):
        return agent.update(64, 0.2, steps=steps)
    return agent.update(64, steps=steps)


# memory


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_replay_is_a_ring_of_float32(algorithm):
    buffer = importlib.import_module(f"{algorithm}.agent").ReplayBuffer(3)
    for i in range(5):
        buffer.push(np.full(2, i), np.full(1, 10 * i), 100 * i, np.full(2, i + 0.5), i == 4)
    assert len(buffer) == 3
    state, action, reward, next_state, done = buffer.sample(200)
    assert set(state[:, 0]) == {2, 3, 4} and reward.shape == done.shape == (200,)
    np.testing.assert_array_equal(action[:, 0], 10 * state[:, 0])
    np.testing.assert_array_equal(reward, 100 * state[:, 1])
    np.testing.assert_array_equal(next_state, state + 0.5)
    np.testing.assert_array_equal(done, state[:, 0] == 4)
    assert all(array.dtype == np.float32 for array in (state, action, reward, next_state, done))


def test_a_million_pendulum_transitions_stay_below_50_mb():
    buffer = ReplayBuffer(1_000_000)
    buffer.allocate(3, 1)
    assert buffer.buffer.nbytes < 50e6
    assert DDPG(1, 3, np.ones(1, np.float32), memory_capacity=1_000_000, hidden=(4,)).memory.nbytes < 50e6


def test_replay_larger_than_memory_is_refused_with_its_size():
    with pytest.raises(UserError, match=r"1,000,000,000,000 transitions needs 33527\.6 GiB"):
        memory.zeros(10**12, 9)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_folder_refuses_a_memory_that_the_machine_has_not(algorithm, here, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 2**15, raising=False)  # as if all of the machine were 1 GiB
    flag = "--memory-capacity" if algorithm == "ddpg" else "--replay-buffer-size"
    result = here(algorithm, "--train", flag, 10**8)
    assert result.returncode == 2 and "memory of 100,000,000 transitions needs 3.4 GiB" in result.stderr


@pytest.mark.parametrize("rows", [10**18, 10**20])
def test_a_memory_larger_than_any_array_is_refused_where_the_machine_does_not_say_its_own(monkeypatch, rows):
    """As Windows does not."""
    monkeypatch.delattr("os.sysconf", raising=False)
    with pytest.raises(UserError, match=f"^a replay memory of {rows:,} transitions needs .* GiB, more than there is$"):
        memory.zeros(rows, 9)


# updates


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learning_moves_every_weight_and_acting_none(algorithm):
    _, agent, _ = build(algorithm)
    remember(agent, 100)
    before = all_weights(agent)
    for _ in range(5):
        get_action(agent, np.ones(3), greedy=False)
    assert all((a == b).all() for a, b in zip(before, all_weights(agent), strict=True))
    learn(agent, 20)
    assert all((a != b).any() for a, b in zip(before, all_weights(agent), strict=True))
    state = np.ones((1, 3), np.float32)
    policy = {DDPG: lambda: agent.actor(state), TD3: lambda: agent.policy_net.evaluate(state, 0.0)}.get(
        type(agent), lambda: agent.policy_net.action_range * tf.tanh(agent.policy_net(state)[0])
    )
    np.testing.assert_allclose(get_action(agent, state[0]), policy()[0], rtol=1e-4)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_buffer_smaller_than_the_random_steps_does_not_hold_learning_up(algorithm, tmp_path):
    config, agent, env = build(algorithm, out=tmp_path, episodes=2, start_steps=300, replay_buffer_size=70)
    before, sampled, sample_action = all_weights(agent), [], agent.policy_net.sample_action
    object.__setattr__(agent.policy_net, "sample_action", lambda: sampled.append(sample_action()) or sampled[-1])
    importlib.import_module(f"{algorithm}.main").train(config, agent, env)
    assert len(agent.replay_buffer) == 70 and agent.replay_buffer.position == 400
    assert len(sampled) == 300
    optimiser = agent.q_optimizer1 if algorithm == "td3" else agent.soft_q_optimizer1
    assert int(optimiser.iterations) == 150  # after steps 300, 350 and 400
    assert any((a != b).any() for a, b in zip(all_weights(agent), before, strict=True))


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_constant_reward_keeps_its_value(algorithm):
    """Reward 1 and then the end: Q = 1. The listing standardises each minibatch, and a constant reward becomes 0."""
    _, agent, _ = build(algorithm)
    remember(agent, 200, done=1.0, reward=1.0)
    settings = dict(reward_scale=1.0, steps=400)
    agent.update(64, 0.2, **settings) if algorithm == "td3" else agent.update(64, **settings)
    q_net = agent.q_net1 if algorithm == "td3" else agent.soft_q_net1
    state, action, *_ = agent.replay_buffer.sample(100)
    np.testing.assert_allclose(q_net(np.concatenate([state, action], 1)), 1.0, atol=0.15)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_end_and_time_limit_are_told_apart_in_the_memory(algorithm, tmp_path):
    """`done is True` is never true of a NumPy bool; and a time limit is no end.

    The state that follows is that of the step, not that of the reset.
    """
    config, agent, _ = build(algorithm, episodes=4, out=tmp_path)
    actions, env = [], Tour()
    step, env.step = env.step, lambda action: actions.append(action) or step(action)
    importlib.import_module(f"{algorithm}.main").train(config, agent, env)
    rows = agent.memory if algorithm == "ddpg" else agent.replay_buffer.buffer
    np.testing.assert_array_equal(rows[:16, -1], [0, 0, 1, 0, 0, 0, 0, 0] * 2)
    tour = np.array([(e, k, 0.5) for e in range(4) for k in range(3 if e % 2 == 0 else 5)])
    reward_scale = config.reward_scale if algorithm == "ddpg" else 1.0  # ddpg scales before it stores
    np.testing.assert_array_equal(rows[:16, :3], tour)
    np.testing.assert_array_equal(rows[:16, 3], np.ravel(actions).astype(np.float32))
    np.testing.assert_allclose(rows[:16, 4], reward_scale * (10 * tour[:, 0] + tour[:, 1] + 1), rtol=1e-6)
    np.testing.assert_array_equal(rows[:16, 5:8], tour + np.array([0, 1, 0]))
    assert not rows[16:].any()


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_main_hands_its_settings_over(algorithm, tmp_path, monkeypatch):
    numbers = dict(batch_size=7, gamma=0.11, soft_tau=0.13, reward_scale=0.17, start_steps=8, update_every=4)
    own = dict(eval_noise_scale=0.19, explore_noise_scale=0.23) if algorithm == "td3" else dict(target_entropy=-0.7)
    numbers |= own
    config, agent, _ = build(algorithm, episodes=4, out=tmp_path, **numbers)
    updates, explored, sampled = [], [], []
    signature = inspect.signature(agent.update)

    def update(*arguments, **keywords):
        updates.append({"position": agent.replay_buffer.position, **signature.bind(*arguments, **keywords).arguments})
        return {}

    def get_action(state, *scale):
        explored.append((*state[:2], *scale))
        return np.ones(1, np.float32)

    monkeypatch.setattr(agent, "update", update)
    object.__setattr__(agent.policy_net, "get_action", get_action)
    object.__setattr__(agent.policy_net, "sample_action", lambda: sampled.append(0) or np.zeros(1, np.float32))
    importlib.import_module(f"{algorithm}.main").train(config, agent, Tour())
    expected = dict(batch_size=7, reward_scale=0.17, gamma=0.11, soft_tau=0.13, steps=4)
    expected |= dict(eval_noise_scale=0.19) if algorithm == "td3" else dict(auto_entropy=True, target_entropy=-0.7)
    assert updates == [{"position": n, **expected} for n in (8, 12, 16)]
    assert len(sampled) == 8  # in episodes 0 and 1
    scale = (0.23,) if algorithm == "td3" else ()
    assert explored == [(e, k, *scale) for e, last in ((2, 3), (3, 5)) for k in range(last)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_test_plays_greedily(algorithm, tmp_path, monkeypatch):
    config, agent, _ = build(algorithm, out=tmp_path)
    agent.save(config.model_folder)
    monkeypatch.setattr("common.playing.play", lambda config, policy: policy)
    policy = importlib.import_module(f"{algorithm}.main").test(config, agent)
    state = np.array([0.9, 0.1, 0.3], np.float32)
    action = get_action(agent, state)
    np.testing.assert_array_equal(policy(state), action)
    assert get_action(agent, state, greedy=False) != action  # new weights' actions are far from the bounds


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learning_rates_fall_linearly(algorithm):
    """To a fifth at the end: after a quarter of the training 1 - 0.8 / 4 is left."""
    _, agent, _ = build(algorithm, end_lr=0.2)
    agent.total_steps = 80
    optimizers = [each for name, each in vars(agent).items() if "opt" in name]
    rates = [float(each.learning_rate) for each in optimizers]
    for steps, left in (20, 0.8), (60, 0.2), (40, 0.2):
        remember(agent, steps)
        learn(agent, 1)
        assert [float(each.learning_rate) for each in optimizers] == pytest.approx([left * rate for rate in rates])


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_an_empty_memory_is_told(algorithm):
    _, agent, _ = build(algorithm)
    with pytest.raises(RuntimeError, match="the replay buffer is empty: push transitions first"):
        learn(agent, 1)
    with pytest.raises(RuntimeError, match="the replay buffer is empty"):
        importlib.import_module(f"{algorithm}.agent").ReplayBuffer(5).sample(1)


@pytest.mark.parametrize("cls", [TD3, SAC])
def test_a_memory_keeps_its_steps_when_an_agent_gets_it(cls):
    _, agent, _ = build(cls.__name__.lower())
    remember(agent, 10)
    steps = agent.replay_buffer.buffer[:10].copy()
    other = cls(3, 1, agent.replay_buffer, 8, 2.0)
    np.testing.assert_array_equal(other.replay_buffer.buffer[:10], steps)
    assert len(other.replay_buffer) == 10 and steps.any()


# saving


@pytest.fixture(scope="module")
def learned():
    """For an algorithm an agent that has learned a little, to be read only."""

    @functools.cache
    def get(algorithm):
        _, agent, _ = build(algorithm, seed=1)
        remember(agent, 100)
        learn(agent, 3)
        return agent

    return get


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load(algorithm, hdf5, learned, tmp_path):
    agent = learned(algorithm)
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    _, other, _ = build(algorithm, seed=2)
    other.load(tmp_path)
    for a, b in zip(all_weights(agent), all_weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(get_action(agent, np.ones(3)), get_action(other, np.ones(3)))
    if algorithm == "sac":  # the listing's alpha is that of before the loading
        assert other.alpha.numpy() == agent.alpha.numpy() != 1.0


def run(algorithm, out, **settings):
    config, agent, env = build(algorithm, out=out, seed=3, start_steps=250, **settings)
    importlib.import_module(f"{algorithm}.main").train(config, agent, env)
    return np.concatenate([w.ravel() for w in all_weights(agent)])


@pytest.mark.parametrize("algorithm", ["ddpg", "td3", pytest.param("sac", marks=pytest.mark.xla)])
def test_resumed_equals_uninterrupted_bit_for_bit(algorithm, tmp_path):
    whole = run(algorithm, tmp_path / "a", episodes=5)
    half = run(algorithm, tmp_path / "b", episodes=2)
    assert (half != whole).any()
    np.testing.assert_array_equal(run(algorithm, tmp_path / "b", episodes=5, resume=True), whole)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_loss_that_is_no_number_stops_learning(algorithm):
    _, agent, _ = build(algorithm)
    remember(agent, 64, reward=np.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        agent.update(64, *([0.5] if algorithm == "td3" else []), steps=1)


# commands


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_discrete_actions_are_refused_with_the_folders_that_serve_them(command, algorithm):
    result = command(algorithm, "--train", "--env", "CartPole-v1")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "discrete" in result.stderr and "ppo" in result.stderr


@pytest.mark.parametrize("cls", [TD3, SAC])
def test_the_td3_and_sac_book_loops_run(cls):
    agent_module = importlib.import_module(cls.__module__)
    buffer = agent_module.ReplayBuffer(1000)
    agent = cls(3, 1, buffer, 32, np.array([2.0], np.float32))
    env = environments.make("Pendulum-v1", 0).unwrapped
    state, _ = env.reset()
    for step in range(70):
        if step < 40:
            action = agent.policy_net.sample_action()
        else:
            action = agent.policy_net.get_action(state, *([0.5] if cls is TD3 else []))
        next_state, reward, done, _, _ = env.step(action)
        buffer.push(state, action, reward, next_state, done)
        state = next_state
        if len(buffer) > 64:
            agent.update(64, *([0.5] if cls is TD3 else []), reward_scale=0.1)
    optimizer = agent.q_optimizer1 if cls is TD3 else agent.soft_q_optimizer1
    assert int(optimizer.iterations) == 6


@pytest.mark.xla
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_learns_pendulum(algorithm, tmp_path):
    config, agent, env = build(algorithm, out=tmp_path, episodes=70)
    importlib.import_module(f"{algorithm}.main").train(config, agent, env)
    rewards = []
    env = environments.make("Pendulum-v1", 999)
    for _ in range(30):
        state, _ = env.reset()
        rewards.append(0.0)
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(get_action(agent, state))
            rewards[-1] += reward
            done = terminated or truncated
    assert np.mean(rewards) >= -250
