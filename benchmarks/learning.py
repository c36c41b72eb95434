"""How well and how fast an algorithm learns: whole commands, several seeds, none of them chosen.

python benchmarks/learning.py ppo --env CartPole-v1 --method clip

Runs `python ppo/main.py --train --seed N` with the flags given for seeds 0 to 4, and then --test with
100 greedy episodes. Prints for each seed the wall time of the training command from launch to exit and
the mean of the environment's own rewards; then median and worst.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.launch import ALGORITHMS, ROOT, Parser
from common import command
from common.command import UserError


def run(algorithm: str, seed: int, flags: list[str], out: Path) -> tuple[float, float]:
    """Seconds of the training command from launch to exit, and then the mean reward of 100 greedy episodes."""
    line = [sys.executable, ROOT / algorithm / "main.py", *flags, "--seed", str(seed), "--out", out]
    start = time.perf_counter()
    _output([*line, "--train"])
    seconds = time.perf_counter() - start
    output = _output([*line, "--test", "--test-episodes", "100"])
    return seconds, float(re.search(r"Mean of 100: (\S+)", output)[1])


def _output(line: list) -> str:
    """What it prints; its progress line and its complaint go to the terminal. Raises UserError if it fails."""
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the run ended with exit status {done.returncode}")
    return done.stdout


def main():
    others = "Other flags go to the folder's command."
    parser = Parser(description=__doc__.splitlines()[0], epilog=others, allow_abbrev=False)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="one run each (0 to 4)")
    options, flags = parser.parse_known_args()
    if any(flag.split("=")[0] == "--seed" for flag in flags):
        raise UserError("give --seeds: each is a run")
    rewards, seconds = [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as out:
            took, reward = run(options.algorithm, seed, flags, Path(out))
        rewards.append(reward)
        seconds.append(took)
        print(f"seed {seed}: {reward:8.1f} after {took:5.1f} s", flush=True)
    print(
        f"{options.algorithm} {' '.join(flags)}: median {statistics.median(rewards):.1f}, worst {min(rewards):.1f},"
        f" median wall time {statistics.median(seconds):.1f} s"
    )


if __name__ == "__main__":
    command.run(main)
