"""Pong: the environment, its pictures, and REINFORCE, A2C, A3C and PPO on them."""

import collections
import csv
import inspect
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children

import gym
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, Ends
from scipy.signal import correlate2d
from scipy.sparse import csr_array
from test_reinforce import spy

from a2c import main as a2c
from a2c.agent import A2C
from a3c import main as a3c
from a3c.agent import ACNet
from acktr import main as acktr
from common import environments, pixels, weights
from common.command import UserError, keywords
from common.players import Path, Players, Seat, Tables
from common.pong import Differences, Pong, binary
from common.progress import Training
from common.sparse import Convolution, ragged, sparse_matmul
from ppo import main as ppo
from ppo.agent import PPO
from reinforce.agent import PolicyGradient
from reinforce.main import PRESETS, Config, train_side_by_side
from trpo import main as trpo
from trpo.agent import TRPO

BACKGROUND, GREEN, WHITE = (144, 72, 17), (92, 186, 92), (236, 236, 236)


def picture(*patches):
    """An empty field with rectangles ((row, column), (height, width), colour)."""
    field = np.full((210, 160, 3), BACKGROUND, np.uint8)
    for (row, column), (height, width), colour in patches:
        field[row : row + height, column : column + width] = colour
    return field


def spots(state):
    """{(row, column): value} of the pixels that are not 0."""
    return {(int(i) // 80, int(i) % 80): int(state[i]) for i in np.flatnonzero(state)}


class Projector:
    """Shows the given pictures, one a step, and keeps the actions."""

    def __init__(self, *pictures):
        self.pictures, self.actions = iter(pictures), []

    def reset(self, **_):
        return next(self.pictures), {}

    def step(self, action):
        self.actions.append(action)
        return next(self.pictures), 0.0, False, False, {}


def test_binary_picture_by_hand():
    shown = picture(
        ((35, 0), (2, 2), WHITE),  # the corner of the field: one pixel of 80x80
        ((194, 158), (1, 2), WHITE),  # ends below the last row that is kept, 193
        ((51, 140), (4, 4), GREEN),  # 2 by 2
        ((100, 81), (1, 1), WHITE),  # between the rows and columns that are kept
        ((10, 20), (20, 12), GREEN),  # the score
        ((196, 0), (10, 160), WHITE),  # the border
        ((60, 60), (2, 2), (109, 118, 43)),  # the background of the first frames
        ((70, 60), (2, 2), (0, 0, 0)),
    )
    seen = binary(shown)
    assert seen.shape == (6400,) and seen.dtype == bool
    assert spots(seen).keys() == {(0, 0), (8, 70), (8, 71), (9, 70), (9, 71)}


def test_states_are_differences_and_the_first_is_zero():
    ball = [picture(((35 + 2 * row, 2 * column), (2, 2), WHITE)) for row, column in ((5, 7), (6, 8), (6, 8))]
    view = Differences(Projector(*ball))
    assert spots(view.reset()[0]) == {}
    assert spots(view.step(0)[0]) == {(5, 7): -1, (6, 8): 1}
    state, *_ = view.step(1)
    assert spots(state) == {} and state.dtype == np.int8
    assert view.env.actions == [0, 2]  # of the six


def test_the_present_picture_shows_what_stands_still_too():
    paddle = (101, 140), (2, 2), GREEN
    ball = [picture(((35 + 2 * row, 2 * column), (2, 2), WHITE), paddle) for row, column in ((5, 7), (6, 8), (6, 8))]
    view = Differences(Projector(*ball), present=True)
    assert spots(view.reset()[0]) == {(5, 7): 1, (33, 70): 1}
    assert spots(view.step(0)[0]) == {(5, 7): -1, (6, 8): 1, (33, 70): 1}
    state, *_ = view.step(1)
    assert spots(state) == {(6, 8): 1, (33, 70): 1} and state.dtype == np.int8


def test_pong_present_is_the_game_of_pong_v0():
    """Its pictures' differences are Pong-v0's states."""
    moves, present = environments.make("Pong-v0", 0), environments.make("PongPresent-v0", 0)
    moves.reset()
    seen = present.reset()[0] > 0
    for step in range(200):
        (state, *rest), (picture, *others) = moves.step(step // 20 % 3), present.step(step // 20 % 3)
        assert rest == others and picture in present.observation_space
        assert np.array_equal((picture > 0).astype(np.int8) - seen, state)
        seen = picture > 0


def test_spaces():
    game, view = Pong(), environments.make("Pong-v0", 0)
    shown, info = game.reset(seed=0)
    assert shown in game.observation_space and info == {"lives": 0}
    assert game.action_space.n == 6
    assert environments.dimensions(view) == (6400, 3, None)
    assert view.reset()[0] in view.observation_space and view.step(2)[0] in view.observation_space


@pytest.mark.parametrize("env_id, frames", [("Pong-v0", 3), ("PongPresent-v0", 3), ("PongDeterministic-v4", 4)])
def test_a_game_is_cut_after_half_an_hour(env_id, frames):
    """At 60 frames a second, and so many a step."""
    assert environments.make(env_id, 0).spec.max_episode_steps * frames == 30 * 60 * 60


def paddle_row(shown):
    """The middle row of our paddle, the green one on the right."""
    return np.nonzero((shown[35:194, 140:144] == GREEN).all(-1))[0].mean()


@pytest.mark.parametrize("env_id", ["Pong-v0", "PongDeterministic-v4"])
@pytest.mark.parametrize("action, sign", [(0, 0), (1, -1), (2, 1)])
def test_actions_move_the_paddle_the_right_way(env_id, action, sign):
    """On the game's own pictures: 1 is up, towards row 0; the states show the same move as +1 ahead, -1 behind."""
    env = environments.make(env_id, 0, "rgb_array")
    for _ in range(30):  # the paddle appears, and comes to the middle
        env.step(0)
    before = paddle_row(env.render())
    moved = np.zeros((80, 80), int)
    for _ in range(3):
        moved += env.step(action)[0].reshape(80, 80)
    distance = paddle_row(env.render()) - before
    right = moved[:, 70:72].sum(1)
    if sign == 0:
        assert distance == 0 and not right.any()
    else:
        assert sign * distance > 5
        assert sign * (np.flatnonzero(right > 0).mean() - np.flatnonzero(right < 0).mean()) > 0


class Recorder:
    """The game, with a list of the actions that reach it, one a frame."""

    def __init__(self, ale):
        self.ale, self.frames = ale, []

    def act(self, action):
        self.frames.append(action)
        return self.ale.act(action)

    def __getattr__(self, name):
        return getattr(self.ale, name)


def record(**settings):
    """The number of frames of 2,000 steps with alternating actions, and how often a frame had its step's action."""
    env = Pong(**settings)
    env.reset(seed=0)
    env.ale = Recorder(env.ale)
    lengths, obeyed, actions = [], [], itertools.cycle([0, 1])
    while len(lengths) < 2000:
        start, action = len(env.ale.frames), next(actions)
        if env.step(action)[2]:  # the last step of a game may be shorter
            env.reset()
            continue
        lengths.append(len(env.ale.frames) - start)
        obeyed += [played == env.actions[action] for played in env.ale.frames[start:]]
    return collections.Counter(lengths), np.mean(obeyed)


def test_frame_skip_and_sticky_actions():
    """An action takes hold at each frame with probability 3/4, so after k frames with 1 - 1/4^k."""
    lengths, obeyed = record()
    assert lengths.keys() == {2, 3, 4} and all(abs(n - 2000 / 3) < 4 * (2000 * 2 / 9) ** 0.5 for n in lengths.values())
    held = [sum(1 - 0.25**k for k in range(1, n + 1)) for n in (2, 3, 4)]  # once it has hold it stays
    assert obeyed == pytest.approx(sum(held) / 9, abs=0.013)  # with 1/5 it would be 0.918
    assert record(frame_skip=(4, 4), repeat_action_probability=0.0) == ({4: 2000}, 1.0)
    assert record(repeat_action_probability=1.0)[1] == pytest.approx(0.5, abs=0.02)  # for ever the 0 of the reset


def test_pong_deterministic_obeys_in_each_of_four_frames():
    env, moves = environments.make("PongDeterministic-v4", 0), [1, 2] * 20
    env.reset()
    game = env.unwrapped
    game.ale = Recorder(game.ale)
    for move in moves:
        env.step(move)
    assert game.ale.frames == [game.actions[Differences.ACTIONS[move]] for move in moves for _ in range(4)]


def test_a_game_ends_at_21_points():
    env = environments.make("PongDeterministic-v4", 0)
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, _ = env.step(0)
        rewards.append(reward)
    assert terminated and not truncated and sum(rewards) == -21 and set(rewards) == {0.0, -1.0}
    assert env.reset()[0].any() == False  # noqa: E712  np.False_
    assert not env.step(0)[2]


def test_window():
    """In a process of its own: SDL's video driver is chosen once."""
    script = (
        "import numpy as np, pygame\nfrom common.pong import Pong\n"
        "env = Pong('human')\nenv.reset(seed=0)\n"
        "for _ in range(3):\n    shown, *_ = env.step(0)\n"
        "window = pygame.surfarray.array3d(env.window)[1::3, 1::3].swapaxes(0, 1)\n"
        "env.close()\nprint((window == shown).all(), shown.std() > 10, env.window)"
    )
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["True", "True", "None"], result.stderr


def first_steps(env, seed, steps=500):
    states = [env.reset(seed=seed)[0]]
    rewards = []
    for action in np.random.default_rng(0).integers(3, size=steps):
        state, reward, *_ = env.step(action)
        states.append(state)
        rewards.append(reward)
    return np.array(states), rewards


def test_the_same_seed_repeats_500_steps_whatever_was_played_before():
    env, other = environments.make("Pong-v0", 7), environments.make("Pong-v0", 8)
    states, rewards = first_steps(env, 3)
    for again in (first_steps(env, 3), first_steps(other, 3)):
        np.testing.assert_array_equal(again[0], states)
        assert again[1] == rewards
    assert (first_steps(env, 4)[0] != states).any()


def random_states(n, size=6400, density=0.01):
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], (n, size)) * (rng.random((n, size)) < density)).astype(np.int8)


def test_weights_of_dense_layers_do_not_load_as_convolutions(tmp_path):
    PPO(400, 3, None, hidden=(8,)).save(tmp_path)
    with pytest.raises(UserError, match="another network: its weights differ in convolution_1"):
        PPO(400, 3, None, hidden=(8,), convolutions=True).load(tmp_path)


def test_packed_pictures_lose_nothing():
    states = random_states(20)
    packed = pixels.pack(states)
    assert packed.shape == (20, 1600) and packed.dtype == np.uint8
    back = pixels.unpack(packed)
    np.testing.assert_array_equal(back.toarray(), states)
    assert back.nnz == np.count_nonzero(states)
    np.testing.assert_array_equal(pixels.batch(list(packed)).toarray(), states)
    np.testing.assert_array_equal(pixels.pack(states[3]), packed[3])


def test_a_sparse_product_and_its_gradient():
    rng = np.random.default_rng(0)
    b, slope = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 3), (5, 3)))
    a = random_states(5, 16, 0.3).astype(np.float32)
    a[2] = 0
    with tf.GradientTape() as tape:
        variable = tf.Variable(b)
        product = sparse_matmul(ragged(csr_array(a)), tf.convert_to_tensor(variable))
    np.testing.assert_allclose(product, a @ b, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(product, variable, slope), a.T @ slope, atol=1e-6)


@pytest.mark.parametrize("kind", [tf.constant, lambda a: ragged(csr_array(a))], ids=["numbers", "pictures"])
def test_the_first_convolution_and_its_gradient_are_tensorflows(kind):
    """Of pictures of 12 by 12 pixels, each of which is in none, one, two or four of 3 by 3 patches of 5 by 5."""
    states = random_states(6, 144, 0.2).astype(np.float32)
    states[2] = 0
    layer = Convolution(12, 4, 5, 3, tf.nn.tanh, W_init=tf.initializers.RandomNormal(seed=1))
    layer.b.assign([0.1, -0.2, 0.3, 0.0])
    found, expected = [], []
    for results, convolve in (
        (found, lambda: layer.forward(kind(states))),
        (expected, lambda: tf.tanh(tf.nn.conv2d(states.reshape(-1, 12, 12, 1), layer.W, 3, "VALID") + layer.b)),
    ):
        with tf.GradientTape() as tape:
            results.append(convolve())
        slope = np.random.default_rng(0).standard_normal((6, 3, 3, 4)).astype(np.float32)
        results.extend(tape.gradient(results[0], [layer.W, layer.b], slope))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("baseline", ["normalise", "value"])
def test_a_picture_gives_what_the_same_numbers_give(baseline):
    """Acting, the advantage and the update: sparse from int8 states, dense from the same states as floats."""
    agents = [
        PolicyGradient(160, 3, baseline=baseline, hidden=(8,), reset_at_points=True, reward_scale=1.0, seed=1)
        for _ in range(2)
    ]
    states, rng = random_states(50, 160, 0.1), np.random.default_rng(0)
    for agent, kind in zip(agents, (np.int8, np.float32), strict=True):
        for i, state in enumerate(states):
            agent.store_transition(state.astype(kind), i % 3, float(i % 10 == 9) * (-1) ** (i // 10))
    assert agents[0].state_buffer[0].nbytes == 40 and agents[1].state_buffer[0].nbytes == 640
    reports = [agent.learn() for agent in agents]
    assert reports[0] == pytest.approx(reports[1], abs=1e-6)
    for ours, theirs in zip(agents[0].actor.all_weights, agents[1].actor.all_weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)
    state = random_states(1, 160, 0.1)[0]
    np.testing.assert_allclose(agents[0].policy(state), agents[1].policy(state.astype(np.float32)), atol=1e-5)
    assert {agent.get_action(rng.permutation(state)) for agent in agents for _ in range(50)} == {0, 1, 2}


def test_a_setting_that_is_changed_takes_effect():
    """For pictures too, whose update is compiled without XLA."""
    agents = [PolicyGradient(160, 3, hidden=(8,), seed=1) for _ in range(2)]
    for entropy in (0.0, 3.0):
        for agent in agents:
            for i, state in enumerate(random_states(20, 160, 0.1)):
                agent.store_transition(state, i % 3, float(i))
            agent.learn()
        weights = [np.concatenate([w.numpy().ravel() for w in agent.actor.all_weights]) for agent in agents]
        assert np.array_equal(*weights) == (entropy == 0)
        agents[0].entropy = 3.0


def test_returns_start_again_at_each_point():
    rewards = [0.0, 0.0, -1.0, 0.0, 1.0, 0.0]
    agent, plain = (
        PolicyGradient(8, 2, gamma=0.5, baseline="none", reset_at_points=reset, reward_scale=1.0)
        for reset in (True, False)
    )
    for each in (agent, plain):
        for reward in rewards:
            each.store_transition(np.zeros(8), 0, reward)
    np.testing.assert_allclose(agent._discount_and_norm_rewards(), [-0.25, -0.5, -1, 0.5, 1, 0])
    assert agent.time_buffer == [0, 1, 2, 0, 1, 0]
    np.testing.assert_allclose(plain._discount_and_norm_rewards(), [-0.1875, -0.375, -0.75, 0.5, 1, 0])


def test_the_gradient_uses_the_whole_batch():
    """The printed loss weighs all games by the returns of the last one; here the first game counts as well."""
    weights = []
    for first in (1.0, -1.0):
        agent = PolicyGradient(8, 2, baseline="none", hidden=(4,), reset_at_points=True, seed=1)
        for reward, state in ((first, np.eye(8)[0]), (1.0, np.eye(8)[1])):
            agent.store_transition(state, 0, reward)
            agent.finish_path()
        agent.learn()
        weights.append(agent.policy(np.eye(8)[0]))
    assert weights[0][0] > weights[0][1] and weights[1][0] < weights[1][1]


def make_agent(config):
    env = environments.make(config.env, config.seed)
    return env, PolicyGradient(*environments.dimensions(env)[:2], **keywords(config, PolicyGradient))


def test_players():
    """Episodes depend on policy and seed, not on who plays them; the processes hold no TensorFlow."""
    _, agent = make_agent(Config(env="Pong-v0", hidden=(8,)))
    with Players("Pong-v0", 1) as alone:
        expected = list(alone.play(agent.policy, [5, 6, 7]))
    with Players("Pong-v0", 2) as players:
        found = list(players.play(agent.policy, np.array([5, 6, 7])))
        assert not players.pools[0].submit(eval, "'tensorflow' in __import__('sys').modules").result()
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.states, theirs.states)
            assert (ours.actions, ours.rewards) == (theirs.actions, theirs.rewards) and ours.terminated
        assert found[0].actions != found[1].actions
        assert found[0].states.shape == (len(found[0].actions), 1600)
        for process in players.pools[0]._processes.values():
            process.kill()
        with pytest.raises(UserError, match="killed"):
            list(players.play(agent.policy, [8, 9]))


def test_a_seat_draws_each_dimension_by_itself(monkeypatch):
    monkeypatch.setattr(environments, "make", lambda *_: Ends(gym.spaces.Box(-1, 1, (2,))))
    std = np.float32([0.5, 2])
    path = Seat("any", 4).play(lambda state: np.float32([1, -2]), 3, std)
    noise = np.random.default_rng([4, 1]).standard_normal((3, 2), np.float32)
    np.testing.assert_allclose(path.actions, [1, -2] + std * noise, rtol=1e-5)


def test_environments_in_processes_play_on_where_they_stopped():
    """Each by its own seed, whatever the number of processes and however the steps are cut into calls."""
    agent = PolicyGradient(4, 2)

    def play(seeds, count, stretches):
        with Tables("CartPole-v1", seeds, count) as tables:
            return [path for steps in stretches for path in tables.play(agent.policy, steps)]

    def states(paths):
        return np.concatenate([path.states for path in paths])

    apart = [play([seed], 1, [90]) for seed in (3, 4, 5)]
    np.testing.assert_array_equal(states(play([3, 4, 5], 2, [90])), states(itertools.chain(*apart)))
    assert len({path[0].states[0, 0] for path in apart}) == 3
    for whole, seed in zip(apart, (3, 4, 5), strict=True):
        parts = play([seed], 1, [7] * 10 + [20])
        np.testing.assert_array_equal(states(parts), states(whole))
        lengths = [len(path.rewards) for path in whole if path.episode]
        episodes = [path.episode for path in parts if path.episode]
        assert episodes == [path.episode for path in whole if path.episode] == [(length, length) for length in lengths]
        assert max(lengths) > 7


def test_in_processes_continuous_actions_are_drawn_around_the_policys_means():
    agent = PPO(3, 1, np.float32([2]), hidden=(8,), log_std=-1.0, normalising=True)
    agent.normaliser.update(np.random.default_rng(0).normal(1, 3, (50, 3)))
    with Tables("Pendulum-v1", [3, 4], 2) as tables:
        _, path = tables.play(agent.policy, 20, agent.std)
    noise = np.random.default_rng([4, 1]).standard_normal((20, 1), np.float32)
    seen = agent.normaliser(path.states)
    np.testing.assert_allclose(path.actions, agent.actor(seen) + np.exp(-1) * noise, rtol=1e-4, atol=1e-5)


def test_a_players_actions_are_independent_of_its_environments_chance():
    """From one seed and one stream, the first action would tell which number of the start state is the larger."""
    agent = PolicyGradient(4, 2)
    agent.actor.all_weights[-2].assign(np.zeros((32, 2)))
    agent._refresh()
    with Players("CartPole-v1", 1) as players:
        episodes = list(players.play(agent.policy, range(64)))
    found = [(each.states[0, 0] < each.states[0, 1]) == each.actions[0] for each in episodes]
    assert 16 < sum(found) < 48


def run_training(folder, episodes, workers, resume=False):
    config = Config(
        train=True,
        env="PongDeterministic-v4",
        out=folder,
        steps=None,
        episodes=episodes,
        batch_size=2,
        hidden=(8,),
        reset_at_points=True,
        workers=workers,
        resume=resume,
        solved=None,
    )
    env, agent = make_agent(config)
    train_side_by_side(config, agent, env)
    return np.concatenate([w.numpy().ravel() for w in agent.actor.all_weights])


RAW = dict(no_normalising=True)


@pytest.mark.parametrize("algorithm", [PPO, partial(A2C, **RAW), partial(ACNet, "", **RAW)], ids=["ppo", "a2c", "a3c"])
def test_convolutions_by_hand(algorithm):
    """Of a picture of 28 by 28: 6 by 6 places of 4 filters, then 2 by 2 of 6, in TensorFlow and in NumPy."""
    agent = algorithm(784, 3, None, hidden=(8,), act="relu", convolutions=True, filters=(4, 6), seed=1)
    rng, states = np.random.default_rng(0), random_states(5, 784, 0.1)
    for weight in agent.actor.all_weights:  # biases begin at 0, where a forgotten one would not show
        weight.assign(rng.normal(0, 0.3, weight.shape))
    agent.policy.refresh()
    K, b, L, c, V, d, W, e = (weight.numpy() for weight in agent.actor.all_weights)
    assert (K.shape, L.shape, V.shape) == ((8, 8, 1, 4), (4, 4, 4, 6), (24, 8))

    def convolution(layers, kernel, bias, stride):
        """layers: one matrix a filter of the layer before."""
        maps = [sum(map(lambda x, k: correlate2d(x, k, "valid"), layers, k)) for k in kernel.transpose(3, 2, 0, 1)]
        return [np.maximum(each[::stride, ::stride] + bias[i], 0) for i, each in enumerate(maps)]

    for state in states:
        seen = convolution(convolution([state.reshape(28, 28)], K, b, 4), L, c, 2)
        expected = np.maximum(np.stack(seen, -1).ravel() @ V + d, 0) @ W + e
        assert np.abs(expected).max() > 0.1
        numbers = state[None].astype(np.float32)
        for found in agent.policy(state), agent.policy(state[None])[0], agent.actor(numbers)[0]:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size, convolutions", [(160, False), (400, True)])
def test_ppo_learns_from_pictures_what_it_learns_from_the_same_numbers(size, convolutions):
    settings = dict(hidden=(8,), minibatch_size=16, entropy=0.1, convolutions=convolutions, seed=1)
    agents = [PPO(size, 3, None, **settings) for _ in range(2)]
    states = random_states(49, size, 0.1)
    for agent, kind in zip(agents, (np.int8, np.float32), strict=True):
        for i, state in enumerate(states[:48].astype(kind)):
            agent.store_transition(state, i % 3, float(i % 10 == 9) * (-1) ** (i // 10))
        agent.finish_path(states[48].astype(kind), False)
    assert agents[0].state_buffer[0].nbytes == size / 4
    np.testing.assert_allclose(agents[0].adv_buffer, agents[1].adv_buffer, atol=1e-6)
    before = agents[0].actor.all_weights[0].numpy()
    for agent in agents:
        agent.update()
    for name in "actor", "critic":
        for ours, theirs in zip(*(getattr(agent, name).all_weights for agent in agents), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)
    assert np.abs(agents[0].actor.all_weights[0].numpy() - before).max() > 0.01


def test_ppo_ends_a_path_at_each_point():
    agent = PPO(8, 2, None, gamma=0.5, gae_lambda=1.0, reset_at_points=True, reward_scale=1.0, hidden=(4,))
    for reward in [0.0, 0.0, -1.0, 0.0, 1.0, 0.0]:
        agent.store_transition(np.zeros(8), 0, reward)
    agent.finish_path(np.ones(8), False)
    last = float(agent.value(np.ones(8))[0])
    np.testing.assert_allclose(agent.cumulative_reward_buffer, [-0.25, -0.5, -1, 0.5, 1, 0.5 * last])
    own = float(agent.value(np.zeros(8))[0])
    np.testing.assert_allclose(agent.adv_buffer, np.array(agent.cumulative_reward_buffer) - own, atol=1e-6)


def test_ppo_side_by_side_closes_paths_at_ends_limits_and_the_batchs_end(tmp_path, monkeypatch):
    """Two environments, 7 steps of each an update; their first episode, cut after 5 steps, is number 1."""
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    settings = dict(steps=26, batch_size=14, environments=2, workers=2, hidden=(8,), running=0.5)
    config = ppo.Config(train=True, env="ends:Ends-v1", out=tmp_path, **settings)
    closed, rounds, agent = [], [], PPO(2, 2, None, **keywords(config, PPO))
    original, update = agent.finish_path, agent.update
    agent.finish_path = lambda state, done: closed.append((*state, done)) or original(state, done)
    agent.update = lambda: rounds.append((closed[:], len(agent.state_buffer))) or closed.clear() or update()
    ppo.train_side_by_side(config, agent, environments.make(config.env, 0))
    first, second = [(1, 5, False), (2, 2, False)], [(2, 3, True), (3, 5, False), (4, 1, False)]
    assert rounds == [(first * 2, 14), (second * 2, 14)]
    with open(config.model_folder / "episodes.csv") as file:
        rows = [float(row["reward"]) for row in csv.DictReader(file)]
    assert rows == [15, 15, 6, 15, 6, 15]


@pytest.mark.parametrize("main, algorithm", [(ppo, PPO), (trpo, TRPO)])
def test_side_by_side_learns_the_same_whatever_the_number_of_processes(tmp_path, main, algorithm):
    def learnt(workers):
        settings = dict(steps=600, batch_size=240, environments=3, workers=workers, hidden=(8,), normalising=True)
        config = main.Config(train=True, out=tmp_path / str(workers), **settings)
        env = environments.make(config.env, 0)
        agent = algorithm(*environments.dimensions(env), **keywords(config, algorithm))
        main.train_side_by_side(config, agent, env)
        return np.concatenate([np.ravel(weight) for weight in [*agent.actor_weights, agent.normaliser.mean]])

    one = learnt(1)
    np.testing.assert_array_equal(one, learnt(2))
    assert np.abs(one[-3:]).min() > 0  # of states that were played


ENDS = f"""
import types
import importlib
import gym
import numpy as np

{inspect.getsource(Ends)}
gym.register("Ends-v1", entry_point=Ends, kwargs=dict(action_space=gym.spaces.Discrete(2)))
"""


def test_side_by_side_tells_an_end_from_a_time_limit_and_learns_from_whole_batches(tmp_path, monkeypatch):
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    settings = dict(steps=None, episodes=8, baseline="value", gamma=0.5, reward_scale=1.0, running=0.99, solved=None)
    config = Config(train=True, env="ends:Ends-v1", out=tmp_path, batch_size=4, workers=2, **settings)
    env, agent = make_agent(config)
    seen = spy(agent)
    last = {episode: float(agent.value([episode, 5])[0]) for episode in range(1, 9)}  # of those that are cut
    train_side_by_side(config, agent, env)
    (states, _, _, returns, mask, paths, _), _ = seen[0]
    for (episode, t), found in zip(states[: int(mask.sum())], returns, strict=False):
        length, tail = (3, 0.0) if episode % 2 == 0 else (5, last[episode])
        expected = sum(0.5 ** (k - t) * (k + 1) for k in range(int(t), length)) + 0.5 ** (length - t) * tail
        assert found == pytest.approx(expected, rel=1e-4)
    episode, t = states[: int(mask.sum())].T
    assert {*episode % 2} == {0, 1} and (np.sum(t == 0), paths, len(seen)) == (4, 4, 2)
    with open(config.model_folder / "episodes.csv") as file:
        rows = [(float(row["reward"]), float(row["running_reward"])) for row in csv.DictReader(file)]
    rewards, running = zip(*rows, strict=True)
    assert {*rewards} == {6, 15} and len(rewards) == 8
    means = itertools.accumulate(rewards, lambda mean, reward: 0.99 * mean + 0.01 * reward)  # the listing's
    np.testing.assert_allclose(running, [*means])


def test_the_running_reward_is_the_listings():
    assert {preset["running"] for env_id, preset in PRESETS.items() if "Pong" in env_id} == {0.99}


def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path):
    whole = run_training(tmp_path / "a", 4, workers=2)
    assert (run_training(tmp_path / "b", 2, workers=1) != whole).any()
    np.testing.assert_array_equal(run_training(tmp_path / "b", 4, workers=1, resume=True), whole)


def test_no_two_games_of_a_run_begin_alike(tmp_path, monkeypatch):
    played = []

    class Seeds:
        def __init__(self, env_id, count):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def play(self, policy, seeds):
            for seed in seeds:
                played.append(seed)
                state = random_states(1)[0]
                yield Path([state], [0], [1.0], state, True, (1.0, 1))

    monkeypatch.setattr("common.players.Players", Seeds)
    for seed in 0, 1:
        settings = dict(steps=None, episodes=6, batch_size=3, hidden=(4,), workers=2, solved=None, seed=seed)
        config = Config(train=True, env="Pong-v0", out=tmp_path, **settings)
        env, agent = make_agent(config)
        train_side_by_side(config, agent, env)
    assert len({*played}) == len(played) == 12


def test_the_best_weights_stay(tmp_path):
    """Batches of two: the running reward after the second is the highest, those after the third are not kept."""
    config = Config(train=True, env="Pong-v0", out=tmp_path, hidden=(4,))
    env, agent = make_agent(config)
    with Training(config, agent, env, best_of=2) as run:
        for mark, rewards in enumerate([(-20, -21), (-5, -20), (-21, -20)]):
            agent.actor.all_weights[-1].assign(np.full(3, mark))
            for reward in rewards:
                run.log(reward, 1000)
            assert run.goes_on()
    agent.load(config.model_folder)
    assert agent.actor.all_weights[-1].numpy()[0] == 1
    assert np.load(config.model_folder / "resume.npz")["agent/actor/3"][0] == 2


def test_the_best_weights_that_can_be_written_stay(tmp_path, monkeypatch, capsys):
    """The second batch's are the best, and can't; after the third the disk has room, and the fourth's are worse."""
    config = Config(train=True, env="Pong-v0", out=tmp_path, hidden=(4,))
    env, agent = make_agent(config)
    save = agent.save

    def full(*_):
        raise OSError(28, "No space left on device")

    with Training(config, agent, env, best_of=2) as run:
        for mark, rewards in enumerate([(-20, -21), (-5, -20), (-20, -20), (-21, -21)]):
            monkeypatch.setattr(agent, "save", full if mark == 1 else save)
            agent.actor.all_weights[-1].assign(np.full(3, mark))
            for reward in rewards:
                run.log(reward, 1000)
            assert run.goes_on()
    assert capsys.readouterr().err.count("can't save") == 1
    agent.load(config.model_folder)
    assert agent.actor.all_weights[-1].numpy()[0] == 2


@pytest.mark.parametrize("best_of, kept", [((2, 2), 0), ((0, 2), 1), ((2, 0, 2), 2)])
def test_the_best_weights_stay_when_a_run_is_resumed(tmp_path, best_of, kept):
    """A run that kept its last ones, as with --workers 0, has no best ones."""
    config = Config(train=True, env="Pong-v0", out=tmp_path, hidden=(4,))
    for mark, (episodes, reward) in enumerate(zip(best_of, (-5, -20, -19), strict=False)):
        env, agent = make_agent(config)
        with Training(config, agent, env, best_of=episodes) as run:
            agent.actor.all_weights[-1].assign(np.full(3, mark))
            for _ in range(2):
                run.log(reward, 1000)
            assert run.goes_on()
        config = Config(train=True, resume=True, env="Pong-v0", out=tmp_path, hidden=(4,))
    agent.load(config.model_folder)
    assert agent.actor.all_weights[-1].numpy()[0] == kept


def test_a_run_without_a_game_leaves_no_weights(tmp_path):
    config = Config(train=True, env="Pong-v0", out=tmp_path, hidden=(4,))
    env, agent = make_agent(config)
    with Training(config, agent, env, best_of=2):
        pass
    assert (config.model_folder / "resume.npz").exists() and not weights.exist(config.model_folder)


def test_float16_weights_load(tmp_path):
    """As the shipped ones are, to be small."""
    (_, agent), (_, other) = (make_agent(Config(env="Pong-v0", hidden=(4,), seed=seed)) for seed in (1, 2))
    agent.actor.all_weights[-1].assign([0.1, 0.2, 0.3])
    agent._refresh()
    agent.save(tmp_path)
    with np.load(tmp_path / "actor.npz") as file:
        small = {name: array.astype(np.float16) for name, array in file.items()}
    np.savez_compressed(tmp_path / "actor.npz", **small)
    other.load(tmp_path)
    state = random_states(1)[0]
    np.testing.assert_allclose(other.policy(state), agent.policy(state), atol=1e-3)


def test_the_command_trains_and_plays(command, tmp_path):
    flags = ("--env", "Pong-V0", "--workers", 2, "--batch-size", 2, "--hidden", 16)
    result = command("reinforce", "--train", "--test", *flags, "--episodes", 4, "--test-episodes", 1)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "Pong-V0 of the book is Pong-v0 today."
    assert re.fullmatch(r"Training \| Episode: 4/4 \| Episode Reward: -\d+\.0000 \| Running Time: \S+", lines[4])
    assert re.fullmatch(r"Testing \| Mean of 1: -\d+\.0 \| Standard deviation: 0\.0", lines[-1])
    assert (tmp_path / "image/reinforce_Pong-v0.gif").stat().st_size > 10000
    assert {path.name for path in (tmp_path / "model/reinforce/Pong-v0").iterdir()} == {
        "actor.npz",
        "config.json",
        "episodes.csv",
        "resume.npz",
        "updates.csv",
    }


@pytest.mark.parametrize(
    "algorithm, env_id, episodes, at_least, flags",
    [
        ("reinforce", "Pong-v0", 3, 2, []),
        ("reinforce", "Pong-v0", 2, 1, ["--sampled"]),
        ("a2c", "Pong-v0", 2, 8, []),
        ("a2c", "PongPresent-v0", 2, 11, []),
        ("a3c", "Pong-v0", 2, 5, []),
        ("a3c", "PongPresent-v0", 2, 10, []),
        ("ppo", "Pong-v0", 2, 7, []),
        ("ppo", "PongPresent-v0", 2, 8, []),
    ],
)  # at random: -20.4
def test_the_shipped_weights_play(algorithm, env_id, episodes, at_least, flags, main_with, no_film, capsys):
    main_with(algorithm, "--test", "--env", env_id, "--test-episodes", episodes, *flags)
    assert float(re.search(rf"Mean of {episodes}: (\S+)", capsys.readouterr().out).group(1)) > at_least
    assert all(path.stat().st_size < 1e6 for path in (ROOT / algorithm / "pretrained" / env_id).iterdir())


def training(folder):
    """A run with two players, in a process group of its own, that has finished a game."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "reinforce/main.py"), "--train", "--env", "Pong-v0", "--workers", "2"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process.stdout.readline()
    return process


def wait_for_the_end_of(group):
    """Fail unless all processes of the group end (multiprocessing's own helper is the last to go)."""
    deadline = time.time() + 300  # seconds; a busy machine needs some
    with pytest.raises(ProcessLookupError):
        while time.time() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals to a process group")
def test_ctrl_c_reaches_all_processes_and_only_one_answers(tmp_path):
    process = training(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=1200)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "Weights and episodes.csv" in stdout
    assert len((tmp_path / "model/reinforce/Pong-v0/episodes.csv").read_text().splitlines()) == 1 + 2  # a whole batch
    wait_for_the_end_of(process.pid)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals")
def test_a_player_that_is_still_starting_does_not_see_ctrl_c():
    _, agent = make_agent(Config(env="CartPole-v1"))
    with Players("CartPole-v1", 2) as players:
        games = players.play(agent.policy, [0, 1])
        children = active_children()
        for process in children:
            os.kill(process.pid, signal.SIGINT)
        assert len(children) == len(list(games)) == 2


ENDLESS = """
import os
import gym
from gym.envs.classic_control import CartPoleEnv

class Endless(CartPoleEnv):
    def step(self, action):
        open(f"{os.getpid()}.steps", "w").close()
        return self.reset()[0], 1.0, False, False, {}

gym.register("Endless-v0", entry_point=Endless)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals to a process group")
def test_the_second_ctrl_c_does_not_wait_for_the_players(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    words = ("--train", "--env", "endless:Endless-v0", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "reinforce/main.py"), *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(tmp_path.glob("*.steps"))) < 2 and process.poll() is None:  # until both players play
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert any("Ctrl-C again stops at once" in line for line in process.stderr)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, stderr = process.communicate(timeout=1200)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, "\nStopped.\n")
    wait_for_the_end_of(process.pid)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals to a process group")
def test_players_end_with_a_run_that_is_killed(tmp_path):
    process = training(tmp_path)
    process.kill()
    process.communicate()
    wait_for_the_end_of(process.pid)


def test_refusals(command, tmp_path):
    for algorithm, env_id, message in (
        ("ddpg", "Pong-v0", "Pong-v0 has discrete actions, and this algorithm needs continuous ones"),
        ("reinforce", "Pong-v5", "no environment 'Pong-v5'; the nearest are"),
    ):
        result = command(algorithm, "--train", "--env", env_id)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1) and message in result.stderr
    (tmp_path / "ale_py.py").write_text("raise ImportError('no ale_py')")
    result = command("reinforce", "--train", "--env", "Pong-v0", PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "Pong-v0 needs a package that is not installed" in result.stderr and "ale-py" in result.stderr


@pytest.mark.parametrize(
    "main, flags, message",
    [
        (
            ppo,
            ["--env", "CartPole-v1", "--workers", "1", "--batch-size", "7"],
            "--batch-size must be at least --environments",
        ),
        (trpo, ["--workers", "1", "--batch-size", "12"], "--batch-size must be a multiple of --environments"),
        (ppo, ["--env", "Pong-v0", "--render"], "give --workers 0 too"),
        (trpo, ["--workers", "1", "--render"], "give --workers 0 too"),
        (a2c, ["--convolutions"], "--convolutions is for pictures, and CartPole-v1 has numbers"),
        (a3c, ["--convolutions"], "--convolutions is for pictures, and BipedalWalker-v3 has numbers"),
        (
            ppo,
            ["--env", "Pong-v0", "--normalising"],
            "--normalising is for states of numbers, and Pong-v0 has pictures",
        ),
        (
            trpo,
            ["--env", "Pong-v0", "--workers", "1"],
            "--workers is for states of numbers, and Pong-v0 has pictures",
        ),
        (acktr, ["--env", "Pong-v0"], "41 million numbers each, is for states of numbers, and Pong-v0 has pictures"),
        (
            ppo,
            ["--env", "CartPole-v1", "--convolutions"],
            "--convolutions is for pictures, and CartPole-v1 has numbers",
        ),
    ],
)
def test_side_by_side_refuses_what_cannot_be(monkeypatch, tmp_path, main, flags, message):
    monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--out", str(tmp_path), *flags])
    with pytest.raises(UserError, match=message):
        main.main()
    assert not any(tmp_path.iterdir())
