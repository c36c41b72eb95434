"""--ray: workers in processes of their own, on a cluster of two nodes, and what happens when one dies."""

import contextlib
import importlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from ray.cluster_utils import Cluster

from common import cluster as cluster_module

MORTAL = """
import os, pathlib, signal, time
import gym
import ray
from gym.envs.classic_control import CartPoleEnv

FOLDER = pathlib.Path({folder!r}) / pathlib.Path({folder!r}, "test").read_text()  # that of the test which runs now

class Mortal(CartPoleEnv):
    '''CartPole; the first of its processes that has taken 1000 steps is killed, as by a power cut.'''
    steps = 0

    def step(self, action):
        Mortal.steps += 1
        if Mortal.steps == 1:
            (FOLDER / f"{{os.getpid()}}.process").write_text(ray.get_runtime_context().get_node_id())
        if Mortal.steps == 1000:
            try:
                (FOLDER / "killed").touch(exist_ok=False)  # of two that come here at once, one only
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        while (FOLDER / "killed").exists() and len(list(FOLDER.glob("*.process"))) < 3:
            time.sleep(0.1)  # until another process has taken its place
        return super().step(action)

gym.register("Mortal-v0", entry_point=Mortal, max_episode_steps=500)

class Broken(CartPoleEnv):
    def step(self, action):
        raise RuntimeError("the pole broke")

gym.register("Broken-v0", entry_point=Broken, max_episode_steps=500)

class Nan(CartPoleEnv):
    def step(self, action):
        return super().step(action)[0], float("nan"), False, False, {{}}

gym.register("Nan-v0", entry_point=Nan, max_episode_steps=500)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """The address of two nodes on this machine, whose processes know the module `mortal`; and its folder."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "mortal.py").write_text(MORTAL.format(folder=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))  # the commands of the tests inherit it, too
        patch.setenv("JIT_COMPILE", "0")  # compiling in each of the processes takes longer than their updates
        patch.setenv("RAY_worker_niceness", "0")  # by default a busy machine would starve them
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        yield nodes.address, folder
        nodes.shutdown()


@pytest.fixture
def cluster(nodes, request):
    """The address of the two nodes, and a folder of the test's own where `mortal` leaves word."""
    address, modules = nodes
    folder = modules / re.sub(r"\W+", "-", request.node.name)
    folder.mkdir()
    (modules / "test").write_text(folder.name)
    return address, folder


def run(algorithm, out, *flags, workers=2, **environment):
    """The finished command; `environment`: variables."""
    return subprocess.run(
        [sys.executable, ROOT / algorithm / "main.py", "--train", "--workers", str(workers), "--out", out, *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_two_nodes_learn_cartpole_and_go_on_when_a_worker_is_killed(cluster, tmp_path, algorithm):
    address, folder = cluster
    lr = ("--hidden", "64", "64", "--lr-a", "1e-3", "--lr-c", "2e-3")
    flags = ("--env", "mortal:Mortal-v0", "--ray", address, "--steps", "40000", "--n-steps", "40", *lr)
    result = run(algorithm, tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert (folder / "killed").exists()
    nodes = [file.read_text() for file in folder.glob("*.process")]
    assert len(nodes) == 3  # two workers, and the one that took the dead one's place
    assert len(set(nodes)) == 2
    (model,) = (tmp_path / "model" / algorithm).iterdir()
    table = np.loadtxt(model / "episodes.csv", delimiter=",", skiprows=1)
    assert table[-1, 1] >= 40_000
    tens = np.convolve(table[:, 2], np.ones(10) / 10, "valid")  # mean rewards of ten episodes in a row
    assert tens.max() > 150 > 50 > tens[0]  # the last ones may be worse: two workers' order is a race


def test_a_worker_that_raises_ends_the_run_with_its_error(cluster, tmp_path):
    address, _ = cluster
    flags = ("--env", "mortal:Broken-v0", "--ray", address)
    result = run("a3c", tmp_path, *flags, workers=1)
    assert result.returncode == 1
    assert re.fullmatch(r"(.|\n)*\nRuntimeError: the pole broke\n", result.stderr)


@pytest.mark.parametrize(
    "env_id, flags, error",
    [
        ("mortal:Nan-v0", [], r"a gradient of Worker_\d is not finite"),  # the worker's own look at it
        (
            "CartPole-v1",
            ["--lr-a", "1e38"],
            r"((a gradient|the policy) of Worker_\d is not finite|a weight is no longer a finite number)",
        ),
    ],
)
def test_what_is_no_number_ends_the_run_and_is_not_saved(cluster, tmp_path, env_id, flags, error):
    address, _ = cluster
    flags = ("--env", env_id, "--ray", address, *flags)
    result = run("a3c", tmp_path, *flags, workers=1)
    assert result.returncode == 1
    model = tmp_path / "model/a3c" / env_id.replace(":", "-")
    # where the workers took half a minute to start, weights have been saved before that, and the message says so
    saved = {path.name: np.load(path) for path in model.glob("[ac]*.npz")}
    kept = f"the last good weights are in {model}" if saved else "nothing was saved yet"
    assert re.fullmatch(rf"error: {error} at step \d+; {re.escape(kept)}\n", result.stderr)
    assert all(np.isfinite(array).all() for file in saved.values() for array in file.values())


class Agent:
    """Learns nothing."""

    def update(self, *_):
        return {}

    def save(self, *_):
        pass


class Remote:
    """In place of `cluster.RemoteWorker` and `cluster.Master`: a hundred steps a call, an episode."""

    def __init__(self, *arguments):
        self.made.append(arguments[-1])

    def collect(self, agent, n_steps):
        return None, None, None, None, [(1.0, 100)]

    def follow(self, agent):
        return [(1.0, 100, [])]


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_a_resumed_run_seeds_its_remote_workers_anew(tmp_path, monkeypatch, algorithm):
    main = importlib.import_module(f"{algorithm}.main")
    monkeypatch.setattr(Remote, "made", [], raising=False)
    for name, stub in dict(RemoteWorker=Remote, Master=Remote, connect=lambda *_: contextlib.nullcontext()).items():
        monkeypatch.setattr(cluster_module, name, stub)
    for resume in False, True:
        config = main.Config(train=True, env="CartPole-v1", out=tmp_path, ray="here", steps=200 + resume, resume=resume)
        workers = ([5, 1005],) if algorithm == "a2c" else ({}, [dict(name="Worker_0", seed=5)])
        main.train_on_ray(config, Agent(), *workers)
    seeds = [each["seed"] if algorithm == "a3c" else each for made in Remote.made for each in made]
    assert len({*seeds}) == len(seeds) == (4 if algorithm == "a2c" else 2)


def test_no_two_processes_explore_alike(monkeypatch):
    """Three environments on two cores: two of them act with the first copy of the agent."""
    monkeypatch.setattr(cluster_module, "cores", lambda: ["one", "two"])
    monkeypatch.setattr(cluster_module, "actors", lambda cls, arguments: arguments)
    nodes = cluster_module.RemoteWorker(None, None, dict(seed=0, gamma=0.9), "CartPole-v1", [1, 2, 3]).nodes
    assert [(node["seeds"], node["settings"]) for node in nodes] == [
        ([1, 2], dict(seed=1, gamma=0.9)),
        ([3], dict(seed=3, gamma=0.9)),
    ]


def test_no_cluster_at_the_address(tmp_path):
    result = run("a3c", tmp_path, "--env", "CartPole-v1", "--ray", "127.0.0.1:9")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --ray: can't join a cluster at '127.0.0.1:9'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("algorithm", ["a2c", "a3c"])
def test_without_ray_the_message_says_what_to_install(tmp_path, algorithm):
    (tmp_path / "ray.py").write_text("raise ImportError")
    result = run(algorithm, tmp_path, "--env", "CartPole-v1", "--ray", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == "error: --ray needs Ray: pip install -r requirements/ray.txt\n"
