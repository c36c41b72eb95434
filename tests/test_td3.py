"""TD3 as it runs: the rounds of Algorithm 6.27, acting, settings that change, the printed main loop."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import is_orthogonal
from test_off_policy import OldGym, all_weights, build, remember

from common import environments
from td3.agent import TD3, PolicyNetwork, ReplayBuffer

RANGE = np.array([2.0, 0.5], np.float32)
STATE = np.array([0.3, -1.0, 0.7], np.float32)
N = 16


def make(**settings):
    """An agent with 100 steps in its memory, plain gradient steps for Adam's, and six different networks."""
    agent = TD3(3, 2, ReplayBuffer(100), 8, RANGE, **settings)
    remember(agent, 100, RANGE)
    rng = np.random.default_rng(0)
    for net in (net for pair in agent.pairs for net in pair):
        for w in net.all_weights:
            w.assign(rng.normal(0, 0.5, w.shape))
    agent.q_optimizer1, agent.q_optimizer2, agent.policy_optimizer = (tf.optimizers.SGD(0.0) for _ in range(3))
    for optimizer, net in zip(
        (agent.q_optimizer1, agent.q_optimizer2, agent.policy_optimizer), agent.pairs, strict=True
    ):
        optimizer.build(net[0].trainable_weights)
    agent.q_lr, agent.policy_lr = 0.02, 0.05
    return agent


def by_hand(agent, steps, reward_scale, gamma, soft_tau, first):
    """Algorithm 6.27 from round `first` on, from the methods that `test_equations_ch6` checks, one call a line.

    Returns what `update` reports of it.
    """
    q_losses, policy_losses = [], []
    agent.q_optimizer1.learning_rate.assign(agent.q_lr)
    agent.q_optimizer2.learning_rate.assign(agent.q_lr)
    agent.policy_optimizer.learning_rate.assign(agent.policy_lr)
    batches = agent.replay_buffer.sample_batches(steps, N)
    noise = agent.rng.standard_normal((steps, N, 2), np.float32)
    for t, (batch, epsilon) in enumerate(zip(batches, noise, strict=True), first):
        state, action, reward, next_state, done = np.split(batch, [3, 5, 6, 9], 1)
        y = agent.target_q(reward_scale * reward, next_state, done, 0.3, gamma, epsilon)
        q_losses.append(float(agent.train_q(agent.q_net1, agent.q_optimizer1, state, action, y)))
        if not agent.single_q:
            q_losses[-1] += float(agent.train_q(agent.q_net2, agent.q_optimizer2, state, action, y))
        if t % agent.policy_target_update_interval == 0:
            policy_losses.append(float(agent.train_policy(state)))
            agent.target_soft_update(agent.q_net1, agent.target_q_net1, soft_tau)
            agent.target_soft_update(agent.q_net2, agent.target_q_net2, soft_tau)
            agent.target_soft_update(agent.policy_net, agent.target_policy_net, soft_tau)
    report = dict(q_loss=np.mean(q_losses))
    return report | dict(policy_loss=np.mean(policy_losses), q=-np.mean(policy_losses)) if policy_losses else report


def assert_equal_weights(agent, twin):
    for a, b in zip(all_weights(agent), all_weights(twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_update_is_algorithm_6_27_round_by_round():
    """Also across two calls: the third, the sixth and the ninth round move the policy and the targets."""
    agent, twin = (make(policy_target_update_interval=3) for _ in range(2))
    for first, steps in ((1, 4), (5, 5)):
        before = all_weights(agent)
        report = agent.update(N, 0.3, 0.7, 0.9, 0.25, steps=steps)
        assert by_hand(twin, steps, 0.7, 0.9, 0.25, first) == pytest.approx(report, rel=1e-3)
        assert_equal_weights(agent, twin)
        moved = [np.abs(a - b).max() for a, b in zip(before, all_weights(agent), strict=True)]
        assert all(max(moved[i : i + 6]) > 1e-3 for i in range(0, 36, 6))  # each of the six networks


def test_targets_begin_as_copies_and_twins_apart():
    agent = TD3(3, 2, ReplayBuffer(10), 8, RANGE)
    for net, target_net in agent.pairs:
        for w, target_w in zip(net.all_weights, target_net.all_weights, strict=True):
            np.testing.assert_array_equal(w, target_w)
    assert (agent.q_net1.all_weights[0].numpy() != agent.q_net2.all_weights[0].numpy()).all()


@pytest.mark.parametrize("uniform", [False, True])
def test_first_weights_are_orthogonal_or_uniform(uniform):
    agent = TD3(3, 2, ReplayBuffer(10), 64, RANGE, uniform_weights=uniform)
    for net, last_gain in (agent.q_net1, 1.0), (agent.q_net2, 1.0), (agent.policy_net, 3e-3):
        layers = [(net.all_weights[i].numpy(), net.all_weights[i + 1].numpy()) for i in (0, 2, 4)]
        for (W, b), gain in zip(layers, (2**0.5, 2**0.5, last_gain), strict=True):
            if uniform:
                bound = len(W) ** -0.5
                assert 0.9 * bound < np.abs(W).max() <= bound and np.abs(W.mean()) < 0.2 * bound
                assert b.all() and np.abs(b).max() <= bound and len({*b}) == len(b)
            else:
                assert is_orthogonal(W, gain) and not b.any()


def test_delays_policy_and_targets():
    _, agent, _ = build("td3", policy_target_update_interval=3)
    remember(agent, 100)
    moved = []
    for _ in range(7):
        before = [agent.policy_net.all_weights[0].numpy(), agent.target_q_net1.all_weights[0].numpy()]
        critic = agent.q_net1.all_weights[0].numpy()
        report = agent.update(N, 0.2)
        after = [agent.policy_net.all_weights[0].numpy(), agent.target_q_net1.all_weights[0].numpy()]
        assert (agent.q_net1.all_weights[0].numpy() != critic).any()
        moved.append([(a != b).any() for a, b in zip(before, after, strict=True)])
        assert report.keys() == ({"q_loss", "policy_loss", "q"} if moved[-1][0] else {"q_loss"})
    np.testing.assert_array_equal(moved, [[i % 3 == 2] * 2 for i in range(7)])
    assert int(agent.policy_optimizer.iterations) == 2 and int(agent.q_optimizer1.iterations) == 7
    agent.update(N, 0.2, steps=5)  # 12 in all, fused: the count goes on
    assert int(agent.policy_optimizer.iterations) == 4


def test_settings_count_when_they_change_between_two_updates():
    agent, twin = make(), make()
    changes = dict(q_lr=0.1, no_smoothing=True, policy_target_update_interval=1, policy_lr=0.2, single_q=True)
    for t, change in enumerate((None, *changes.items())):
        for each in (agent, twin):
            if change:
                setattr(each, *change)
        agent.update(N, 0.3, 0.7, 0.9, 0.25, steps=2)
        by_hand(twin, 2, 0.7, 0.9, 0.25, first=2 * t + 1)
        assert_equal_weights(agent, twin)


# acting


def assert_acts(net):
    np.testing.assert_allclose(net.get_action(STATE, 0.5, greedy=True), net.evaluate(STATE[None], 0.0)[0], rtol=1e-4)


def test_both_policies_act_as_their_networks_do():
    agent = make()
    agent.update(N, 0.3, soft_tau=0.3, steps=4)
    for net in (agent.policy_net, agent.target_policy_net):
        assert_acts(net)
    assert np.abs(agent.policy_net.policy(STATE) - agent.target_policy_net.policy(STATE)).max() > 1e-3


def test_loaded_policies_act_as_their_networks_do(tmp_path):
    make().save(tmp_path)
    agent = TD3(3, 2, ReplayBuffer(100), 8, RANGE)
    agent.load(tmp_path)
    for net in (agent.policy_net, agent.target_policy_net):
        assert_acts(net)


def test_exploration_adds_noise_in_parts_of_the_range():
    policy = PolicyNetwork(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    policy.all_weights[-1].assign([0.2, -0.4])
    policy.policy.refresh()
    actions = np.array([policy.get_action(np.zeros(3), 0.1) for _ in range(5000)])
    np.testing.assert_allclose(actions.mean(0), RANGE * np.tanh([0.2, -0.4]), atol=0.02)
    np.testing.assert_allclose(actions.std(0), 0.1 * RANGE, rtol=0.05)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.06  # each dimension has its own
    np.testing.assert_allclose(
        policy.get_action(np.zeros(3), 0.1, greedy=True), RANGE * np.tanh([0.2, -0.4]), rtol=1e-5
    )


def test_first_actions_are_uniform_within_the_bounds():
    policy = PolicyNetwork(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    actions = np.array([policy.sample_action() for _ in range(5000)])
    np.testing.assert_allclose(actions.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(actions.std(0), RANGE / 3**0.5, rtol=0.03)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.06  # each dimension for itself
    assert (np.abs(actions) <= RANGE).all() and actions.dtype == np.float32


# the listing


def test_the_printed_main_loop_runs(tmp_path, monkeypatch):
    """Section 6.5.3 with its argument orders, which are not those of its class; `OldGym` is all that is added."""
    monkeypatch.chdir(tmp_path)
    env = OldGym(environments.make("Pendulum-v1", 0).unwrapped)
    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high
    env.seed(2)
    replay_buffer = ReplayBuffer(1000)
    agent = TD3(state_dim, action_dim, action_range, 32, replay_buffer, 3, 3e-4, 3e-4)
    frame_idx = 0
    state = env.reset().astype(np.float32)
    agent.policy_net([state])
    agent.target_policy_net([state])
    for _ in range(2):
        state = env.reset().astype(np.float32)
        for _ in range(40):
            if frame_idx > 50:  # noqa: SIM108
                action = agent.policy_net.get_action(state, 1.0)
            else:
                action = agent.policy_net.sample_action()
            next_state, reward, done, _ = env.step(action)
            next_state = next_state.astype(np.float32)
            done = 1 if done is True else 0
            replay_buffer.push(state, action, reward, next_state, done)
            state = next_state
            frame_idx += 1
            if len(replay_buffer) > 64:
                for _ in range(3):
                    agent.update(64, 0.5, 10.0)
            if done:
                break
    agent.save()
    assert agent.update_cnt == int(agent.q_optimizer1.iterations) == 48 and int(agent.policy_optimizer.iterations) == 16
    assert agent.replay_buffer is replay_buffer and agent.policy_net.action_range == action_range
    assert (tmp_path / "model/td3/policy_net.npz").exists()


@pytest.mark.parametrize("state", [STATE, STATE.astype(float), STATE.tolist()])
def test_a_policy_takes_one_state_in_a_list(state):
    policy = PolicyNetwork(3, 2, 8, RANGE)
    np.testing.assert_allclose(policy([state]), policy(STATE[None]), rtol=1e-6)
