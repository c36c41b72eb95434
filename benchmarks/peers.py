"""One training run of another library, which throughput.py and solve.py start with the peers' own Python.

Reads a JSON object from the command line: library ('sb3', 'sb3-contrib' or 'sbx'), algorithm, env, steps (at most),
seed, settings (the constructor's), envs (parallel environments), processes (whether each has one of its own),
launched (time.time() at the start of this process), and

- warmup: prints {"steps_per_second": after so many steps, "startup": seconds from launch to the first step};
- or goal and every: prints when the task was solved, as `watch.Watch.result` has it.

Settings as Stable-Baselines3's zoo writes them: "lin_0.001" falls from 0.001 to 0, "noise_std" is a normal noise of
the actions, "normalize" normalises states and rewards.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

case = json.loads(sys.argv[1])
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(sys.prefix) / "jax"))  # as this project keeps its own
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
module = importlib.import_module(
    {"sb3": "stable_baselines3", "sb3-contrib": "sb3_contrib", "sbx": "sbx"}[case["library"]]
)

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from benchmarks.watch import EPISODES, Watch, mean_reward


class Clock(BaseCallback):
    """Notes the time of the first step and of the end of the warm-up, with as many updates as rollouts after it."""

    first = warm = None

    def _on_rollout_start(self):
        if self.warm is None and self.num_timesteps >= case["warmup"]:
            self.warm = self.num_timesteps, time.time()

    def _on_step(self) -> bool:
        self.first = self.first or time.time()
        return True

    def result(self) -> dict:
        speed = (self.num_timesteps - self.warm[0]) / (time.time() - self.warm[1])
        return {"steps_per_second": speed, "startup": self.first - case["launched"]}


class Solving(BaseCallback):
    """Stops when the task is solved."""

    def _on_training_start(self):
        envs = []

        def act(states):
            states = np.array(states)
            normalize = self.model.get_vec_normalize_env()
            return self.model.predict(normalize.normalize_obs(states) if normalize else states, deterministic=True)[0]

        def evaluate():
            envs.extend(gymnasium.make(case["env"]) for _ in range(EPISODES - len(envs)))
            return mean_reward(envs, act)

        self.watch = Watch(evaluate, case["goal"], case["every"], case["launched"])

    def _on_step(self) -> bool:
        return not self.watch(self.num_timesteps)

    def result(self) -> dict:
        return self.watch.result()


def value(setting):
    """What a setting stands for: 'lin_0.001' is a function of the part of training that is left."""
    if isinstance(setting, str) and setting.startswith("lin_"):
        return lambda left: left * float(setting.removeprefix("lin_"))
    return setting


if __name__ == "__main__":  # not in the environments' processes
    kind = SubprocVecEnv if case["processes"] else DummyVecEnv
    env = make_vec_env(case["env"], case["envs"], seed=case["seed"], vec_env_cls=kind)
    settings = {name: value(setting) for name, setting in case["settings"].items()}
    if settings.pop("normalize", False):
        env = VecNormalize(env, gamma=settings["gamma"])
    if std := settings.pop("noise_std", None):
        shape = env.action_space.shape
        settings["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, std))
    model = getattr(module, case["algorithm"])("MlpPolicy", env, seed=case["seed"], device="cpu", **settings)
    layers = [layer for layer in model.policy.modules() if isinstance(layer, torch.nn.Linear)]  # SBX has none: JAX's
    widest = max([layer.out_features for layer in layers], default=0)
    torch.set_num_threads(1 if widest <= 128 else os.cpu_count())  # of what was measured, the faster ones
    callback = Clock() if "warmup" in case else Solving()
    model.learn(case["steps"], callback=callback)
    print(json.dumps(callback.result()))
