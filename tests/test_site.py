"""What the site rests on and no browser is needed for: the maps lead somewhere, the page's games are gym's and ours."""

import importlib
import json
import re
import shutil
import subprocess

import gym
import numpy as np
import pytest
from conftest import ALGORITHMS, ROOT

from common import environments
from docs.site import maps, networks

SITE = ROOT / "docs" / "site"
node = pytest.mark.skipif(not shutil.which("node"), reason="there is no Node.js here")
SHIPPED = [
    (folder, env)
    for env, folders in networks.ENVIRONMENTS.items()
    for folder in folders
    if (ROOT / folder / "pretrained" / env).exists()
]


def in_node(script, given):
    """What a script, to which play.js is `play` and `given` is what it is, returns."""
    script = f"""
        globalThis.play = require({json.dumps(str(SITE / "play.js"))});
        const given = JSON.parse(require("fs").readFileSync(0));
        console.log(JSON.stringify((() => {{ {script} }})()));
    """
    done = subprocess.run(["node", "-e", script], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sources():
    return maps.Sources()


@pytest.mark.parametrize("folder", ALGORITHMS)
def test_every_equation_that_a_folder_computes_has_a_formula_and_lines(folder, sources):
    tomllib = importlib.import_module("tomllib" if importlib.util.find_spec("tomllib") else "tomli")
    formulas = tomllib.loads((SITE / "formulas.toml").read_text(encoding="utf-8"))
    known = {number for numbers in formulas for number in numbers.split(", ")}
    for name in ("README.md", "README.zh-CN.md"):
        page = ROOT / folder / name
        rows = maps.folder_map(folder, page.read_text(encoding="utf-8"), f"{folder}/{name}", sources)
        for row in rows:
            assert row.functions and row.tests, row.book
            assert {n for n in row.numbers if not n.startswith("Algorithm")} <= known, row.book
            for each in (*row.functions, *row.tests):
                line = sources.text(each.path).splitlines()[each.lines[0] - 1]
                assert line.strip().startswith(("def ", "class ", "@")), each
    for number, lines in formulas.items():
        for function in lines if isinstance(lines, dict) else ():
            places = [path for path in ALGORITHMS if function in sources.functions(f"{path}/agent.py")]
            assert places, f"{number}: {function}"


def test_a_row_that_leads_nowhere_is_named(sources):
    text = (ROOT / "ppo" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(maps.MapError, match=r"ppo/README.md, row 'Eq. \(5.34\), value fit': there is no PPO.fit in"):
        maps.folder_map("ppo", text.replace("`PPO.train_critic`", "`PPO.fit`"), "ppo/README.md", sources)
    with pytest.raises(maps.MapError, match=r"row 'Advantage': there is no test tests/test_ppo.py::test_gone"):
        gone = text.replace("::test_lambda_1_gives_the_books_discounted_sum", "::test_gone")
        maps.folder_map("ppo", gone, "ppo/README.md", sources)
    text = (ROOT / "docs" / "book-map.md").read_text(encoding="utf-8")
    assert len(maps.book_map(text, "docs/book-map.md", sources)) > 100
    gone = re.sub(r"(\| Eq. \(5.14\).*?ACNet\.)apply_gradients", r"\1gone", text)
    with pytest.raises(maps.MapError, match=r"row 'Eq. \(5.14\)': there is no a3c/agent.py::ACNet.gone"):
        maps.book_map(gone, "docs/book-map.md", sources)


def test_the_lines_that_bear_a_number(sources):
    actor = sources.find("ppo/agent.py", "PPO.train_actor")
    text = sources.text("ppo/agent.py").splitlines()
    for number, said in (("5.37", "kl_div"), ("5.38", "tf.minimum"), ("5.39", "log_prob"), ("5.41", "tf.minimum")):
        (line,) = sources.bearing(actor, number)
        assert said in text[line - 1], number
    assert sources.bearing(actor, "5.3") == set() and len(sources.naming(actor, "5.38")) == 1
    ou = sources.find("ddpg/agent.py", "DDPG.get_action")
    assert len(sources.bearing(ou, "6.1")) == 3  # the comment stands at the `if` of two lines
    assert maps.mentioned("Eq. (5.50)-(5.52), Algorithm 5.25") == {"5.50", "5.51", "5.52", "Algorithm 5.25"}
    assert maps.mentioned("a = 1.5, section 5.3, 5.10.6, 0.25 of (6.1)") == {"6.1"}


@node
@pytest.mark.parametrize("env", networks.ENVIRONMENTS)
def test_the_pages_dynamics_are_gyms(env):
    """200 steps from several starts, with actions beyond the bounds and angles beyond a turn."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        theirs = gym.make(env, disable_env_checker=True).unwrapped
        theirs.reset(seed=int(rng.integers(1000)))
        start = [float(x) for x in theirs.state]
        discrete = env == "CartPole-v1"
        actions = (rng.integers(2, size=200) if discrete else rng.uniform(-3, 3, 200)).tolist()
        expected = []
        for action in actions:
            if discrete:
                theirs.steps_beyond_terminated = 0  # goes on after the end, without a word
            observation, reward, terminated, _, _ = theirs.step(action if discrete else np.array([action]))
            expected.append([*map(float, theirs.state), 1.0 if discrete else float(reward), float(terminated)])
            seen = observation
        script = """
            const env = play.environments[given.env], rows = [];
            let state = given.start, reward, ended;
            for (const action of given.actions) {
              [state, reward, ended] = env.step(state, action, env.gravity);
              rows.push([...state, reward, Number(ended)]);
            }
            return { rows, seen: env.observe(state) };
        """
        ours = in_node(script, {"env": env, "start": start, "actions": actions})
        np.testing.assert_allclose(ours["rows"], expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours["seen"], seen, rtol=1e-6, atol=1e-6)


@node
@pytest.mark.parametrize("folder, env", SHIPPED)
def test_the_page_acts_and_values_as_the_folder_does(folder, env, monkeypatch):
    agent = shipped(folder, env, monkeypatch)
    rng = np.random.default_rng(1)
    size = 4 if env == "CartPole-v1" else 3
    states = rng.uniform(-1, 1, (40, size)).astype(np.float32) * ([2.4, 3, 0.2, 3] if size == 4 else [1, 1, 8])
    script = """
        eval(given.weights);
        const run = play.loaded[given.run], policy = new play.Policy(run.points[run.points.length - 1], run);
        return given.states.map((state) => {
          const action = policy.act(policy.at(state), null);
          return [action, policy.value(state, action), policy.at(state).std ?? null];
        });
    """
    given = {"weights": networks.export(ROOT, folder, env), "run": f"{folder}/{env}", "states": states.tolist()}
    actions, values, stds = zip(*in_node(script, given), strict=True)
    mine = np.array([np.ravel(act(folder, agent, state))[0] for state in states.astype(np.float32)])
    np.testing.assert_allclose(actions, mine, rtol=1e-4, atol=1e-4)
    if folder == "reinforce":
        assert values[0] is None
    else:
        pairs = zip(states.astype(np.float32), mine, strict=True)
        mine = [value(folder, agent, state, action) for state, action in pairs]
        np.testing.assert_allclose(np.multiply(values, 0.1), mine, rtol=1e-3, atol=1e-3)
    if hasattr(agent, "std") and env == "Pendulum-v1":
        np.testing.assert_allclose(stds, agent.std[0], rtol=1e-5)


def shipped(folder, env, monkeypatch):
    """The folder's agent as its own command makes it, with the shipped weights."""
    main, made = importlib.import_module(f"{folder}.main"), []
    monkeypatch.setattr("sys.argv", ["main.py", "--test", "--env", env])
    monkeypatch.setattr(main, "test", lambda config, agent: made.append(agent))
    main.main()
    made[0].load(ROOT / folder / "pretrained" / env)
    return made[0]


def act(folder, agent, state):
    if folder == "td3":
        return agent.policy_net.get_action(state, 0.0, greedy=True)
    if folder == "sac":
        return agent.policy_net.get_action(state, greedy=True)
    return np.clip((agent.act if folder == "trpo" else agent.get_action)(state, greedy=True), -9, 9)


def value(folder, agent, state, action):
    state, action = state[None], np.array([[action]], np.float32)
    if folder == "ddpg":
        return float(agent.critic([state, action])[0, 0])
    if folder in ("td3", "sac"):
        critic = agent.q_net1 if folder == "td3" else agent.soft_q_net1
        return float(critic(np.concatenate([state, action], 1))[0, 0])
    if folder == "ac":
        return float(agent.critic.model(state)[0, 0])
    if folder == "a3c":
        return float(agent.get_value(state)[0])
    return agent.get_value(state[0]) if folder in ("a2c", "acktr") else float(agent.value(state)[0, 0])


def test_the_checkpoints_are_small_and_of_the_networks_that_are_shipped():
    for env, folders in networks.ENVIRONMENTS.items():
        assert env in gym.envs.registry and environments.current_id(env) == env
        for folder in folders:
            file = SITE / "checkpoints" / f"{folder}_{env}.npz"
            assert file.stat().st_size < 150_000
            run = json.loads(networks.export(ROOT, folder, env).removeprefix("play.weights(").removesuffix(");\n"))
            steps = [point["steps"] for point in run["points"] if point["steps"] is not None]
            assert len(steps) >= 4 and steps == sorted({*steps}) and steps[0] == 0
            assert len({json.dumps(point["actor"]) for point in run["points"]}) == 1
