"""What makes a start short: XLA's cache on the disk, and modules that wait until they are asked for."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from common import cache, loading

SMALL = ["--train", "--steps", 600, "--batch-size", 200, "--hidden", 8]  # 2 updates at least


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty cache of this test's own; TensorFlow was not told of it."""
    monkeypatch.setenv("TF_XLA_FLAGS", loading.FLAGS)
    monkeypatch.setenv("XLA_CACHE", str(tmp_path / "cache"))
    cache.folder.cache_clear()
    yield cache.folder()
    cache.folder.cache_clear()


def files(folder: Path) -> dict:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def weights(out: Path) -> list[bytes]:
    return [(out / "model/ppo/Pendulum-v1" / name).read_bytes() for name in ("actor.npz", "critic.npz")]


def damage(path: Path, kind: str) -> None:
    """'inside': the file is whole, and what TensorFlow reads is not."""
    if kind == "inside":
        np.savez(path, **{name: np.roll(array, 99) for name, array in np.load(path).items()})
        return
    data = bytearray(path.read_bytes())
    if kind == "one byte":
        data[len(data) // 2] ^= 255
    path.write_bytes({"one byte": data, "half": data[: len(data) // 2], "nothing": b"", "text": b"rubbish"}[kind])


# the cache


def test_results_are_the_same_bits_without_a_cache_with_a_new_an_old_and_a_damaged_one(command, tmp_path):
    """The new one is written by two processes at once."""
    folder = tmp_path / "cache"

    def start(out):
        words = [sys.executable, ROOT / "ppo/main.py", *map(str, SMALL), "--out", out]
        return subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"XLA_CACHE": str(folder)}, stderr=-1)

    both = [start("new"), start("at once")]
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    written = files(folder)
    assert written and all(path.suffix == ".npz" for path in written)  # no temporary file is left
    assert command("ppo", *SMALL, "--out", "old", XLA_CACHE=str(folder)).returncode == 0
    assert files(folder) == written  # all was there: nothing was compiled
    assert command("ppo", *SMALL, "--out", "none", XLA_CACHE="0").returncode == 0
    expected = weights(tmp_path / "none")
    assert all(weights(tmp_path / out) == expected for out in ("new", "at once", "old"))

    for kind in ("one byte", "inside"):
        for path in written:
            damage(path, kind)
        damaged = files(folder)
        result = command("ppo", *SMALL, "--out", kind, XLA_CACHE=str(folder))
        assert (result.returncode, result.stderr) == (0, "")
        assert weights(tmp_path / kind) == expected
        assert all(content != damaged[path] for path, content in files(folder).items())  # they have been replaced


def test_a_folder_that_cannot_be_written_is_no_folder(command, tmp_path):
    (tmp_path / "file").write_text("a file")
    result = command("ppo", *SMALL, XLA_CACHE=str(tmp_path / "file"))
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """No file may grow past 60 kB: there is room for the weights and the curve, and none for what XLA compiles."""
    folder = tmp_path / "cache"
    script = (
        "import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        f"sys.argv = {['main.py', *map(str, SMALL)]}\n"
        f"runpy.run_path({str(ROOT / 'ppo/main.py')!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"XLA_CACHE": str(folder)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert files(folder) == {} and all(weights(tmp_path))


def forget() -> None:
    if tf.io.gfile.exists(f"{loading.MEMORY}/entry.pb"):
        tf.io.gfile.remove(f"{loading.MEMORY}/entry.pb")


def entry(content: bytes) -> set[str]:
    """Put a file into TensorFlow's folder, as XLA does; returns its name."""
    tf.io.gfile.makedirs(loading.MEMORY)
    forget()  # TensorFlow would append
    with tf.io.gfile.GFile(f"{loading.MEMORY}/entry.pb", "wb") as file:
        file.write(content)
    return {"entry.pb"}


@pytest.mark.parametrize("kind", ["one byte", "half", "nothing", "text"])
def test_what_is_damaged_is_not_read(folder, kind):
    path, content = folder / "some.npz", bytes(range(256)) * 9
    cache._write(path, entry(content))
    forget()
    cache._read(path)
    assert cache._entry("entry.pb") == content and "entry.pb" in cache._names()
    entry(b"of another thread")
    cache._read(path)
    assert cache._entry("entry.pb") == b"of another thread"  # which may be reading it
    forget()
    damage(path, kind)
    with pytest.raises(Exception):  # noqa: B017  whatever NumPy says
        cache._read(path)
    assert "entry.pb" not in cache._names()


def test_the_oldest_files_go(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 2)
    for n in range(4):
        cache._write(folder / f"{n}.npz", entry(b"content"))
        os.utime(folder / f"{n}.npz", (1e9 + n, 1e9 + n))
    assert sorted(path.name for path in folder.iterdir()) == ["2.npz", "3.npz"]


@pytest.mark.parametrize(
    "before, off, after",
    [
        ("", "", loading.FLAGS),
        ("--tf_xla_min_cluster_size=9", "", f"--tf_xla_min_cluster_size=9 {loading.FLAGS}"),
        ("--tf_xla_persistent_cache_directory=mine", "", "--tf_xla_persistent_cache_directory=mine"),
        ("flags.txt", "", "flags.txt"),
        ("", "0", ""),
        (loading.FLAGS, "", loading.FLAGS),
    ],
)
def test_flags_of_the_users_own_are_kept(monkeypatch, before, off, after):
    monkeypatch.setenv("TF_XLA_FLAGS", before)
    monkeypatch.setenv("XLA_CACHE", off)
    loading.set_flags()
    assert os.environ["TF_XLA_FLAGS"] == after
    cache.folder.cache_clear()
    assert (cache.folder() is None) == (loading.FLAGS not in after)
    cache.folder.cache_clear()


def test_the_folder_is_the_users_and_of_this_tensorflow_and_processor(monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", loading.FLAGS)
    monkeypatch.delenv("XLA_CACHE", raising=False)
    places = []
    for version, processor in ("2.21.0", ["a"]), ("2.21.0", ["b"]), ("2.22.0", ["a"]), ("2.21.0", ["a"]):
        monkeypatch.setattr(importlib.metadata, "version", lambda _, version=version: version)
        monkeypatch.setattr(cache, "_processor", lambda processor=processor: processor)
        cache.folder.cache_clear()
        places.append(cache.folder())
    cache.folder.cache_clear()
    assert places[0] == places[3] and len(set(places)) == 3
    assert {place.parent.name for place in places} == {"policy-gradients"}


# modules that wait


def with_and_without_loading(script: str) -> list[list[str]]:
    """The lines that a script prints, whose {} imports PPO: within `loading`, silently, and without it."""
    imports = "from ppo.agent import PPO"
    outputs = []
    for each in (f"from common.loading import loading\nwith loading():\n    {imports}", imports):
        result = subprocess.run([sys.executable, "-c", script.format(each)], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stderr == "" or each == imports
        outputs.append(result.stdout.splitlines())
    return outputs


def test_what_nobody_uses_waits_and_everything_else_is_as_after_a_plain_import():
    quick, plain = with_and_without_loading(
        "import sys\n{}\n"
        "import gc\n"
        "from tensorflow.python.framework import ops\n"
        "waiting = [name for name in ('sklearn', 'matplotlib.pyplot', 'cv2', 'urllib3') if name not in sys.modules]\n"
        "print(len(waiting), gc.isenabled(), sorted(ops.gradient_registry._registry))\n"
        "import keras, tensorlayer\n"
        "from sklearn.base import BaseEstimator\n"
        "print(issubclass(keras.wrappers.SKLearnClassifier, BaseEstimator), keras.visualization.plot_image_gallery,\n"
        "      tensorlayer.utils.fit, tensorlayer.app.human_pose_estimation)"
    )
    words = [lines[0].split(maxsplit=2) for lines in (quick, plain)]
    assert [each[:2] for each in words] == [["4", "True"], ["0", "True"]]
    assert words[0][2] == words[1][2]
    assert quick[1].startswith("True <function")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has no distutils of its own")
def test_setuptools_stays_out_and_comes_without_a_warning():
    script = (
        "import sys\nfrom common.loading import loading\nwith loading():\n    from ppo.agent import PPO\n"
        "print([name for name in ('setuptools', 'pkg_resources', 'distutils') if name in sys.modules])\n"
        "import setuptools, distutils\nprint('setuptools' in distutils.__file__)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\nTrue\n", "")


def test_tensorlayer_looks_up_its_callers_without_their_source():
    (args, looked), (plain_args, plain_looked) = with_and_without_loading(
        "import inspect\n{}\n"
        "looked, find = [], inspect.findsource\n"
        "inspect.findsource = lambda code: looked.append(code) or find(code)\n"
        "print([layer.layer_args for layer in PPO(3, 1, 2.0).actor.all_layers])\n"  # what it takes from its callers
        "print(len(looked))"
    )
    assert args == plain_args and "n_units" in args
    assert int(looked) == 0 < int(plain_looked)


class Loaded(Exception):
    """Where an agent would be imported."""


@pytest.mark.parametrize(
    "folder, flags, one",
    [
        ("ac", "--env CartPole-v1", True),
        ("reinforce", "--env CartPole-v1", True),
        ("reinforce", "--env Pong-v0", False),
        ("a2c", "--env CartPole-v1", True),
        ("a2c", "--env Pong-v0", False),  # layers of 64 units behind convolutions
        ("a3c", "--env CartPole-v1", False),  # its workers are threads themselves
        ("trpo", "--env Pendulum-v1", False),  # goes through whole batches
        ("ppo", "--env Pendulum-v1", True),
        ("ppo", "--env Pendulum-v1 --hidden 64 65", False),
        ("acktr", "--env Pendulum-v1", True),
        ("ddpg", "--env Pendulum-v1", True),
        ("ddpg", "--env Pendulum-v1 --hidden", True),  # no hidden layer
        ("td3", "--env Pendulum-v1", True),
        ("sac", "--env Pendulum-v1", True),
        ("sac", "--env Pendulum-v1 --hidden-dim 65", False),
    ],
)
def test_small_networks_get_one_thread(monkeypatch, folder, flags, one):
    main = importlib.import_module(f"{folder}.main")

    def load(config=None):
        assert (config is not None and loading._one_thread(config)) == one
        raise Loaded

    monkeypatch.setattr(main, "loading", load)
    monkeypatch.setattr(sys, "argv", ["main.py", "--test", *flags.split()])
    with pytest.raises(Loaded):
        main.main()


@pytest.mark.parametrize(
    "units, variable, threads", [(64, {}, 1), (65, {}, 0), (64, {"TF_NUM_INTRAOP_THREADS": "2"}, 0)]
)
def test_one_thread_unless_the_user_says_otherwise(units, variable, threads):
    """0: TensorFlow's own choice, or the variable's."""
    script = (
        "from types import SimpleNamespace\nfrom common.loading import loading\n"
        f"with loading(SimpleNamespace(hidden=({units},))):\n    import tensorflow as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())"
    )
    env = {key: value for key, value in os.environ.items() if key != "TF_NUM_INTRAOP_THREADS"} | variable
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (f"{threads}\n", "")


@pytest.fixture
def waiting(monkeypatch, tmp_path):
    """Write a module of the text given and import it as one of UNUSED; returns it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [loading.Later(), *sys.meta_path])

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(loading, "UNUSED", {name})
        return importlib.import_module(name)

    return write


def test_a_module_waits_until_it_is_asked_for_something(waiting, monkeypatch):
    module = waiting("waits", "import sys\nsys.waited += 1\nvalue = 5\n")
    monkeypatch.setattr(sys, "waited", 0, raising=False)
    assert module.__file__.endswith("waits.py") and sys.waited == 0  # as TensorFlow asks of all modules
    assert module.value == 5 and sys.waited == 1
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = module.other
    assert sys.waited == 1
    assert importlib.reload(module).value == 5


def test_an_error_in_a_module_that_waited_is_its_own(waiting):
    module = waiting("breaks", "import nothing_of_this_name\n")
    with pytest.raises(ImportError, match="nothing_of_this_name"):
        _ = module.value
