"""How well and how fast an algorithm learns: whole commands, several seeds, none of them chosen.

python benchmarks/learning.py ppo --env CartPole-v1 --method clip

Runs `python ppo/main.py --train --seed N` with the flags given for seeds 0 to 4, and then --test with
100 greedy episodes. Prints for each seed the wall time of the training command from launch to exit and
the mean of the environment's own rewards; then median and worst.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(algorithm: str, seed: int, flags: list[str], out: Path) -> tuple[float, float]:
    """Seconds of the training command from launch to exit, and then the mean reward of 100 greedy episodes."""
    command = [sys.executable, ROOT / algorithm / "main.py", *flags, "--seed", str(seed), "--out", out]
    start = time.perf_counter()
    subprocess.run([*command, "--train"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    test = [*command, "--test", "--test-episodes", "100"]
    output = subprocess.run(test, check=True, stdout=subprocess.PIPE, text=True).stdout
    return seconds, float(re.search(r"Mean of 100: (\S+)", output)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm")
    parser.add_argument("--seeds", type=int, nargs="*", default=range(5))
    options, flags = parser.parse_known_args()
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
    main()
