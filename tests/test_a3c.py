"""A3C: pulling, pushing and counting with several workers, against plain computations; and that it learns."""

import functools
import itertools
import signal
import threading

import gym
import numpy as np
import pytest
import tensorflow as tf
from conftest import Ends, EndsAtTheLimit, PointAtTheLimit
from scipy import special, stats

from a3c.agent import ACNet, Worker
from a3c.main import PRESETS, Config, train
from common import checkpoint, environments, weights
from common.command import UserError, keywords

BOUND = np.float32([2.0])


def net(action_dim=1, action_bound=BOUND, state_dim=3, **settings):
    return ACNet("Net", state_dim, action_dim, action_bound, **{"hidden": (8,), **settings})


def flat(agent):
    """All weights in one vector: psi, then theta."""
    return np.concatenate([agent.psi, agent.theta])


def variables(agent):
    """The same from the variables themselves."""
    return np.concatenate([agent.critic_weights.numpy(), agent.actor_weights.numpy()])


def halves(agent, vector):
    """(psi, theta) of such a vector."""
    return np.split(np.asarray(vector, np.float32), [len(agent.psi)])


def segment(agent, n_steps=6):
    """States, actions and targets of L steps, at random."""
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=n_steps) if agent.discrete else rng.normal(size=(n_steps, 1)).astype(np.float32)
    return rng.normal(size=(n_steps, 3)).astype(np.float32), actions, rng.normal(size=n_steps).astype(np.float32)


# gradients


def test_gradients_by_hand():
    """Those of the outputs' biases and of log-std, which need no chain rule."""
    agent = net(entropy=0.3, log_std=0.5)
    state, action, v_target = segment(agent)
    td = v_target - agent.critic(state).numpy()[:, 0]
    error, var = action - agent.actor(state).numpy(), np.exp(1.0)
    g_psi, g_theta = (x.numpy() for x in agent.gradients(state, action, v_target)[:2])
    assert g_psi[-1] == pytest.approx(-2 * td.mean(), rel=1e-3)
    assert g_theta[-2] == pytest.approx(-(2 * error[:, 0] / var * td).mean(), rel=1e-3)  # the mean is 2 x the output
    assert g_theta[-1] == pytest.approx(-((error[:, 0] ** 2 / var - 1) * td).mean() - 0.3, rel=1e-3)


def test_discrete_gradients_by_hand():
    agent = net(2, None, entropy=0.3)
    state, action, v_target = segment(agent)
    td = (v_target - agent.critic(state).numpy()[:, 0])[:, None]
    logp = special.log_softmax(agent.actor(state).numpy(), 1)
    p, H = np.exp(logp), -(np.exp(logp) * logp).sum(1, keepdims=True)
    expected = -((np.eye(2)[action] - p) * td).mean(0) + 0.3 * (p * (logp + H)).mean(0)
    _, g_theta, _ = agent.gradients(state, action, v_target)
    np.testing.assert_allclose(g_theta[-2:], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("action_dim, action_bound", [(1, BOUND), (2, None)])
def test_the_report_is_of_the_workers_policy_and_gradients(action_dim, action_bound):
    copy, globalAC = net(action_dim, action_bound, entropy=0.3, log_std=0.5), net(action_dim, action_bound, seed=1)
    state, action, v_target = segment(copy)
    g_psi, g_theta, _ = copy.gradients(state, action, v_target)
    adv, output = v_target - copy.critic(state).numpy()[:, 0], copy.actor(state).numpy()
    if copy.discrete:
        log_pi = special.log_softmax(output, 1)
        entropy = -(np.exp(log_pi) * log_pi).sum(1).mean()
        log_pi = log_pi[np.arange(6), action]
    else:
        log_pi = stats.norm.logpdf(action, output, np.exp(0.5))[:, 0]
        entropy = stats.norm.entropy(0, np.exp(0.5))
    assert copy.update_global(state, action, v_target, globalAC) == pytest.approx(
        dict(
            actor_loss=-np.mean(log_pi * adv) - 0.3 * entropy,
            critic_loss=np.mean(adv**2),
            entropy=entropy,
            actor_grad_norm=np.linalg.norm(g_theta),
            critic_grad_norm=np.linalg.norm(g_psi),
        ),
        rel=1e-3,
    )


def worker(env_id="CartPole-v1", name="Worker_0", **settings):
    return Worker(name, env=env_id, **{"hidden": (8,), **settings})


def test_targets_by_hand():
    """lambda 1/2, gamma 1/2: half of each bootstrap is the next target, half the next value; the second step ends."""
    targets = worker(gamma=0.5, gae_lambda=0.5).targets([1.0, 1.0, 1.0], [False, True, False], np.float32([1, 2, 3, 4]))
    np.testing.assert_allclose(targets, [1 + 0.5 * (0.5 * 2 + 0.5 * 1), 1, 1 + 0.5 * 4])


def test_limits_of_lambda():
    rng = np.random.default_rng(0)
    reward, done, value = rng.normal(size=9), rng.random(9) < 0.3, rng.normal(size=10).astype(np.float32)
    one_step = reward + 0.9 * ~done * value[1:]
    np.testing.assert_allclose(worker(gamma=0.9, gae_lambda=0).targets(reward, done, value), one_step, rtol=1e-5)
    returns = [value[-1]]
    for t in reversed(range(9)):
        returns.insert(0, reward[t] + 0.9 * (not done[t]) * returns[0])
    all_steps = worker(gamma=0.9, gae_lambda=1).targets(reward, done, value)
    np.testing.assert_allclose(all_steps, returns[:-1], rtol=1e-5)


# the global network


class Descent:
    """An optimiser with the plain rule and learning rate 1."""

    def __init__(self, variable):
        self.variable, self.learning_rate = variable, tf.Variable(0.0)

    def apply(self, gradient, learning_rate):
        self.variable.assign_sub(gradient)
        self.learning_rate.assign(learning_rate)


def test_gradients_land_on_the_global_network_and_nothing_else():
    copy, bystander, globalAC = net(seed=1), net(seed=2), net(seed=3, max_grad_norm=1e9)
    before = [flat(agent) for agent in (copy, bystander, globalAC)]
    globalAC.critic_opt = Descent(globalAC.critic_weights)
    globalAC.actor_opt = Descent(globalAC.actor_weights)
    state, action, v_target = segment(copy)
    gradient = np.concatenate(copy.gradients(state, action, v_target)[:2])  # at the copy's weights
    copy.update_global(state, action, v_target, globalAC)
    np.testing.assert_allclose(flat(globalAC), before[2] - gradient, atol=1e-6)
    for agent, old in ((copy, before[0]), (bystander, before[1])):
        np.testing.assert_array_equal(flat(agent), old)
        np.testing.assert_array_equal(variables(agent), old)
        assert agent.actor_opt.iterations == agent.normaliser.count == agent.updates == 0


def test_pulling_makes_the_copy_equal():
    copy, globalAC = net(seed=1), net(seed=2)
    copy.update_global(*segment(copy), globalAC)
    copy.pull_global(globalAC)
    state = np.ones(3)
    for each in (variables(copy), variables(globalAC)):
        np.testing.assert_array_equal(flat(copy), each)
    np.testing.assert_allclose(
        copy.get_value(state[None]), globalAC.critic(globalAC.normaliser(state[None]))[:, 0], rtol=1e-5
    )
    globalAC.normaliser.update(np.full((5, 3), 7.0))
    assert copy.normaliser.mean.max() < 1  # a copy of the statistics, not the same arrays


def test_long_gradients_are_shortened_and_log_std_is_bounded():
    globalAC = net(max_grad_norm=0.1, log_std=-0.6, max_log_std=-0.5)
    globalAC.critic_opt = Descent(globalAC.critic_weights)
    globalAC.actor_opt = Descent(globalAC.actor_weights)
    (psi, theta, _), state = globalAC.get_weights(), np.zeros((1, 3), np.float32)
    globalAC.apply_gradients(np.full_like(psi, 10), np.full_like(theta, 10), state)
    assert np.linalg.norm(globalAC.psi - psi) == pytest.approx(0.1, rel=1e-3)
    assert np.linalg.norm(globalAC.theta - theta) == pytest.approx(0.1, rel=1e-3)
    for _ in range(3):
        globalAC.apply_gradients(np.zeros_like(psi), np.float32([0] * (len(theta) - 1) + [-10]), state)
    assert globalAC.log_std.numpy() == pytest.approx([-0.5])


def test_actions_have_the_mean_and_deviation_of_what_was_pulled():
    copy, globalAC = (net(2, np.float32([1, 1])) for _ in range(2))
    globalAC.theta[-4:] = 0.5, -0.25, np.log(0.1), np.log(2)  # the output's biases, log-std
    copy.pull_global(globalAC)
    actions = np.array([copy.get_action(np.ones(3)) for _ in range(4000)])
    np.testing.assert_allclose(actions.mean(0), copy.get_action(np.ones(3), greedy=True), atol=0.15)
    np.testing.assert_allclose(actions.std(0), [0.1, 2], rtol=0.1)


@pytest.mark.parametrize("actions", [(1, BOUND), (2, None)])
def test_a_state_that_travels_brings_networks_and_vectors(actions):
    source, other = net(*actions, seed=1), net(*actions, seed=2)
    source.update_global(*segment(source), source)
    state = checkpoint.collect(agent=source)
    before = flat(source)
    source.update_global(*segment(source), source)  # the state is a copy
    checkpoint.restore(state, "the global network", agent=other)
    np.testing.assert_array_equal(flat(other), before)
    np.testing.assert_array_equal(variables(other), before)
    assert other.updates == other.actor_opt.iterations == 1


def test_without_normalising_states_stay_as_they_are():
    state, rows = np.float32([1, -20, 30]), np.full((4, 3), 5.0, np.float32)
    for off in (False, True):
        agent = net(no_normalising=off)
        agent.apply_gradients(np.zeros_like(agent.psi), np.zeros_like(agent.theta), rows)
        assert np.array_equal(agent.normaliser(state), state) is off


def test_learning_rates_fall_to_0_at_the_last_step():
    globalAC = net(lr_a=0.4, lr_c=0.8, total_steps=100)
    globalAC.critic_opt, globalAC.actor_opt = Descent(globalAC.critic_weights), Descent(globalAC.actor_weights)
    gradients, rates = (np.ones_like(globalAC.psi), np.ones_like(globalAC.theta)), []
    for steps in (0, 50, 100, 150):
        globalAC.steps = steps
        globalAC.apply_gradients(*gradients, np.zeros((1, 3), np.float32))
        rates.append((globalAC.actor_opt.learning_rate.numpy(), globalAC.critic_opt.learning_rate.numpy()))
    np.testing.assert_allclose(rates, [(0.4, 0.8), (0.2, 0.4), (0, 0), (0, 0)], rtol=1e-6)


def test_no_update_is_lost_among_four_threads():
    """With plain descent the result is the start less the sum of all gradients, whatever their order."""
    globalAC = net(max_grad_norm=1e9)
    globalAC.critic_opt = Descent(globalAC.critic_weights)
    globalAC.actor_opt = Descent(globalAC.actor_weights)
    globalAC.log_std.assign([-50.0])
    globalAC.theta[-1] = -50
    before = flat(globalAC)
    gradients = (
        np.random.default_rng(0).integers(-3, 4, (4, 200, len(before))).astype(np.float32) / 64
    )  # sums are exact

    def push(own):
        for gradient in own:
            globalAC.apply_gradients(*halves(globalAC, gradient), np.ones((2, 3), np.float32))

    threads = [threading.Thread(target=push, args=(own,)) for own in gradients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(flat(globalAC), before - gradients.sum((0, 1)), atol=1e-3)
    assert globalAC.updates == 800 and globalAC.steps == globalAC.normaliser.count == 1600


def taken_elsewhere(lock):
    """Whether another thread could enter now."""
    answers = []

    def try_it():
        answers.append(lock.acquire(blocking=False))
        if answers[0]:
            lock.release()

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return answers[0]


def test_the_whole_master_step_is_one_threads_alone():
    """Two threads at once could lose an update: what either writes last is without what the other has done."""
    globalAC, log = net(), []

    def spied(name, function):
        def call(*arguments):
            log.append((name, taken_elsewhere(globalAC.lock)))
            return function(*arguments)

        return call

    globalAC._apply = spied("step", globalAC._apply)
    globalAC.normaliser.update = spied("statistics", globalAC.normaliser.update)
    globalAC.get_weights = spied("answer", globalAC.get_weights)
    globalAC.apply_gradients(globalAC.psi * 0, globalAC.theta * 0, np.ones((2, 3), np.float32))
    assert log == [("step", False), ("statistics", False), ("answer", False)]
    assert taken_elsewhere(globalAC.lock)  # it is given back


@pytest.mark.parametrize("method", ["apply_gradients", "get_weights"])
def test_nobody_reads_or_writes_while_another_thread_is_at_work(method):
    globalAC, started, answers = net(), threading.Event(), []
    arguments = (globalAC.psi + 1, globalAC.theta + 1, np.ones((2, 3), np.float32)) if method[0] == "a" else ()

    def call():
        started.set()
        answers.append(getattr(globalAC, method)(*arguments))

    before = flat(globalAC)
    with globalAC.lock:
        thread = threading.Thread(target=call)
        thread.start()
        started.wait()
        thread.join(1)
        assert thread.is_alive() and not answers
        np.testing.assert_array_equal(variables(globalAC), before)
        globalAC.psi[:] = before[: len(globalAC.psi)]  # what this thread is half done with
    thread.join()
    assert len(answers) == 1


def test_a_setting_counts_at_any_time():
    """After the first update too: the compiled ones take settings as data."""
    globalAC = net(max_grad_norm=1e9, max_log_std=5.0, total_steps=100)
    globalAC.critic_opt = Descent(globalAC.critic_weights)
    globalAC.actor_opt = Descent(globalAC.actor_weights)
    state, action, v_target = segment(globalAC)

    def entropys_part(entropy):
        globalAC.entropy = entropy
        return globalAC.gradients(state, action, v_target)[1].numpy()[-1]

    assert entropys_part(0.0) - entropys_part(0.5) == pytest.approx(0.5, rel=1e-4)  # of log-std, downwards
    for norm in (3.0, 0.25):
        globalAC.max_grad_norm = norm
        before = globalAC.psi.copy()
        globalAC.apply_gradients(np.full_like(globalAC.psi, 10), globalAC.theta * 0, state)
        assert np.linalg.norm(globalAC.psi - before) == pytest.approx(norm, rel=1e-3)
    for bound in (-1.5, -2.5):
        globalAC.max_log_std = bound
        globalAC.apply_gradients(globalAC.psi * 0, globalAC.theta * 0, state)
        assert globalAC.theta[-1] == bound
    for end_lr, lr_c in (0.5, 0.8), (0.25, 0.4):
        globalAC.end_lr, globalAC.lr_c, globalAC.steps = end_lr, lr_c, 100
        globalAC.apply_gradients(globalAC.psi * 0, globalAC.theta * 0, state)
        assert globalAC.critic_opt.learning_rate.numpy() == pytest.approx(end_lr * lr_c)


# the worker


def test_a_worker_hands_over_what_it_saw_across_true_ends_and_time_limits(monkeypatch):
    """A true end is worth nothing more, a time limit what the critic says of the state that was cut off."""
    monkeypatch.setattr(environments, "make", lambda *_: Ends(gym.spaces.Discrete(2)))
    settings = dict(n_steps=7, gamma=0.9, gae_lambda=0.8, reward_scale=0.1, hidden=(8,))
    own, globalAC, segments, reports = Worker("Worker_0", **settings), net(2, None, 2, seed=1), [], []
    globalAC.normaliser.update(np.float32([[0, 0], [1, 5]]))
    coord = type("Twice", (), {"should_stop": lambda self: len(segments) == 2})()
    update_global = lambda *arguments: segments.append(arguments) or {"number": len(segments)}  # noqa: E731
    monkeypatch.setattr(own.AC, "update_global", update_global)
    own.work(globalAC, coord, lambda *episode: reports.append(episode))
    # true end after 3 steps, time limit after 5, true end after 3, and 3 steps of the next episode
    seen = (
        [(0, t) for t in range(3)]
        + [(1, t) for t in range(5)]
        + [(2, t) for t in range(3)]
        + [(3, t) for t in range(3)]
    )
    np.testing.assert_array_equal(np.concatenate([part[0] for part in segments]), seen)
    assert [len(part[0]) for part in segments] == [7, 7] and all(part[3] is globalAC for part in segments)
    # the environment's own rewards, and the updates before the end that no earlier report had
    assert reports == [(6.0, 3, []), (15.0, 5, [{"number": 1}]), (6.0, 3, [])]
    for start, part in zip((0, 7), segments, strict=True):
        expected, target = [], None
        for episode, t in reversed(seen[start : start + 7]):
            V = float(globalAC.get_value(np.float32([[episode, t + 1]]))[0])  # of where the step led
            last = t == (4 if episode % 2 else 2)
            if last:
                following = V if episode % 2 else 0.0
            elif target is None:  # the end of the segment
                following = V
            else:
                following = 0.2 * V + 0.8 * target
            target = 0.1 * (t + 1) + 0.9 * following
            expected.append(target)
        np.testing.assert_allclose(part[2], expected[::-1], rtol=1e-4)


@pytest.fixture
def first_targets(monkeypatch):
    """The targets of a worker's first segment in an environment, after the episode of 3 steps if `second`; V is 1/2."""

    def run(env, n_steps, second=False, **settings):
        monkeypatch.setattr(environments, "make", lambda *_: env)
        own, segments = Worker("Worker_0", n_steps=n_steps, gae_lambda=1.0, hidden=(8,), **settings), []
        if second:
            own.env.reset()  # what is begun next is the episode of 5 steps
        coord = type("Once", (), {"should_stop": lambda self: bool(segments)})()
        monkeypatch.setattr(own.AC, "update_global", lambda *arguments: segments.append(arguments))
        monkeypatch.setattr(own.AC, "get_value", lambda states: np.full(len(states), 0.5, np.float32))
        own.work(net(2, None, 2), coord, lambda *episode: None)
        return segments[0][2]

    return run


def test_an_end_at_the_time_limit_is_an_end(first_targets):
    targets = first_targets(EndsAtTheLimit(gym.spaces.Discrete(2)), 3, reward_scale=0.1, gamma=1.0)
    np.testing.assert_allclose(targets, [0.6, 0.5, 0.3], rtol=1e-6)


class PointAtTwo(gym.Wrapper):
    """Of the rewards 1, 2, 3 only the second remains, as a point for the other side."""

    def step(self, action):
        state, reward, terminated, truncated, info = self.env.step(action)
        return state, -1.0 * (reward == 2), terminated, truncated, info


@pytest.mark.parametrize("reset_at_points, expected", [(True, [-0.5, -1, 0.25]), (False, [-0.4375, -0.875, 0.25])])
def test_no_more_is_to_come_after_a_point_if_points_end_a_path(first_targets, reset_at_points, expected):
    env, settings = PointAtTwo(Ends(gym.spaces.Discrete(2))), dict(reward_scale=1.0, gamma=0.5)
    targets = first_targets(env, 3, second=True, reset_at_points=reset_at_points, **settings)
    np.testing.assert_allclose(targets, expected)


@pytest.mark.parametrize("reset_at_points, last", [(True, 1.0), (False, 1.25)])
def test_no_more_is_to_come_after_a_point_at_the_time_limit(first_targets, reset_at_points, last):
    env, settings = PointAtTheLimit(gym.spaces.Discrete(2)), dict(reward_scale=1.0, gamma=0.5)
    targets = first_targets(env, 5, second=True, reset_at_points=reset_at_points, **settings)
    np.testing.assert_allclose(targets, last * 0.5 ** np.arange(4, -1, -1))


def test_targets_as_a_column_as_the_listing_makes_them():
    copies, results = [net(seed=1), net(seed=1)], []
    state, action, v_target = segment(copies[0])
    for copy, target in zip(copies, (v_target, tf.constant(v_target[:, None])), strict=True):
        copy.update_global(tf.constant(state), tf.constant(action), target, copy)
        results.append(flat(copy))
    np.testing.assert_array_equal(*results)


def test_workers_of_other_numbers_explore_differently():
    first, second = worker(name="Worker_0"), worker(name="Worker_1")
    assert (first.env.reset()[0] != second.env.reset()[0]).all()
    assert first.AC.rng.random() != second.AC.rng.random()


def test_the_books_own_loop_runs(monkeypatch, capsys):
    """The main loop of section 5.10.4 with our classes. The printed lambda takes its worker when it runs, which may be
    after the loop has gone on; the line above it that is commented out hands the worker over."""
    short = dict(hidden=(8,), total_steps=2000)
    monkeypatch.setattr(ACNet, "__init__", functools.partialmethod(ACNet.__init__, **short))  # 15 million by default
    GLOBAL_AC = ACNet("Global_Net")
    before = flat(GLOBAL_AC)
    workers = []
    for i in range(2):
        i_name = f"Worker_{i}"
        workers.append(Worker(i_name, GLOBAL_AC))
    for each in workers:
        np.testing.assert_array_equal(flat(each.AC), before)
    COORD = tf.train.Coordinator()
    worker_threads = []
    for worker in workers:
        t = threading.Thread(target=worker.work, args=(GLOBAL_AC,))
        t.start()
        worker_threads.append(t)
    COORD.join(worker_threads)
    assert 2000 <= GLOBAL_AC.steps <= 2000 + 2 * 80 and GLOBAL_AC.updates == GLOBAL_AC.steps // 80
    assert (flat(GLOBAL_AC) != before).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith("Training | Worker_") for line in lines)
    assert Worker("Worker_2").env.spec.id == "BipedalWalker-v3"


# the run


def run(tmp_path, env_id="CartPole-v1", workers=1, resume=False, **settings):
    config = Config(
        **{"env": env_id, "out": tmp_path, **PRESETS.get(env_id, {}), "resume": resume, "workers": workers, **settings}
    )
    shared = keywords(config, ACNet) | dict(total_steps=config.steps)
    globalAC = ACNet("Global_Net", *environments.dimensions(environments.make(env_id, 0)), **shared)
    shared |= keywords(config, Worker)
    each = [Worker(f"Worker_{i}", **shared) for i in range(workers)]
    train(config, globalAC, each)
    return globalAC, each


def test_ctrl_c_ends_all_workers_and_saves(tmp_path, monkeypatch):
    """It comes to the first worker, which works in the main thread, at its fifth update."""
    own, calls = ACNet.update_global, itertools.count(1)

    def update_global(self, *segment):
        if self.scope == "Worker_0" and next(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return own(self, *segment)

    monkeypatch.setattr(ACNet, "update_global", update_global)
    stopped = False
    try:
        run(tmp_path, steps=20_000, workers=3, hidden=(8,), n_steps=10)
    except KeyboardInterrupt:  # it would end pytest
        stopped = True
    assert stopped and not [thread for thread in threading.enumerate() if "Worker" in thread.name]
    folder = tmp_path / "model/a3c/CartPole-v1"
    assert weights.exist(folder) and np.load(folder / "resume.npz")["rows"][-1, 1] < 10_000


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_one_worker_equals_a_plain_synchronous_computation_bit_for_bit(tmp_path, env_id):
    """One network that acts, computes its gradients and takes them: no copies, no threads, no pulling."""
    globalAC, (theirs,) = run(tmp_path, env_id, steps=1000, hidden=(16,), seed=5, n_steps=30)
    gamma, lam, scale = theirs.gamma, theirs.gae_lambda, theirs.reward_scale
    env = environments.make(env_id, 5)
    config = Config(**{**PRESETS[env_id], "env": env_id, "hidden": (16,), "seed": 5})
    agent = ACNet("Global_Net", *environments.dimensions(env), **keywords(config, ACNet), total_steps=1000)
    agent.rng = ACNet("Worker_0", *environments.dimensions(env), hidden=(16,), seed=5).rng  # it acts with its own
    state, _ = env.reset()
    for _ in range(globalAC.updates):
        states, actions, rewards, done = [state], [], [], []
        for _ in range(30):
            actions.append(agent.get_action(state))
            state, reward, terminated, truncated, _ = env.step(actions[-1])
            rewards.append(scale * reward)
            if truncated and not terminated:
                rewards[-1] += gamma * agent.get_value(state[None])[0]
            done.append(terminated or truncated)
            if done[-1]:
                state, _ = env.reset()
            states.append(state)
        states = np.array(states, np.float32)
        value = agent.get_value(states)
        target, targets = value[-1], []
        for t in reversed(range(30)):
            mix = (1 - lam) * value[t + 1] + lam * target
            target = rewards[t] + gamma * (not done[t]) * mix
            targets.insert(0, target)
        batch = agent.normaliser(states[:-1]), np.array(actions), np.float32(targets)
        gradients = agent.gradients(*batch)[:2]
        agent.apply_gradients(*(x.numpy() for x in gradients), states[:-1])
    np.testing.assert_array_equal(flat(agent), flat(globalAC))


def test_every_worker_works_and_every_update_is_counted(tmp_path):
    """In the listing all threads share one loop variable: one worker does everything."""
    given, worked = [], []

    class Named(Worker):
        def work(self, *arguments):
            worked.append(self.name)
            super().work(*arguments)

    class Counting(ACNet):
        def apply_gradients(self, g_psi, g_theta, states):
            given.append((threading.current_thread().name, len(states)))
            super().apply_gradients(g_psi, g_theta, states)

    config = Config(out=tmp_path, env="CartPole-v1", steps=4000, hidden=(16,), n_steps=10, workers=4)
    shared = keywords(config, ACNet)
    globalAC = Counting("Global_Net", 4, 2, None, **shared)
    train(config, globalAC, [Named(f"Worker_{i}", **(shared | keywords(config, Worker))) for i in range(4)])
    assert sorted(worked) == ["Worker_0", "Worker_1", "Worker_2", "Worker_3"]
    threads = {threading.current_thread().name, "Worker_1", "Worker_2", "Worker_3"}  # the first may draw a window
    assert {name for name, _ in given} == threads
    assert globalAC.updates == len(given) == globalAC.actor_opt.iterations
    assert globalAC.steps == 10 * len(given) == globalAC.normaliser.count
    table = np.loadtxt(tmp_path / "model/a3c/CartPole-v1/episodes.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 2], np.diff(table[:, 1], prepend=0))  # the environment's own reward


def test_a_worker_that_raises_ends_the_run_with_its_error(tmp_path):
    config = Config(out=tmp_path, env="CartPole-v1", steps=10**9, hidden=(8,), workers=3)
    shared = keywords(config, ACNet)
    workers = [Worker(f"Worker_{i}", **(shared | keywords(config, Worker))) for i in range(3)]
    steps, late, coords = 0, [], []

    def step(action):
        nonlocal steps
        steps += 1
        if steps == 200:
            raise RuntimeError("the knee of Worker_1 broke")
        return np.zeros(4, np.float32), 1.0, False, False, {}

    def watched(worker):
        """Its environment's step; counts those after the run was told to stop."""
        own, work = worker.env.step, worker.work

        def watched_step(action):
            if coords and coords[0].should_stop():
                late.append(worker.name)
            return own(action)

        def watched_work(agent, coord, report):
            coords.append(coord)
            return work(agent, coord, report)

        worker.env.step, worker.work = watched_step, watched_work

    workers[1].env.step = step
    watched(workers[0])
    watched(workers[2])
    with pytest.raises(RuntimeError, match="the knee of Worker_1 broke"):
        train(config, ACNet("Global_Net", 4, 2, None, **shared), workers)
    assert max(late.count("Worker_0"), late.count("Worker_2")) <= config.n_steps  # at most what was begun
    assert not any("Worker" in thread.name for thread in threading.enumerate())


def test_the_running_reward_is_the_books(tmp_path):
    """0.95 and 0.05 in section 5.10.4."""
    run(tmp_path, steps=1000, hidden=(8,))
    table = np.loadtxt(tmp_path / "model/a3c/CartPole-v1/episodes.csv", delimiter=",", skiprows=1)
    reward, running = table[:, 2], table[:, 3]
    assert running[0] == reward[0]
    np.testing.assert_allclose(running[1:], 0.95 * running[:-1] + 0.05 * reward[1:])


def test_a_gradient_that_is_no_number_names_its_worker():
    copy, globalAC = net(), net()
    state, action, v_target = segment(copy)
    before = flat(globalAC)
    with pytest.raises(FloatingPointError, match="a gradient of Net is not finite"):
        copy.update_global(state, action, v_target * np.float32("nan"), globalAC)
    np.testing.assert_array_equal(flat(globalAC), before)


def test_weights_that_are_no_number_stop_the_run():
    """Finite gradients can do that, with a learning rate that is too much for float32."""
    for lr in ("lr_a", "lr_c"):
        agent = net(**{lr: 1e39})
        with pytest.raises(FloatingPointError, match="a weight is no longer a finite number"):
            agent.update_global(*segment(agent), agent)


@pytest.mark.parametrize("actions", [(1, BOUND), (2, None)])
def test_a_policy_that_is_no_number_names_its_worker(actions):
    """Finite weights can make it so, and an environment need not notice: the walker's ends in an assertion."""
    agent = net(*actions)
    agent.theta[:] = 3e38
    for greedy in (False, True):
        with pytest.raises(FloatingPointError, match="the policy of Net is not finite"):
            agent.get_action(np.ones(3), greedy)


def test_a_copy_saves_the_weights_that_it_acts_with(tmp_path):
    copy, globalAC, other = net(seed=1), net(seed=2), net(seed=3)
    copy.update_global(*segment(copy), globalAC)
    copy.pull_global(globalAC)
    copy.save(tmp_path)
    other.load(tmp_path)
    for agent in (copy, globalAC):
        np.testing.assert_array_equal(flat(other), flat(agent))
    np.testing.assert_array_equal(other.get_action(np.ones(3), greedy=True), copy.get_action(np.ones(3), greedy=True))


def test_resume_goes_on_with_weights_optimisers_and_statistics(tmp_path):
    before, _ = run(tmp_path, steps=1000, hidden=(8,), n_steps=10)
    resumed, _ = run(tmp_path, steps=10_000, episodes=100, hidden=(8,), n_steps=10, resume=True)
    assert resumed.updates > before.updates
    assert resumed.updates * 10 == resumed.steps == resumed.normaliser.count
    assert resumed.actor_opt.iterations == resumed.updates


def test_a_run_that_is_over_is_not_trained_on(tmp_path):
    before, _ = run(tmp_path, steps=500, hidden=(8,), n_steps=10)
    again, _ = run(tmp_path, steps=500, hidden=(8,), n_steps=10, resume=True)
    assert again.steps == before.steps and again.updates == before.updates
    np.testing.assert_array_equal(again.theta, before.theta)


def test_a_resumed_worker_repeats_neither_its_exploration_nor_its_starts(tmp_path, monkeypatch):
    _, (before,) = run(tmp_path, steps=500, hidden=(8,))
    drawn = []

    def draw(worker, *_):
        drawn.extend(rng.random() for rng in (worker.AC.rng, worker.env.unwrapped.np_random))

    monkeypatch.setattr(Worker, "work", draw)
    run(tmp_path, steps=500, hidden=(8,), resume=True)
    resumed, drawn = drawn, []
    draw(before)
    assert resumed == drawn


@pytest.mark.parametrize("hdf5", [False, True])
def test_save_and_load_bring_back_the_statistics_too(tmp_path, hdf5):
    agent, other = net(seed=1), net(seed=2)
    agent.update_global(*segment(agent), agent)
    agent.save(tmp_path, hdf5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5" if hdf5 else ".npz"}
    other.load(tmp_path)
    state = np.ones(3)
    np.testing.assert_array_equal(other.get_action(state, greedy=True), agent.get_action(state, greedy=True))
    np.testing.assert_array_equal(other.get_value(state[None]), agent.get_value(state[None]))
    np.testing.assert_array_equal(flat(other), flat(agent))


def test_a_mean_through_tanh_stays_within_the_bounds():
    state = np.ones(3)
    for mean, size in ("linear", 200.0), ("tanh", 2.0):  # 100 x the bound, and the bound
        agent = net(mean=mean)
        agent.theta[-2] = 100.0  # the output's bias; log-std is the last
        assert agent.get_action(state, greedy=True)[0] == pytest.approx(size, abs=0.1)
        agent.pull_global(agent)  # which makes the variables follow
        np.testing.assert_allclose(agent.actor(state[None].astype(np.float32))[0], agent.get_action(state, True))
    logits = net(2, None, mean="tanh")  # which have no bounds
    logits.theta[-1] = 100.0
    assert logits.policy(state)[1] == pytest.approx(100, abs=0.1)


def test_weights_of_a_linear_mean_are_not_taken_for_one_through_tanh(tmp_path):
    net(mean="linear").save(tmp_path)
    with pytest.raises(UserError, match="output_tanh"):
        net(mean="tanh").load(tmp_path)


@pytest.mark.xla
def test_learns(tmp_path):
    (agent, _), env, rewards = run(tmp_path, workers=2), environments.make("CartPole-v1", 999), []
    for _ in range(20):
        state, _ = env.reset()
        done = False
        rewards.append(0.0)
        while not done:
            state, reward, terminated, truncated, _ = env.step(agent.get_action(state, greedy=True))
            rewards[-1] += reward
            done = terminated or truncated
    assert np.mean(rewards) >= 400
