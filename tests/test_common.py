"""What is not the algorithm: acting copies, weights on disk, environments, compiling, checkpoints, films."""

import importlib
import io
import os
import signal
import subprocess
import sys
import tracemalloc
import types
import weakref
import zipfile
from functools import partial

import gym
import h5py
import imageio
import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl
from conftest import ALGORITHMS, ROOT, is_orthogonal
from PIL import Image

from a2c.agent import A2C
from a3c.agent import ACNet
from acktr.agent import ACKTR
from common import checkpoint, environments, playing, progress, weights
from common.acting import MLP
from common.command import Options, Range, UserError
from common.compiling import compiled
from common.environments import Replayable
from common.files import replacing
from common.normalising import Normaliser
from common.progress import Training
from common.quiet import quiet
from ddpg.agent import DDPG
from ppo.agent import PPO
from ppo.main import Config as PPOConfig
from trpo.agent import TRPO


def network(units=5, act=tf.nn.tanh, scale=2.0):
    inputs = tl.layers.Input([None, 3], tf.float32)
    layer = tl.layers.Dense(units, act, name="hidden_1")(inputs)
    layer = tl.layers.Dense(2, name="output")(layer)
    model = tl.models.Model(inputs, tl.layers.Lambda(lambda x: x * scale, name="scale")(layer))
    model.eval()
    return model


# acting


@pytest.mark.parametrize("act", [tf.nn.tanh, tf.nn.relu, tf.nn.relu6, None])
def test_numpy_copy_equals_the_model(act):
    model, states = network(64, act), np.random.default_rng(0).normal(0, 20, (100, 3)).astype(np.float32)
    policy = MLP(model)
    np.testing.assert_allclose(policy(states), model(states), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy(states[0]), model(states[:1])[0], rtol=1e-5, atol=1e-5)


def test_a_numpy_copy_of_no_numbers_is_refused():
    """The loss of one network does not tell that another is lost."""
    model = network()
    policy = MLP(model)
    model.trainable_weights[1].assign(tf.fill(model.trainable_weights[1].shape, np.nan))
    with pytest.raises(FloatingPointError, match="no longer a finite number"):
        policy.refresh()


def test_numpy_copy_takes_weights_that_are_at_hand():
    model = network()
    policy, fresh = MLP(model), [np.full(w.shape, 0.1, np.float32) for w in model.trainable_weights]
    policy.refresh(fresh)
    expected = 2 * (5 * 0.1 * np.tanh(0.1 * 3 + 0.1) + 0.1)
    np.testing.assert_allclose(policy(np.ones(3)), expected, rtol=1e-6)


def test_numpy_copy_follows_only_on_refresh():
    model, state = network(), np.ones(3, np.float32)
    policy = MLP(model)
    before = policy(state)
    model.all_weights[0].assign_add(tf.ones((3, 5)))
    np.testing.assert_array_equal(policy(state), before)
    policy.refresh()
    np.testing.assert_allclose(policy(state), model(state[None])[0], rtol=1e-5, atol=1e-6)


# weights


@pytest.mark.parametrize("hdf5", [False, True])
def test_weights_round_trip_with_a_variable_beside_the_model(tmp_path, hdf5):
    model, log_std = network(), tf.Variable([0.3, -0.7], name="log_std")
    weights.save(tmp_path, hdf5, actor=[model, log_std])
    other, other_std = network(), tf.Variable([0.0, 0.0], name="log_std")
    weights.load(tmp_path, actor=[other, other_std])
    for a, b in zip([*model.all_weights, log_std], [*other.all_weights, other_std], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("hdf5", [False, True])
def test_statistics_round_trip_and_are_loaded_in_place(tmp_path, hdf5):
    normaliser, other = Normaliser(3), Normaliser(3)
    normaliser.update(np.random.default_rng(0).normal(3, 2, (50, 3)))
    mean = other.mean
    model = network()
    weights.save(tmp_path, hdf5, actor=[model, normaliser.arrays])
    weights.load(tmp_path, actor=[model, other.arrays])
    np.testing.assert_array_equal(mean, normaliser.mean)
    np.testing.assert_array_equal(other(np.ones(3)), normaliser(np.ones(3)))
    with pytest.raises(UserError, match="another size"):
        weights.load(tmp_path, actor=[model, Normaliser(2).arrays])


def test_npz_needs_no_pickle_and_names_its_arrays(tmp_path):
    weights.save(tmp_path, actor=[network()])
    with np.load(tmp_path / "actor.npz", allow_pickle=False) as file:
        assert set(file.files) == {"hidden_1/weights", "hidden_1/biases", "output/weights", "output/biases"}
        assert file["hidden_1/weights"].shape == (3, 5)


def test_hdf5_is_read_by_tensorlayer_itself(tmp_path):
    model, other = network(), network()
    weights.save(tmp_path, hdf5=True, actor=[model, tf.Variable([0.5], name="log_std")])
    with h5py.File(tmp_path / "actor.hdf5") as file:
        assert b"hidden_1" in list(file.attrs["layer_names"])
    tl.files.load_hdf5_to_weights_in_order(str(tmp_path / "actor.hdf5"), other)
    for a, b in zip(model.all_weights, other.all_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("hdf5", [False, True])
def test_weights_that_are_no_numbers_are_not_written_over_good_ones(tmp_path, hdf5):
    good, bad = network(), network()
    bad.all_weights[0].assign(tf.fill(bad.all_weights[0].shape, np.nan))
    weights.save(tmp_path, hdf5, critic=[good], actor=[good])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for parts in ([bad], [good, tf.Variable([np.inf], name="log_std")], [good, {"mean": np.array([np.nan])}]):
        with pytest.raises(FloatingPointError, match="of actor are no longer finite numbers"):
            weights.save(tmp_path, hdf5, critic=[network()], actor=parts)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_in_one_format_removes_the_other(tmp_path):
    weights.save(tmp_path, hdf5=False, actor=[network()])
    weights.save(tmp_path, hdf5=True, actor=[network()])
    assert [path.name for path in tmp_path.iterdir()] == ["actor.hdf5"]


def damaged(path, kind):
    if kind == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not weights")
    elif kind == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif kind == "version":  # of zip, that the first array is said to need
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 6] = 109
        path.write_bytes(data)
    elif kind == "pickle":
        np.savez(path, **{"hidden_1/weights": np.array([object()], object)})
    elif kind == "nan" and path.suffix == ".hdf5":
        with h5py.File(path, "r+") as file:
            file["hidden_1/hidden_1/weights:0"][0, 0] = np.nan
    elif kind == "nan":
        np.savez(path, **{name: np.full_like(array, np.nan) for name, array in np.load(path).items()})
    elif kind == "size":
        weights.save(path.parent, hdf5=path.suffix == ".hdf5", actor=[network(7)])
    elif kind == "foreign":
        np.savez(path, something=np.zeros(3))
    elif kind == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", "of another library")
    elif kind == "words":
        with h5py.File(path, "w") as file:
            file["about"] = "another program's"


BAD = ["half", "empty", "text", "flipped", "version", "pickle", "nan", "size", "foreign", "array", "zip"]


@pytest.mark.parametrize("kind", BAD)
def test_bad_npz_is_refused_and_nothing_changes(tmp_path, kind):
    model = network()
    weights.save(tmp_path, actor=[model], critic=[model])
    damaged(tmp_path / "actor.npz", kind)
    other = network()
    before = [variable.numpy() for variable in other.all_weights]
    with pytest.raises(UserError, match=r"actor\.npz"):
        weights.load(tmp_path, critic=[other], actor=[other])
    for a, b in zip(before, other.all_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["half", "empty", "text", "nan", "size", "words"])
def test_bad_hdf5_is_refused(tmp_path, kind):
    weights.save(tmp_path, hdf5=True, actor=[network()])
    damaged(tmp_path / "actor.hdf5", kind)
    with pytest.raises(UserError, match=r"actor\.hdf5"):
        weights.load(tmp_path, actor=[network()])


def test_a_file_that_was_never_finished_is_no_weights(tmp_path):
    (tmp_path / ".actor.123.npz").touch()
    (tmp_path / "resume.npz").touch()
    assert not weights.exist(tmp_path)
    (tmp_path / "actor.npz").touch()
    assert weights.exist(tmp_path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no weights .*actor"):
        weights.load(tmp_path, actor=[network()])


def test_a_process_killed_while_saving_leaves_the_old_file(tmp_path):
    """The process dies after the bytes are written and before they get their name."""
    script = (
        "import os, sys\nimport numpy as np\nfrom pathlib import Path\nfrom common.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as path:\n"
        "    np.savez(path, w=np.zeros(1000))\n"
        "    os.kill(os.getpid(), 9) if os.name != 'nt' else os._exit(9)\n"
    )
    path = tmp_path / "actor.npz"
    np.savez(path, w=np.ones(3))
    result = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True)
    assert result.returncode != 0
    with np.load(path) as file:
        np.testing.assert_array_equal(file["w"], np.ones(3))


def test_a_failed_save_leaves_no_rubbish(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.npz") as path:
        path.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


# checkpoint


def test_checkpoint_restores_the_random_generator(tmp_path):
    rng = np.random.default_rng(5)
    rng.random(7)
    checkpoint.save(tmp_path / "run.npz", env=rng)
    expected = rng.random(3)
    other = np.random.default_rng(0)
    checkpoint.load(tmp_path / "run.npz", env=other)
    np.testing.assert_array_equal(other.random(3), expected)


def test_checkpoint_keeps_what_training_changes_and_not_what_the_constructor_was_given(tmp_path):
    """A resumed run takes its learning rates and the like from its own flags."""
    settings = dict(lr_a=1.0, gamma=1), dict(lr_a=2.0, gamma=0)
    old, new = (DDPG(1, 3, np.float32([2]), memory_capacity=9, **each) for each in settings)
    old.variance, old.pointer = 0.125, 4
    old.actor_opt.iterations.assign(7)
    checkpoint.save(tmp_path / "run.npz", agent=old)
    checkpoint.load(tmp_path / "run.npz", agent=new)
    assert (new.variance, new.pointer, int(new.actor_opt.iterations)) == (0.125, 4, 7)
    assert (float(new.actor_opt.learning_rate), new.lr_a, new.gamma) == (2, 2, 0)


def test_a_readers_subclass_is_saved_and_restored_as_its_base_is(tmp_path):
    class Mine(DDPG):
        """Of the script that runs, as one that is written into main.py."""

        __module__ = "__main__"

    old, new = (Mine(1, 3, np.float32([2]), memory_capacity=9, seed=seed) for seed in (0, 1))
    old.pointer = 4
    checkpoint.save(tmp_path / "run.npz", agent=old)
    checkpoint.load(tmp_path / "run.npz", agent=new)
    state = np.ones(3, np.float32)
    assert new.pointer == 4 and new.get_action(state, greedy=True) == old.get_action(state, greedy=True)


@pytest.mark.parametrize("name, value", [("mean", "tanh"), ("act", "relu"), ("normalising", True)])
def test_a_run_is_not_resumed_with_another_network_of_the_same_sizes(tmp_path, name, value):
    """The weights would be those of another policy, and the next save would be written over the run."""
    agent = types.SimpleNamespace(save=lambda *_: None)
    with Training(PPOConfig(train=True, steps=9, out=tmp_path), agent):
        pass
    with Training(PPOConfig(train=True, resume=True, steps=9, lr_a=1.0, out=tmp_path), agent):
        pass
    with pytest.raises(UserError, match=rf"resume\.npz is of a run with other settings: --{name} differs$"):
        Training(PPOConfig(train=True, resume=True, steps=9, out=tmp_path, **{name: value}), agent)


def test_a_checkpoint_takes_no_second_replay_memory(tmp_path):
    memory = np.ones((100, 200_000), np.float32)  # 80 MB
    tracemalloc.start()
    try:
        checkpoint.save(tmp_path / "run.npz", memory=memory)
        assert tracemalloc.get_traced_memory()[1] < memory.nbytes / 2  # the most at a time, of which NumPy writes 16
    finally:
        tracemalloc.stop()
    with np.load(tmp_path / "run.npz") as file:
        np.testing.assert_array_equal(file["memory"], memory)


def test_a_run_of_an_older_version_is_refused(tmp_path):
    config = Options(train=True, resume=True, env="CartPole-v1", steps=9, out=tmp_path)
    config.model_folder.mkdir(parents=True)
    checkpoint.save(config.model_folder / "resume.npz", agent=np.zeros(3))
    with pytest.raises(UserError, match="has no table of episodes"):
        Training(config, np.zeros(3))


def test_what_tensorflow_makes_of_a_second_ctrl_c_is_one_still(tmp_path):
    """While it traces, an extension of TensorFlow's turns KeyboardInterrupt into TypeError."""
    config = Options(train=True, env="CartPole-v1", steps=9, out=tmp_path)
    saved = types.SimpleNamespace(save=lambda folder, hdf5: (folder / "actor.npz").touch())
    with pytest.raises(KeyboardInterrupt), Training(config, saved):
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise TypeError from None
    assert (config.model_folder / "actor.npz").exists() and not (config.model_folder / "resume.npz").exists()


def test_a_run_that_is_stopped_at_once_leaves_an_earlier_ones_files_together(tmp_path, capsys):
    """Weights of its own beside the other's config.json, tables and resume.npz would be of two runs."""
    config = Options(train=True, env="CartPole-v1", steps=9, out=tmp_path)
    agent = types.SimpleNamespace(save=lambda folder, hdf5: (folder / "actor.npz").write_text(config.out.name))
    config.model_folder.mkdir(parents=True)
    (config.model_folder / "actor.npz").write_text("earlier")
    for saves_before, kept in (False, "weights of an earlier run are still"), (True, "last good weights are"):
        with pytest.raises(KeyboardInterrupt), Training(config, agent) as run:
            if saves_before:
                run.save()
                (config.model_folder / "actor.npz").write_text("older")
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert capsys.readouterr().out == f"Stopped at once; the {kept} in {config.model_folder}\n"
        assert (config.model_folder / "actor.npz").read_text() == (tmp_path.name if saves_before else "earlier")


def test_ctrl_c_does_not_cut_the_last_save(tmp_path):
    config = Options(train=True, env="CartPole-v1", steps=9, out=tmp_path)
    before = signal.getsignal(signal.SIGINT)
    agent = types.SimpleNamespace(save=lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with Training(config, agent) as run:
            run.log(1.0, 9)
    except KeyboardInterrupt:  # it would end pytest
        pytest.fail("the save was cut")
    files = "config.json", "episodes.csv", "resume.npz", "updates.csv"
    assert {path.name for path in config.model_folder.iterdir()} == {*files}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (PermissionError(13, "Permission denied"), UserError, r"^can't read .*resume\.npz \(Permission denied\)$"),
        (MemoryError("3 GiB"), MemoryError, "^3 GiB$"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error, kind, message):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(kind, match=message):
        checkpoint.load(tmp_path / "resume.npz")


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch, capsys):
    """As on Windows while another program has the table open; the weights are written all the same."""
    config = Options(train=True, env="CartPole-v1", steps=9, out=tmp_path)
    agent = types.SimpleNamespace(save=lambda folder, hdf5: (folder / "actor.npz").touch())
    replace, refused = os.replace, ["episodes.csv"]

    def refuse(source, target):
        if target.name in refused:
            raise PermissionError(13, "Permission denied", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(progress, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(os, "replace", refuse)
    table = config.model_folder / "episodes.csv"
    with Training(config, agent) as run:
        run.log(1.0, 5)
        assert run.goes_on()
        assert capsys.readouterr().err == f"can't save: {table} (Permission denied); training goes on\n"
        assert (config.model_folder / "actor.npz").exists() and not table.exists()
        refused.clear()
        assert run.goes_on() and table.exists()
        refused.append("episodes.csv")
        run.log(1.0, 5)
        assert not run.goes_on()
        with pytest.raises(UserError, match=r"can't save: .*episodes.csv \(Permission denied\); what could be written"):
            run.__exit__(None, None, None)
        refused.clear()


def test_a_reader_of_the_output_who_has_gone_is_no_file_that_cannot_be_written(tmp_path, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    config = Options(train=True, env="CartPole-v1", steps=9, out=tmp_path)
    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError), Training(config, types.SimpleNamespace(save=lambda folder, hdf5: None)):
        pass
    assert (config.model_folder / "episodes.csv").exists()


def test_saving_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    saves = []

    def save(folder, hdf5):
        saves.append(clock[0])
        clock[0] += 3.0

    config = Options(train=True, env="CartPole-v1", steps=999, out=tmp_path)
    with Training(config, types.SimpleNamespace(save=save)) as run:
        for second in range(200):
            clock[0] = max(clock[0], float(second))
            run.goes_on()
    assert saves[:3] == [31, 95, 159]


def test_checkpoint_refuses_what_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no training run to resume"):
        checkpoint.load(tmp_path / "run.npz")
    (tmp_path / "run.npz").write_text("text")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "run.npz")


# environments


@pytest.mark.parametrize(
    "book, today",
    [
        ("Pendulum-V0", "Pendulum-v1"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("BipedalWalker-V2", "BipedalWalker-v3"),
        ("BipedalWalker-v2", "BipedalWalker-v3"),
        ("CartPole-V0", "CartPole-v0"),
        ("CartPole-v1", "CartPole-v1"),
    ],
)
def test_book_ids(book, today):
    assert environments.current_id(book) == today
    env = environments.make(today, 0)
    assert env.spec.id == today


def test_dimensions():
    assert environments.dimensions(environments.make("CartPole-v1", 0)) == (4, 2, None)
    state_dim, action_dim, bound = environments.dimensions(environments.make("Pendulum-v1", 0))
    assert (state_dim, action_dim, bound.tolist()) == (3, 1, [2.0])
    assert environments.dimensions(environments.make("BipedalWalker-v3", 0))[:2] == (24, 4)


def test_the_time_limit_is_truncation_and_not_termination():
    env = environments.make("Pendulum-v1", 0)
    ends = [env.step(np.zeros(1))[2:4] for _ in range(200)]
    assert ends[-1] == (False, True) and not any(terminated or truncated for terminated, truncated in ends[:-1])
    env = environments.make("CartPole-v1", 0)
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(0)
    assert (terminated, truncated) == (True, False)


class Echo(gym.Env):
    """Returns the action it was given as the observation."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    spec = types.SimpleNamespace(id="Echo-v0")

    def __init__(self, low, high):
        self.action_space = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    def step(self, action):
        return action, 0.0, False, False, {}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "LunarLander-v2"])
def test_an_episode_is_played_again_from_a_checkpoint(tmp_path, env_id):
    """The third episode, in its middle; what comes after it is the same too, the next start state included."""
    env, other = (Replayable(environments.make(env_id, seed)) for seed in (3, 4))
    actions = iter(np.random.default_rng(0).integers(2, size=999))

    def step(each, action):
        state, reward, terminated, truncated, _ = each.step([action - 0.5] if env_id == "Pendulum-v1" else action)
        return [*state, reward], terminated or truncated

    for _ in range(3):
        env.reset()
        for _ in range(7):
            step(env, next(actions))
    other.reset()
    step(other, 0)
    checkpoint.save(tmp_path / "run.npz", envs=[env])
    checkpoint.load(tmp_path / "run.npz", envs=[other])
    for _ in range(300):
        action = next(actions)
        (seen, done), (again, done_again) = step(env, action), step(other, action)
        np.testing.assert_array_equal(seen, again)
        assert done == done_again
        if done:
            np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


def test_actions_are_clipped_and_moved_into_unequal_bounds():
    env = environments.BoundedActions(Echo([0, -2], [4, 2]))
    assert environments.dimensions(env)[2].tolist() == [2.0, 2.0]
    assert env.step(np.array([-5.0, 5.0]))[0].tolist() == [0.0, 2.0]
    assert env.step(np.array([0.5, -0.5]))[0].tolist() == [2.5, -0.5]
    with pytest.raises(FloatingPointError, match="an action is no longer a finite number"):
        env.step(np.array([0.5, np.nan]))


def test_states_of_whole_numbers_become_float32():
    """Left as integers they would be taken for pictures."""

    class Bits(gym.Env):
        observation_space, action_space = gym.spaces.MultiBinary(4), gym.spaces.Discrete(2)

        def reset(self, **_):
            return np.ones(4, np.int8), {}

    gym.register("Bits-v0", entry_point=Bits)
    state, _ = environments.make("Bits-v0", 0).reset()
    assert (state.dtype, state.tolist()) == (np.float32, [1, 1, 1, 1])
    state, _ = environments.make("Pong-v0", 0).reset()
    assert state.dtype == np.int8


def test_infinite_bounds_and_other_spaces_are_refused():
    with pytest.raises(UserError, match="finite bounds"):
        environments.dimensions(Echo([-np.inf, 0], [np.inf, 1]))
    env = Echo([0, 0], [1, 1])
    env.action_space = gym.spaces.MultiDiscrete([2, 3])
    with pytest.raises(UserError, match="actions must be"):
        environments.dimensions(env)


def test_kind_of_actions():
    env = environments.make("CartPole-v1", 0)
    environments.require_actions(env, "discrete")
    with pytest.raises(UserError, match=r"has discrete actions.*continuous ones; see reinforce, ac, a2c.* or acktr$"):
        environments.require_actions(env, "continuous")
    with pytest.raises(UserError, match=r"has continuous actions.*discrete ones; see a2c,.*, td3 or sac$"):
        environments.require_actions(environments.make("Pendulum-v1", 0), "discrete")


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "LunarLanderContinuous-v3"])  # gym has v2
def test_an_environment_of_gymnasiums_is_played_and_shown(env_id, capfd):
    env = environments.make(env_id, 0, "rgb_array")
    state_dim, action_dim, bound = environments.dimensions(env)
    assert (state_dim, action_dim) == ((8, 4) if bound is None else (8, 2))
    state, _ = env.reset()
    for _ in range(20):
        state, *_ = env.step(1 if bound is None else np.array([9, -9], np.float32))
    assert state.shape == (8,) and np.isfinite(state).all()
    assert env.render().ndim == 3 and env.render().std() > 1 and capfd.readouterr().err == ""


def test_gymnasium_serves_ids_that_gym_has_not(monkeypatch):
    class NoSuch(Exception):
        DependencyNotInstalled = type("DependencyNotInstalled", (Exception,), {})

    def make(env_id):
        if env_id != "OnlyThere-v0":
            raise NoSuch
        env = Echo([-1, -1], [1, 1])
        env.reset = lambda seed=None: (np.zeros(2), {})
        return env

    fake = types.SimpleNamespace(
        make=make,
        registry={"OnlyThere-v0": None},
        error=types.SimpleNamespace(Error=NoSuch, DependencyNotInstalled=NoSuch.DependencyNotInstalled),
    )
    monkeypatch.setitem(sys.modules, "gymnasium", fake)
    for render_mode in (None, "rgb_array"):  # which it does not take
        env = environments.make("OnlyThere-v0", 0, render_mode)
        assert env.step(np.array([7.0, 0.5]))[0].tolist() == [1.0, 0.5]
    with pytest.raises(UserError, match="OnlyThere-v0"):
        environments.make("OnlyHere-v0", 0)


def test_pendulum_renders_after_a_float32_action():
    env = environments.make("Pendulum-v1", 0, "rgb_array")
    env.step(np.array([1.0], np.float32))
    assert env.render().shape == (500, 500, 3)


@pytest.mark.parametrize("env_id", ["LunarLanderContinuous-v2", "BipedalWalker-v3"])
def test_box2d_takes_the_actions(env_id):
    env = environments.make(env_id, 0)
    for _ in range(20):
        state, *_ = env.step(np.ones(env.action_space.shape, np.float32))
    assert np.isfinite(state).all()


@pytest.mark.parametrize("algorithm", ["reinforce", "ac", "a2c", "a3c", "trpo", "ppo", "acktr"])
def test_first_weights_are_orthogonal_and_a_first_policy_is_even(algorithm):
    agent_module = importlib.import_module(f"{algorithm}.agent")
    agents = {
        "reinforce": lambda: agent_module.PolicyGradient(4, 3, hidden=(64,), baseline="value"),
        "ac": lambda: agent_module.ActorCritic(4, 3, hidden=(64,)),
        "a3c": lambda: ACNet("", 4, 3, None, hidden=(64,)),
    }
    agent = agents.get(algorithm, lambda: getattr(agent_module, algorithm.upper())(4, 3, None, hidden=(64,)))()
    for name, gain in (("actor", 0.01), ("critic", 1.0)):
        model = getattr(agent, name)
        first, b, last, c = [w.numpy() for w in getattr(model, "model", model).all_weights]
        assert is_orthogonal(first, 2**0.5) and is_orthogonal(last, gain), name
        assert not b.any() and not c.any()


@pytest.mark.parametrize("episodes, drawn", [(549, "running (0.9 / 0.1)"), (600, "mean of 12 episodes")])
def test_the_curve_of_a_long_run_is_a_mean_of_episodes(monkeypatch, tmp_path, episodes, drawn):
    """Each point is drawn at the last of its episodes."""
    rows = [(i, 10 * i, float(i % 7), float(i), 0.1 * i) for i in range(1, episodes + 1)]
    config = types.SimpleNamespace(algorithm="ppo", env="X-v0", image_file=lambda suffix: tmp_path / f"x{suffix}")
    figures = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, dpi: figures.append(figure) or path.touch()
    )
    Training._plot(types.SimpleNamespace(rows=rows, config=config, running=0.9))
    episode, curve = figures[0].axes[0].lines
    np.testing.assert_array_equal(episode.get_xydata(), [row[1:3] for row in rows])
    assert curve.get_label() == drawn
    if episodes == 549:
        np.testing.assert_array_equal(curve.get_xydata(), [(row[1], row[3]) for row in rows])
    else:
        expected = [(rows[i][1], np.mean([row[2] for row in rows[i - 11 : i + 1]])) for i in range(11, 600)]
        np.testing.assert_allclose(curve.get_xydata(), expected, rtol=1e-9)


# compiling


@pytest.mark.xla
@pytest.mark.parametrize("choice, expected", [("0", False), ("1", True)])
def test_environment_variable_decides_on_xla(monkeypatch, choice, expected):
    compiling = importlib.import_module("common.compiling")
    monkeypatch.setenv("JIT_COMPILE", choice)
    compiling.xla_works.cache_clear()
    assert compiling.xla_works() is expected
    compiling.xla_works.cache_clear()


@pytest.mark.xla
@pytest.mark.parametrize("error", [tf.errors.UnimplementedError(None, None, ""), ValueError(), RuntimeError()])
def test_a_tensorflow_without_xla_is_noticed(monkeypatch, error):
    def function(*_, **__):
        raise error

    compiling = importlib.import_module("common.compiling")
    monkeypatch.delenv("JIT_COMPILE", raising=False)
    monkeypatch.setattr(tf, "function", function)
    compiling.xla_works.cache_clear()
    assert compiling.xla_works() is False
    compiling.xla_works.cache_clear()


@pytest.mark.xla
def test_without_xla_an_update_gives_the_same_result(monkeypatch):
    compiling, function = importlib.import_module("common.compiling"), tf.function
    asked, results = [], []

    def record(body, jit_compile, **settings):
        asked.append(jit_compile)
        return function(body, jit_compile=jit_compile, **settings)

    for choice in "01":
        monkeypatch.setenv("JIT_COMPILE", choice)
        compiling.xla_works.cache_clear()
        agent = PPO(3, 1, np.ones(1, np.float32), hidden=(8,), seed=1)
        for i in range(128):
            state = np.sin(np.arange(3) + i)
            agent.store_transition(state, agent.get_action(state), state[0])
        agent.finish_path(state, False)
        monkeypatch.setattr(tf, "function", record)
        agent.update()
        monkeypatch.undo()
        results.append([weight.numpy() for weight in agent.actor_weights])
    compiling.xla_works.cache_clear()
    assert asked == [False, True]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_one_compiled_function_for_each_shape_type_and_constant():
    class Doubler:
        traces = 0

        @compiled
        def scale(self, x, factor):
            self.traces += 1
            return factor * x

    doubler = Doubler()
    for x in (np.ones(2), np.arange(2.0), np.ones(3), np.ones(2, np.float32)):
        np.testing.assert_array_equal(doubler.scale(x, 2), 2 * x)
    assert doubler.traces == 3
    np.testing.assert_array_equal(doubler.scale(np.ones(2), 5), [5, 5])
    assert doubler.traces == 4
    assert Doubler().__dict__ == {}  # another object has functions of its own


class Power:
    """Settings of its own and of a part; `compiled` once traced them as constants."""

    class Part:
        def __init__(self, shift=0.0):
            self.shift = shift

    def __init__(self, base=2.0, exponent=3, negative=False):
        self.base, self.exponent, self.negative, self.traces = base, exponent, negative, 0
        self.part = self.Part()

    @compiled
    def power(self, x):
        self.traces += 1
        for _ in range(self.exponent):
            x *= self.base
        return self.part.shift - x if self.negative else self.part.shift + x


def test_settings_count_as_they_are_at_the_call():
    power, one = Power(), np.float32(1)
    assert power.power(one).numpy() == 8
    power.base = 3.0
    assert power.power(one).numpy() == 27
    power.part.shift = 0.5
    assert power.power(one).numpy() == 27.5
    assert power.traces == 1  # floats are data: a setting that changes at every update compiles nothing anew
    power.exponent = 2
    assert power.power(one).numpy() == 9.5
    power.negative = True
    assert power.power(one).numpy() == -8.5
    assert power.traces == 3
    assert (power.base, power.part.shift) == (3.0, 0.5)  # numbers again


def generators(value, seen):
    """All random generators in an agent, its parts and environments, by identity."""
    if id(value) in seen or isinstance(value, type):
        return {}
    seen.add(id(value))
    if isinstance(value, np.random.Generator):
        return {id(value): value}
    if isinstance(value, gym.Env):
        return generators(value.unwrapped.np_random, seen)
    if isinstance(value, (list, tuple)):
        inner = value
    elif type(value).__module__.split(".")[0] in ALGORITHMS:
        inner = vars(value).values()
    else:
        return {}
    return {key: each for part in inner for key, each in generators(part, seen).items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agent_and_environment_draw_from_different_streams(monkeypatch, tmp_path, algorithm):
    """gym seeds a generator with the run's seed; an agent that does so too acts by the numbers of the start state."""
    main, handed = importlib.import_module(f"{algorithm}.main"), []
    monkeypatch.setattr(main, "train", lambda *arguments: handed.extend(arguments[1:]))
    monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--seed", "3", "--out", str(tmp_path)])
    main.main()
    found = generators(handed, set()).values()
    streams = [str(each.bit_generator.seed_seq.entropy) for each in found]
    assert "3" in streams and len(streams) > 1 and len(set(streams)) == len(streams)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_seed_is_another_run_for_all_that_draws(monkeypatch, tmp_path, algorithm):
    main, streams, first = importlib.import_module(f"{algorithm}.main"), [], []
    for seed in "3", "4":
        handed = []
        monkeypatch.setattr(main, "train", lambda *arguments, handed=handed: handed.extend(arguments[1:]))
        monkeypatch.setattr(sys, "argv", ["main.py", "--train", "--seed", seed, "--out", str(tmp_path)])
        main.main()
        streams.append({str(each.bit_generator.seed_seq.entropy) for each in generators(handed, set()).values()})
        handed[0].save(tmp_path / seed)
        files = [np.load(path) for path in sorted((tmp_path / seed).glob("*.npz"))]
        first.append([file[key] for file in files for key in file.files if key.endswith("/weights")])
    assert not streams[0] & streams[1]
    assert first[0] and all((other != W).any() for W, other in zip(*first, strict=True))


@pytest.mark.parametrize(
    "agent",
    [
        lambda: A2C(3, 2, np.ones(2, np.float32), hidden=(4,)),
        lambda: ACKTR(3, 2, np.ones(2, np.float32), hidden=(4,)),
        lambda: ACNet("net", 3, 2, np.ones(2, np.float32), hidden=(4,)),
        lambda: PPO(3, 2, np.ones(2, np.float32), hidden=(4,)),
        lambda: TRPO(3, 2, np.ones(2, np.float32), hidden=(4,)),
        lambda: DDPG(2, 3, np.ones(2, np.float32), hidden=(4,), var=0.01, memory_capacity=9),
    ],
)
def test_each_dimension_has_its_own_noise(agent):
    agent = agent()
    act = agent.act if isinstance(agent, TRPO) else agent.get_action
    actions = np.array([act(np.zeros(3)) for _ in range(2000)])
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.1


# normalising


def test_statistics_are_those_of_all_states_seen():
    states = np.random.default_rng(0).normal([0, 5, -3], [1, 2, 0.1], (1000, 3))
    normaliser = Normaliser(3)
    for part in np.split(states, [1, 17, 400]):
        normaliser.update(part)
    np.testing.assert_allclose(normaliser.mean, states.mean(0))
    np.testing.assert_allclose(normaliser.var, states.var(0))
    assert normaliser.count == 1000
    scaled = normaliser(states)
    np.testing.assert_allclose(scaled, (states - states.mean(0)) / states.std(0), rtol=1e-4, atol=1e-6)
    assert scaled.dtype == np.float32
    assert normaliser(states[0]).shape == (3,)


def test_states_far_from_the_mean_are_cut_at_ten_deviations():
    normaliser = Normaliser(1)
    normaliser.update(np.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(normaliser(np.array([[1e9], [-1e9], [3.0]])), [[10], [-10], [3]], rtol=1e-5)


@pytest.mark.parametrize("agent", [A2C, ACKTR])
def test_without_normalising_states_stay_as_they_are(agent):
    state, rng = np.float32([[1, -20, 30]]), np.random.default_rng(0)
    seen, actions = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4, 3), (5, 4, 1)))
    for off in (False, True):
        made = agent(3, 1, np.float32([2]), hidden=(8,), no_normalising=off)
        made.update(seen, actions, np.ones((5, 4), np.float32), np.zeros((5, 4), np.float32))
        assert np.allclose(made.policy(state), made.actor(state), atol=1e-5) is off


@pytest.mark.parametrize("agent", [A2C, partial(ACNet, "Global_Net"), ACKTR])
def test_weights_of_normalised_states_are_not_those_of_raw_ones(agent, tmp_path):
    for off in (True, False):
        made, other = (agent(3, 1, np.float32([2]), hidden=(8,), no_normalising=each) for each in (off, not off))
        made.save(tmp_path)
        with pytest.raises(UserError, match="holds another network: its weights differ in count, mean, var"):
            other.load(tmp_path)


def test_a_normaliser_that_is_off_hands_states_on():
    normaliser = Normaliser(1, off=True)
    normaliser.update(np.array([[-1.0], [3.0]]))
    states = normaliser(np.array([[1e9], [-3.0]]))
    assert states.dtype == np.float32 and normaliser.count == 0
    np.testing.assert_array_equal(states, np.float32([[1e9], [-3.0]]))


# the rest


def test_range_messages():
    assert 0.0 in Range(0, 1) and 1.5 not in Range(0, 1) and 0 not in Range(above=0) and 1e-9 in Range(above=0)
    assert [str(Range(0, 1)), str(Range(above=0)), str(Range(1))] == ["between 0 and 1", "greater than 0", "at least 1"]
    assert str(Range(above=0, high=1)) == "greater than 0 and at most 1"
    assert 1.0 in Range(above=0, high=1) and 0.0 not in Range(above=0, high=1) and 1.5 not in Range(above=0, high=1)


def test_quiet_holds_back_what_c_code_writes_and_shows_it_on_failure(capfd):
    with quiet():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyError), quiet():
        os.write(2, b"reason\n")
        raise KeyError
    assert "reason" in capfd.readouterr().err


def test_quiet_holds_back_what_python_writes_where_stderr_is_not_the_descriptor(monkeypatch):
    """As in a notebook."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with quiet():
        print("noise", file=sys.stderr)
    print("after", file=sys.stderr)
    assert sys.stderr.getvalue() == "after\n"


def test_with_a_display_a_window_opens_and_a_film_is_made_only_if_asked_for(monkeypatch, tmp_path):
    modes, make = [], environments.make

    def windowless(env_id, seed, mode=None):
        modes.append(mode)
        return make(env_id, seed, "rgb_array")

    monkeypatch.setattr(environments, "has_display", lambda: True)
    monkeypatch.setattr(environments, "make", windowless)
    for record in None, tmp_path / "film.gif":
        config = Options(env="CartPole-v1", test_episodes=2, out=tmp_path, record=record)
        assert len(playing.play(config, lambda state: 0)) == 2
    assert modes == ["human", "rgb_array"] and list(tmp_path.iterdir()) == [tmp_path / "film.gif"]


def test_an_environment_that_takes_no_render_mode_is_played_all_the_same(tmp_path, capsys, monkeypatch):
    class Blind(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)

        def __init__(self):
            pass

        def reset(self, **_):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 3.0, True, False, {}

    gym.register("Blind-v0", entry_point=Blind)
    monkeypatch.delenv("DISPLAY", raising=False)
    config = Options(env="Blind-v0", test_episodes=2, record=tmp_path / "film.gif")
    assert playing.play(config, lambda state: 0) == [3.0, 3.0]
    assert "Blind-v0 can't be shown" in capsys.readouterr().out and not config.record.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="DISPLAY")
def test_a_display_that_is_gone_is_no_display(monkeypatch):
    for name in ("WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    assert not environments.has_display()


@pytest.mark.parametrize("first", [16, 17])
def test_a_thin_line_is_still_there_in_a_gif_of_half_the_size(tmp_path, first):
    """Leaving out every second row lost CartPole's track."""
    frame = np.full((40, 60, 3), 255, np.uint8)
    frame[first] = 0
    playing.write_film(tmp_path / "film.gif", [frame] * 4, 20)
    picture = imageio.v3.imread(tmp_path / "film.gif", index=0)[..., :3].astype(int)
    assert picture.shape == (20, 30, 3)
    assert abs(picture[8] - 128).max() <= 4 and picture[7].min() > 250 and picture[9].min() > 250


def test_a_gif_ends_before_it_has_a_million_bytes(tmp_path):
    """Noise, of which pictures of half the size have 15 KB each."""
    frames = list(np.random.default_rng(0).integers(0, 256, (160, 300, 300, 3), np.uint8))
    playing.write_film(tmp_path / "film.gif", frames, 20)
    assert 800_000 < (tmp_path / "film.gif").stat().st_size <= 1_000_000


def test_a_frame_too_large_for_a_gif_is_one_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(playing, "GIF_BYTES", 100)
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8))
    playing.write_film(tmp_path / "film.gif", frames, 20)
    assert len(imageio.mimread(tmp_path / "film.gif")) == 1


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
def test_a_film_keeps_no_frame_of_full_size(tmp_path, name):
    """Of a game of Pong there are 12,000, of 0.1 MB each."""
    taken = []

    def frames():
        for i in range(20):
            frame = np.full((40, 60, 3), 10 * i, np.uint8)
            taken.append(weakref.ref(frame))
            assert sum(each() is not None for each in taken) <= 2  # this one and the one before
            yield frame

    playing.write_film(tmp_path / name, frames(), 20)
    assert len(taken) == 20 and len(imageio.mimread(tmp_path / name)) == (20 if name == "film.mp4" else 10)


def test_a_gif_has_enough_and_the_episode_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(playing, "GIF_FRAMES", 3)
    config = Options(env="CartPole-v1", test_episodes=2, record=tmp_path / "film.gif")
    rewards = playing.play(config, lambda state: int(state[2] + state[3] > 0))
    assert min(rewards) > 50 and len(imageio.mimread(config.record)) == 3


def test_an_episode_that_is_stopped_leaves_the_film_before_it(tmp_path):
    def frames():
        yield np.zeros((40, 60, 3), np.uint8)
        raise KeyboardInterrupt

    for name in "film.mp4", "film.gif":
        (tmp_path / name).write_text("earlier")
        with pytest.raises(KeyboardInterrupt):
            playing.write_film(tmp_path / name, frames(), 20)
        assert (tmp_path / name).read_text() == "earlier"
    assert len([*tmp_path.iterdir()]) == 2


def test_films(tmp_path):
    frames = [np.full((40, 60, 3), 10 * i, np.uint8) for i in range(20)]
    playing.write_film(tmp_path / "a/film.gif", frames, 20)
    playing.write_film(tmp_path / "a/film.mp4", frames, 20)
    gif = Image.open(tmp_path / "a/film.gif")
    assert (gif.format, gif.size, gif.n_frames, gif.info["duration"]) == ("GIF", (30, 20), 10, 100)  # every other one
    film = imageio.get_reader(tmp_path / "a/film.mp4").get_meta_data()
    assert (film["size"], film["fps"], film["duration"]) == ((60, 40), 20, 1.0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't write"):
        playing.write_film(tmp_path / "file/film.gif", frames, 20)
