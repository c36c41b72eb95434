"""Does mine learn normally? Training runs, drawn over the band of other seeds that a folder ships.

python common/compare.py ppo                              the run in model/ppo/Pendulum-v1
python common/compare.py td3 --out model/a model/b        several runs, each of its own --out

Says for each run where its running reward lies, and writes image/<algorithm>_<environment>_compared.png. A run may be
under way: its table is written anew while it goes on.
"""

import csv
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":  # works from any folder; this one's modules are common's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import command, environments  # the first to say that this Python lacks the packages
from common.command import UserError

ROOT = Path(__file__).resolve().parents[1]

import numpy as np
import tyro


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw training runs over the band of the same command with seeds 0 to 4, or with fewer where it takes long."""

    algorithm: tyro.conf.Positional[str]
    """The folder: ppo, sac, ..."""
    env: str = ""
    """Environment id, the folder's default if it isn't given."""
    out: tuple[Path, ...] = (Path("."),)
    """The --out of each run; the picture goes to image/ in the first."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run by episodes.

    steps: float64 [episodes], environment steps at the end of each.  running: float64 [episodes], the running reward,
    to two decimals.  seconds: float64 [episodes], since the launch.
    """

    name: str
    steps: np.ndarray
    running: np.ndarray
    seconds: np.ndarray

    def at(self, steps: np.ndarray) -> np.ndarray:
        """The running reward after so many steps: of the last episode that had ended, or else of the first."""
        return self.running[np.maximum(np.searchsorted(self.steps, steps, side="right") - 1, 0)]


@dataclasses.dataclass(frozen=True)
class Band:
    """Running rewards of one seed or several: float64 [points, seeds], after steps: float64 [points].

    A seed that stopped early, as it was solved, keeps its last one.
    """

    steps: np.ndarray
    running: np.ndarray

    def place(self, run: Run) -> str:
        """In words: the shares of the band's points, up to where the run is, at which it is within, below and above.

        Raises UserError if the run has not come to the first point.
        """
        points = np.count_nonzero(self.steps <= run.steps[-1])
        if not points:
            begun = f"after {run.steps[-1]:,.0f} steps (the band begins at {self.steps[0]:,.0f})"
            raise UserError(f"{run.name}: too early to say {begun}")
        low, high = self.running[:points].min(1), self.running[:points].max(1)
        mine, now = run.at(self.steps[:points]), run.running[-1]
        below, above = (mine < low).mean(), (mine > high).mean()
        where = "below" if now < low[-1] else "above" if now > high[-1] else "within"
        return (
            f"{run.name}: within the band at {1 - below - above:.0%} of {points} points, below at {below:.0%}, above at"
            f" {above:.0%}; after {run.steps[-1]:,.0f} steps {where}: {now:.1f} (band {low[-1]:.1f} to {high[-1]:.1f})"
        )


def read_run(path: Path, name: str) -> Run:
    """A run from its episodes.csv. Raises UserError if that is missing, damaged or has no episode yet."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        columns = [np.array([float(row[key]) for row in rows]) for key in ("steps", "running_reward", "seconds")]
    except FileNotFoundError:
        raise UserError(f"there is no {path}: run with --train first, or name its folder by --out") from None
    except (OSError, csv.Error, KeyError, TypeError, ValueError):  # unreadable, no header, a short line, no number
        raise UserError(f"{path} is damaged or no table of episodes") from None
    if not rows:
        raise UserError(f"{path} has no episode yet")
    steps, running, seconds = columns
    return Run(name, steps, running.round(2), seconds)


def read_band(algorithm: str, env: str) -> Band:
    """The band that the folder ships. Raises UserError if it has none of this environment."""
    path = ROOT / algorithm / "bands" / f"{env}.csv"
    if not path.exists():
        shipped = ", ".join(sorted(path.stem for path in path.parent.glob("*.csv")))
        raise UserError(f"{algorithm} has no band for {env} (shipped: {shipped})")
    steps, *running = np.loadtxt(path, delimiter=",", skiprows=1, unpack=True)
    return Band(steps, np.transpose(running))


def draw(path: Path | BinaryIO, title: str, band: Band, runs: Sequence[Run] = ()) -> None:
    """Write the picture of the band and the runs, to a path or an open file.

    The axis of time is the first run's, at its mean speed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    seeds, median = band.running.shape[1], "seed 0"
    if seeds > 1:
        label, median = f"{seeds} seeds, lowest to highest", "their median"
        axes.fill_between(band.steps, band.running.min(1), band.running.max(1), color="0.85", linewidth=0, label=label)
    axes.plot(band.steps, np.median(band.running, 1), color="0.4", label=median)
    for run in runs:
        axes.plot(run.steps, run.running, linewidth=1.2, label=run.name)
    end = max([band.steps[-1], *(run.steps[-1] for run in runs)])
    axes.set(xlabel="environment steps", ylabel="running reward", title=title, xlim=(0, end))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    if runs:
        unit, size = ("minutes", 60) if runs[0].seconds[-1] >= 300 else ("seconds", 1)
        speed = runs[0].steps[-1] / runs[0].seconds[-1] * size
        time = axes.secondary_xaxis("top", functions=(lambda steps: steps / speed, lambda time: time * speed))
        time.set_xlabel(f"{unit} ({runs[0].name})")
    figure.savefig(path, dpi=100)


def main():
    options = command.read(Options, sys.argv[1:])
    folders = sorted(path.parent.name for path in ROOT.glob("*/bands"))
    if options.algorithm not in folders:
        raise UserError(f"there is no band of '{options.algorithm}' (there are: {', '.join(folders)})")
    config = importlib.import_module(f"{options.algorithm}.main").Config
    env = environments.current_id(options.env or config.env)
    band = read_band(options.algorithm, env)
    runs = []
    for out in options.out:
        runs.append(read_run(config(env=env, out=out).model_folder / "episodes.csv", out.name or "your run"))
        print(band.place(runs[-1]))
    path = config(env=env, out=options.out[0]).image_file("_compared.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, f"{options.algorithm}, {env}", band, runs)
    except OSError as error:
        raise UserError(f"can't write {path} ({error.strerror})") from None
    print(f"Picture: {path}")


if __name__ == "__main__":
    command.run(main)
