"""Throughput: steps per second with the same environment, networks, batches and number of updates.

Speed is taken after a warm-up. Start-up is given apart: of a peer from launch to its first step; ours to the end of the
first episode, and with it the last save and the exit.
"""

import csv
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.launch import PEERS, ROOT, output, run_peer
from benchmarks.limit import steps_per_second

COLUMNS = ("steps_per_second", "startup")


@dataclass
class Row:
    """One comparison: flags of our command, and what peers.py takes, by the library's name.

    cost: about how many seconds a round takes on two cores.  warmup: our steps before the speed counts.
    envs, processes: what the limit takes: environments that are stepped in turn, in so many processes at once.
    batch, products: and the matrix products of one update a step, see limit.py.
    """

    name: str
    algorithm: str
    env: str
    cost: int
    warmup: int
    ours: str
    peers: dict[str, dict]
    envs: int = 1
    processes: int = 1
    batch: int = 0
    products: dict[tuple, tuple] = field(default_factory=dict)

    def run_ours(self, seed: int) -> dict:
        """The values of COLUMNS, of our command; its table of episodes holds steps and seconds."""
        with tempfile.TemporaryDirectory() as out:
            flags = ["--train", "--env", self.env, "--seed", seed, "--out", out, *self.ours.split()]
            start = time.perf_counter()
            output([sys.executable, ROOT / self.algorithm / "main.py", *flags])
            wall = time.perf_counter() - start
            with open(next(Path(out).glob("model/*/*/episodes.csv")), newline="") as file:
                table = [(int(line["steps"]), float(line["seconds"])) for line in csv.DictReader(file)]
        lines = table
        if "--ray" in self.ours:  # they come in bursts: take the last one of each
            lines = {int(2 * seconds): (steps, seconds) for steps, seconds in table}.values()
        (first, since), (last, until) = next(line for line in lines if line[0] >= self.warmup), table[-1]
        return {"steps_per_second": (last - first) / (until - since), "startup": wall - until + table[0][1]}

    def run_peer(self, python: str, library: str, seed: int) -> dict:
        """The same of another library."""
        return run_peer(python, {"env": self.env, "seed": seed, **self.peers[library]})

    def limit(self) -> dict:
        """How fast it could go at most."""
        return {"steps_per_second": steps_per_second(self.env, self.envs, self.processes, self.batch, self.products)}


def peer(library: str, algorithm: str, steps: int, warmup: int, envs: int = 1, processes: bool = False, **settings):
    """What peers.py takes."""
    kind = dict(library=library, algorithm=algorithm, envs=envs, processes=processes)
    return dict(kind, steps=steps, warmup=warmup, settings=settings)


PPO_SETTINGS = dict(n_steps=2048, batch_size=64, n_epochs=10)
WALKER = dict(envs=2, processes=True, n_steps=40, policy_kwargs={"net_arch": [128, 128]})


def off_policy(algorithm: str, units: int, batch: int, cost: int, ours: str, steps: int, peer_steps: int) -> Row:
    """One update a step, networks of two hidden layers."""
    every_step = dict(batch_size=batch, learning_starts=500, train_freq=1, gradient_steps=1)
    settings = dict(every_step, policy_kwargs={"net_arch": [units, units]})
    policy, critic = (3, units, units, 2 if algorithm == "SAC" else 1), (4, units, units, 1)
    passes = {  # targets and losses, of critics and policy; TD3's policy learns at every other step
        "DDPG": {policy: (2, 1, 0), critic: (3, 1, 1)},
        "TD3": {policy: (1.5, 0.5, 0), critic: (4.5, 2, 0.5)},
        "SAC": {policy: (2, 1, 0), critic: (6, 2, 2)},
    }
    return Row(
        f"{algorithm}, Pendulum-v1, {units}x{units}, batch {batch}",
        algorithm.lower(),
        "Pendulum-v1",
        cost=cost,
        warmup=2000,
        ours=f"--episodes {steps // 200} --batch-size {batch} {ours}",
        peers={name: peer(library, algorithm, peer_steps, 1000, **settings) for name, library in PEERS.items()},
        batch=batch,
        products=passes[algorithm],
    )


ROWS = [
    Row(
        "AC, CartPole-v1, 64, an update a step (peer: A2C)",
        "ac",
        "CartPole-v1",
        cost=19,
        warmup=3000,
        ours="--steps 12000 --solved None --n-steps 1",
        peers={
            "Stable-Baselines3": peer("sb3", "A2C", 4000, 1000, n_steps=1, gamma=0.98, policy_kwargs={"net_arch": [64]})
        },
    ),
    Row(
        "A2C, CartPole-v1, 64x64, 8 environments",
        "a2c",
        "CartPole-v1",
        cost=22,
        warmup=20000,
        ours="--steps 150000 --workers 8 --n-steps 5",
        peers={"Stable-Baselines3": peer("sb3", "A2C", 60000, 10000, envs=8, n_steps=5)},
        envs=8,
    ),
    *(
        Row(
            f"A3C, BipedalWalker-v3, 128x128, 2 {workers} (peer: A2C, 2 processes)",
            "a3c",
            "BipedalWalker-v3",
            cost=38,
            warmup=15000,
            ours=f"--workers 2 --steps 60000 {flag}",
            peers={"Stable-Baselines3": peer("sb3", "A2C", 16000, 4000, **WALKER)},
            processes=processes,
        )
        for workers, flag, processes in (("threads", "", 1), ("processes", "--ray", 2))
    ),
    Row(
        "TRPO, Pendulum-v1, 64x64",
        "trpo",
        "Pendulum-v1",
        cost=22,
        warmup=8192,
        ours="--steps 60000 --batch-size 2048 --minibatch-size 128 --c-update-epochs 10 --cg-iters 15 --delta 0.01"
        " --gamma 0.99",
        peers={"Stable-Baselines3": peer("sb3-contrib", "TRPO", 16384, 4096)},
    ),
    Row(
        "PPO, CartPole-v1, 64x64",
        "ppo",
        "CartPole-v1",
        cost=37,
        warmup=8192,
        ours="--steps 100000 --batch-size 2048 --minibatch-size 64 --a-update-epochs 10 --c-update-epochs 10"
        " --lr-a 3e-4 --lr-c 3e-4 --gamma 0.99 --hidden 64 64",
        peers={name: peer(library, "PPO", 14336, 4096, **PPO_SETTINGS) for name, library in PEERS.items()},
    ),
    Row(
        "ACKTR, CartPole-v1, 64x64, 16 environments (peer: A2C)",
        "acktr",
        "CartPole-v1",
        cost=22,
        warmup=20000,
        ours="--steps 150000 --workers 16 --n-steps 20",
        peers={"Stable-Baselines3": peer("sb3", "A2C", 60000, 10000, envs=16, n_steps=20)},
        envs=16,
    ),
    off_policy("DDPG", 64, 64, 30, "--hidden 64 64", 20000, 2500),
    off_policy("TD3", 64, 64, 31, "--hidden-dim 64", 20000, 2500),
    off_policy("SAC", 64, 64, 36, "--hidden-dim 64", 16000, 2500),
    off_policy("SAC", 256, 256, 58, "--hidden-dim 256", 3000, 1500),
]
