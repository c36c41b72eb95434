"""The mathematics of chapter 5 by independent means: enumeration of a small MDP, complex steps, SciPy's optimisers.

A gradient "by complex steps" is f(x + ih) / h, imaginary part: exact to rounding, and no formula of the book is in it.
"""

import itertools
from types import SimpleNamespace

import gym
import numpy as np
import pytest
from scipy import optimize

from ac.agent import Actor, Critic
from ppo.agent import PPO
from reinforce.agent import PolicyGradient
from trpo.agent import TRPO

S, A, GAMMA = 3, 2, 0.8
P = np.random.default_rng(0).dirichlet(np.ones(S), (S, A))  # P[s, a, s'], where each state leads to every other
R = np.random.default_rng(1).normal(0, 1, (S, A))
MU = np.array([0.5, 0.3, 0.2])  # where episodes begin
THETA = np.random.default_rng(2).normal(0, 0.7, (S, A))  # logits of the policy
OTHER = np.random.default_rng(3).normal(0, 0.7, (S, A))  # of another one
STATES = np.eye(S, dtype=np.float32)


def softmax(theta):
    e = np.exp(theta - theta.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


PI, PI_OTHER = softmax(THETA), softmax(OTHER)
SCORE = np.einsum("st,ab->satb", np.eye(S), np.eye(A)) - np.einsum("st,sb->stb", np.eye(S), PI)[:, None]
"""SCORE[s, a] is the gradient [S, A] of log pi(a|s) in the logits."""


def slope(f, theta):
    """The gradient of f at theta, by complex steps."""
    gradient = np.zeros(theta.size)
    for i in range(theta.size):
        step = np.zeros(theta.size, complex)
        step[i] = 1e-20j
        gradient[i] = f(theta + step.reshape(theta.shape)).imag / 1e-20
    return gradient.reshape(theta.shape)


def curvature(f, theta):
    """The Hessian of f at theta: central differences of complex steps."""
    rows = [(slope(f, theta + h) - slope(f, theta - h)) / 2e-4 for h in 1e-4 * np.eye(theta.size)]
    return np.array(rows)


def evaluate(pi, gamma=GAMMA):
    """V [S] and Q [S, A] of the policy, by a linear system."""
    v = np.linalg.solve(np.eye(S) - gamma * np.einsum("sa,sat->st", pi, P), (pi * R).sum(1))
    return v, R + gamma * P @ v


def visits(pi, gamma=GAMMA, start=MU):
    """rho(s), the sum over t of gamma^t Pr(S_t = s), step by step."""
    d, rho = start, 0
    for t in range(200):
        rho = rho + gamma**t * d
        d = np.einsum("s,sa,sat->t", d, pi, P)
    return rho


def performance(pi, gamma=GAMMA):
    return MU @ evaluate(pi, gamma)[0]


def performance_of(theta, steps, gamma):
    """J of so many steps, by backward induction: no path is enumerated."""
    pi, v = softmax(theta), np.zeros(S)
    for _ in range(steps):
        v = (pi * (R + gamma * P @ v)).sum(1)
    return MU @ v


def paths(steps, pi=PI, start=MU):
    """Every path of so many steps: its chance [n]; states, actions and rewards, each [n, steps]."""
    pairs = np.array(list(itertools.product(itertools.product(range(S), range(A)), repeat=steps)))
    s, a = pairs[..., 0], pairs[..., 1]
    chance = start[s[:, 0]] * pi[s, a].prod(1) * P[s[:, :-1], a[:, :-1], s[:, 1:]].prod(1)
    return chance, s, a, R[s, a]


def to_go(rewards, gamma):
    """The sum over t >= t' of gamma^(t - t') R_t, for each t'."""
    total, returns = 0, []
    for r in rewards.T[::-1]:
        total = r + gamma * total
        returns.append(total)
    return np.array(returns[::-1]).T


def estimate(chance, s, a, weight):
    """The expectation of the sum over t of grad log pi(A_t|S_t) times weight[:, t]."""
    return np.einsum("n,nt,ntij->ij", chance, weight, SCORE[s, a])


FEATURES = np.random.default_rng(9).standard_normal((S, A, 4))


def by_features(w):
    """A policy of four weights."""
    return softmax(FEATURES @ w)


def kl(p, q):
    """KL(p || q) for each state."""
    return (p * np.log(p / q)).sum(-1)


def tabular(model, table):
    """A network without hidden layers, on states that are rows of the identity: its output is a table."""
    model.all_weights[0].assign(table)
    model.all_weights[1].assign(np.zeros(table.shape[1]))


def watched(optimizer_owner, name):
    """Gradients that the owner's optimiser is handed, from now on, in place of a step."""
    gradients = []

    def apply(handed, learning_rate=None):
        """Keras's optimisers take a list and have their own rate, those of one vector take both."""
        gradients.extend(x.numpy() for x in (handed if isinstance(handed, list) else [handed]))

    setattr(optimizer_owner, name, SimpleNamespace(apply=apply))
    return gradients


# 5.2 REINFORCE


def test_the_two_lines_of_5_1_are_the_gradient():
    chance, s, a, r = paths(4)
    exact = slope(lambda theta: performance_of(theta, 4, 1), THETA)
    assert chance.sum() == pytest.approx(1)
    first = np.einsum("n,nt,ntij->ij", chance, r, np.cumsum(SCORE[s, a], 1))  # R_t times the score until t
    np.testing.assert_allclose(first, exact, atol=1e-12)
    np.testing.assert_allclose(estimate(chance, s, a, to_go(r, 1)), exact, atol=1e-12)
    without_its_own_reward = estimate(chance, s, a, to_go(r, 1) - r)  # t > t', as Algorithm 5.23 prints it
    assert np.abs(without_its_own_reward - exact).max() > 0.05


def test_note_5_1_the_return_from_i_on_has_the_mean_q():
    chance, s, a, r = paths(4)
    v = np.zeros(S)
    for _ in range(3):
        v = (PI * (R + GAMMA * P @ v)).sum(1)
    q = R + GAMMA * P @ v  # of 4 steps
    first = chance[:, None, None] * (np.eye(S)[s[:, 0]][:, :, None] * np.eye(A)[a[:, 0]][:, None])
    mean = np.einsum("nsa,n->sa", first, to_go(r, GAMMA)[:, 0]) / first.sum(0)
    np.testing.assert_allclose(mean, q, atol=1e-12)


def test_the_discounted_gradient_5_2_has_the_weight_gamma_to_the_t():
    chance, s, a, r = paths(4)
    exact = slope(lambda theta: performance_of(theta, 4, GAMMA), THETA)
    discounts = GAMMA ** np.arange(4)
    np.testing.assert_allclose(estimate(chance, s, a, discounts * to_go(r, GAMMA)), exact, atol=1e-12)
    assert np.abs(estimate(chance, s, a, to_go(r, GAMMA)) - exact).max() > 0.02  # what practice takes
    endless = slope(lambda theta: performance(softmax(theta)), THETA)
    expected = np.einsum("s,sa,satb,sa->tb", visits(PI), PI, SCORE, evaluate(PI)[1])
    np.testing.assert_allclose(expected, endless, atol=1e-10)


BASELINES = {
    "none": np.zeros(S),
    "a number": np.full(S, 3.0),
    "any function of the state": np.array([5.0, -2.0, 1.0]),
    "V": evaluate(PI)[0],
}


@pytest.mark.parametrize("b", BASELINES.values(), ids=BASELINES)
def test_every_baseline_leaves_the_gradient_alone_5_3_5_4(b):
    chance, s, a, r = paths(3)
    for gamma in (1, GAMMA):
        exact = slope(lambda theta, gamma=gamma: performance_of(theta, 3, gamma), THETA)
        discounts = gamma ** np.arange(3)
        np.testing.assert_allclose(estimate(chance, s, a, discounts * (to_go(r, gamma) - b[s])), exact, atol=1e-12)
    printed = estimate(chance, s, a, to_go(r, GAMMA) - b[s])  # (5.3) has no gamma^t'
    assert np.abs(printed - exact).max() > 0.02
    for t in range(3):  # (5.4)
        np.testing.assert_allclose(estimate(chance, s, a, b[s] * np.eye(3)[t]), 0, atol=1e-14)


def test_what_knows_the_action_is_no_baseline_5_4():
    chance, s, a, _ = paths(3)
    knows_the_action = np.array([[1.0, 2.0], [0.0, 3.0], [1.0, -1.0]])[s, a]
    assert np.abs(estimate(chance, s, a, knows_the_action)).max() > 0.1


@pytest.mark.parametrize("batch", [2, 3])
def test_returns_normalised_over_a_batch_have_another_mean(batch):
    """All batches of paths of two steps. Were one fixed deviation divided by, the direction would stay; it does not."""
    chance, s, a, r = paths(2)
    exact = slope(lambda theta: performance_of(theta, 2, 1), THETA)
    index = np.array(list(itertools.product(range(len(chance)), repeat=batch)))
    returns = to_go(r, 1)[index]  # [batches, batch, 2]
    mean, deviation = returns.mean((1, 2), keepdims=True), returns.std((1, 2), keepdims=True)
    chances, scores = chance[index].prod(1), SCORE[s, a][index]

    def expected(weight):
        return np.einsum("k,knt,kntij->ij", chances, weight, scores) / batch

    np.testing.assert_allclose(expected(returns), exact, atol=1e-12)
    normalised = expected((returns - mean) / np.maximum(deviation, 1e-8))
    cosine = (normalised * exact).sum() / np.linalg.norm(normalised) / np.linalg.norm(exact)
    assert cosine < 0.995


@pytest.mark.parametrize("baseline, gamma_t", [("none", True), ("value", True), ("none", False)])
def test_the_class_estimates_5_2_and_5_3(baseline, gamma_t):
    """REINFORCE plays every path of three steps; each counts as often as it comes."""
    agent = PolicyGradient(S, A, gamma=GAMMA, gamma_t=gamma_t, baseline=baseline, reward_scale=1.0, hidden=())
    tabular(agent.actor, THETA)
    tabular(agent.critic, np.array([[5.0], [-2.0], [1.0]]))
    agent._refresh()
    chance, s, a, r = paths(3)
    for path in zip(s, a, r, strict=True):
        for state, action, reward in zip(*path, strict=True):
            agent.store_transition(STATES[state], action, reward)
        agent.finish_path()
    handed_over = []
    agent._update = lambda *args: handed_over.extend(args) or {"actor_loss": 0.0}
    agent.learn()
    states, actions, weight, _, mask, number, _ = handed_over
    assert number == len(chance)
    gradients = watched(agent, "actor_opt")
    weight[: 3 * len(chance)] *= np.repeat(chance, 3).astype(np.float32)
    agent.train_actor(states, actions, weight, mask, np.float32(1))
    exact = slope(lambda theta: performance_of(theta, 3, GAMMA), THETA)
    if gamma_t:
        np.testing.assert_allclose(-gradients[0], exact, atol=1e-5)
    else:
        assert np.abs(-gradients[0] - exact).max() > 0.02


def test_the_variance_of_a_difference_5_5():
    chance = np.array([0.1, 0.2, 0.3, 0.4])
    x, y = np.array([1.0, -2.0, 0.5, 3.0]), np.array([2.0, -1.0, 1.0, -1.0])

    def mean(z):
        return chance @ z

    def covariance(z, w):
        return mean(z * w) - mean(z) * mean(w)

    y = y - mean(y)
    assert mean(x - y) == pytest.approx(mean(x))
    for scale in (1.0, -1.0, 0.3):
        formula = covariance(x, x) + scale**2 * covariance(y, y) - 2 * scale * covariance(x, y)
        assert mean((x - scale * y - mean(x)) ** 2) == pytest.approx(formula)
    best = covariance(x, y) / covariance(y, y)  # how much of Y to take
    found = optimize.minimize_scalar(lambda c: mean((x - c * y - mean(x)) ** 2))
    assert found.x == pytest.approx(best, rel=1e-5)
    rest = covariance(x, x) * (1 - covariance(x, y) ** 2 / covariance(x, x) / covariance(y, y))
    assert found.fun == pytest.approx(rest)  # the higher the correlation, the less is left


def test_the_best_baseline_weighs_q_by_the_squared_score_5_5():
    """For one step: b*(s) = E[|grad log pi|^2 Q] / E[|grad log pi|^2], and the variance falls by E[|...|^2] b*^2."""
    _, q = evaluate(PI)
    square = (SCORE**2).sum((2, 3))  # |grad log pi(a|s)|^2
    for s in range(S):

        def variance(b, s=s):
            g = SCORE[s] * (q[s] - b)[:, None, None]
            return PI[s] @ (g**2).sum((1, 2)) - (np.einsum("a,aij->ij", PI[s], g) ** 2).sum()

        norm = PI[s] @ square[s]
        best = PI[s] @ (square[s] * q[s]) / norm
        found = optimize.minimize_scalar(variance)
        assert found.x == pytest.approx(best, rel=1e-5)
        assert variance(0) - variance(best) == pytest.approx(norm * best**2)
        assert variance(best) < min(variance(0), variance(PI[s] @ q[s]))  # V(s) is not the best one


def test_the_slides_score_of_a_softmax():
    """grad log pi(a|s) = grad f(s, a) - E[grad f(s, .)], f linear in four features."""
    w = np.array([0.3, -0.5, 0.2, 0.7])
    mean = np.einsum("sa,sai->si", by_features(w), FEATURES)
    for s, a in itertools.product(range(S), range(A)):
        score = slope(lambda x, s=s, a=a: np.log(by_features(x)[s, a]), w)
        np.testing.assert_allclose(score, FEATURES[s, a] - mean[s], atol=1e-12)


def test_the_slides_objective_has_another_gradient():
    """They maximise E[pi A] and follow E[grad log pi A]: that is the gradient of E_old[pi / pi_old A]."""
    _, q = evaluate(PI)
    advantage = (q - (PI * q).sum(1, keepdims=True))[0]
    followed = PI[0] @ (advantage[:, None] * SCORE[0, :, 0])
    written = slope(lambda x: (softmax(x) ** 2 * advantage).sum(), THETA[0])
    meant = slope(lambda x: PI[0] @ (softmax(x) / PI[0] * advantage), THETA[0])
    np.testing.assert_allclose(meant, followed, atol=1e-12)
    assert np.abs(written - followed).max() > 0.01


# 5.3 Actor-Critic


def l_steps(length, start, v):
    """Every path of L steps from a state: chance [n], first action [n], the target R + ... + gamma^L V(S')."""
    chance, s, a, r = paths(length + 1, start=np.eye(S)[start])
    return chance, a[:, 0], to_go(r[:, :length], GAMMA)[:, 0] + GAMMA**length * v[s[:, length]]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_critics_loss_and_its_semi_gradient_5_6_5_7_5_8(length):
    """V is a table psi. 5.8 is the gradient of 5.7 with V(S') held fast; on average it leads to V of the policy."""
    psi = np.array([0.3, -1.0, 2.0])

    def expected(psi):
        """(5.8), on average, from each state once."""
        gradient = np.zeros(S)
        for s in range(S):
            chance, _, target = l_steps(length, s, psi)
            gradient[s] = chance @ (psi[s] - target)
        return gradient

    for s in range(S):
        chance, _, target = l_steps(length, s, psi)
        loss = slope(lambda x, s=s, c=chance, t=target: c @ (t - x[s]) ** 2 / 2, psi)  # (5.7), target held fast
        np.testing.assert_allclose(loss, np.eye(S)[s] * expected(psi)[s], atol=1e-12)
    through_the_target = slope(
        lambda x: sum((c @ (t - x[s]) ** 2).sum() / 2 for s in range(S) for c, _, t in [l_steps(length, s, x)]), psi
    )
    assert np.abs(through_the_target - expected(psi)).max() > 0.1  # so it is a semi-gradient
    np.testing.assert_allclose(expected(evaluate(PI)[0]), 0, atol=1e-12)
    up = down = psi
    for _ in range(60):
        down, up = down - 0.5 * expected(down), up + 0.5 * expected(up)  # (5.6), and the sign of Algorithm 5.19
    np.testing.assert_allclose(down, evaluate(PI)[0], atol=1e-2)
    assert np.abs(up).max() > 1e3


def test_the_critic_of_the_folder_finds_v_5_6_5_8():
    """The class's own gradients, added up over all (s, a, s') as often as they come, vanish at V of the policy."""
    critic = Critic(S, gamma=GAMMA, hidden=())
    gradients = watched(critic, "optimizer")

    def expected(v):
        tabular(critic.model, v[:, None])
        total = 0
        for s, a, t in itertools.product(range(S), range(A), range(S)):
            gradients.clear()
            critic.learn(STATES[s], R[s, a], STATES[t], False)
            total = total + PI[s, a] * P[s, a, t] * gradients[0][:S]  # the weights, before the bias
        return total

    v = evaluate(PI)[0]
    np.testing.assert_allclose(expected(v), 0, atol=1e-6)
    wrong = v + np.array([1.0, 0.0, 0.0])
    transition = np.einsum("sa,sat->st", PI, P)
    np.testing.assert_allclose(expected(wrong), (np.eye(S) - GAMMA * transition) @ [1, 0, 0], atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_actors_gradient_5_9_5_10(length):
    """With V of the policy the errors of L steps give the gradient for every L; a wrong V counts as gamma^L."""
    exact = slope(lambda theta: performance(softmax(theta)), THETA)

    def expected(v):
        total = 0
        for s in range(S):
            chance, a, target = l_steps(length, s, v)
            total = total + visits(PI)[s] * np.einsum("n,n,nij->ij", chance, target - v[s], SCORE[s, a])
        return total

    v = evaluate(PI)[0]
    np.testing.assert_allclose(expected(v), exact, atol=1e-10)
    wrong = v + np.array([1.0, 0.0, -1.0])
    later = np.linalg.matrix_power(np.einsum("sa,sat->st", PI, P), length - 1) @ (wrong - v)
    bias = GAMMA**length * np.einsum("s,sa,satb,sa->tb", visits(PI), PI, SCORE, P @ later)
    np.testing.assert_allclose(expected(wrong) - exact, bias, atol=1e-10)
    assert np.abs(bias).max() > 1e-4
    assert performance(softmax(THETA + 0.1 * expected(v))) > performance(PI)  # (5.9) goes up


def test_the_sum_without_gamma_to_the_i_is_no_gradient_5_10_5_15():
    """As printed, the sums over i have no gamma^i: endless tasks give no limit, short ones another value."""
    v, q = evaluate(PI)
    per_step = np.einsum("s,sa,satb,sa->tb", np.full(S, 1 / S), PI, SCORE, q - v[:, None])

    def printed(steps):
        d, total = MU, 0
        for _ in range(steps):
            total = total + np.einsum("s,sa,satb,sa->tb", d, PI, SCORE, q - v[:, None])
            d = np.einsum("s,sa,sat->t", d, PI, P)
        return total

    assert np.abs(per_step).max() > 0.01
    assert np.linalg.norm(printed(2000)) > 9 * np.linalg.norm(printed(200))
    chance, s, a, r = paths(3)
    exact = slope(lambda theta: performance_of(theta, 3, GAMMA), THETA)
    assert np.abs(estimate(chance, s, a, to_go(r, GAMMA)) - exact).max() > 0.02


def test_the_actor_of_the_folder_follows_5_10():
    actor = Actor(S, A, hidden=())
    tabular(actor.model, THETA)
    gradients = watched(actor, "optimizer")
    v, q = evaluate(PI)
    s, a = (x.ravel() for x in np.mgrid[:S, :A])
    weight = S * A * (visits(PI)[:, None] * PI * (q - v[:, None]))[s, a]  # the loss is a mean
    actor.learn(STATES[s], a, weight)
    exact = slope(lambda theta: performance(softmax(theta)), THETA)
    np.testing.assert_allclose(-gradients[0][: THETA.size], exact.ravel(), atol=1e-5)  # the weights, before the biases


def test_advantage_from_q_5_11_5_16():
    v, q = evaluate(PI)
    advantage = q - (PI * q).sum(1, keepdims=True)
    np.testing.assert_allclose((PI * advantage).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(R + GAMMA * P @ v - v[:, None], advantage, atol=1e-12)  # the mean TD error
    critic = Critic(S, kind="q", action_num=A, hidden=())
    tabular(critic.model, q)
    s, a = (x.ravel() for x in np.mgrid[:S, :A])
    got = critic.advantage(STATES[s], a, PI[s].astype(np.float32))
    np.testing.assert_allclose(got, advantage[s, a], atol=1e-6)


def test_the_two_losses_of_q_5_12_5_13_share_their_minimum():
    """Over A': one mean gradient; the loss of (5.12) is larger by the variance of gamma Q(S', A')."""
    q = np.array([[0.5, -1.0], [2.0, 0.0], [1.0, 3.0]])
    x, pi_ = R[0, 1], PI
    for s_ in range(S):
        errors = x + GAMMA * q[s_] - q[0, 1]  # one for each A'
        mean_error = x + GAMMA * pi_[s_] @ q[s_] - q[0, 1]
        assert pi_[s_] @ errors == pytest.approx(mean_error)
        spread = pi_[s_] @ (q[s_] - pi_[s_] @ q[s_]) ** 2
        assert pi_[s_] @ errors**2 - mean_error**2 == pytest.approx(GAMMA**2 * spread)
    both = []
    for kind in ("q", "expected-q"):
        critic = Critic(S, kind=kind, action_num=A, hidden=())
        tabular(critic.model, q)
        values = [critic.next_value(STATES, PI.astype(np.float32), np.full(S, a)) for a in range(A)]
        both.append((PI.T * np.array(values)).sum(0))
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)
    _, true_q = evaluate(PI)
    np.testing.assert_allclose(R + GAMMA * P @ (PI * true_q).sum(1), true_q, atol=1e-12)  # where both are 0 on average


# 5.6, note 5.2


def test_note_5_2_stale_gradients_act_as_momentum():
    """If a gradient is k updates old with probability (1 - p) p^k, the mean step has the momentum p."""
    p, rate, w = 0.6, 0.3, [np.array([1.0, -2.0])]
    curve, steps = np.diag([1.0, 0.3]), []
    for _ in range(40):
        ages = (1 - p) * p ** np.arange(len(w))
        steps.append(-rate * sum(share * curve @ old for share, old in zip(ages, reversed(w), strict=True)))
        w.append(w[-1] + steps[-1])
    for t in range(1, 40):
        np.testing.assert_allclose(steps[t], p * steps[t - 1] - rate * (1 - p) * curve @ w[t], atol=1e-14)


# 5.7 TRPO


def test_the_policy_gradient_with_the_advantage_5_14_5_15():
    exact = slope(lambda theta: performance(softmax(theta)), THETA)
    v, q = evaluate(PI)
    expected = np.einsum("s,sa,satb,sa->tb", visits(PI), PI, SCORE, q - v[:, None])  # with gamma^i
    np.testing.assert_allclose(expected, exact, atol=1e-10)
    values = [performance(softmax(THETA + eta * exact)) for eta in (0, 0.05, 0.1)]  # (5.14)
    assert values[0] < values[1] < values[2]
    assert (values[1] - values[0]) / 0.05 == pytest.approx((exact**2).sum(), rel=0.05)


def test_one_step_in_theta_is_many_in_the_policy_5_17():
    """The example below (5.17), to the digits that are printed."""

    def policy(theta):
        return np.array([1, np.exp(-theta)]) / (1 + np.exp(-theta))

    np.testing.assert_allclose(
        [policy(x) for x in (6, 3, 1.5, -1.5)], [[1, 0], [0.95, 0.05], [0.82, 0.18], [0.18, 0.82]], atol=0.005
    )
    assert kl(policy(1.5), policy(-1.5)) > 20 * kl(policy(6), policy(3))


def test_performance_difference_5_18():
    v, q = evaluate(PI)
    advantage = q - v[:, None]
    gain = np.einsum("s,sa,sa->", visits(PI_OTHER), PI_OTHER, advantage)
    assert performance(PI_OTHER) - performance(PI) == pytest.approx(gain, abs=1e-10)
    of_the_old_policy = np.einsum("s,sa,sa->", visits(PI), PI_OTHER, advantage)
    assert abs(of_the_old_policy - gain) > 0.01  # whose states they are does count
    chance, s, a, _ = paths(4, PI_OTHER)
    first_four = chance @ (GAMMA ** np.arange(4) * advantage[s, a]).sum(1)
    d, unrolled = MU, 0
    for t in range(4):
        unrolled += GAMMA**t * np.einsum("s,sa,sa->", d, PI_OTHER, advantage)
        d = np.einsum("s,sa,sat->t", d, PI_OTHER, P)
    assert first_four == pytest.approx(unrolled)  # (5.20) = (5.21), path by path


def test_maximising_5_19_finds_the_best_policy():
    v, q = evaluate(PI)
    deterministic = [np.eye(A)[list(choice)] for choice in itertools.product(range(A), repeat=S)]
    gains = [np.einsum("s,sa,sa->", visits(pi), pi, q - v[:, None]) for pi in deterministic]
    values = np.array([performance(pi) for pi in deterministic])
    assert np.argmax(gains) == np.argmax(values)
    np.testing.assert_allclose(gains, values - performance(PI), atol=1e-10)
    best_v, best_q = evaluate(deterministic[np.argmax(values)])
    np.testing.assert_allclose(best_q.max(1), best_v, atol=1e-10)  # Bellman's optimality
    assert values.max() > performance(PI)


def surrogate(pi, old=PI):
    """L of (5.22)."""
    v, q = evaluate(old)
    return np.einsum("s,sa,sa->", visits(old), pi, q - v[:, None])


def test_the_surrogate_5_20_to_5_24():
    v, q = evaluate(PI)
    advantage, ratio = q - v[:, None], PI_OTHER / PI
    own_states = np.einsum("s,sa,sa->", visits(PI_OTHER), PI_OTHER, advantage)  # (5.21)
    reweighted = np.einsum("s,sa,sa,sa->", visits(PI), PI, ratio, advantage)  # (5.23)
    assert reweighted == pytest.approx(surrogate(PI_OTHER))
    assert abs(own_states - reweighted) > 0.01  # (5.22) is an approximation
    chance, s, a, _ = paths(5)  # (5.24), path by path; the ratio is that of the one action, not of the path
    discounts = GAMMA ** np.arange(5)
    partial = chance @ (discounts * ratio[s, a] * advantage[s, a]).sum(1)
    d, expected = MU, 0
    for t in range(5):
        expected += GAMMA**t * np.einsum("s,sa,sa->", d, PI_OTHER, advantage)
        d = np.einsum("s,sa,sat->t", d, PI, P)
    assert partial == pytest.approx(expected)
    rho = visits(PI) / visits(PI).sum()  # E over a distribution of states, as (5.21) to (5.23) write it, lacks a factor
    assert np.einsum("s,sa,sa->", rho, PI_OTHER, advantage) == pytest.approx((1 - GAMMA) * reweighted)


def test_the_surrogate_agrees_to_first_order_and_no_further_5_20_to_5_28():
    exact = slope(lambda theta: performance(softmax(theta)), THETA)
    np.testing.assert_allclose(slope(lambda theta: surrogate(softmax(theta)), THETA), exact, atol=1e-10)  # (5.27)
    v, q = evaluate(PI)
    log_form = np.einsum("s,sa,satb,sa->tb", visits(PI), PI, SCORE, q - v[:, None])  # (5.28)
    np.testing.assert_allclose(log_form, exact, atol=1e-10)
    assert surrogate(PI) == pytest.approx(0, abs=1e-12)
    gaps = []
    for size in (1e-1, 1e-2, 1e-3):
        pi = softmax(THETA + size * (OTHER - THETA))
        gaps.append((performance(pi) - performance(PI) - surrogate(pi)) / size**2)
    assert abs(gaps[2]) > 1e-3  # second order is not met
    assert gaps[1] == pytest.approx(gaps[2], rel=0.05)
    elsewhere = slope(lambda theta: surrogate(softmax(theta)), OTHER)
    assert np.abs(elsewhere - slope(lambda theta: performance(softmax(theta)), OTHER)).max() > 0.01


def test_trpo_and_ppo_of_the_folders_have_the_gradient_5_27_at_the_old_policy():
    """Also (5.37) and (5.38): where new and old policy are one, penalty and clip change nothing."""
    v, q = evaluate(PI)
    s, a = (x.ravel() for x in np.mgrid[:S, :A])
    weight = (S * A * visits(PI)[:, None] * PI * (q - v[:, None]))[s, a].astype(np.float32)
    exact = slope(lambda theta: performance(softmax(theta)), THETA)
    trpo = TRPO(S, A, None, hidden=())
    tabular(trpo.actor, THETA)
    gradient, _ = trpo.gradient(STATES[s], a, weight, trpo.pi(STATES[s]).log_prob(a))
    np.testing.assert_allclose(-gradient[: S * A].numpy().reshape(S, A), exact, atol=1e-5)
    for method in ("clip", "penalty"):
        ppo = PPO(S, A, None, method, hidden=())
        tabular(ppo.actor, THETA)
        gradients = watched(ppo, "actor_opt")
        old = ppo.distribution(THETA[s].astype(np.float32), 0.0)
        ppo.train_actor(STATES[s], a, weight, old)
        np.testing.assert_allclose(-gradients[0], exact, atol=1e-5)


def test_the_bound_5_25():
    """With C = 4 eps gamma / (1 - gamma)^2, eps = max |A|; and an error that is of the first order of the KL."""
    v, q = evaluate(PI)
    C = 4 * np.abs(q - v[:, None]).max() * GAMMA / (1 - GAMMA) ** 2
    rng, worst = np.random.default_rng(4), 0
    for scale in np.repeat([0.01, 0.1, 1, 5], 100):
        pi = softmax(THETA + scale * rng.standard_normal((S, A)))
        error = abs(performance(pi) - performance(PI) - surrogate(pi))
        assert error <= C * kl(PI, pi).max()
        assert error <= C * (np.abs(pi - PI).sum(1).max() / 2) ** 2  # total variation; its square is at most KL / 2
        assert surrogate(pi) - C * kl(PI, pi).max() <= performance(pi) - performance(PI)  # what can be improved safely
        worst = max(worst, error / (C * kl(PI, pi).max()))
    assert worst > 1e-3
    rates = []
    for size in (1e-2, 1e-3):
        pi = softmax(THETA + size * (OTHER - THETA))
        rates.append(abs(performance(pi) - performance(PI) - surrogate(pi)) / kl(PI, pi).max())
    assert rates[0] == pytest.approx(rates[1], rel=0.1)


def test_the_constant_of_5_25_is_at_most_twice_too_large():
    """A task that comes near: the second action earns 1 and leaves the first state for good, where it costs 1.

    The old policy never takes it, the new one with the chance alpha. All values of the old one are 0, so A = r.
    """
    alpha = 1e-4
    after = -alpha / (1 - GAMMA)  # the new policy's value of the second state
    new = alpha * (1 + GAMMA * after) / (1 - GAMMA * (1 - alpha))
    error, C = abs(new - alpha / (1 - GAMMA)), 4 * GAMMA / (1 - GAMMA) ** 2
    assert error / (C * alpha**2) == pytest.approx(0.5, rel=1e-2)  # alpha is the total variation


@pytest.mark.parametrize("size", [0.05, 0.3, 0.9])
def test_states_of_policies_that_differ_rarely_5_22(size):
    """The slides: if pi' acts as pi but with probability eps, then |p'(s_t) - p(s_t)| sums to at most 2 eps t."""
    pi = (1 - size) * PI + size * PI_OTHER
    d = d_new = MU
    for t in range(1, 12):
        d, d_new = np.einsum("s,sa,sat->t", d, PI, P), np.einsum("s,sa,sat->t", d_new, pi, P)
        distance = np.abs(d_new - d).sum()
        assert 0 < distance <= 2 * (1 - (1 - size) ** t) <= 2 * size * t + 1e-12


def best_penalised(lam, advantage):
    """The maximum of (5.37) over all policies: lam pi(a) / (nu - A(a)) in each state, where nu makes it sum to 1."""

    def in_state(pi, a):
        def excess(nu):
            return (lam * pi / (nu - a)).sum() - 1

        return lam * pi / (optimize.brentq(excess, a.max() + 1e-9, a.max() + 100 * lam) - a)

    return np.array([in_state(*row) for row in zip(PI, advantage, strict=True)])


@pytest.mark.parametrize("lam", [0.3, 1.0, 4.0])
def test_the_constraint_5_26_and_the_penalty_5_37_have_one_solution(lam):
    """(5.35), (5.36): what the penalty finds for a given lambda, SciPy finds under delta = the KL of that."""
    v, q = evaluate(PI)
    advantage, rho = q - v[:, None], visits(PI) / visits(PI).sum()
    best = best_penalised(lam, advantage)

    def objective(theta):
        pi = softmax(theta.reshape(S, A))
        return -(rho @ ((pi * advantage).sum(1) - lam * kl(PI, pi)))

    assert optimize.minimize(objective, THETA.ravel()).fun == pytest.approx(objective(np.log(best)), abs=1e-6)
    delta = rho @ kl(PI, best)
    found = optimize.minimize(
        lambda theta: -(rho @ (softmax(theta.reshape(S, A)) * advantage).sum(1)),
        THETA.ravel(),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda theta: delta - rho @ kl(PI, softmax(theta.reshape(S, A)))},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    np.testing.assert_allclose(softmax(found.x.reshape(S, A)), best, atol=2e-3)
    assert rho @ kl(PI, softmax(found.x.reshape(S, A))) == pytest.approx(delta, rel=1e-3)  # the constraint is met


def test_the_slides_ascent_on_lambda_meets_the_constraint_5_36():
    """lambda <- lambda + alpha (KL - delta), each time with the best policy for lambda: KL ends at delta."""
    v, q = evaluate(PI)
    rho, delta, lam = visits(PI) / visits(PI).sum(), 0.02, 1.0
    for _ in range(300):
        lam += 20 * (rho @ kl(PI, best_penalised(lam, q - v[:, None])) - delta)
    assert rho @ kl(PI, best_penalised(lam, q - v[:, None])) == pytest.approx(delta, rel=1e-3)
    assert lam > 0.1


def quadratic():
    rng = np.random.default_rng(5)
    root = rng.standard_normal((4, 4))
    return root @ root.T + 0.3 * np.eye(4), rng.standard_normal(4), 0.02


def best_step(g, H, delta, half):
    """SciPy's maximum of g'x under (half) x'Hx <= delta."""
    found = optimize.minimize(
        lambda x: -g @ x,
        1e-3 * g,
        jac=lambda x: -g,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: delta - half * x @ H @ x, "jac": lambda x: -2 * half * H @ x},
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    return found.x


def test_the_step_5_30_solves_5_29_with_a_half():
    H, g, delta = quadratic()
    x = np.linalg.solve(H, g)
    step = np.sqrt(2 * delta / (g @ x)) * x  # (5.30)
    np.testing.assert_allclose(best_step(g, H, delta, 0.5), step, rtol=1e-3)
    np.testing.assert_allclose(best_step(g, H, delta, 1.0), step / np.sqrt(2), rtol=1e-3)  # (5.29) as printed
    assert step @ H @ step == pytest.approx(2 * delta)


def test_the_half_of_5_29_is_that_of_the_divergences_second_order():
    def divergence(theta):
        return visits(PI) @ kl(PI, softmax(theta.reshape(S, A)))

    H = curvature(divergence, THETA.ravel())
    x = np.random.default_rng(6).standard_normal(S * A)
    for size in (1e-2, 1e-3):
        assert divergence(THETA.ravel() + size * x) == pytest.approx(size**2 * x @ H @ x / 2, rel=10 * size)
    reverse = curvature(lambda theta: visits(PI) @ kl(softmax(theta.reshape(S, A)), PI), THETA.ravel())
    np.testing.assert_allclose(reverse, H, atol=1e-5)  # the slides' KL(new || old): alike to second order,
    assert abs(visits(PI) @ (kl(PI, PI_OTHER) - kl(PI_OTHER, PI))) > 0.05  # and not beyond


def test_the_sample_gradient_5_31_5_42_is_unbiased_for_gamma_1():
    """Over all sets of two paths: it divides by the number of paths, and has no gamma^t."""
    chance, s, a, _ = paths(2)
    v = (PI * R).sum(1)  # the last step's
    advantage = np.array([R + P @ v - (PI * (R + P @ v)).sum(1, keepdims=True), R - v[:, None]])  # of both steps
    single = np.einsum("ntij,nt->nij", SCORE[s, a], np.stack([advantage[t][s[:, t], a[:, t]] for t in range(2)], 1))
    pairs = np.array(list(itertools.product(range(len(chance)), repeat=2)))
    g = np.einsum("k,knij->ij", chance[pairs].prod(1), single[pairs]) / 2
    np.testing.assert_allclose(g, slope(lambda theta: performance_of(theta, 2, 1), THETA), atol=1e-12)
    assert np.abs(g - slope(lambda theta: performance_of(theta, 2, GAMMA), THETA)).max() > 0.01


def test_conjugate_gradient_5_32_needs_the_damping():
    """A softmax does not feel a number added to all logits, so H has no inverse; with damping cg finds the solution."""
    s, n = np.arange(S), S * A + A
    trpo = TRPO(S, A, None, hidden=(), damping=0.0, cg_iters=20)
    tabular(trpo.actor, THETA)
    old = trpo.actor(STATES[s]).numpy()
    H = np.array([trpo.hvp(STATES[s], old, np.zeros_like(old), e) for e in np.eye(n, dtype=np.float32)])
    eigenvalues = np.linalg.eigvalsh(H)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-6)
    trpo.damping = 0.1
    g = np.random.default_rng(7).standard_normal(n).astype(np.float32)
    got = trpo.cg(lambda x: trpo.hvp(STATES[s], old, np.zeros_like(old), x), g)
    np.testing.assert_allclose(got, np.linalg.solve(H + 0.1 * np.eye(n), g), atol=1e-4)


def test_the_value_fit_5_34_5_44_has_its_minimum_at_the_mean_return():
    """A table that is fitted to the returns of all paths holds E[G | S]; the sum over t weighs what comes often."""
    chance, s, _, r = paths(4)
    first, returns = s[:, 0], to_go(r, GAMMA)[:, 0]
    root = np.sqrt(chance)
    phi = np.linalg.lstsq(root[:, None] * np.eye(S)[first], root * returns, rcond=None)[0]
    v = np.zeros(S)
    for _ in range(4):
        v = (PI * (R + GAMMA * P @ v)).sum(1)
    np.testing.assert_allclose(phi, v, atol=1e-10)


# 5.8 PPO


def test_the_slides_multi_step_advantage():
    """The last reward counts gamma^(T - 1 - t), not gamma^(T - t + 1): so it is the sum of the TD errors."""
    v, r = np.array([0.3, -1.0, 2.0, 0.7, 1.1]), np.array([1.0, -0.5, 2.0, 0.4])
    errors = r + GAMMA * v[1:] - v[:-1]
    for t in range(4):
        powers = GAMMA ** np.arange(4 - t)
        advantage = -v[t] + powers @ r[t:] + GAMMA ** (4 - t) * v[4]
        assert advantage == pytest.approx(powers @ errors[t:])
        printed = advantage + (GAMMA ** (4 - t + 1) - GAMMA ** (4 - t - 1)) * r[3]
        assert abs(printed - advantage) > 0.05


def test_the_clipped_objective_is_a_lower_bound_5_38():
    """The class's own loss, row by row: never above l A, equal to it up to the clip, flat beyond."""
    agent = PPO(1, 2, None, epsilon=0.2, hidden=())
    state = np.ones((1, 1), np.float32)
    tabular(agent.actor, np.log([[0.4, 0.6]]))
    gradients = watched(agent, "actor_opt")

    def objective(ratio, adv):
        old = np.log([[0.4 / ratio, 1 - 0.4 / ratio]]).astype(np.float32)
        gradients.clear()
        loss = agent.train_actor(state, np.array([0]), np.float32([adv]), agent.distribution(old, 0.0))
        return -loss.numpy(), np.abs(gradients[0]).max()

    for ratio, adv in itertools.product([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 3.0], [2.0, -2.0, 0.0]):
        value, gradient = objective(ratio, adv)
        assert value <= ratio * adv + 1e-5
        by_cases = min(ratio, 1.2) * adv if adv > 0 else max(ratio, 0.8) * adv
        assert value == pytest.approx(by_cases, abs=1e-5)
        flat = adv == 0 or (ratio > 1.2 if adv > 0 else ratio < 0.8)
        assert (gradient < 1e-6) == flat


def test_ratios_5_39_carry_expectations_over_and_5_40_5_41_are_their_clipped_mean():
    """E_old[l f] = E_new[f]. The mean over a set of steps, (5.40) with (5.41), tends to (5.38)."""
    f = np.random.default_rng(8).standard_normal((S, A))
    ratio = PI_OTHER / PI
    np.testing.assert_allclose((PI * ratio * f).sum(1), (PI_OTHER * f).sum(1), atol=1e-12)
    np.testing.assert_allclose((PI * ratio).sum(1), 1)
    v, q = evaluate(PI)
    advantage, rho = q - v[:, None], visits(PI) / visits(PI).sum()
    greedier = THETA + np.sign(advantage)
    ratio = softmax(greedier) / PI
    clipped = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    expected = np.einsum("s,sa,sa->", rho, PI, clipped)
    assert expected < np.einsum("s,sa,sa->", rho, softmax(greedier), advantage) - 0.02
    agent = PPO(S, A, None, epsilon=0.2, hidden=())
    tabular(agent.actor, greedier)
    agent.actor_opt = SimpleNamespace(apply=lambda g: None)
    counts = np.round(3000 * rho[:, None] * PI).astype(int)  # a set in which each pair is as frequent as it should be
    s, a = np.repeat(np.array([divmod(i, A) for i in range(S * A)]), counts.ravel(), axis=0).T
    old = agent.distribution(THETA[s].astype(np.float32), 0.0)
    loss = agent.train_actor(STATES[s], a, advantage[s, a].astype(np.float32), old)
    assert -loss.numpy() == pytest.approx(expected, abs=2e-3)


# 5.9 ACKTR


def test_the_hessian_of_the_divergence_is_the_fisher_matrix_5_45_to_5_48():
    w = np.array([0.3, -0.5, 0.2, 0.7])
    pi, rho = by_features(w), np.array([0.5, 0.2, 0.3])
    of_divergence = curvature(lambda x: rho @ kl(pi, by_features(x)), w)  # (5.45)
    of_log = -sum(
        rho[s] * pi[s, a] * curvature(lambda x, s=s, a=a: np.log(by_features(x)[s, a]), w)  # (5.46), (5.47)
        for s, a in itertools.product(range(S), range(A))
    )
    score = np.array([[slope(lambda x, s=s, a=a: np.log(by_features(x)[s, a]), w) for a in range(A)] for s in range(S)])
    fisher = np.einsum("s,sa,sai,saj->ij", rho, pi, score, score)  # (5.48)
    np.testing.assert_allclose(of_divergence, fisher, atol=1e-6)
    np.testing.assert_allclose(of_log, fisher, atol=1e-6)
    assert np.linalg.eigvalsh(fisher)[-1] > 0.1  # so -H, which note 5.3 names, cannot be it
    elsewhere = curvature(lambda x: rho @ kl(pi, by_features(x)), w + 0.5)
    score = np.array(
        [[slope(lambda x, s=s, a=a: np.log(by_features(x)[s, a]), w + 0.5) for a in range(A)] for s in range(S)]
    )
    there = np.einsum("s,sa,sai,saj->ij", rho, pi, score, score)
    assert np.abs(elsewhere - there).max() > 1e-3  # the identity is one of theta = theta_old


def test_trpos_hessian_vector_product_is_the_fisher_matrix_5_48():
    """The class's hvp: two state dimensions, two action dimensions, log-std; the Fisher matrix by Gauss and Hermite."""
    trpo = TRPO(2, 2, np.ones(2, np.float32), hidden=(), damping=0.0)
    W, log_std = np.array([[0.3, -0.2], [0.5, 0.1]]), np.array([-0.3, 0.2])
    tabular(trpo.actor, W)
    trpo.log_std.assign(log_std)
    states = np.array([[1.0, 0.5], [-0.3, 2.0]], np.float32)
    z, weight = np.polynomial.hermite_e.hermegauss(8)
    fisher = 0
    for x in states:
        for (i, j), chance in zip(itertools.product(range(8), repeat=2), np.outer(weight, weight).ravel(), strict=True):
            u = np.array([z[i], z[j]])  # (a - mean) / std
            by_mean = u / np.exp(log_std)
            score = np.concatenate([np.outer(x, by_mean).ravel(), by_mean, u**2 - 1])  # W, bias, log-std
            fisher = fisher + chance / (2 * np.pi) / len(states) * np.outer(score, score)
    mean = trpo.actor(states).numpy()
    old = mean, np.tile(log_std.astype(np.float32), (2, 1))
    H = np.array([trpo.hvp(states, *old, e) for e in np.eye(8, dtype=np.float32)])
    np.testing.assert_allclose(H, fisher, atol=1e-4)


def test_note_5_3_the_natural_gradient_does_not_see_the_parameters():
    """theta = M phi: the natural step in phi, carried back, is the one in theta; the plain step is another one."""
    w, rho = np.array([0.3, -0.5, 0.2, 0.7]), np.array([0.5, 0.2, 0.3])
    M = np.random.default_rng(10).standard_normal((4, 4))
    phi, pi = np.linalg.solve(M, w), by_features(w)
    steps = []
    for policy, at in ((by_features, w), (lambda x: by_features(M @ x), phi)):
        H = curvature(lambda x, policy=policy: rho @ kl(pi, policy(x)), at)
        g = slope(lambda x, policy=policy: rho @ (policy(x) * R).sum(1), at)
        steps.append((np.linalg.lstsq(H, g, rcond=1e-6)[0], g))
    change = FEATURES - np.einsum("sa,sai->si", pi, FEATURES)[:, None]  # d log pi / d w
    np.testing.assert_allclose(change @ steps[0][0], change @ (M @ steps[1][0]), atol=1e-4)
    assert np.abs(change @ steps[0][1] - change @ (M @ steps[1][1])).max() > 0.05


def vec(matrix):
    """The columns of a matrix, one below the other: the vec of (5.49) and Algorithm 5.25."""
    return matrix.ravel(order="F")


def layer_gradient(x, target, W):
    """Gradient of |W x - target|^2 / 2 in W, by complex steps, and in the output x_out."""

    def loss(W):
        return ((W @ x - target) ** 2).sum() / 2

    return slope(loss, W), W @ x - target


def test_one_samples_outer_product_is_a_kronecker_product_5_49():
    rng = np.random.default_rng(11)
    W, x, target = rng.standard_normal((2, 3)), rng.standard_normal(3), rng.standard_normal(2)
    gradient, by_output = layer_gradient(x, target, W)
    np.testing.assert_allclose(gradient, np.outer(by_output, x), atol=1e-12)
    outer = np.outer(vec(gradient), vec(gradient))
    np.testing.assert_allclose(outer, np.kron(np.outer(x, x), np.outer(by_output, by_output)), atol=1e-12)
    swapped = np.kron(np.outer(by_output, by_output), np.outer(x, x))
    assert np.abs(outer - swapped).max() > 0.01  # that order belongs to rows, one after the other
    np.testing.assert_allclose(np.outer(gradient.ravel(), gradient.ravel()), swapped, atol=1e-12)
    assert np.linalg.matrix_rank(outer) == 1  # so the inverse in (5.50) does not exist for one sample


def factors(seed=12):
    rng = np.random.default_rng(seed)
    x, d = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    return x.T @ x / 20 + 0.1 * np.eye(3), d.T @ d / 20 + 0.1 * np.eye(2), rng.standard_normal((2, 3))


def test_the_inverse_of_a_kronecker_product_5_50_to_5_52():
    """A of the inputs [3, 3], S of the outputs' gradients [2, 2], G the gradient [2, 3], as W is in the text."""
    A_, S_, G = factors()
    whole = np.linalg.solve(np.kron(A_, S_), vec(G))  # (5.50), (5.51)
    np.testing.assert_allclose(np.kron(np.linalg.inv(A_), np.linalg.inv(S_)) @ vec(G), whole, atol=1e-10)  # (5.52)
    np.testing.assert_allclose(vec(np.linalg.inv(S_) @ G @ np.linalg.inv(A_)), whole, atol=1e-10)
    with pytest.raises(ValueError):
        np.linalg.inv(A_) @ G @ np.linalg.inv(S_)  # as Algorithm 5.25 prints it: the shapes of G' and not of G
    np.testing.assert_allclose((np.linalg.inv(A_) @ G.T @ np.linalg.inv(S_)).T.ravel(order="F"), whole, atol=1e-10)


def test_kfacs_two_factors_are_exact_for_one_sample_and_for_independent_ones_5_49():
    """Where inputs and output gradients depend on each other, E[xx' (x) dd'] is not E[xx'] (x) E[dd']."""
    rng = np.random.default_rng(13)
    xs, ds = rng.standard_normal((3, 3)), rng.standard_normal((4, 2))

    def both(pairs):
        fisher = np.mean([np.kron(np.outer(x, x), np.outer(d, d)) for x, d in pairs], 0)
        first, second = (np.mean([np.outer(v, v) for v in column], 0) for column in zip(*pairs, strict=True))
        return fisher, np.kron(first, second)

    np.testing.assert_allclose(*both([(xs[0], ds[0])]), atol=1e-12)
    np.testing.assert_allclose(*both(list(itertools.product(xs, ds))), atol=1e-12)
    exact, approximate = both(list(zip(xs, ds[:3], strict=True)))
    assert np.abs(exact - approximate).max() > 0.1


def test_acktrs_step_5_43_is_as_long_as_delta_allows():
    """eta = sqrt(2 delta / x'Hx) of the step x: half of its square in H is delta. Of theta, as printed, it is not."""
    A_, S_, G = factors()
    H, delta = np.kron(A_, S_), 0.01
    x = np.linalg.solve(H, vec(G))
    eta = np.sqrt(2 * delta / (x @ H @ x))
    assert (eta * x) @ H @ (eta * x) / 2 == pytest.approx(delta)
    np.testing.assert_allclose(eta * x, best_step(vec(G), H, delta, 0.5), atol=1e-4)
    theta = np.random.default_rng(14).standard_normal(6)
    printed = np.sqrt(2 * delta / (theta @ H @ theta))
    assert abs((printed * x) @ H @ (printed * x) / 2 - delta) > 0.2 * delta


def test_gauss_newton_fits_a_linear_value_in_one_step_5_44():
    """The Gauss-Newton matrix is the Fisher matrix of a Gaussian of variance 1 whose mean is V."""
    rng = np.random.default_rng(15)
    features, returns, phi = rng.standard_normal((30, 4)), rng.standard_normal(30), rng.standard_normal(4)
    gradient = slope(lambda x: ((features @ x - returns) ** 2).mean() / 2, phi)
    z, weight = np.polynomial.hermite_e.hermegauss(5)  # returns drawn from N(V, 1)
    fisher = sum(
        w / np.sqrt(2 * np.pi) / 30 * np.outer(f, f) * noise**2
        for f in features
        for noise, w in zip(z, weight, strict=True)
    )
    np.testing.assert_allclose(fisher, features.T @ features / 30, atol=1e-10)
    after = phi - np.linalg.solve(fisher, gradient)
    np.testing.assert_allclose(after, np.linalg.lstsq(features, returns, rcond=None)[0], atol=1e-10)


# 5.10.1, the environments


def test_the_numbers_of_cartpole_5_10_1():
    """Position first, then velocity, the other way round than the text; then the pole's angle and its speed."""
    env = gym.make("CartPole-v1", disable_env_checker=True)
    before = env.reset(seed=0)[0]
    after = env.step(1)[0]
    assert after[0] - before[0] == pytest.approx(0.02 * before[1], abs=1e-6)
    assert after[2] - before[2] == pytest.approx(0.02 * before[3], abs=1e-6)
    assert after[1] > before[1] + 0.1  # a push to the right


def test_the_numbers_of_the_walker_table_5_1():
    """Each row of the table against the simulation, up to a factor or a constant; all 24 are where it says."""
    env = gym.make("BipedalWalker-v3", disable_env_checker=True)
    env.reset(seed=0)
    seen, meant = [], []
    for t in range(60):
        seen.append(env.step(np.sin([0.3 * t, 0.5 * t, 0.7 * t, t]))[0])
        body = env.unwrapped
        speeds = [body.hull.angularVelocity, *body.hull.linearVelocity]
        (hip1, knee1, hip2, knee2), (leg1, leg2) = body.joints, (body.legs[1], body.legs[3])
        first = [hip1.angle, hip1.speed, knee1.angle, knee1.speed, leg1.ground_contact]
        second = [hip2.angle, hip2.speed, knee2.angle, knee2.speed, leg2.ground_contact]
        meant.append([body.hull.angle, *speeds, *first, *second, *(beam.fraction for beam in body.lidar)])
    seen, meant = np.array(seen), np.array(meant, float)
    assert seen.shape == (60, 24)
    varying = meant.std(0) > 1e-3
    assert varying.sum() >= 20
    for i in np.flatnonzero(varying):
        assert np.corrcoef(seen[:, i], meant[:, i])[0, 1] > 0.999, i
