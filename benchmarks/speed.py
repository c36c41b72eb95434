"""Steps per second beside other libraries: the same environment, networks, batches and number of updates.

make bench                     all rows        make bench ARGS="ppo --rounds 5"    one row

Every run is a process of its own, ours and the peers' in turn. Speed is taken after a warm-up;
start-up (imports, building, compiling up to the first episode's or step's end) is given apart.
It only measures; nothing here passes or fails.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Row:
    """One comparison. ours: flags of our command; peers: name -> what peers.py takes."""

    name: str
    algorithm: str
    warmup: int
    ours: str
    peers: dict[str, dict]


def peer(library, algorithm, env, steps, warmup, envs=1, processes=False, **settings):
    kind = dict(library=library, algorithm=algorithm, env=env, envs=envs, processes=processes)
    return dict(kind, steps=steps, warmup=warmup, settings=settings)


PPO_SETTINGS = dict(n_steps=2048, batch_size=64, n_epochs=10)
WALKER = dict(envs=2, processes=True, n_steps=40, policy_kwargs={"net_arch": [128, 128]})
SMALL = dict(batch_size=64, learning_starts=500, train_freq=1, gradient_steps=1, policy_kwargs={"net_arch": [64, 64]})
LARGE = dict(
    batch_size=256, learning_starts=500, train_freq=1, gradient_steps=1, policy_kwargs={"net_arch": [256, 256]}
)


def off_policy(algorithm, size, settings, ours, steps, peer_steps):
    return Row(
        f"{algorithm}, Pendulum-v1, {size}, one update a step",
        algorithm.lower(),
        2000,
        f"--episodes {steps // 200} {ours}",
        {
            name: peer(library, algorithm, "Pendulum-v1", peer_steps, 1000, **settings)
            for name, library in (("Stable-Baselines3", "sb3"), ("SBX", "sbx"))
        },
    )


ROWS = [
    Row(
        "PPO, CartPole-v1, 64x64, 2048 steps, 10 epochs, batch 64",
        "ppo",
        8192,
        "--env CartPole-v1 --steps 100000 --batch-size 2048 --minibatch-size 64 --a-update-epochs 10"
        " --c-update-epochs 10 --lr-a 3e-4 --lr-c 3e-4 --gamma 0.99 --hidden 64 64",
        {
            "Stable-Baselines3": peer("sb3", "PPO", "CartPole-v1", 20480, 4096, **PPO_SETTINGS),
            "SBX": peer("sbx", "PPO", "CartPole-v1", 20480, 4096, **PPO_SETTINGS),
        },
    ),
    Row(
        "A2C, CartPole-v1, 64x64, 8 environments, 5 steps",
        "a2c",
        20000,
        "--env CartPole-v1 --steps 150000 --workers 8 --n-steps 5",
        {"Stable-Baselines3": peer("sb3", "A2C", "CartPole-v1", 60000, 10000, envs=8, n_steps=5)},
    ),
    Row(
        "ACKTR, CartPole-v1, 64x64, 16 environments, 20 steps (peer: A2C, which has it easier)",
        "acktr",
        20000,
        "--env CartPole-v1 --steps 150000 --workers 16 --n-steps 20",
        {"Stable-Baselines3": peer("sb3", "A2C", "CartPole-v1", 60000, 10000, envs=16, n_steps=20)},
    ),
    *(
        Row(
            f"A3C, BipedalWalker-v3, 128x128, 2 {workers}, an update for 80 steps (peer: A2C, 2 processes)",
            "a3c",
            30000,
            f"--workers 2 --steps 200000 {flag}",
            {"Stable-Baselines3": peer("sb3", "A2C", "BipedalWalker-v3", 40000, 8000, **WALKER)},
        )
        for workers, flag in (("threads", ""), ("processes", "--ray"))
    ),
    Row(
        "TRPO, Pendulum-v1, 64x64, 2048 steps, sb3-contrib's defaults",
        "trpo",
        8192,
        "--steps 60000 --batch-size 2048 --minibatch-size 128 --c-update-epochs 10 --cg-iters 15 --delta 0.01"
        " --gamma 0.99",
        {"sb3-contrib": peer("sb3-contrib", "TRPO", "Pendulum-v1", 20480, 4096)},
    ),
    off_policy("DDPG", "64x64, batch 64", SMALL, "", 20000, 4000),
    off_policy("TD3", "64x64, batch 64", SMALL, "", 20000, 4000),
    off_policy("SAC", "64x64, batch 64", SMALL, "", 20000, 4000),
    off_policy("SAC", "256x256, batch 256", LARGE, "--hidden-dim 256 --batch-size 256", 6000, 2500),
]


def run_ours(row: Row) -> dict:
    """One run of our command; its table of episodes holds steps and seconds."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, ROOT / row.algorithm / "main.py", "--train", "--out", out, *row.ours.split()]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        with open(next(Path(out).glob("model/*/*/episodes.csv")), newline="") as file:
            table = [(int(line["steps"]), float(line["seconds"])) for line in csv.DictReader(file)]
    # with --ray lines come in bursts: take the last one of each
    bursts = {int(2 * seconds): (steps, seconds) for steps, seconds in table}.values()
    (first, since), (last, until) = next(line for line in bursts if line[0] >= row.warmup), table[-1]
    return {"steps_per_second": (last - first) / (until - since), "startup": wall - until + table[0][1]}


def run_peer(python: str, case: dict) -> dict:
    output = subprocess.run(
        [python, ROOT / "benchmarks" / "peers.py", json.dumps(case)], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithms", nargs="*", help="rows to run (all)")
    parser.add_argument("--peers", default=str(ROOT / ".venv-bench/bin/python"), help="the peers' Python")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for row in ROWS:
        if options.algorithms and row.algorithm not in options.algorithms:
            continue
        print(f"\n{row.name}", flush=True)
        results = {name: [] for name in ("this project", *row.peers)}
        for _ in range(options.rounds):
            results["this project"].append(run_ours(row))
            for name, case in row.peers.items():
                results[name].append(run_peer(options.peers, case))
        ours = statistics.median(result["steps_per_second"] for result in results["this project"])
        for name, rounds in results.items():
            speed = statistics.median(result["steps_per_second"] for result in rounds)
            startup = statistics.median(result["startup"] for result in rounds)
            ratio = "" if name == "this project" else f"   this project is {ours / speed:.1f} times as fast"
            print(f"  {name:18} {speed:9,.0f} steps/s   start-up {startup:4.1f} s{ratio}", flush=True)


if __name__ == "__main__":
    main()
