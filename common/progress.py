"""What a training run leaves behind: the line on the terminal, the table of episodes, the curve, the weights."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import checkpoint, weights
from common.command import Options, UserError
from common.files import replacing

NETWORKS = "mean", "act", "normalising", "no_normalising"  # settings that change what the same weights compute
SAVE_EVERY = 30.0  # seconds, at least, between two saves while training goes on (best_of's weights come in between)


class Training:
    """One training run: `while run.goes_on()` is its loop, `run.log(...)` closes an episode.

    `run.log_update(...)` takes what an update reports. A row of updates.csv is an episode's end after at least one
    update: the mean, name by name, of all reports since the row before.

    Leaves in config.model_folder the agent's weights, config.json, episodes.csv, updates.csv and what --resume
    needs; the curve goes to image/. All of it is also written at Ctrl-C, which takes effect at the
    end of the episode (a second one at once).

    best_of: where the loop plays this many episodes at a time, keep the weights after the batch that ended on the
        highest running reward, not the last ones. (--resume goes on from the last ones all the same.)

    running: the part of the running reward that each episode keeps; the book's is 0.9, in some listings another.

    others: what else --resume must bring back: random generators that the run draws from, a worker, by name.

    steps: environment steps of the episodes that have ended.  episode: how many have.
    """

    def __init__(self, config: Options, agent, *envs, best_of: int = 0, running: float = 0.9, **others):
        self.config, self.agent, self.best_of, self.running = config, agent, best_of, running
        envs = {f"env_{i}": env.unwrapped.np_random for i, env in enumerate(envs)}
        self.state = {"agent": agent, **envs, **others}
        self.folder = config.model_folder
        self.rows: list[list] = []  # episode, steps, reward, running reward, seconds
        self.updates: list[dict] = []  # the rows of updates.csv
        self.reports: list[dict] = []  # what goes into the next one
        self.steps = self.episode = 0
        self.best = -np.inf  # the running reward of the weights that were written, with best_of
        self.interrupted = self.cut = False  # Ctrl-C once, twice
        self.saved = config.resume  # whether the weights in the folder are this run's
        if config.resume:
            self._resume()
        self._claim(self.folder)
        self._claim(config.image_file(".png").parent)
        self.board = _tensorboard(config.logdir) if config.logdir else None

    def __enter__(self):
        self.start = time.perf_counter() - (self.rows[-1][4] if self.rows else 0)
        self._plan_save(0.0)
        budget, unit = (self.config.steps, "step") if self.config.steps else (self.config.episodes, "episode")
        self.bar = tqdm(
            total=budget,
            initial=min(self.steps if unit == "step" else self.episode, budget),
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            ascii=sys.platform == "win32" or None,  # its older consoles draw blocks two columns wide; None: tqdm looks
            bar_format="{desc}|{bar}| {percentage:.0f}%, {remaining} left{postfix}",  # the result fits in 80 columns
            desc="Training ",
            unit=unit,
        )
        self.handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def goes_on(self, solved: float | None = None) -> bool:
        """Whether another episode is to be played: not beyond the budget or a running reward of `solved`.

        Saves what is due: nothing is half done between two episodes.
        """
        try:
            ended = self.best_of and len(self.rows) // self.best_of * self.best_of  # episodes of whole batches
            if ended and (running := self.rows[ended - 1][3]) >= self.best:
                self._save_weights()
                self.best = running
            if time.perf_counter() > self.next_save:
                self.save()
        except OSError as error:  # a full disk; on Windows a table that another program has open
            self.bar.write(f"can't save: {_reason(error)}; training goes on", file=sys.stderr)
            self._plan_save(0.0)
        steps, episodes = self.config.steps, self.config.episodes
        within = (not steps or self.steps < steps) and (not episodes or self.episode < episodes)
        is_solved = solved is not None and bool(self.rows) and self.rows[-1][3] >= solved
        return within and not is_solved and not self.interrupted

    def log_update(self, *reports: dict[str, float]) -> None:
        """Take what an update did, numbers by name; or what several did, a dict each. None: it says nothing."""
        self.reports.extend(filter(None, reports))

    def log(self, episode_reward: float, length: int) -> None:
        """Close an episode: its reward is the sum of the environment's own rewards over `length` steps."""
        self.episode += 1
        self.steps += int(length)  # a resumed worker counts in NumPy's
        running = self.rows[-1][3] if self.rows else episode_reward
        running += (1 - self.running) * (episode_reward - running)
        seconds = time.perf_counter() - self.start
        self.rows.append([self.episode, self.steps, float(episode_reward), float(running), seconds])
        if self.bar.disable:
            budget = f"/{self.config.episodes}" if self.config.episodes else ""
            print(
                f"Training | Episode: {self.episode}{budget} | Episode Reward: {episode_reward:.4f}"
                f" | Running Time: {seconds:.4f}"
            )
        else:
            self.bar.set_description_str(
                f"Episode {self.episode}: {episode_reward:.1f}, running {running:.1f} ", refresh=False
            )
            self.bar.set_postfix_str(f"{self.steps / seconds:,.0f} steps/s", refresh=False)
            self.bar.update(min(self.steps if self.bar.unit == "step" else self.episode, self.bar.total) - self.bar.n)
        means = self._means()
        if means:
            self.updates.append({"steps": self.steps, **means})
        if self.board:
            self.board(self.steps, reward=episode_reward, running_reward=running, **means)

    def _means(self) -> dict[str, float]:
        """The mean of each name in the reports since the last call."""
        names = dict.fromkeys(name for report in self.reports for name in report)
        values = {name: [report[name] for report in self.reports if name in report] for name in names}
        self.reports = []
        return {name: sum(each) / len(each) for name, each in values.items()}

    def save(self) -> None:
        """Write the weights, the tables, the curve and what --resume needs."""
        start = time.perf_counter()
        if not self.best_of:
            self._save_weights()
        updates = np.array(json.dumps([self.updates, self.reports]).encode())
        best = self.best if self.best_of else -np.inf  # else the last ones have just taken the best ones' place
        settings = json.dumps(self.config.run_settings(), indent=2)
        table = dict(rows=np.array(self.rows), updates=updates, best=best, settings=np.array(settings))
        checkpoint.save(self.folder / "resume.npz", **table, **self.state)
        with replacing(self.folder / "config.json") as path:
            path.write_text(settings + "\n")
        with replacing(self.folder / "episodes.csv") as path, open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["episode", "steps", "reward", "running_reward", "seconds"])
            writer.writerows(self.rows)
        with replacing(self.folder / "updates.csv") as path, open(path, "w", newline="") as file:
            names = dict.fromkeys(["steps", *(name for row in self.updates for name in row)])
            table = csv.DictWriter(file, names, restval="nan")  # not every update takes every kind of step
            table.writeheader()
            table.writerows(self.updates)
        if self.rows:
            self._plot()
        self._plan_save(time.perf_counter() - start)

    def _plan_save(self, took: float) -> None:
        """The next one in half a minute, or later: a large replay memory may take a twentieth of the time."""
        self.next_save = time.perf_counter() + max(SAVE_EVERY, 20 * took)

    def __exit__(self, kind, error, trace):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is written now is written whole
        try:
            self._end(kind, error)
        finally:
            signal.signal(signal.SIGINT, self.handler)

    def _end(self, kind, error) -> None:
        self.bar.close()
        try:
            if kind is None:
                self.save()
            elif self.cut:  # in the middle of an episode: the run can't be resumed from here
                if not self.best_of and (self.saved or not weights.exist(self.folder)):
                    self._save_weights()
                print(f"Stopped at once; {self._kept()}")
            elif issubclass(kind, FloatingPointError):
                raise error
        except FloatingPointError as problem:
            raise FloatingPointError(f"{problem} at step {self.steps}; {self._kept()}") from None
        except OSError as error:
            raise UserError(f"can't save: {_reason(error)}; what could be written is in {self.folder}") from None
        if kind is None:
            self._report()
        if self.cut or (self.interrupted and kind is None):
            raise KeyboardInterrupt from None  # whatever TensorFlow made of the second one (TypeError while it traces)

    def _report(self) -> None:
        """What came out, where it is, and what to type next."""
        if self.rows:
            _, _, _, running, seconds = self.rows[-1]
            print(f"Running reward {running:.1f} after {self.episode} episodes, {self.steps:,} steps, {seconds:.1f} s")
        print(f"Weights and episodes.csv: {self.folder} | Curve: {self.config.image_file('.png')}")
        if self.interrupted:
            again = ["--test"] if self.config.test else []  # it is what --record films
            print(f"To go on: {command_line('--train', '--resume', *again)}")
        else:
            print(f"To watch it play: {command_line('--test')}")

    def _save_weights(self) -> None:
        self.agent.save(self.folder, self.config.hdf5)
        self.saved = True

    def _kept(self) -> str:
        """What a run that can't go on has left."""
        if not weights.exist(self.folder):
            return "nothing was saved yet"
        whose = "last good weights are" if self.saved else "weights of an earlier run are still"
        return f"the {whose} in {self.folder}"

    def _interrupt(self, *_):
        if self.interrupted:
            self.cut = True
            raise KeyboardInterrupt
        self.interrupted = True
        self.bar.write("Finishing the episode (Ctrl-C again stops at once) ...", file=sys.stderr)

    def _claim(self, folder) -> None:
        """Find out now, not after an hour of training, that the results can't be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / "writable") as path:
                path.touch()
            (folder / "writable").unlink()
        except OSError as error:
            raise UserError(f"--out: can't write to {folder} ({error.strerror})") from None

    def _resume(self) -> None:
        path = self.folder / "resume.npz"
        arrays = checkpoint.load(path, **self.state)
        rows = arrays.get("rows")
        if rows is None:
            raise UserError(f"{path} has no table of episodes: it is of an older version and can't be resumed")
        settings = self.config.run_settings()
        before = json.loads(arrays["settings"].item()) if "settings" in arrays else settings  # of an older version
        for name in NETWORKS:
            if name in settings and before.get(name, settings[name]) != settings[name]:
                raise UserError(f"{path} is of a run with other settings: --{name.replace('_', '-')} differs")
        for episode, steps, *rest in rows.tolist():
            self.rows.append([int(episode), int(steps), *rest])
        self.episode, self.steps = self.rows[-1][:2] if self.rows else (0, 0)
        self.best = float(arrays.get("best", -np.inf))
        if "updates" in arrays:  # not in a run of an older version
            self.updates, self.reports = json.loads(arrays["updates"].item())

    def _plot(self) -> None:
        from matplotlib.figure import Figure  # only now: the first step need not wait for it

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        _, steps, reward, running, _ = zip(*self.rows, strict=True)
        axes.plot(steps, reward, color="0.75", linewidth=0.8, label="episode")
        if (window := len(self.rows) // 50) > 10:  # of a long run, the running reward would be one blue band
            mean = np.convolve(reward, np.full(window, 1 / window), "valid")
            axes.plot(steps[window - 1 :], mean, color="C0", label=f"mean of {window} episodes")
        else:
            axes.plot(steps, running, color="C0", label=f"running ({self.running:g} / {1 - self.running:g})")
        axes.set(
            xlabel="environment steps", ylabel="episode reward", title=f"{self.config.algorithm}, {self.config.env}"
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        with replacing(self.config.image_file(".png")) as path:
            figure.savefig(path, dpi=100)


def _reason(error: OSError) -> str:
    return f"{error.filename2 or error.filename or 'a file'} ({error.strerror or error})"


def command_line(*flags: str) -> str:
    """This command with these flags in place of --train, --test, --resume and --render, as one would type it."""
    python, here = Path(sys.executable), Path.cwd()
    if os.path.normcase(shutil.which("python") or "") == os.path.normcase(sys.executable):  # the environment is active
        python = "python"
    elif python.is_relative_to(here):
        python = python.relative_to(here)
    given = [word for word in sys.argv[1:] if word not in ("--train", "--test", "--resume", "--render")]
    join = shlex.join if os.name == "posix" else subprocess.list2cmdline
    return join([str(python), sys.argv[0], *flags, *given])


def _tensorboard(logdir):
    try:
        import tensorboard  # noqa: F401  tf.summary needs it
    except ImportError:
        raise UserError("--logdir needs TensorBoard: pip install tensorboard") from None
    import tensorflow as tf

    try:
        writer = tf.summary.create_file_writer(str(logdir))
    except tf.errors.OpError as error:
        raise UserError(f"--logdir: can't write to {logdir} ({error.message})") from None

    def write(step: int, **values: float) -> None:
        with writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    return write
