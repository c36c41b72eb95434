"""Time to solve: from the start of the process to the first greedy mean of ten episodes above the goal.

This project's folders with their defaults, the other libraries with the hyperparameters and the budgets of
Stable-Baselines3's zoo (github.com/DLR-RM/rl-baselines3-zoo, hyperparams/*.yml).
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field

from benchmarks.launch import PEERS, ROOT, output, run_peer

GOALS = {"CartPole-v1": 475.0, "Pendulum-v1": -200.0}
COLUMNS = ("solved", "seconds", "steps", "reward")


@dataclass
class Row:
    """One comparison: a folder's default on an environment, and what peers.py takes, by the library's name.

    every: steps between two evaluations.  cost: about how many seconds a seed takes on two cores.
    """

    algorithm: str
    env: str
    cost: int
    peers: dict[str, dict] = field(default_factory=dict)
    every: int = 4000

    @property
    def name(self) -> str:
        return f"{self.algorithm.upper()}, {self.env}"

    def run_ours(self, seed: int) -> dict:
        """The reader's command, watched; the values of COLUMNS."""
        with tempfile.TemporaryDirectory() as out:
            flags = ["--train", "--env", self.env, "--seed", seed, "--out", out]
            words = [time.time(), GOALS[self.env], self.every, self.algorithm, *flags]
            return json.loads(output([sys.executable, ROOT / "benchmarks/watch.py", *words]).splitlines()[-1])

    def run_peer(self, python: str, library: str, seed: int) -> dict:
        """The same of another library."""
        watch = dict(env=self.env, seed=seed, goal=GOALS[self.env], every=self.every)
        return run_peer(python, {**watch, **self.peers[library]})


def zoo(library: str, algorithm: str, steps: int, envs: int = 1, **settings) -> dict:
    """What peers.py takes, of the zoo's n_timesteps, n_envs and the rest of its hyperparameters."""
    return dict(library=library, algorithm=algorithm, steps=steps, envs=envs, settings=settings)


def both(algorithm: str, steps: int, **settings) -> dict[str, dict]:
    """The same in Stable-Baselines3 and SBX."""
    return {name: zoo(library, algorithm, steps, **settings) for name, library in PEERS.items()}


LARGE = dict(
    gamma=0.98,
    buffer_size=200_000,
    learning_starts=10_000,
    noise_std=0.1,
    gradient_steps=1,
    train_freq=1,
    learning_rate=1e-3,
    policy_kwargs={"net_arch": [400, 300]},
)
A2C_PENDULUM = dict(
    normalize=True,
    envs=8,
    ent_coef=0.0,
    max_grad_norm=0.5,
    n_steps=8,
    gae_lambda=0.9,
    vf_coef=0.4,
    gamma=0.9,
    use_rms_prop=True,
    normalize_advantage=False,
    learning_rate="lin_7e-4",
    use_sde=True,
    policy_kwargs={"log_std_init": -2, "ortho_init": False},
)
PPO_CARTPOLE = dict(
    envs=8,
    n_steps=32,
    batch_size=256,
    gae_lambda=0.8,
    gamma=0.98,
    n_epochs=20,
    ent_coef=0.0,
    learning_rate="lin_0.001",
    clip_range="lin_0.2",
)
PPO_PENDULUM = dict(
    envs=4,
    n_steps=1024,
    gae_lambda=0.95,
    gamma=0.9,
    n_epochs=10,
    ent_coef=0.0,
    learning_rate=1e-3,
    clip_range=0.2,
    use_sde=True,
    sde_sample_freq=4,
)
TRPO_CARTPOLE = dict(
    envs=2,
    n_steps=512,
    batch_size=512,
    cg_damping=1e-3,
    gae_lambda=0.98,
    gamma=0.99,
    learning_rate=1e-3,
    n_critic_updates=20,
)
TRPO_PENDULUM = dict(envs=2, n_steps=1024, gamma=0.9, n_critic_updates=15, use_sde=True, sde_sample_freq=4)

ROWS = [
    Row("reinforce", "CartPole-v1", 8),
    Row("ac", "CartPole-v1", 10),
    Row("a2c", "CartPole-v1", 18, {"Stable-Baselines3": zoo("sb3", "A2C", 500_000, envs=8, ent_coef=0.0)}),
    Row("a2c", "Pendulum-v1", 150, {"Stable-Baselines3": zoo("sb3", "A2C", 1_000_000, **A2C_PENDULUM)}),
    Row("a3c", "CartPole-v1", 14),
    Row("trpo", "CartPole-v1", 35, {"Stable-Baselines3": zoo("sb3-contrib", "TRPO", 100_000, **TRPO_CARTPOLE)}),
    Row("trpo", "Pendulum-v1", 45, {"Stable-Baselines3": zoo("sb3-contrib", "TRPO", 100_000, **TRPO_PENDULUM)}),
    Row("ppo", "CartPole-v1", 36, both("PPO", 100_000, **PPO_CARTPOLE)),
    Row("ppo", "Pendulum-v1", 42, both("PPO", 100_000, **PPO_PENDULUM)),
    Row("acktr", "CartPole-v1", 10),
    Row("acktr", "Pendulum-v1", 12),
    Row("ddpg", "Pendulum-v1", 80, both("DDPG", 20_000, **LARGE), every=1000),
    Row("td3", "Pendulum-v1", 100, both("TD3", 20_000, **LARGE), every=1000),
    Row("sac", "Pendulum-v1", 80, both("SAC", 20_000, learning_rate=1e-3), every=1000),
]
