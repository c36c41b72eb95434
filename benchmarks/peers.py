"""One training run of another library, for speed.py, which runs this with the peers' own Python.

Reads a JSON object from the command line: library ('sb3', 'sb3-contrib' or 'sbx'), algorithm, env,
steps, warmup, settings (the constructor's), envs (parallel environments), processes (whether each has
one of its own). Prints a JSON object: steps_per_second after the warm-up, startup (seconds from launch
to the first step).
"""

import importlib
import json
import sys
import time

start = time.perf_counter()
case = json.loads(sys.argv[1])
module = importlib.import_module(
    {"sb3": "stable_baselines3", "sb3-contrib": "sb3_contrib", "sbx": "sbx"}[case["library"]]
)

import torch  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv  # noqa: E402

torch.set_num_threads(1)  # for networks this small one thread is the fastest


class Clock(BaseCallback):
    """Notes the time of the first step and of the first step after the warm-up."""

    first = warm = None

    def _on_step(self) -> bool:
        now = (self.num_timesteps, time.perf_counter())
        self.first = self.first or now
        if self.warm is None and self.num_timesteps >= case["warmup"]:
            self.warm = now
        return True


if __name__ == "__main__":  # not in the environments' processes
    kind = SubprocVecEnv if case["processes"] else DummyVecEnv
    env = make_vec_env(case["env"], case["envs"], seed=0, vec_env_cls=kind)
    model = getattr(module, case["algorithm"])("MlpPolicy", env, seed=0, device="cpu", **case["settings"])
    clock = Clock()
    model.learn(case["steps"], callback=clock)
    speed = (model.num_timesteps - clock.warm[0]) / (time.perf_counter() - clock.warm[1])
    print(json.dumps({"steps_per_second": speed, "startup": clock.first[1] - start}))
