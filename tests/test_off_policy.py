"""DDPG, TD3 and SAC as they run: memory, delayed updates, time limits, resume, saving, learning."""

import importlib

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


def remember(agent, n, seed=0, done=0.0, reward=None):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        s, s_ = rng.standard_normal((2, 3))
        step = (s, rng.uniform(-2, 2, 1), rng.standard_normal() if reward is None else reward, s_, done)
        agent.store_transition(*step) if isinstance(agent, DDPG) else agent.replay_buffer.push(*step)


def learn(agent, steps):
    if isinstance(agent, DDPG):
        return agent.learn(steps)
    if isinstance(agent, TD3):
        return agent.update(64, 0.2, steps=steps)
    return agent.update(64, steps=steps)


# memory


def test_replay_is_a_ring_of_float32():
    buffer = ReplayBuffer(3)
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


def test_ddpg_remembers_all_five_things_and_wraps_around():
    agent = DDPG(1, 2, np.ones(1, np.float32), memory_capacity=3, reward_scale=0.5, hidden=(4,))
    for i in range(4):
        agent.store_transition(np.array([i, i]), np.array([-i]), 2 * i, np.array([i + 1, i + 1]), i == 3)
    assert agent.pointer == 4
    np.testing.assert_array_equal(agent.memory[0], [3, 3, -3, 3, 4, 4, 1])
    np.testing.assert_array_equal(agent.memory[1], [1, 1, -1, 1, 2, 2, 0])


def test_learning_starts_before_the_memory_is_full():
    """The listing waits until MEMORY_CAPACITY steps were stored."""
    _, agent, _ = build("ddpg", batch_size=8, hidden=(4,))
    remember(agent, 10)
    before = all_weights(agent)
    agent.learn()
    assert any((a != b).any() for a, b in zip(before, all_weights(agent), strict=True))


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
        type(agent), lambda: agent.policy_net.action_range * tf.tanh(agent.policy_net(state)[:, :1])
    )
    np.testing.assert_allclose(get_action(agent, state[0]), policy()[0], rtol=1e-4)


def test_td3_delays_policy_and_targets():
    _, agent, _ = build("td3", policy_target_update_interval=3)
    remember(agent, 100)
    moved = []
    for _ in range(7):
        before = [agent.policy_net.all_weights[0].numpy(), agent.target_q_net1.all_weights[0].numpy()]
        critic = agent.q_net1.all_weights[0].numpy()
        learn(agent, 1)
        after = [agent.policy_net.all_weights[0].numpy(), agent.target_q_net1.all_weights[0].numpy()]
        assert (agent.q_net1.all_weights[0].numpy() != critic).any()
        moved.append([(a != b).any() for a, b in zip(before, after, strict=True)])
    np.testing.assert_array_equal(moved, [[i % 3 == 2] * 2 for i in range(7)])
    assert int(agent.policy_optimizer.iterations) == 2 and int(agent.q_optimizer1.iterations) == 7
    learn(agent, 5)  # 12 in all, fused: the count goes on
    assert int(agent.policy_optimizer.iterations) == 4


def test_sac_fixed_alpha_stays_and_automatic_alpha_moves():
    _, agent, _ = build("sac", alpha=0.37)
    remember(agent, 100)
    agent.update(64, auto_entropy=False, steps=5)
    assert agent.alpha.numpy() == pytest.approx(0.37)
    agent.update(64, auto_entropy=True, steps=5)
    assert agent.alpha.numpy() != pytest.approx(0.37)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_buffer_smaller_than_the_random_steps_does_not_hold_learning_up(algorithm, tmp_path):
    config, agent, env = build(algorithm, out=tmp_path, episodes=2, start_steps=300, replay_buffer_size=70)
    before = all_weights(agent)
    importlib.import_module(f"{algorithm}.main").train(config, agent, env)
    assert len(agent.replay_buffer) == 70 and agent.replay_buffer.position == 400
    optimiser = agent.q_optimizer1 if algorithm == "td3" else agent.soft_q_optimizer1
    assert int(optimiser.iterations) == 150  # after steps 300, 350 and 400
    assert any((a != b).any() for a, b in zip(all_weights(agent), before, strict=True))


def test_a_resumed_run_takes_its_fixed_alpha_from_its_own_flags(tmp_path):
    settings = dict(out=tmp_path, start_steps=100)
    for episodes, alpha in (1, None), (2, 0.25):
        config, agent, env = build("sac", episodes=episodes, alpha=alpha, resume=episodes == 2, **settings)
        importlib.import_module("sac.main").train(config, agent, env)
    assert agent.alpha.numpy() == pytest.approx(0.25)


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
    """`done is True` is never true of a NumPy bool; and a time limit is no end."""

    class Ends:
        """Terminates at step 3 of even episodes; odd ones are cut at step 5."""

        def __init__(self, env):
            self.env, self.unwrapped, self.episode = env, env.unwrapped, -1

        def reset(self):
            self.episode, self.step_number = self.episode + 1, 0
            return self.env.reset()

        def step(self, action):
            self.step_number += 1
            state, reward, *_, info = self.env.step(action)
            even = self.episode % 2 == 0
            return state, reward, np.bool_(even and self.step_number == 3), self.step_number == 5, info

    config, agent, env = build(algorithm, episodes=4, out=tmp_path)
    importlib.import_module(f"{algorithm}.main").train(config, agent, Ends(env))
    rows = agent.memory if algorithm == "ddpg" else agent.replay_buffer.buffer
    np.testing.assert_array_equal(rows[:16, -1], [0, 0, 1, 0, 0, 0, 0, 0] * 2)


def test_batch_norm_normalises_in_training_and_uses_its_averages_in_evaluation():
    _, agent, _ = build("ddpg", batch_norm=True, hidden=(16, 16))
    state = np.random.default_rng(0).normal(3, 5, (64, 3)).astype(np.float32)
    action = np.zeros((64, 1), np.float32)
    norm = agent.critic.get_layer("norm")
    agent.critic.train()
    agent.critic([state, action])
    x = agent.critic.get_layer("hidden_1")(state).numpy()
    np.testing.assert_allclose(norm.moving_mean, 0.01 * x.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm(x).numpy().mean(0), 0, atol=1e-4)
    agent.critic.eval()
    mean, var = norm.moving_mean.numpy(), norm.moving_var.numpy()
    np.testing.assert_allclose(norm(x), (x - mean) / np.sqrt(var + 1e-5), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(norm.moving_mean, mean)
    remember(agent, 100)
    agent.learn(5)
    assert (norm.moving_mean.numpy() != mean).any()
    target = agent.critic_target.get_layer("norm")
    assert (target.moving_mean.numpy() != 0).any() and not target.is_train


# saving


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load(algorithm, hdf5, tmp_path):
    _, agent, _ = build(algorithm, seed=1)
    remember(agent, 100)
    learn(agent, 3)
    agent.save(tmp_path, hdf5)
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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resumed_equals_uninterrupted_bit_for_bit(algorithm, tmp_path):
    whole = run(algorithm, tmp_path / "a", episodes=5)
    half = run(algorithm, tmp_path / "b", episodes=2)
    assert (half != whole).any()
    np.testing.assert_array_equal(run(algorithm, tmp_path / "b", episodes=5, resume=True), whole)


# commands


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_discrete_actions_are_refused_with_the_folders_that_serve_them(command, algorithm):
    result = command(algorithm, "--train", "--env", "CartPole-v1")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "discrete" in result.stderr and "ppo" in result.stderr


def test_the_ddpg_book_loop_runs():
    """The main loop of section 6.5.2, with today's signature of reset and step."""
    env = environments.make("Pendulum-v1", 0).unwrapped
    agent = DDPG(env.action_space.shape[0], env.observation_space.shape[0], env.action_space.high)
    state, _ = env.reset()
    for _ in range(70):
        action = agent.get_action(state)
        state_, reward, *_ = env.step(action)
        agent.store_transition(state, action, reward, state_)
        if agent.pointer > 64:
            agent.learn()
        state = state_
    assert int(agent.critic_opt.iterations) == 6


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
