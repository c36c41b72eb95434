"""DDPG as it runs: memory, exploration, the fused gradient steps, batch normalisation, the main loop."""

import gym
import numpy as np
import pytest
from conftest import Ends, is_orthogonal

from common import checkpoint, environments
from common.command import UserError
from ddpg.agent import DDPG
from ddpg.main import Config, train

RANGE = np.array([2.0, 0.5], np.float32)


def make(**settings):
    return DDPG(2, 3, RANGE, **{"hidden": (8, 6), "batch_size": 16, "memory_capacity": 1000, **settings})


def remember(agent, n, seed=0):
    """Random steps, a third of them ends."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        s, s_ = rng.standard_normal((2, 3))
        agent.store_transition(s, rng.uniform(-RANGE, RANGE), rng.standard_normal(), s_, i % 3 == 0)


def all_weights(agent):
    return [w.numpy() for [network] in agent._networks().values() for w in network.all_weights]


def scatter(agent, seed=0):
    """Weights large enough that every term of a formula counts; all four networks differ."""
    rng = np.random.default_rng(seed)
    for [network] in agent._networks().values():
        for w in network.trainable_weights:
            w.assign(rng.normal(0, 0.7, w.shape))
        for w in network.nontrainable_weights:  # averages of batch normalisation
            w.assign(rng.uniform(0.5, 1.5, w.shape))
    agent.policy.refresh()


# the memory


def test_ddpg_remembers_all_five_things_and_wraps_around():
    agent = DDPG(1, 2, np.ones(1, np.float32), memory_capacity=3, reward_scale=0.5, hidden=(4,))
    for i in range(4):
        agent.store_transition(np.array([i, i]), np.array([-i]), 2 * i, np.array([i + 1, i + 1]), i == 3)
    assert agent.pointer == 4
    np.testing.assert_array_equal(agent.memory[0], [3, 3, -3, 3, 4, 4, 1])
    np.testing.assert_array_equal(agent.memory[1], [1, 1, -1, 1, 2, 2, 0])


def test_learning_starts_before_the_memory_is_full():
    """The listing waits until MEMORY_CAPACITY steps were stored."""
    agent = make(batch_size=8)
    remember(agent, 10)
    before = all_weights(agent)
    agent.learn()
    assert any((a != b).any() for a, b in zip(before, all_weights(agent), strict=True))


@pytest.mark.parametrize("stored", [10, 50, 130])
def test_minibatches_are_drawn_from_all_that_is_stored_and_nothing_else(stored):
    agent, drawn = make(memory_capacity=50), []
    for i in range(1, stored + 1):
        agent.store_transition(np.full(3, i), np.zeros(2), 0.0, np.full(3, i))
    agent._learn = lambda batches, progress: drawn.append(batches) or (0.0, 0.0)
    agent.learn(100)
    assert drawn[0].shape == (100, 16, 10)
    assert set(drawn[0][..., 0].ravel()) == set(range(max(stored - 50, 0) + 1, stored + 1))


def test_learning_from_an_empty_memory_says_what_to_do():
    with pytest.raises(RuntimeError, match="memory is empty: call store_transition first"):
        make().learn()


# exploration


def test_noise_is_a_part_of_each_dimensions_range_and_stays_within_the_bounds():
    agent = make(var=0.04)
    actions = np.array([agent.get_action(np.zeros(3)) for _ in range(5000)])
    np.testing.assert_allclose(actions.std(0), 0.2 * RANGE, rtol=0.05)
    np.testing.assert_allclose(actions.mean(0), agent.get_action(np.zeros(3), greedy=True), atol=0.02)
    agent.var = 100.0
    actions = np.array([agent.get_action(np.zeros(3)) for _ in range(100)])
    np.testing.assert_allclose(np.abs(actions).max(0), RANGE)


def test_variance_decays_at_each_gradient_step():
    agent = make(var=0.5, var_decay=0.9)
    remember(agent, 20)
    agent.learn(3)
    assert agent.var == pytest.approx(0.5 * 0.9**3)
    agent.learn()
    assert agent.var == pytest.approx(0.5 * 0.9**4)


def test_ou_noise_begins_anew():
    """After `reset_noise` the process is at 0, its mean, and moves away from there by Eq. (6.1)."""
    agent = make(noise="ou", ou_theta=0.2, var=1e-4)
    before = agent.get_action(np.zeros(3), greedy=True)
    sizes = []
    for _ in range(2000):
        agent.reset_noise()
        np.testing.assert_array_equal(agent.ou, 0)
        sizes.append([agent.get_action(np.zeros(3)) - before for _ in range(2)])
    # X_0 = 0 and X_t+1 = 0.8 X_t + 0.6 N(0, 1): deviations 0.6 and sqrt(0.8^2 * 0.36 + 0.36)
    expected = 0.01 * np.outer([0.6, np.sqrt(0.5904)], RANGE)
    np.testing.assert_allclose(np.std(sizes, axis=0), expected, rtol=0.06)


@pytest.mark.parametrize("theta", [0.0, -0.1, 1.5])
def test_a_theta_that_equation_6_1_excludes_is_refused(theta):
    with pytest.raises(ValueError, match=f"ou_theta must be greater than 0 and at most 1, not {theta}"):
        make(noise="ou", ou_theta=theta)


def test_the_command_refuses_a_theta_of_0(command):
    result = command("ddpg", "--train", "--noise", "ou", "--ou-theta", "0")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "--ou-theta must be greater than 0" in result.stderr


def test_an_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="'pink'"):
        make(noise="pink")


# gradient steps


def test_targets_begin_as_copies():
    agent = make(batch_norm=True)
    for net, target in ((agent.actor, agent.actor_target), (agent.critic, agent.critic_target)):
        for w, t in zip(net.all_weights, target.all_weights, strict=True):
            np.testing.assert_array_equal(w, t)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fused_steps_equal_the_same_steps_one_by_one(batch_norm):
    agents = [make(batch_norm=batch_norm, tau=0.1, lr_a=0.1, lr_c=0.05, seed=4) for _ in range(2)]
    for agent in agents:
        agent.actor_opt.epsilon = agent.critic_opt.epsilon = 1.0  # Adam's steps then grow with the gradients
        scatter(agent)
        remember(agent, 100)
    fused, single = agents
    report, losses = fused.learn(3), []
    for batch in single.memory[single.rng.integers(100, size=(3, 16))]:
        s, a, r, s_, done = np.split(batch, [3, 5, 6, 9], 1)
        losses.append((single.train_critic(s, a, r, s_, done), single.train_actor(s)))
        single.ema_update()
    critic_loss, actor_loss = np.mean(losses, 0)
    expected = dict(critic_loss=critic_loss, actor_loss=actor_loss, q=-actor_loss, var=0.5 * 0.9995**3)
    assert report == pytest.approx(expected, rel=1e-4)
    for a, b in zip(all_weights(fused), all_weights(single), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_the_averages_of_batch_normalisation_are_saved_and_resumed(tmp_path):
    agent, resumed, loaded = (make(batch_norm=True, seed=seed) for seed in range(3))
    remember(agent, 100)
    agent.learn(3)
    checkpoint.restore(checkpoint.collect(agent=agent), "a run", agent=resumed)
    agent.save(tmp_path)
    loaded.load(tmp_path)
    assert len(agent.critic.nontrainable_weights) == 2
    for other in resumed, loaded:
        for weight, expected in zip(all_weights(other), all_weights(agent), strict=True):
            np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("settings, what", [(dict(hidden=(8, 7)), "actor/2"), (dict(memory_capacity=50), "memory")])
def test_a_checkpoint_of_other_sizes_is_refused_and_changes_nothing(settings, what):
    agent, other = make(), make(**settings)
    remember(agent, 20)
    before = {name: array.copy() for name, array in checkpoint.collect(agent=other).items()}
    with pytest.raises(UserError, match=f"^a run is of a run with other settings: agent/{what} differs$"):
        checkpoint.restore(checkpoint.collect(agent=agent), "a run", agent=other)
    for name, array in checkpoint.collect(agent=other).items():
        np.testing.assert_array_equal(array, before[name])


def test_first_weights_are_orthogonal_and_the_first_actions_small():
    agent = make(hidden=(64, 64))
    for net, last_gain in (agent.actor, 0.01), (agent.critic, 1.0):
        for W, gain in zip(net.all_weights[::2], (2**0.5, 2**0.5, last_gain), strict=True):
            assert is_orthogonal(W, gain)


def test_settings_take_effect_after_the_first_update():
    agent = make()
    remember(agent, 100)
    agent.learn()
    agent.lr_a = agent.lr_c = 0.0
    agent.tau = 1.0
    before = [w.numpy() for net in (agent.actor, agent.critic) for w in net.all_weights]
    agent.learn()
    after = [w.numpy() for net in (agent.actor, agent.critic) for w in net.all_weights]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    for net, target in ((agent.actor, agent.actor_target), (agent.critic, agent.critic_target)):
        for w, t in zip(net.all_weights, target.all_weights, strict=True):
            np.testing.assert_allclose(w, t, rtol=1e-6)
    agent.gamma, agent.lr_c = 1e6, 1e-3
    batches = agent.memory[np.zeros((1, 16), int) + 1]  # a step that bootstraps
    assert float(agent._learn(batches, np.float32(0))[0]) > 1e3


def test_a_loss_that_is_no_number_stops_learning():
    agent = make()
    agent.store_transition(np.zeros(3), np.zeros(2), np.nan, np.zeros(3))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        agent.learn()


# batch normalisation


def q_with_batch_norm(critic, state, action, moments=None):
    """The critic in NumPy; moments: (mean, variance) to normalise with, those of the batch if not given."""
    w = {layer.name: layer for layer in critic.all_layers}
    x = state @ w["hidden_1"].all_weights[0].numpy() + w["hidden_1"].all_weights[1].numpy()
    mean, var = moments or (x.mean(0), x.var(0))
    norm = w["norm"]
    x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * norm.gamma.numpy() + norm.beta.numpy(), 0)
    x = np.concatenate([x, action], 1)  # the action joins after the normalised layer
    x = np.maximum(x @ w["hidden_2"].all_weights[0].numpy() + w["hidden_2"].all_weights[1].numpy(), 0)
    return x @ w["value"].all_weights[0].numpy() + w["value"].all_weights[1].numpy()


def averages(critic):
    norm = critic.get_layer("norm")
    return norm.moving_mean.numpy(), norm.moving_var.numpy()


def test_batch_norm_trains_the_critic_on_the_batch_and_everything_else_on_the_averages():
    agent = make(batch_norm=True, gamma=0.9)
    scatter(agent)
    rng = np.random.default_rng(1)
    s, s_ = rng.normal(1, 2, (2, 32, 3)).astype(np.float32)
    a, r = rng.uniform(-RANGE, RANGE, (32, 2)).astype(np.float32), rng.standard_normal((32, 1)).astype(np.float32)
    done = np.float32(np.arange(32) % 2)[:, None]

    next_q = q_with_batch_norm(agent.critic_target, s_, agent.actor_target(s_).numpy(), averages(agent.critic_target))
    expected = np.mean((r + 0.9 * (1 - done) * next_q - q_with_batch_norm(agent.critic, s, a)) ** 2)
    target_before = averages(agent.critic_target)
    assert agent.train_critic(s, a, r, s_, done).numpy() == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(averages(agent.critic_target), target_before)

    before = averages(agent.critic)
    expected = -q_with_batch_norm(agent.critic, s, agent.actor(s).numpy(), before).mean()
    assert agent.train_actor(s).numpy() == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(averages(agent.critic), before)
    agent.ema_update()  # the averages lag behind already: they are copied
    np.testing.assert_array_equal(averages(agent.critic_target), before)


def test_batch_norm_normalises_in_training_and_uses_its_averages_in_evaluation():
    agent = make(batch_norm=True, hidden=(16, 16))
    state = np.random.default_rng(0).normal(3, 5, (64, 3)).astype(np.float32)
    action = np.zeros((64, 2), np.float32)
    norm = agent.critic.get_layer("norm")
    agent.critic.train()
    agent.critic([state, action])
    x = agent.critic.get_layer("hidden_1")(state).numpy()
    np.testing.assert_allclose(norm.moving_mean, 0.01 * x.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm.moving_var, 0.99 + 0.01 * x.var(0), rtol=1e-3)
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


# the run


def test_main_remembers_true_ends_last_states_and_learns_when_due(tmp_path, capsys):
    agent = DDPG(2, 2, RANGE, noise="ou", reward_scale=0.5, memory_capacity=100, hidden=(8,))
    first_noise, learned, act = [], [], agent.get_action

    def get_action(state):
        if state[1] == 0:
            first_noise.append(agent.ou.copy())
        return act(state)

    agent.get_action = get_action
    agent.learn = lambda steps: learned.append((agent.pointer, steps))
    train(Config(episodes=4, out=tmp_path, start_steps=8, update_every=4), agent, Ends(gym.spaces.Box(-RANGE, RANGE)))
    rows = agent.memory[: agent.pointer]
    steps = [(e, t) for e in range(4) for t in range(3 if e % 2 == 0 else 5)]
    np.testing.assert_array_equal(rows[:, :2], steps)
    np.testing.assert_array_equal(rows[:, 4], [0.5 * (t + 1) for _, t in steps])
    np.testing.assert_array_equal(rows[:, 5:7], [(e, t + 1) for e, t in steps])  # not the state after the reset
    np.testing.assert_array_equal(rows[:, 7], [e % 2 == 0 and t == 2 for e, t in steps])  # a time limit is no end
    assert learned == [(8, 4), (12, 4), (16, 4)]
    np.testing.assert_array_equal(first_noise, np.zeros((4, 2)))  # Algorithm 6.26: N begins inside the episode
    assert (agent.ou != 0).all()
    assert "Episode: 4/4 | Episode Reward: 15.0000" in capsys.readouterr().out  # the environment's own reward


def test_the_first_steps_are_random_if_asked_for(tmp_path):
    """Over the whole range, each dimension for itself; by default there are none."""
    agent = DDPG(2, 2, RANGE, memory_capacity=4000, hidden=(8,))
    acted, act = [], agent.get_action
    agent.get_action = lambda state: acted.append(agent.pointer) or act(state)
    env = Ends(gym.spaces.Box(-RANGE, RANGE))
    train(Config(steps=4000, episodes=None, out=tmp_path, start_steps=9999, random_steps=3000), agent, env)
    assert acted == list(range(3000, agent.pointer))
    actions = agent.memory[:3000, 2:4]
    np.testing.assert_allclose(np.abs(actions).max(0), RANGE, rtol=0.01)
    np.testing.assert_allclose(actions.std(0), RANGE / 3**0.5, rtol=0.05)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.1
    assert Config().random_steps == 0


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
