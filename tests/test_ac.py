"""Actor-Critic: targets and steps by independent arithmetic, Q-critics, time limits, and that it learns."""

import copy

import numpy as np
import pytest
import tensorflow as tf

from ac.agent import Actor, ActorCritic, Critic
from ac.main import Config, train
from common import command, environments

STATE, STATE_ = np.array([0.3, -0.2, 0.9], np.float32), np.array([-0.5, 0.4, 0.1], np.float32)


def make(**settings):
    return ActorCritic(3, 2, **{"n_steps": 1, "gamma": 0.5, "reward_scale": 1.0, "hidden": (8,), **settings})


def value(critic, state):
    return critic.model(state[None]).numpy()[0].astype(float)


def forward(weights, state):
    """Hidden units and output of a network with one hidden layer."""
    W, b, V, c = weights
    hidden = np.tanh(state @ W + b)
    return hidden, hidden @ V + c


def gradient(weights, state, slope):
    """The gradient of output @ slope, for each of the weights."""
    hidden, _ = forward(weights, state)
    inner = (weights[2] @ slope) * (1 - hidden**2)
    return [np.outer(state, inner), inner, np.outer(hidden, slope), slope]


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("done", [False, True])
def test_td_error_by_hand(done):
    critic = Critic(3, gamma=0.5)
    expected = 2.0 + 0.5 * (not done) * value(critic, STATE_)[0] - value(critic, STATE)[0]
    assert critic.learn(STATE, 2.0, STATE_, done).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("reward", [20.0, -20.0])
def test_the_critic_steps_down_the_squared_error(reward):
    """Algorithm 5.19 prints psi + eta grad J, which goes away from the target."""
    critic = Critic(3, lr=1e-3, gamma=0.5)
    before = value(critic, STATE)[0]
    error = critic.learn(STATE, reward, STATE_, True).numpy()
    assert (value(critic, STATE)[0] - before) * error > 0
    assert abs(critic.learn(STATE, reward, STATE_, True).numpy()) < abs(error)


def test_the_critic_steps_by_the_semi_gradient_of_equation_5_8():
    """The output's bias has the gradient -td_error; that of the whole square would be (gamma - 1) td_error."""
    critic = Critic(3, gamma=0.5)
    seen = []
    critic.optimizer.apply = lambda gradient, lr: seen.append(gradient)
    error = critic.learn(STATE, 2.0, STATE_, False).numpy()
    np.testing.assert_allclose(seen[-1].numpy()[-1], -error, rtol=1e-5)


@pytest.mark.parametrize("td_error", [1.5, -1.5])
def test_the_actor_follows_equation_5_10(td_error):
    actor, seen = Actor(3, 2), []
    actor.optimizer.apply = lambda gradient, lr: seen.append(gradient)
    pi = softmax(actor.model(STATE[None]).numpy()[0].astype(float))
    loss = actor.learn(STATE, 1, td_error)
    assert loss.numpy() == pytest.approx(-np.log(pi[1]) * td_error, rel=1e-4)
    np.testing.assert_allclose(seen[-1].numpy()[-2:], -td_error * (np.array([0, 1]) - pi), rtol=1e-4)


def spy(agent):
    """What each of the agent's compiled updates is handed, in its parts, as it comes."""
    seen, update = [], agent._update

    def record(state, action, reward, state_, done, discount, progress, noise):
        numbers = [float(x) for x in (*action, reward, discount, done, progress)]
        seen.append((state[0].tolist(), state_[0].tolist(), *numbers))
        return update(state, action, reward, state_, done, discount, progress, noise)

    agent._update = record
    return seen


def rows_of(agent, rewards, end):
    """The first number of both states, action, return, discount and done of each update in an episode."""
    seen = spy(agent)
    states = np.arange(len(rewards) + 1)[:, None] * np.ones(3, np.float32)
    for i, reward in enumerate(rewards):
        last = i == len(rewards) - 1
        agent.learn(states[i], i % 2, reward, states[i + 1], last and end == "done", last and end == "cut")
    return [(state[0], state_[0], *numbers) for state, state_, *numbers, _ in seen]


def test_a_report_for_each_update_and_none_before_the_first():
    agent = make(n_steps=3)
    assert [len(agent.learn(STATE, 1, 2.0, STATE_, False)) for _ in range(4)] == [0, 0, 1, 1]
    assert len(agent.learn(STATE, 1, 2.0, STATE_, True)) == 3  # what was left of the episode


@pytest.mark.parametrize("end, done", [("done", 1), ("cut", 0)])
def test_n_step_returns_by_hand(end, done):
    agent = make(n_steps=2)
    assert rows_of(agent, [1.0, 2.0, 4.0], end) == [
        (0, 2, 0, 2.0, 0.25, 0),
        (1, 3, 1, 4.0, 0.25, done),
        (2, 3, 0, 4.0, 0.5, done),
    ]
    assert agent.state_buffer == agent.reward_buffer == []


def test_rewards_are_scaled():
    rows = rows_of(make(n_steps=2, reward_scale=0.5), [2.0, 4.0, 8.0], "done")
    assert [total for _, _, _, total, _, _ in rows] == [2.0, 4.0, 4.0]


def test_one_step_is_the_td_error_of_algorithm_5_19():
    assert rows_of(make(), [1.0, 2.0], "done") == [(0, 1, 0, 1.0, 0.5, 0), (1, 2, 1, 2.0, 0.5, 1)]


def test_the_main_loop_tells_an_end_from_a_time_limit(tmp_path, ends):
    config = Config(train=True, out=tmp_path, steps=None, episodes=2, n_steps=2, gamma=0.5, reward_scale=1.0)
    agent = ActorCritic(2, 2, **command.keywords(config, ActorCritic))
    seen = spy(agent)
    train(config, agent, ends)
    assert [(state, state_, *numbers) for state, state_, _, *numbers, _ in seen] == [
        ([0, 0], [0, 2], 2.0, 0.25, 0),
        ([0, 1], [0, 3], 3.5, 0.25, 1),
        ([0, 2], [0, 3], 3.0, 0.5, 1),
        ([1, 0], [1, 2], 2.0, 0.25, 0),
        ([1, 1], [1, 3], 3.5, 0.25, 0),
        ([1, 2], [1, 4], 5.0, 0.25, 0),
        ([1, 3], [1, 5], 6.5, 0.25, 0),
        ([1, 4], [1, 5], 5.0, 0.5, 0),
    ]


def test_q_target_takes_the_sampled_action_and_expected_q_the_mean():
    pi = np.array([[0.25, 0.75]], np.float32)
    for kind, weight in (("q", [0, 1]), ("expected-q", pi[0])):
        critic = Critic(3, gamma=0.5, kind=kind, action_num=2)
        expected = 2.0 + 0.5 * value(critic, STATE_) @ weight - value(critic, STATE)[0]
        error = critic.learn(STATE, 2.0, STATE_, False, action=[0], pi_=pi, action_=[1])
        assert error.numpy() == pytest.approx(expected, rel=1e-4)


def test_q_advantage_is_equation_5_11():
    critic, pi = Critic(3, kind="q", action_num=2), np.array([[0.25, 0.75]], np.float32)
    q = value(critic, STATE)
    assert critic.advantage(STATE[None], [1], pi).numpy() == pytest.approx(q[1] - 0.25 * q[0] - 0.75 * q[1], rel=1e-4)


class Descent:
    """An optimiser with the plain rule."""

    def __init__(self, variable):
        self.variable, self.learning_rate = variable, tf.Variable(0.0)

    def apply(self, gradient, learning_rate):
        self.variable.assign_sub(learning_rate * gradient)
        self.learning_rate.assign(learning_rate)


@pytest.mark.parametrize("critic", ["v", "q", "expected-q"])
def test_the_compiled_step_by_hand(critic):
    """Gradient descent instead of Adam shows the gradients as they are; both networks in NumPy, before each step."""
    agent, rng, taken = make(critic=critic, lr_a=0.2, lr_c=0.3), np.random.default_rng(0), []
    agent.actor.optimizer, agent.critic.optimizer = Descent(agent.actor.theta), Descent(agent.critic.psi)
    for step in range(8):
        state, state_, action, done = *rng.standard_normal((2, 3)).astype(np.float32), step % 2, step % 3 == 2
        theta, psi = ([w.numpy().astype(float) for w in p.model.all_weights] for p in (agent.actor, agent.critic))
        pi, logits_ = softmax(forward(theta, state)[1]), forward(theta, state_)[1]
        action_ = np.argmax(logits_ + copy.deepcopy(agent.rng).gumbel(size=2))  # A' of Eq. (5.12)
        taken.append(action_ == np.argmax(logits_))
        Q, Q_ = forward(psi, state)[1], forward(psi, state_)[1]
        weight = {"v": np.ones(1), "q": np.eye(2)[action_], "expected-q": softmax(logits_)}[critic]
        index = 0 if critic == "v" else action
        td_error = 2.0 * step - 5 + 0.5 * (not done) * weight @ Q_ - Q[index]
        advantage = td_error if critic == "v" else Q[action] - pi @ Q
        agent.learn(state, action, 2.0 * step - 5, state_, done)
        for part, old, rate, slope in (
            (agent.critic, psi, 0.3 * td_error, np.eye(len(Q))[index]),  # Eq. (5.6), (5.8)
            (agent.actor, theta, 0.2 * advantage, np.eye(2)[action] - pi),  # Eq. (5.9), (5.10)
        ):
            for new, before, g in zip(part.model.all_weights, old, gradient(old, state, slope), strict=True):
                np.testing.assert_allclose(new.numpy(), before + rate * g, rtol=1e-3, atol=1e-4)
    assert {*taken} == {True, False}  # A' is sampled, not the likeliest


@pytest.mark.parametrize("critic", ["v", "q", "expected-q"])
def test_the_compiled_step_is_the_two_learns_and_its_weights_act(critic):
    agent, alone = make(critic=critic), make(critic=critic)
    for each in (agent, alone):  # a policy that is not all but uniform
        output = each.actor.model.all_weights[-2]
        output.assign(100 * output.numpy())
    (report,) = agent.learn(STATE, 1, 2.0, STATE_, False)
    pi, pi_ = (softmax(alone.actor.model(s[None]).numpy()[0])[None] for s in (STATE, STATE_))
    action_ = [int(np.argmax(np.log(pi_[0]) + alone.rng.gumbel(size=2)))]
    advantage = None if critic == "v" else alone.critic.advantage(STATE[None], [1], pi)
    td_error = alone.critic.learn(STATE, 2.0, STATE_, False, action=[1], pi_=pi_, action_=action_)
    weight = td_error if critic == "v" else advantage
    alone.actor.learn(STATE, 1, weight)
    numbers = dict(td_error=td_error[0], critic_loss=td_error[0] ** 2 / 2, actor_loss=-np.log(pi[0, 1]) * weight[0])
    numbers["entropy"] = -np.sum(pi * np.log(pi))
    assert report == pytest.approx({name: float(x) for name, x in numbers.items()}, rel=1e-4)
    for ours, theirs in ((agent.actor, alone.actor), (agent.critic, alone.critic)):
        np.testing.assert_allclose(ours.model(STATE[None]), theirs.model(STATE[None]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(agent.actor.policy(STATE_), alone.actor.model(STATE_[None])[0], rtol=1e-4, atol=1e-5)


def test_the_action_is_that_of_the_state_that_is_asked_for():
    agent, states = make(), np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    agent.actor.model.all_weights[2].assign(np.random.default_rng(1).standard_normal((8, 2)))
    agent.learn(STATE, 1, 2.0, STATE_, False)
    found = [agent.get_action(state, greedy=True) for state in states]
    assert found == np.argmax(agent.actor.model(states).numpy(), 1).tolist() and {*found} == {0, 1}
    assert [agent.actor.get_action(state, greedy=True) for state in states] == found


def test_the_next_action_of_the_q_target_is_independent_of_the_actors():
    agent = make(critic="q")
    assert not {*agent.rng.random(1000)} & {*agent.actor.rng.random(1000)}


@pytest.mark.parametrize("critic", ["v", "q", "expected-q"])
def test_a_time_limit_is_not_an_end(constant, critic):
    """Reward 1 for ever is worth 1 / (1 - gamma) = 5; taken for an end, the limit lowers it."""
    values = {}
    for time_limit_ends in (False, True):
        agent = ActorCritic(2, 2, n_steps=1, gamma=0.8, critic=critic, reward_scale=1.0, lr_c=1e-2, hidden=(8,))
        for _ in range(60):
            state, _ = constant.reset()
            done = False
            while not done:
                action = agent.get_action(state)
                state_, reward, terminated, truncated, _ = constant.step(action)
                agent.learn(state, action, reward, state_, truncated if time_limit_ends else terminated, truncated)
                state, done = state_, terminated or truncated
        values[time_limit_ends] = value(agent.critic, np.ones(2, np.float32)).mean()
    assert values[False] == pytest.approx(5, abs=0.3)
    assert values[True] < 4.5


def test_the_books_own_loop_runs():
    """The main loop of section 5.10.3, with today's signature of reset and step, its -20 at the end included."""
    env = environments.make("CartPole-v0", 0).unwrapped
    actor = Actor(state_dim=env.observation_space.shape[0], action_num=env.action_space.n, lr=0.001)
    critic = Critic(state_dim=env.observation_space.shape[0], lr=0.01)
    start, _ = env.reset()
    before = actor.policy(start)
    for _ in range(2):
        state, _ = env.reset()
        state = state.astype(np.float32)
        for _ in range(10):
            action = actor.get_action(state)
            state_new, reward, done, _, _ = env.step(action)
            state_new = state_new.astype(np.float32)
            if done:
                reward = -20
            td_error = critic.learn(state, reward, state_new, done)
            actor.learn(state, action, td_error)
            state = state_new
            if done:
                break
    actor.get_action(start)
    assert (actor.policy(start) != before).any()


@pytest.mark.parametrize("end_lr", [1.0, 0.5, 0.0])
def test_learning_rates_fall_linearly_until_the_last_step(end_lr):
    agent, rates = make(lr_a=0.4, lr_c=0.8, end_lr=end_lr, total_steps=4), []
    agent.actor.optimizer, agent.critic.optimizer = Descent(agent.actor.theta), Descent(agent.critic.psi)
    for _ in range(6):
        agent.learn(STATE, 1, 2.0, STATE_, False)
        rates.append([part.optimizer.learning_rate.numpy() for part in (agent.actor, agent.critic)])
    np.testing.assert_allclose(rates, [(0.4 * x, 0.8 * x) for x in np.interp(range(6), [0, 4], [1, end_lr])], rtol=1e-6)


def test_a_setting_that_is_changed_takes_effect():
    agent = make()
    for rate in (5e-4, 0.0):
        agent.lr_a = rate
        before = agent.actor.policy(STATE)
        agent.learn(STATE, 1, 2.0, STATE_, False)
        assert (agent.actor.policy(STATE) != before).any() == (rate > 0)


def test_fewer_steps_count_at_once():
    """With 3 of 4 steps in its memory, an agent that is to look 2 ahead makes up for it and goes on in twos."""
    agent, reports = make(n_steps=4), []
    for t in range(6):
        if t == 3:
            agent.n_steps = 2
        reports.append(len(agent.learn(STATE, 1, 2.0, STATE_, False)))
    assert reports == [0, 0, 0, 3, 1, 1]


def test_unknown_critic_is_refused():
    with pytest.raises(ValueError, match="sarsa"):
        make(critic="sarsa")


def test_both_networks_have_the_units_that_are_asked_for():
    agent = make(hidden=(8, 5))
    for part, n_out in (agent.actor, 2), (agent.critic, 1):
        assert [tuple(W.shape) for W in part.model.all_weights[::2]] == [(3, 8), (8, 5), (5, n_out)]


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load(tmp_path, hdf5):
    agent, other = make(seed=1), make(seed=2)
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    other.get_action(STATE)
    np.testing.assert_array_equal(other.actor.policy(STATE), agent.actor.policy(STATE))
    np.testing.assert_array_equal(value(other.critic, STATE), value(agent.critic, STATE))


def run_training(tmp_path, resume=False, **settings):
    config = Config(train=True, out=tmp_path, seed=3, hidden=(16,), resume=resume, **settings)
    env = environments.make(config.env, config.seed)
    agent = ActorCritic(*environments.dimensions(env)[:2], **command.keywords(config, ActorCritic))
    train(config, agent, env)
    rewards = np.loadtxt(config.model_folder / "episodes.csv", delimiter=",", skiprows=1)[:, 1:3]
    return np.concatenate(
        [w.numpy().ravel() for w in (*agent.actor.model.all_weights, *agent.critic.model.all_weights)]
    ), rewards


def test_same_seed_same_run_and_resume_equals_uninterrupted(tmp_path):
    whole, table = run_training(tmp_path / "a", episodes=10, n_steps=3)
    again, _ = run_training(tmp_path / "b", episodes=5, n_steps=3)
    assert (whole != again).any()
    np.testing.assert_array_equal(run_training(tmp_path / "b", episodes=10, n_steps=3, resume=True)[0], whole)
    steps, reward = table.T  # the environment's own reward: 1 a step, without the listing's -20
    np.testing.assert_array_equal(np.diff(steps, prepend=0), reward)


@pytest.mark.xla
def test_learns(tmp_path):
    _, table = run_training(tmp_path, steps=30_000)
    assert table[-10:, 1].mean() > 100  # a random policy holds the pole for about 20 steps
