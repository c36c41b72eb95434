"""The benchmarks' own arithmetic, on runs whose times are made up: nothing here depends on the machine's speed."""

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ALGORITHMS, ROOT
from matplotlib.figure import Figure
from test_readmes import differences

from benchmarks import bench, launch, limit, report, shrink, solve, throughput, watch
from benchmarks.profile import PHASES, Clock
from common import environments
from common.command import UserError
from ppo.agent import PPO

HERE = {"date": "2026-01-31", "where": "Some processor, 2 cores, TensorFlow 2.21.0"}


def throughput_lines():
    """Two rows; the medians of the first: 3,000 here, 200 and 1,500 there, at most 6,000."""
    speeds = {
        "this project": [2900, 9999, 3000],
        "limit": [6000, 6001, 5000],
        "Stable-Baselines3": [150, 200, 250],
        "SBX": [1500, 1400, 1600],
    }
    first = [("A, X-v1, 2 threads", library, speed) for library, each in speeds.items() for speed in each]
    second = [("B, X-v1, batch 64 (peer: A2C)", "this project", 12.34)] * 3
    return [{"name": n, "library": lib, "steps_per_second": str(s), **HERE} for n, lib, s in [*first, *second]]


def solve_lines():
    """Of three seeds, SBX solves none, Stable-Baselines3 one on the second row and two on the first."""
    runs = [
        ("A, X-v1", "this project", [10.0, 8.0, 9.0]),
        ("A, X-v1", "Stable-Baselines3", [None, 27.0, 18.0]),
        ("A, X-v1", "SBX", [None, None, None]),
        ("B, X-v1", "this project", [None, 5.0, 5.0]),
        ("B, X-v1", "Stable-Baselines3", [4.0, None, None]),
    ]
    return [
        {"name": name, "library": library, "solved": str(each is not None), "seconds": str(each or 99.0), **HERE}
        for name, library, seconds in runs
        for each in seconds
    ]


# tables


def test_medians_ranges_and_ratios_come_from_the_csv(tmp_path):
    report.write(tmp_path / "throughput.csv", throughput_lines())
    lines = report.read(tmp_path / "throughput.csv")
    assert report.table("throughput", lines).splitlines() == [
        "| | this project | Stable-Baselines3 | SBX | limit |",
        "|---|---|---|---|---|",
        "| A, X-v1, 2 threads | 3,000 (2,900 to 10,000) | 200 (150 to 250; 15 times) |"
        " 1,500 (1,400 to 1,600; 2.0 times) | 6,000 (5,000 to 6,000; 50 %) |",
        "| B, X-v1, batch 64 (peer: A2C) | 12.3 (12.3 to 12.3) |  |  |  |",
        "",
        "Rounds: 3; 2026-01-31; Some processor, 2 cores, TensorFlow 2.21.0.",
    ]


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "throughput.csv"
    report.write(path, [{"name": "A"}, {"name": "B"}])
    with pytest.raises(ValueError, match="seed"):
        report.write(path, [{"name": "A"}, {"name": "B", "seed": 1}])
    assert report.read(path) == [{"name": "A"}, {"name": "B"}] and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("flags, since", [("--n-steps 1", (200, 0.12)), ("--ray", (800, 0.46))])
def test_speed_is_taken_after_the_warm_up_and_with_ray_from_burst_to_burst(monkeypatch, flags, since):
    table = [(100, 0.1), (200, 0.12), (400, 0.45), (800, 0.46), (900, 0.98)]

    def output(command):
        folder = Path(command[command.index("--out") + 1]) / "model/ac/CartPole-v1"
        folder.mkdir(parents=True)
        rows = [f"{steps},{seconds}\n" for steps, seconds in table]
        (folder / "episodes.csv").write_text("steps,seconds\n" + "".join(rows))

    monkeypatch.setattr(throughput, "output", output)
    row = throughput.Row("AC", "ac", "CartPole-v1", cost=1, warmup=150, ours=flags, peers={})
    assert row.run_ours(0)["steps_per_second"] == pytest.approx((900 - since[0]) / (0.98 - since[1]))


def test_a_brief_table_has_neither_ranges_nor_limits():
    text = report.table("throughput", throughput_lines(), brief=True)
    assert "| A, X-v1, 2 threads | 3,000 | 200 (15 times) | 1,500 (2.0 times) |" in text
    assert "limit" not in text
    assert text.endswith("\n\nRounds: 3; 2026-01-31; Some processor, 2 cores.")


def test_a_run_without_a_solution_is_the_longest():
    """So a median of three is not better for a seed that fails, and none that fails is left out in silence."""
    text = report.table("solve", solve_lines())
    a, b = text.splitlines()[2:4]
    assert a == "| A, X-v1 | 9.0 (8.0 to 10.0) | 27.0 (1 of 3 not solved; 3.0 times) | not solved (3 of 3) |"
    assert b == "| B, X-v1 | 5.0 (1 of 3 not solved) | not solved (2 of 3) |  |"
    assert "| A, X-v1 | 9.0 | 27.0 (1 of 3 not solved; 3.0 times) | not solved (3 of 3) |" in report.table(
        "solve", solve_lines(), brief=True
    )


def test_where_dates_and_numbers_of_runs_differ_the_line_says_so():
    lines = solve_lines()
    more = [{**line, "name": "C", "date": "2026-02-03", "where": "Another, 8 cores"} for line in lines[:2]]
    last = report.table("solve", lines + more).splitlines()[-1]
    assert last.startswith("Runs: 2 to 3; 2026-01-31 to 2026-02-03; Some processor")
    assert last.endswith(" / Another, 8 cores.")
    assert report.chinese(last).startswith("运行次数：2 至 3；")  # a number of runs
    assert report.chinese("Seeds: 0 to 4; P.") == "随机种子：0 至 4；P。"  # and which seeds they are


def test_a_processors_name_has_no_marks(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model\t: 1\nmodel name\t: Intel(R) Core(TM) i7\n")
    monkeypatch.setattr(report, "Path", lambda name: tmp_path / Path(name).name)
    assert report.machine().startswith("Intel Core i7, ")


@pytest.mark.parametrize(("kind", "lines"), [("throughput", throughput_lines()), ("solve", solve_lines())])
@pytest.mark.parametrize("brief", [False, True])
def test_chinese_tables_have_the_same_numbers_and_no_english(kind, lines, brief):
    english = report.table(kind, lines, brief)
    chinese = report.chinese(english)
    assert differences(f"# T\n\n{english}", f"# T\n\n{chinese}") == []
    words = {"this", "project", "limit", "times", "not", "solved", "of", "to", "threads", "batch", "peer", "cores"}
    assert not words & set(re.findall("[A-Za-z]+", chinese))


def test_only_what_is_between_the_markers_is_written_anew():
    others = "<!-- end -->\n<!-- other -->\nx<!-- end -->\n"
    page = f"before\n<!-- solve, brief -->\nold\n<!-- end -->\n<!-- solve -->\n{others}"
    new = report.fill(page, "solve", solve_lines())
    assert "old" not in new and new.startswith("before\n<!-- solve, brief -->\n\n| |")
    assert new.endswith(others)
    brief, full = (report.table("solve", solve_lines(), each) for each in (True, False))
    assert new.count(brief) == new.count(full) == 1 and new.index(brief) < new.index(full)
    assert report.fill(new, "solve", solve_lines()) == new
    assert "本项目" in report.fill(page, "solve", solve_lines(), report.chinese)


def test_the_readmes_have_a_place_for_each_table():
    for folder, tables in ((ROOT, ["matrix", "throughput, brief"]), (ROOT / "benchmarks", ["throughput", "solve"])):
        for name in ("README.md", "README.zh-CN.md"):
            marks = re.findall("<!-- (.+?) -->", (folder / name).read_text(encoding="utf-8"))
            assert marks == [mark for table in tables for mark in (table, "end")], folder / name


@pytest.mark.parametrize(("kind", "lines"), [("throughput", throughput_lines()), ("solve", solve_lines())])
def test_a_chart_has_a_bar_for_each_median(tmp_path, monkeypatch, kind, lines):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *rest, **keywords: (figures.append(figure), save(figure, *rest, **keywords))
    )
    report.chart(kind, lines, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    rows = report.cells(lines, report.KINDS[kind][0]).values()
    medians = [row[library].median for row in rows for library in report.COLOURS if library in row]
    assert [bar.get_width() for bar in axes.patches] == [x for x in medians if x < report.UNSOLVED]
    assert [text.get_text() for text in axes.texts] == ["not solved"] * medians.count(report.UNSOLVED)


def test_a_library_that_solves_its_second_task_is_in_the_legend_once(tmp_path, monkeypatch):
    legends = []
    monkeypatch.setattr(Figure, "legend", lambda _, handles, labels, **keywords: legends.append([*labels]))
    first = solve_lines()
    again = [{**line, "name": "C", "solved": "True", "seconds": "7.0"} for line in first]
    report.chart("solve", first + again, tmp_path / "chart.png")
    assert sorted(legends[0]) == sorted(report.COLOURS)


# when a task is solved


class Fake:
    """A clock, and a policy that is good from some step on; an evaluation takes 100 seconds."""

    def __init__(self, good_from):
        self.now, self.steps, self.good_from, self.evaluated = 1000.0, 0, good_from, []

    def train(self, watch, steps, seconds):
        self.steps, self.now = steps, self.now + seconds
        return watch(steps)

    def evaluate(self):
        self.evaluated.append(self.steps)
        self.now += 100.0
        return 480.0 if self.steps >= self.good_from else 475.0


def test_solved_at_the_first_evaluation_above_the_goal_and_its_time_does_not_count():
    fake = Fake(good_from=6500)
    watch_ = watch.Watch(fake.evaluate, goal=475.0, every=1000, launched=990.0, clock=lambda: fake.now)
    solved = [fake.train(watch_, steps, seconds=2.0) for steps in range(500, 9000, 500)]
    assert solved == [False] * 13 + [True] * 4
    assert fake.evaluated == [1000, 2000, 3000, 4000, 5000, 6000, 7000]  # 475 is not above 475; nothing after it
    expected = {"solved": True, "seconds": 10.0 + 14 * 2.0, "steps": 7000, "reward": 480.0}
    assert watch_.result() == expected
    assert len(fake.evaluated) == 7


def test_long_episodes_do_not_bring_evaluations_one_after_the_other():
    fake = Fake(good_from=10**9)
    watch_ = watch.Watch(fake.evaluate, 475.0, 1000, 0.0, lambda: fake.now)
    for steps in (999, 3700, 3900, 4100, 4200, 5000):
        fake.train(watch_, steps, 1.0)
    assert fake.evaluated == [3700, 4100, 5000]


@pytest.mark.parametrize(("good_from", "solved"), [(1400, True), (2000, False)])
def test_what_has_ended_between_two_evaluations_is_looked_at_once_more(good_from, solved):
    fake = Fake(good_from)
    watch_ = watch.Watch(fake.evaluate, 475.0, 1000, 1000.0, lambda: fake.now)
    for steps in (1000, 1500):
        fake.train(watch_, steps, 3.0)
    fake.now += 50.0  # saving and drawing are no part of it
    result = watch_.result()
    assert (result["solved"], result["seconds"], result["steps"]) == (solved, 6.0, 1500)


def test_a_mean_of_episodes_that_end_at_different_times():
    class Counts:
        def reset(self, seed):
            self.left = seed - watch.FIRST_SEED + 1
            return np.zeros(1), {}

        def step(self, action):
            self.left -= 1
            return np.zeros(1), action, self.left == 0, False, {}

    envs = [Counts() for _ in range(3)]
    assert watch.mean_reward(envs, lambda states: [10.0] * len(states)) == pytest.approx(10.0 * (1 + 2 + 3) / 3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_greedy_actions_draw_nothing(algorithm, tmp_path, monkeypatch):
    """So a run that is watched learns as one that is not."""
    main = importlib.import_module(f"{algorithm}.main")
    agents = []
    monkeypatch.setattr(main, "train", lambda config, agent, *_: agents.append((config, agent)))
    env_id = "CartPole-v1" if algorithm == "a3c" else ""
    monkeypatch.setattr(
        sys, "argv", ["main.py", "--train", "--out", str(tmp_path), *(["--env", env_id] * bool(env_id))]
    )
    main.main()
    [(config, agent)] = agents
    env = environments.make(config.env, 0)
    drawing = [each for each in (agent, *vars(agent).values()) if hasattr(each, "rng")]
    before = [each.rng.bit_generator.state for each in drawing]
    assert drawing
    state = env.reset()[0]
    actions = [watch.greedy(algorithm, agent, state) for _ in range(2)]
    assert env.action_space.contains(np.asarray(actions[0], env.action_space.dtype)[()])
    assert np.array_equal(*actions)
    assert [each.rng.bit_generator.state for each in drawing] == before


@pytest.fixture
def reinforce(monkeypatch, tmp_path):
    """Run its command for some 1,500 steps, watched or not; what it has written, by the file's name."""
    from reinforce import main

    def run(out, goal=None):
        flags = ["--train", "--steps", "1500", "--solved", "None", "--hidden", "8", "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", ["reinforce/main.py", *flags])
        result = main.main() if goal is None else watch.watched("reinforce", goal, 400, 0.0)
        folder = tmp_path / out / "model/reinforce/CartPole-v1"
        return result, (folder / "actor.npz").read_bytes(), (folder / "episodes.csv").read_text().splitlines()

    return run


def test_a_watched_run_is_the_readers_run(reinforce):
    _, weights, episodes = reinforce("alone")
    result, watched_weights, watched_episodes = reinforce("watched", goal=np.inf)
    assert watched_weights == weights
    assert [line.split(",")[:4] for line in watched_episodes] == [line.split(",")[:4] for line in episodes]
    assert result["solved"] is False and result["steps"] == int(episodes[-1].split(",")[1])
    assert 8 <= result["reward"] <= 500


def test_a_solved_run_stops(reinforce):
    result, _, episodes = reinforce("solved", goal=0.0)
    assert result["solved"] is True and result["seconds"] > 0
    assert int(episodes[-2].split(",")[1]) < 400 <= result["steps"] == int(episodes[-1].split(",")[1])


# the command


WRONG = [
    (["sca"], "there is no folder 'sca'"),
    (["reinforce", "--kind", "throughput"], "there is no row of reinforce in throughput"),
    (["ppo", "--peers", "/nowhere/python"], "there is no /nowhere/python"),
    (["--rounds", "0"], "--rounds must be at least 1"),
    (["--seeds", "-1"], "--seeds at least 0"),
    (["--kind", "speed"], "invalid choice: 'speed'"),
    (["--rounds", "many"], "invalid int value: 'many'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        bench.parse(arguments)
    assert "\n" not in str(error.value)


def test_a_python_without_the_other_libraries_is_named():
    with pytest.raises(UserError, match=f"--peers: {re.escape(sys.executable)}: .*stable_baselines3"):
        bench.where(Path(sys.executable))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out: can't make "):
        bench.parse(["reinforce", "--out", str(tmp_path / "file/out")])


@pytest.mark.parametrize(
    "command, said",
    [
        ("benchmarks/bench.py sca", "sca"),
        ("benchmarks/profile.py sca", "sca"),
        ("benchmarks/results.py sac Pong-v0", "no run is of Pong-v0 and sac"),
        ("benchmarks/shrink.py nowhere small", "there are no weights in nowhere"),
        ("benchmarks/learning.py ppo --seed 3", "give --seeds"),
        ("docs/links.py --chek", "give --check, or nothing"),
        ("docs/site/checkpoints.py ppo", "give nothing, or one of reinforce CartPole-v1, ac CartPole-v1, "),
        ("docs/site/checkpoints.py --help", "give nothing, or one of reinforce CartPole-v1, ac CartPole-v1, "),
    ],
)
def test_a_wrong_argument_ends_with_status_2(command, said):
    script, *words = command.split()
    done = subprocess.run([sys.executable, ROOT / script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr


def test_rows_are_of_folders_that_exist_and_have_names_of_their_own():
    for kind in (throughput, solve):
        assert {row.algorithm for row in kind.ROWS} <= set(ALGORITHMS)
        assert len({row.name for row in kind.ROWS}) == len(kind.ROWS)
    assert {row.algorithm for row in solve.ROWS} == set(ALGORITHMS)


class Row(SimpleNamespace):
    """A row whose runs take no time."""

    cost, algorithm = 1, "ppo"

    def run_ours(self, seed):
        return {"steps_per_second": self.speed + seed, "startup": 2.0}

    def run_peer(self, python, library, seed):
        return {"steps_per_second": 1.0 + seed, "startup": 3.0}

    def limit(self):
        return {"steps_per_second": 1e6}


@pytest.fixture
def bench_main(monkeypatch, tmp_path):
    """Run the command with these rows of throughput; the lines of the CSV after it."""

    def run(rows, *arguments):
        monkeypatch.setattr(throughput, "ROWS", rows)
        words = [
            "bench.py",
            "--kind",
            "throughput",
            "--peers",
            sys.executable,
            "--out",
            str(tmp_path / "out"),
            *arguments,
        ]
        monkeypatch.setattr(sys, "argv", words)
        bench.main()
        assert (tmp_path / "out/throughput.png").exists()
        return report.read(tmp_path / "out/throughput.csv")

    monkeypatch.setattr(bench, "where", lambda peers: "here")
    return run


def test_what_is_measured_again_replaces_the_old_row_and_others_stay(bench_main, capsys):
    a, b, c = (Row(name=name, peers={"SBX": {}}, speed=100.0) for name in "ABC")
    b.algorithm = "sac"
    lines = bench_main([a, c], "--rounds", "2")
    assert [line["library"] for line in lines] == ["this project", "limit", "SBX"] * 4
    assert [line["steps_per_second"] for line in lines[:3]] == ["100.0", "1000000.0", "1.0"]
    assert [line["steps_per_second"] for line in lines[3:6]] == ["101.0", "1000000.0", "2.0"]
    assert "this project       100 (100 to 101), start-up 2.0 s\n" in capsys.readouterr().out
    a.speed = 900.0
    lines = bench_main([a, b, c], "ppo", "--rounds", "1")
    assert [line["name"] for line in lines] == ["A"] * 3 + ["C"] * 3
    b.speed = 500.0
    lines = bench_main([a, b, c], "sac", "--rounds", "1")
    assert [line["name"] for line in lines] == ["A"] * 3 + ["B"] * 3 + ["C"] * 3
    assert {line["steps_per_second"] for line in lines if line["library"] == "this project"} == {
        "900.0",
        "500.0",
        "100.0",
    }


def test_a_run_that_fails_is_named_and_what_was_measured_is_kept(bench_main, tmp_path):
    good, bad = (Row(name=name, peers={}, speed=1.0) for name in ("good", "bad"))

    def fails(seed):
        launch.output([sys.executable, "-c", "print('lost'); raise OSError('no such thing')"])

    bad.run_ours = fails
    with pytest.raises(SystemExit, match="error: bad, this project: OSError: no such thing"):
        bench_main([good, bad])
    assert {line["name"] for line in report.read(tmp_path / "out/throughput.csv")} == {"good"}


def test_the_limit_adds_what_the_environment_and_the_products_take(monkeypatch):
    rates = {limit.bare_loop: [100.0, 100.0], limit.products_rate: [300.0, 300.0]}
    monkeypatch.setattr(limit, "at_once", lambda processes, function, *_: rates[function])
    assert limit.steps_per_second("X-v1", 1, 2, 0, {}) == pytest.approx(200.0)
    assert limit.steps_per_second("X-v1", 1, 2, 64, {(3, 1): (1, 1, 0)}) == pytest.approx(1 / (1 / 200 + 1 / 600))


def test_products_are_counted_by_passes(monkeypatch):
    """With a second for each product: of 2 layers there are 2 forward, 3 to the weights, 2 to the input."""
    count = [0]

    class Counting(np.ndarray):
        def __matmul__(self, other):
            count[0] += 1
            return super().__matmul__(other)

    def ones(shape, dtype, ones=np.ones):
        return ones(shape, dtype).view(Counting)

    def fastest(call):
        count[0] = 0
        call()
        return count[0]

    monkeypatch.setattr(limit.np, "ones", ones)
    monkeypatch.setattr(limit, "fastest", fastest)
    assert limit.products_seconds((3, 8, 1), 4, 10, 100, 1000) == 10 * 2 + 100 * 3 + 1000 * 2


# the other libraries


def test_the_peers_speed_counts_as_many_updates_as_rollouts(monkeypatch):
    """A library learns after a rollout's last step: from the end of the warm-up two rollouts of four steps, a second
    each, and two updates, 10 seconds each."""
    names = ["callbacks", "env_util", "noise", "vec_env"]
    attributes = ["BaseCallback", "make_vec_env", "NormalActionNoise", "DummyVecEnv", "SubprocVecEnv", "VecNormalize"]
    libraries = [
        "stable_baselines3",
        "stable_baselines3.common",
        *(f"stable_baselines3.common.{name}" for name in names),
    ]
    for library in libraries:
        module = SimpleNamespace(**dict.fromkeys(attributes, object))
        monkeypatch.setitem(sys.modules, library, module)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=lambda count: None))
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr(sys, "argv", ["peers.py", '{"library": "sb3", "warmup": 8, "launched": 997}'])
    clock = runpy.run_path(str(ROOT / "benchmarks/peers.py"))["Clock"]()
    clock.num_timesteps = 0
    for _ in range(4):
        clock._on_rollout_start()
        for _ in range(4):
            now[0] += 1
            clock.num_timesteps += 1
            assert clock._on_step()
        now[0] += 10
    assert clock.result() == {"steps_per_second": 8 / 28, "startup": 4.0}


# profile


def test_each_moment_counts_for_the_innermost_part():
    now = [0.0]
    clock = Clock("rest", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    inner = clock.timed("inner", wait)
    wait(1.0)
    with clock.part("outer"):
        wait(10.0)
        inner(100.0)
        wait(10.0)
    wait(1.0)
    clock.settle()
    assert clock.seconds == {"rest": 2.0, "outer": 20.0, "inner": 100.0}
    clock.reset()
    inner(5.0)
    assert clock.seconds == {"rest": 0.0, "inner": 5.0}


@pytest.mark.parametrize("algorithm, env_id", [("ac", "CartPole-v0"), ("trpo", "CartPole-v0"), ("ppo", "Pong-v0")])
def test_profile_of_a_folder(algorithm, env_id):
    """ac has classes that learn within a method that learns from single steps; the loop of trpo calls `act`; the
    preset of ppo's Pong has other processes play."""
    command = [sys.executable, ROOT / "benchmarks/profile.py", algorithm, "--env", env_id, "--seconds", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JIT_COMPILE": "0"})
    assert done.returncode == 0, done.stderr
    launch, step = re.split("An environment step, of [0-9,]+\n", done.stdout)
    for text, names in ((launch, PHASES), (step, ("update", "acting", "environment", "loop and log"))):
        parts = {name: float(x) for name, x in re.findall(r"^  (.+?) +([0-9.]+) (?:s|us) ", text, re.M)}
        total = parts.pop("total")
        assert set(names) <= set(parts)
        assert all(x >= 0 for x in parts.values()) and total > 0
        assert sum(parts.values()) == pytest.approx(total, abs=0.01 * len(parts))


def test_the_peers_get_the_same_box2d():
    ours, theirs = ((ROOT / name / "requirements.txt").read_text().splitlines() for name in ("", "benchmarks"))
    assert [line for line in theirs if "box2d" in line] == [line for line in ours if line.startswith("box2d")]


# shrink


@pytest.mark.parametrize("act", ["tanh", "relu"])
def test_small_weights_play_as_the_large_ones_where_pixels_are_lit(tmp_path, monkeypatch, act):
    agent = PPO(6400, 3, None, hidden=(4,), act=act, seed=1)
    agent.save(tmp_path / "large")
    monkeypatch.setattr(shrink, "STATES", 300)
    shrink.shrink(tmp_path / "large", tmp_path / "small/Pong-v0")
    agent.load(tmp_path / "small/Pong-v0")
    for network in "actor.npz", "critic.npz":
        large, small = (dict(np.load(tmp_path / name / network)) for name in ("large", "small/Pong-v0"))
        first = next(iter(small))
        unlit = (small[first] == 0).all(1)
        assert 3000 < unlit.sum() < 6400  # one game of 300 states
        for name in small:
            kept = slice(None) if name != first else ~unlit
            np.testing.assert_allclose(small[name][kept], large[name][kept], rtol=2**-5 * 1.01, atol=2e-6)
        assert all((array.view(np.uint16) % 64 == 0).all() for array in small.values())


def test_small_weights_of_convolutions_are_the_large_ones_in_fewer_bits(tmp_path):
    agent = PPO(6400, 3, None, hidden=(16,), act="relu", convolutions=True, seed=1)
    agent.save(tmp_path / "large")
    shrink.shrink(tmp_path / "large", tmp_path / "small/Pong-v0")
    agent.load(tmp_path / "small/Pong-v0")
    for network in "actor.npz", "critic.npz":
        large, small = (tmp_path / name / network for name in ("large", "small/Pong-v0"))
        assert small.stat().st_size < large.stat().st_size / 2
        large, small = (dict(np.load(path)) for path in (large, small))
        for name in large:
            np.testing.assert_allclose(small[name], large[name], rtol=2**-5 * 1.01, atol=2e-6)


def test_settings_go_with_small_weights_and_what_cannot_be_made_smaller_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shrink, "STATES", 30)
    PPO(6400, 3, None, hidden=(4,), seed=1).save(tmp_path / "large")
    for folder, settings in ("large", "ours"), ("small/Pong-v0", "of other weights"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "config.json").write_text(settings)
    shrink.shrink(tmp_path / "large", tmp_path / "small/Pong-v0")
    assert (tmp_path / "small/Pong-v0/config.json").read_text() == "ours"
    PPO(6400, 3, None, hidden=(8, 8), seed=1).save(tmp_path / "deep")
    with pytest.raises(UserError, match="deep: convolutions and networks of one hidden layer can be made smaller"):
        shrink.shrink(tmp_path / "deep", tmp_path / "small/Pong-v0")


def test_pixels_are_counted_in_as_many_states_as_are_asked_for():
    class Two:
        action_space = SimpleNamespace(n=2)

        def reset(self):
            self.t = 0
            return np.int8([0, 1, 0]), {}

        def step(self, action):
            self.t += 1
            return np.int8([0, 0, -1]), 0.0, self.t == 3, False, {}

    np.testing.assert_array_equal(shrink.lit(Two(), lambda state: np.zeros(2), 5), [0, 2, 4])
