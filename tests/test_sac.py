"""SAC as it runs: the gradient steps of Algorithm 6.28, acting, alpha, settings that change, the printed main loop."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import is_orthogonal
from scipy import stats
from test_off_policy import OldGym, all_weights, build, remember

from common import environments
from common.command import UserError
from sac.agent import SAC, PolicyNetwork, ReplayBuffer
from sac.main import train

RANGE = np.array([2.0, 0.5], np.float32)
STATE = np.array([0.3, -1.0, 0.7], np.float32)
N = 16


def make(**settings):
    """An agent with 100 steps in its memory, plain gradient steps for Adam's, and five different networks."""
    agent = SAC(3, 2, ReplayBuffer(100), 8, RANGE, **settings)
    remember(agent, 100, RANGE)
    rng = np.random.default_rng(0)
    for net in [net for pair in agent.pairs for net in pair] + [agent.policy_net]:
        for w in net.all_weights:
            w.assign(rng.normal(0, 0.4, w.shape))
    agent.soft_q_optimizer1, agent.soft_q_optimizer2, agent.policy_optimizer, agent.alpha_optimizer = (
        tf.optimizers.SGD(0.0) for _ in range(4)
    )
    agent.soft_q_optimizer1.build(agent.soft_q_net1.trainable_weights)
    agent.soft_q_optimizer2.build(agent.soft_q_net2.trainable_weights)
    agent.policy_optimizer.build(agent.policy_net.trainable_weights)
    agent.alpha_optimizer.build([agent.log_alpha])
    agent.soft_q_lr, agent.policy_lr, agent.alpha_lr = 0.02, 0.03, 0.05
    return agent


def by_hand(agent, steps, reward_scale, kappa, gamma, soft_tau):
    """Algorithm 6.28 from the methods that `test_equations_ch6` checks, one call a line.

    Returns what `update` reports of it.
    """
    names, rows = ("q_loss", "policy_loss", "q", "entropy", "alpha"), []
    agent.soft_q_optimizer1.learning_rate.assign(agent.soft_q_lr)
    agent.soft_q_optimizer2.learning_rate.assign(agent.soft_q_lr)
    agent.policy_optimizer.learning_rate.assign(agent.policy_lr)
    agent.alpha_optimizer.learning_rate.assign(agent.alpha_lr)
    batches = agent.replay_buffer.sample_batches(steps, N)
    noise = agent.rng.standard_normal((steps, 2, N, 2), np.float32)
    for batch, (next_epsilon, epsilon) in zip(batches, noise, strict=True):
        state, action, reward, next_state, done = np.split(batch, [3, 5, 6, 9], 1)
        y = agent.target_q(reward_scale * reward, next_state, done, gamma, next_epsilon)
        q_loss = agent.train_q(agent.soft_q_net1, agent.soft_q_optimizer1, state, action, y)
        q_loss += agent.train_q(agent.soft_q_net2, agent.soft_q_optimizer2, state, action, y)
        inputs = np.concatenate([state, agent.policy_net.evaluate(state, noise=epsilon)[0]], 1)
        q = np.minimum(agent.soft_q_net1(inputs), agent.soft_q_net2(inputs)).mean()
        policy_loss, log_prob = agent.train_policy(state, epsilon)
        rows.append((q_loss, policy_loss, q, -np.mean(log_prob), np.exp(agent.log_alpha.numpy())))
        agent.train_alpha(log_prob, kappa)
        agent.target_soft_update(agent.soft_q_net1, agent.target_soft_q_net1, soft_tau)
        agent.target_soft_update(agent.soft_q_net2, agent.target_soft_q_net2, soft_tau)
    return dict(zip(names, np.mean(rows, 0), strict=True))


def assert_equal_weights(agent, twin):
    for a, b in zip(all_weights(agent), all_weights(twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_update_is_algorithm_6_28_step_by_step():
    """kappa is minus the number of action dimensions unless it is given."""
    agent, twin = make(), make()
    for target_entropy, kappa in ((None, -2.0), (0.5, 0.5)):
        before = all_weights(agent)
        report = agent.update(N, 0.7, True, target_entropy, 0.9, 0.25, steps=3)
        assert by_hand(twin, 3, 0.7, kappa, 0.9, 0.25) == pytest.approx(report, rel=1e-3)
        assert_equal_weights(agent, twin)
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(before, all_weights(agent), strict=True))


def test_targets_begin_as_copies_and_twins_apart():
    agent = SAC(3, 2, ReplayBuffer(10), 8, RANGE)
    for net, target_net in agent.pairs:
        for w, target_w in zip(net.all_weights, target_net.all_weights, strict=True):
            np.testing.assert_array_equal(w, target_w)
    assert (agent.soft_q_net1.all_weights[0].numpy() != agent.soft_q_net2.all_weights[0].numpy()).all()


def test_settings_count_when_they_change_between_two_updates():
    agent, twin = make(), make()
    changes = dict(soft_q_lr=0.1, policy_lr=0.01, alpha_lr=0.2, alpha=0.3, log_std_max=-0.3, log_std_min=-0.6)
    for change in (None, *changes.items()):
        for each in (agent, twin):
            if change:
                setattr(each.policy_net if "std" in change[0] else each, *change)
        agent.update(N, 0.7, True, -1.0, 0.9, 0.25, steps=2)
        by_hand(twin, 2, 0.7, -1.0, 0.9, 0.25)
        assert_equal_weights(agent, twin)


def test_critics_learn_reward_and_entropy_6_17_6_18():
    """One policy for all states and reward 1: V = (1 + alpha H) / (1 - gamma), with the entropy H by integration."""
    mean, std, alpha, gamma = 0.3, np.exp(-0.5), 0.5, 0.5
    agent = SAC(3, 1, ReplayBuffer(200), 32, 2.0, soft_q_lr=3e-3, policy_lr=0.0, alpha=alpha)
    agent.policy_net.all_weights[-2].assign(tf.zeros((32, 2)))
    agent.policy_net.all_weights[-1].assign([mean, -0.5])
    remember(agent, 200, [2.0], done=0.0, reward=1.0)
    agent.update(64, 1.0, False, gamma=gamma, soft_tau=0.05, steps=1500)
    u = stats.norm(mean, std)
    entropy = u.entropy() + u.expect(lambda u: 3 * np.log(2.0) - 2 * np.logaddexp(u, -u))  # of 2 tanh(u)
    state, action, *_ = agent.replay_buffer.sample(200)
    value = agent.soft_q_net1(np.concatenate([state, action], 1)).numpy().mean()
    assert value == pytest.approx(1 + gamma * (1 + alpha * entropy) / (1 - gamma), rel=0.03)


# acting


def test_actions_are_samples_of_the_squashed_gaussian():
    policy = PolicyNetwork(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    policy.all_weights[-1].assign([0.3, -0.2, -0.5, -1.5])
    policy.policy.refresh()
    u = np.arctanh(np.array([policy.get_action(np.zeros(3)) for _ in range(5000)]) / RANGE.astype(float))
    np.testing.assert_allclose(u.mean(0), [0.3, -0.2], atol=0.03)
    np.testing.assert_allclose(u.std(0), np.exp([-0.5, -1.5]), rtol=0.05)
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.06  # each dimension has its own noise
    np.testing.assert_allclose(policy.get_action(np.zeros(3), greedy=True), RANGE * np.tanh([0.3, -0.2]), rtol=1e-5)


@pytest.mark.parametrize("log_std, clipped", [(5.0, 1.0), (-9.0, -4.0)])
def test_log_std_is_clipped_for_acting_and_for_learning(log_std, clipped):
    policy = PolicyNetwork(3, 1, 8, 2.0, log_std_min=-4.0, log_std_max=1.0, rng=np.random.default_rng(0))
    policy.all_weights[-1].assign([0.1, log_std])
    policy.policy.refresh()
    z = np.array([[1.5]], np.float32)
    action, _, _, mean, log_std = policy.evaluate(np.zeros((1, 3), np.float32), noise=z)
    assert mean.numpy() == pytest.approx(0.1) and log_std.numpy() == pytest.approx(clipped)
    assert action.numpy() == pytest.approx(2 * np.tanh(0.1 + 1.5 * np.exp(clipped)), rel=1e-4)
    policy.rng = type("Fixed", (), {"standard_normal": lambda self, *_: z[0]})()
    assert policy.get_action(np.zeros(3)) == pytest.approx(action.numpy()[0], rel=1e-4)


def test_first_actions_are_uniform_within_the_bounds():
    policy = PolicyNetwork(3, 2, 8, RANGE, rng=np.random.default_rng(0))
    actions = np.array([policy.sample_action() for _ in range(5000)])
    np.testing.assert_allclose(actions.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(actions.std(0), RANGE / 3**0.5, rtol=0.03)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.06  # each dimension for itself
    assert (np.abs(actions) <= RANGE).all() and actions.dtype == np.float32


# alpha


def test_fixed_alpha_stays_and_automatic_alpha_moves():
    agent = make(alpha=0.37)
    agent.update(N, auto_entropy=False, steps=5)
    assert agent.alpha.numpy() == pytest.approx(0.37)
    agent.update(N, auto_entropy=True, steps=5)
    assert agent.alpha.numpy() != pytest.approx(0.37)


def test_alpha_is_1_until_it_learns_and_can_be_set():
    agent = make()
    assert agent.alpha.numpy() == 1.0
    agent.alpha = 0.2
    assert agent.alpha.numpy() == pytest.approx(0.2) and agent.log_alpha.numpy() == pytest.approx(np.log(0.2))


@pytest.mark.parametrize("alpha", [0, -1, float("nan")])
def test_alpha_is_greater_than_0(alpha):
    agent = make()
    with pytest.raises(ValueError, match=f"^alpha must be greater than 0, not {alpha}$"):
        agent.alpha = alpha


def test_first_weights_are_orthogonal_and_the_first_actions_small():
    agent = SAC(3, 2, ReplayBuffer(10), 64, RANGE)
    for net, last_gain in (agent.soft_q_net1, 1.0), (agent.soft_q_net2, 1.0), (agent.policy_net, 3e-3):
        for W, gain in zip(net.all_weights[::2], (2**0.5, 2**0.5, last_gain), strict=True):
            assert is_orthogonal(W, gain)


def test_the_target_entropy_is_below_that_of_random_actions():
    """Between -2 and 2 and between -1/4 and 1/4 all actions are equally likely at log(4) + log(1/2) = 0.69."""
    agent = SAC(3, 2, ReplayBuffer(10), 8, np.array([2, 0.25], np.float32))
    remember(agent, 10, (2.0, 0.25))
    agent.update(4, target_entropy=0.69)
    with pytest.raises(UserError, match=r"^the target entropy must be below 0\.69, that of random actions, not 0\.7$"):
        agent.update(4, target_entropy=0.7)
    with pytest.raises(UserError, match=r"not nan$"):
        agent.update(4, target_entropy=float("nan"))
    agent.update(4, auto_entropy=False, target_entropy=0.7)  # of which nothing is made then


def test_a_resumed_run_takes_its_fixed_alpha_from_its_own_flags(tmp_path):
    settings = dict(out=tmp_path, start_steps=100)
    for episodes, alpha in (1, None), (2, 0.25):
        config, agent, env = build("sac", episodes=episodes, alpha=alpha, resume=episodes == 2, **settings)
        train(config, agent, env)
    assert agent.alpha.numpy() == pytest.approx(0.25)


# the listing


def test_the_printed_main_loop_runs(tmp_path, monkeypatch):
    """Section 6.5.4 with its argument orders, which are not those of its class; `OldGym` is all that is added."""
    monkeypatch.chdir(tmp_path)
    env = OldGym(environments.make("Pendulum-v1", 0).unwrapped)
    state_dim = env.observation_space.shape[0]
    action_dim = env.action_space.shape[0]
    action_range = env.action_space.high
    env.seed(2)
    replay_buffer = ReplayBuffer(1000)
    agent = SAC(state_dim, action_dim, action_range, 32, replay_buffer, 3e-4, 3e-4, 3e-4)
    frame_idx = 0
    state = env.reset().astype(np.float32)
    agent.policy_net([state])
    for _ in range(2):
        state = env.reset().astype(np.float32)
        for _ in range(40):
            if frame_idx > 50:  # noqa: SIM108
                action = agent.policy_net.get_action(state)
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
                    agent.update(64, reward_scale=10.0, auto_entropy=True, target_entropy=-1.0 * action_dim)
            if done:
                break
    agent.save()
    assert int(agent.soft_q_optimizer1.iterations) == int(agent.alpha_optimizer.iterations) == 48
    assert agent.replay_buffer is replay_buffer and agent.policy_net.action_range == action_range
    assert (tmp_path / "model/sac/policy_net.npz").exists()


@pytest.mark.parametrize("state", [STATE, STATE.astype(float), STATE.tolist()])
def test_a_policy_takes_one_state_in_a_list(state):
    policy = PolicyNetwork(3, 2, 8, RANGE)
    for one, batch in zip(policy([state]), policy(STATE[None]), strict=True):
        np.testing.assert_allclose(one, batch, rtol=1e-6)
