"""What each folder reaches: the default commands with seeds 0 to 4, one at a time, and all that is made of these runs.

make results                      all of them, 45 minutes on two cores
make results ARGS="ppo sac"       some folders
make results ARGS="ppo Pong-v0"   an environment; of those that take long, which run only when named, three seeds

Writes the lines of results/learning.csv, with them the tables of docs/results.md and of the project's README, and for
each folder and environment FOLDER/bands/ENVIRONMENT.csv and the weights of seed 0, FOLDER/pretrained/ENVIRONMENT/; of a
folder's first environment also FOLDER/curve.png; of cheetahs and ants docs/ENVIRONMENT.png, and the best run's
weights. A finished run is kept in model/runs/ and is not run again: a second call goes on where the first stopped, and
without that folder all begins anew.
"""

import importlib.metadata
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks import learning, report
from common import command, compare
from common.environments import BULLET

ROOT = report.ROOT
ENVIRONMENTS = {
    "reinforce": ["CartPole-v1", "Acrobot-v1"],
    "ac": ["CartPole-v1", "Acrobot-v1"],
    "a2c": ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"],
    "a3c": ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"],
    "trpo": ["Pendulum-v1", "CartPole-v1", "Acrobot-v1"],
    "ppo": ["Pendulum-v1", "CartPole-v1", "Acrobot-v1"],
    "acktr": ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"],
    "ddpg": ["Pendulum-v1", "MountainCarContinuous-v0"],
    "td3": ["Pendulum-v1"],
    "sac": ["Pendulum-v1"],
}
LANDER, WALKER, CHEETAH, ANT = "LunarLanderContinuous-v2", "BipedalWalker-v3", "HalfCheetah-v4", "Ant-v4"
RUNNERS = "HalfCheetah", "Ant"  # as their names begin, in MuJoCo and PyBullet
LONG = {
    "reinforce": ["Pong-v0"],
    "a2c": [WALKER, "Pong-v0", "PongPresent-v0", CHEETAH, f"{ANT}-no-unhealthy", *BULLET],
    "a3c": [WALKER, "Pong-v0", "PongPresent-v0"],
    "trpo": [WALKER, CHEETAH, ANT, *BULLET],
    "ppo": ["LunarLander-v2", LANDER, WALKER, "Pong-v0", "PongPresent-v0", CHEETAH, ANT, *BULLET],
    "acktr": [WALKER, CHEETAH, ANT, *BULLET],
    "ddpg": [WALKER, CHEETAH, ANT, *BULLET],
    "td3": [LANDER, WALKER, CHEETAH, ANT, *BULLET],
    "sac": [LANDER, WALKER, CHEETAH, ANT, *BULLET],
}
CELLS, LONG_CELLS = (
    [(folder, env) for folder, environments in each.items() for env in environments] for each in (ENVIRONMENTS, LONG)
)
SEEDS, LONG_SEEDS = range(5), range(3)
COLUMNS = [
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "LunarLander-v2",
    LANDER,
    WALKER,
    "Pong-v0",
    "PongPresent-v0",
    CHEETAH,
    ANT,
]


def run(folder: str, env: str, seed: int) -> Path:
    """Where the run's files are, and result.json with its line of the CSV; it is made if it isn't there yet."""
    kept = ROOT / "model/runs" / f"{folder}_{env}_{seed}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        commit = head()  # of the code that runs: when the run is over there may be a newer one
        with tempfile.TemporaryDirectory(dir=kept.parent) as out:
            seconds, reward = learning.run(folder, seed, ["--env", env], Path(out))
            made = Path(out) / "model" / folder / env
            steps = int(compare.read_run(made / "episodes.csv", "").steps[-1])
            line = dict(folder=folder, env=env, seed=seed, steps=steps, seconds=round(seconds, 1), reward=reward)
            line |= dict(date=time.strftime("%Y-%m-%d"), where=report.machine())
            (made / "result.json").write_text(json.dumps(line))
            config = json.loads((made / "config.json").read_text()) | {"card": card(line, commit)}
            (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            made.rename(kept)
    return kept


def head() -> str:
    """The present commit; '-dirty' follows where code is other than in it (what is made here is: weights, pages)."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("diff", "HEAD", "--name-only", "--", "*.py") else "")


def card(line: dict, commit: str) -> dict:
    """What the weights of the run that has just ended reach, and where they are from."""
    return {
        "reward": line["reward"],
        "episodes": 100,
        "command": f"python {line['folder']}/main.py --train --env {line['env']} --seed {line['seed']}",
        "steps": line["steps"],
        "commit": commit,
        "date": line["date"],
        **{name: importlib.metadata.version(name) for name in ("tensorflow", "numpy", "gym")},
    }


def band(tables: list[Path]) -> compare.Band:
    """The runs' running rewards at a hundred points up to the end of the longest."""
    runs = [compare.read_run(table, table.stem) for table in tables]
    steps = np.linspace(0, max(run.steps[-1] for run in runs), 101)[1:].round()
    return compare.Band(steps, np.stack([run.at(steps) for run in runs], 1))


def write_band(made: compare.Band, path: Path) -> None:
    """As `common/compare.py` reads it."""
    path.parent.mkdir(exist_ok=True)
    seeds = made.running.shape[1]
    header = ",".join(["steps", *(f"seed_{seed}" for seed in range(seeds))])
    rows = np.column_stack([made.steps, made.running])
    np.savetxt(path, rows, ["%d"] + ["%.2f"] * seeds, ",", header=header, comments="")


def of(lines: list[dict], folder: str, env: str) -> list[dict]:
    """The lines of one folder on one environment."""
    return [line for line in lines if (line["folder"], line["env"]) == (folder, env)]


def medians(runs: list[dict], *columns: str) -> list[float]:
    """Of each of these columns of the CSV."""
    return [statistics.median(float(line[column]) for line in runs) for column in columns]


def draw_together(env: str, lines: list[dict], path: Path) -> None:
    """A picture: the median running reward of each folder over steps, and over minutes as its mean speed makes them."""
    from matplotlib.figure import Figure  # only now: a wrong name need not wait for it

    figure = Figure(figsize=(10, 4), layout="constrained")
    over_steps, over_minutes = figure.subplots(1, 2, sharey=True)
    for i, folder in enumerate(ENVIRONMENTS):
        if (ROOT / folder / "bands" / f"{env}.csv").exists():
            shown = compare.read_band(folder, env)
            seconds, steps = medians(of(lines, folder, env), "seconds", "steps")
            running = np.median(shown.running, 1)
            over_steps.plot(shown.steps, running, color=f"C{i}", label=folder)
            over_minutes.plot(shown.steps * seconds / steps / 60, running, color=f"C{i}")
    over_steps.set(xlabel="environment steps", ylabel="running reward", xscale="log", title=env)
    over_minutes.set(xlabel="minutes", xscale="log")
    for axes in over_steps, over_minutes:
        axes.grid(alpha=0.3)
    over_steps.legend()
    figure.savefig(path, dpi=100)


def ship(kept: Path, folder: Path) -> None:
    """The run's weights, compressed (of cheetahs and ants as float16: they play as well), its settings and its card."""
    half = folder.name.startswith(RUNNERS)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(kept / "config.json", folder)
    for file in kept.glob("*.npz"):
        if file.name != "resume.npz":
            with np.load(file) as arrays:
                parts = dict(arrays)
            if half:
                parts = {name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in parts.items()}
            np.savez_compressed(folder / file.name, **parts)


def table(lines: list[dict], long: bool = False) -> str:
    """In Markdown: medians and the worst seed of each folder on each environment; of long runs with their number."""
    columns = ["Folder", "Environment", "Median", "Worst", "Steps", *(["Minutes", "Seeds"] if long else ["Seconds"])]
    text = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    told = []
    for folder, env in LONG_CELLS if long else CELLS:
        if runs := of(lines, folder, env):
            told += runs
            reward, steps, seconds = medians(runs, "reward", "steps", "seconds")
            worst = min(float(line["reward"]) for line in runs)
            time = f"{seconds / 60:.0f} | {len(runs)}" if long else f"{seconds:.1f}"
            text.append(f"| {folder} | {env} | {reward:.1f} | {worst:.1f} | {steps:,.0f} | {time} |")
    if not told:
        return ""
    seeds, dates, where = (sorted({line[key] for line in told}) for key in ("seed", "date", "where"))
    return "\n".join([*text, "", f"Seeds: {report.span(seeds)}; {report.span(dates)}; {' / '.join(where)}."])


def matrix(lines: list[dict]) -> str:
    """In Markdown: the median reward of each folder (rows) on each environment (columns), and the median time."""
    text = [f"| | {' | '.join(env.rpartition('-')[0] for env in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for folder in ENVIRONMENTS:
        row = [folder]
        for env in COLUMNS:
            cell = ""
            if runs := of(lines, folder, env):
                reward, seconds = medians(runs, "reward", "seconds")
                time = f"{seconds / 60:.0f} min" if (folder, env) in LONG_CELLS else f"{seconds:.0f} s"
                cell = f"{reward:.0f} ({time})"
            row.append(cell)
        text.append(f"| {' | '.join(row)} |")
    return "\n".join(text)


def fill_pages(lines: list[dict]) -> None:
    """Bring the tables of docs/results.md and of the project's README up to date, in both languages."""
    tables = {"learning": table(lines), "long": table(lines, long=True), "matrix": matrix(lines)}
    for page in (ROOT / "docs/results.md", ROOT / "README.md"):
        for path, translate in ((page, str), (page.with_suffix(".zh-CN.md"), report.chinese)):
            text = path.read_text(encoding="utf-8")
            for place, made in tables.items():
                text = report.between(text, place, translate(made))
            path.write_text(text, encoding="utf-8")


def main():
    asked, everything = {*sys.argv[1:]}, CELLS + LONG_CELLS
    folders, environments = ({cell[i] for cell in everything} for i in (0, 1))
    if unknown := asked - folders - environments:
        choices = ", ".join([*ENVIRONMENTS, *sorted(environments)])
        raise command.UserError(f"there is no {' or '.join(sorted(unknown))}: {choices}")
    asked_folders, asked_environments = asked & folders or folders, asked & environments
    cells = [
        (folder, env)
        for folder, env in (everything if asked_environments else CELLS)
        if folder in asked_folders and env in (asked_environments or environments)
    ]
    if not cells:
        raise command.UserError(f"no run is of {' and '.join(sorted(asked))}")
    path = ROOT / "benchmarks/results/learning.csv"
    for folder, env in cells:
        runs = [run(folder, env, seed) for seed in (SEEDS if (folder, env) in CELLS else LONG_SEEDS)]
        new = [json.loads((kept / "result.json").read_text()) for kept in runs]
        others = [line for line in report.read(path) if (line["folder"], line["env"]) != (folder, env)]
        report.write(path, sorted(others + new, key=lambda line: everything.index((line["folder"], line["env"]))))
        made = band([kept / "episodes.csv" for kept in runs])
        write_band(made, ROOT / folder / "bands" / f"{env}.csv")
        if env == ENVIRONMENTS[folder][0] and folder != "a3c":  # its curve is the walker's
            compare.draw(ROOT / folder / "curve.png", f"{folder}, {env}", made)
        if env in (CHEETAH, ANT, *BULLET):
            draw_together(env, report.read(path), ROOT / "docs" / f"{env}.png")
        rewards = [line["reward"] for line in new]
        shipped = rewards.index(max(rewards)) if env.startswith(RUNNERS) else 0
        ship(runs[shipped], ROOT / folder / "pretrained" / env)
        print(f"{folder}, {env}: median {statistics.median(rewards):.1f}, worst {min(rewards):.1f}", flush=True)
    fill_pages(report.read(path))


if __name__ == "__main__":
    command.run(main)
