"""The bands that `common/compare.py` draws, and each folder's curve: the default commands, seeds 0 to 4, one at a time.

python benchmarks/bands.py [FOLDER ...]

Writes FOLDER/bands/ENVIRONMENT.csv and, of the first environment of a row, FOLDER/curve.png. The table of each
finished run is kept in model/runs/: what is there is not run again, so a second call goes on where the first stopped.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from common import compare

ENVIRONMENTS = {
    "reinforce": ["CartPole-v1"],
    "ac": ["CartPole-v1"],
    "a2c": ["CartPole-v1", "Pendulum-v1"],
    "a3c": ["CartPole-v1", "Pendulum-v1"],
    "trpo": ["Pendulum-v1", "CartPole-v1"],
    "ppo": ["Pendulum-v1", "CartPole-v1"],
    "acktr": ["CartPole-v1", "Pendulum-v1"],
    "ddpg": ["Pendulum-v1"],
    "td3": ["Pendulum-v1"],
    "sac": ["Pendulum-v1"],
}
SEEDS = range(5)


def episodes(folder: str, env: str, seed: int) -> Path:
    """The table of a finished run, which is made if it isn't there yet."""
    table = ROOT / "model" / "runs" / f"{folder}_{env}_{seed}.csv"
    if not table.exists():
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, ROOT / folder / "main.py", "--train", "--env", env, "--seed", str(seed)]
            subprocess.run([*command, "--out", out], check=True, stdout=subprocess.DEVNULL)
            table.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(out) / "model" / folder / env / "episodes.csv", table)
    return table


def band(tables: list[Path]) -> compare.Band:
    """The runs' running rewards at a hundred points up to the end of the longest."""
    runs = [compare.read_run(table, table.stem) for table in tables]
    steps = np.linspace(0, max(run.steps[-1] for run in runs), 101)[1:].round()
    return compare.Band(steps, np.stack([run.at(steps) for run in runs], 1))


def main():
    for folder in sys.argv[1:] or ENVIRONMENTS:
        for env in ENVIRONMENTS[folder]:
            made = band([episodes(folder, env, seed) for seed in SEEDS])
            path = ROOT / folder / "bands" / f"{env}.csv"
            path.parent.mkdir(exist_ok=True)
            header = ",".join(["steps", *(f"seed_{seed}" for seed in SEEDS)])
            table = np.column_stack([made.steps, made.running])
            np.savetxt(path, table, ["%d"] + ["%.2f"] * len(SEEDS), ",", header=header, comments="")
            if env == ENVIRONMENTS[folder][0] and folder != "a3c":  # its curve is the walker's
                compare.draw(ROOT / folder / "curve.png", f"{folder}, {env}", made)
            print(f"{folder}, {env}: {made.running[-1].min():.1f} to {made.running[-1].max():.1f}", flush=True)


if __name__ == "__main__":
    main()
