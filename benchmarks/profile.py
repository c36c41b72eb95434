"""Where a launch's seconds and a step's microseconds go.

python benchmarks/profile.py ppo --env CartPole-v1        any of the folders, with its defaults there

Runs `python ppo/main.py --train` in one thread (a3c: one worker) to some seconds after its first update, with clocks
around the methods of its classes. They take part of a microsecond a call, which counts as the method's.
"""

import argparse
import contextlib
import functools
import importlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

if __name__ == "__main__":  # instead of this folder: this file would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.launch import ALGORITHMS, Parser
from common import command

# What a step is made of, by the names of the methods that do it.
PARTS = {
    "acting": ("act", "get_action", "sample_action", "get_value"),
    "storing": ("store_transition", "store", "push", "finish_path"),
    "update": ("update", "learn", "pull_global", "update_global"),
}
COMPILING = ("tracing", "compiling and the first run")
PHASES = (
    "Python and the command line",
    "importing TensorFlow",
    "building the agent",
    "to the first step",
    "steps before the first update",
    *(f"first update: {name}" for name in COMPILING),
    "first update: the rest",
)

# One thread and process, and no end of its own.
MORE = {
    "a3c": ["--workers", "1"],
    "ac": ["--solved", "None"],
    "reinforce": ["--solved", "None", "--workers", "0"],
    "ppo": ["--workers", "0"],
    "trpo": ["--workers", "0"],
}


class Clock:
    """Time by parts: each moment counts for the innermost part that is running, and for `rest` outside of all."""

    def __init__(self, rest: str, clock=time.perf_counter):
        self.clock, self.running = clock, [rest]
        self.reset()

    def reset(self) -> None:
        """Forget what was measured; parts that are running go on."""
        self.seconds, self.last = defaultdict(float), self.clock()

    def settle(self) -> None:
        """Count the time up to now."""
        now = self.clock()
        self.seconds[self.running[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def part(self, name: str):
        """The block is this part."""
        self.settle()
        self.running.append(name)
        try:
            yield
        finally:
            self.settle()
            self.running.pop()

    def timed(self, name: str, function):
        """The function as this part."""

        @functools.wraps(function)
        def call(*arguments, **keywords):
            with self.part(name):
                return function(*arguments, **keywords)

        return call


class Enough(Exception):
    """All that was to be measured has been."""


class Profile:
    """Clocks in a folder's command, from outside; `run` gives the two tables.

    launched: time.time() at the start of the process.  seconds: how long steps are measured after the first update.
    """

    def __init__(self, algorithm: str, launched: float, seconds: float):
        self.algorithm, self.before, self.seconds = algorithm, launched, seconds
        self.clock = Clock("loop and log")
        self.launch = dict.fromkeys(PHASES, 0.0)  # seconds
        self.steps, self.ready = 0, False

    def phase(self, name: str) -> None:
        """What has passed since the last call was this phase of the launch, or more of it."""
        now = time.time()
        self.launch[name] += now - self.before
        self.before = now

    def run(self) -> tuple[dict[str, float], dict[str, float], int]:
        """Run main() with the flags of sys.argv; returns seconds of the launch and of the steps by parts, and steps."""
        from common import environments

        main = importlib.import_module(f"{self.algorithm}.main")
        loading, train, make = main.loading, main.train, environments.make

        @contextlib.contextmanager
        def loading_timed(*config):
            self.phase("Python and the command line")
            with loading(*config):
                yield
            self.phase("importing TensorFlow")
            self._wrap_agent()

        def train_timed(*arguments):
            self.phase("building the agent")
            train(*arguments)

        main.loading, main.train = loading_timed, train_timed
        environments.make = lambda *arguments, **keywords: self._timed_env(make(*arguments, **keywords))
        with contextlib.suppress(Enough):
            main.main()
        return self.launch, self.clock.seconds, self.steps

    def _timed_env(self, env):
        step = self.clock.timed("environment", env.step)

        def count(action):
            result = step(action)
            self.steps += 1
            if self.steps == 1 and not self.ready:
                self.phase("to the first step")
            return result

        env.step, env.reset = count, self.clock.timed("environment", env.reset)
        return env

    def _wrap_agent(self) -> None:
        """Put a clock around each method that PARTS names, and around what makes and compiles updates."""
        from common import cache

        module = importlib.import_module(f"{self.algorithm}.agent")
        classes = [
            each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
        ]
        for cls in classes:
            for part, names in PARTS.items():
                for name in set(names) & set(vars(cls)):
                    method = self.clock.timed(part, getattr(cls, name))
                    setattr(cls, name, self._watched(method) if part == "update" else method)
        first_call = cache.first_call

        def first_call_timed(name, trace, *tensors):
            with self.clock.part(COMPILING[1]):
                return first_call(name, self.clock.timed(COMPILING[0], trace), *tensors)

        cache.first_call = first_call_timed

    def _watched(self, update):
        """The first update ends the launch, and one after the time is up ends it all."""

        @functools.wraps(update)
        def call(*arguments, **keywords):
            if "update" in self.clock.running or COMPILING[0] in self.clock.running:  # within another one
                return update(*arguments, **keywords)
            if not self.ready:
                self.phase("steps before the first update")
                self.clock.reset()
            result = update(*arguments, **keywords)
            compiled = COMPILING[1] in self.clock.seconds
            if not self.ready and compiled:
                for name in COMPILING:
                    self.launch[f"first update: {name}"] = self.clock.seconds[name]
                    self.before += self.clock.seconds[name]
                self.phase("first update: the rest")
                self.ready, self.steps = True, 0
                self.clock.reset()
                self.end = time.perf_counter() + self.seconds
            elif self.ready and time.perf_counter() > self.end:
                self.clock.settle()
                raise Enough
            elif not self.ready:  # no update yet, but a step stored or weights fetched
                self.phase("steps before the first update")
            return result

        return call


def table(title: str, parts: dict[str, float], unit: str, scale: float) -> str:
    """Parts and their sum; scale: units in a second."""
    total = sum(parts.values())
    lines = [(name, x * scale, 100 * x / total) for name, x in [*parts.items(), ("total", total)]]
    return "\n".join([title, *(f"  {name:42} {x:8.2f} {unit} {share:5.1f} %" for name, x, share in lines)])


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--env", help="environment (the folder's default)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long steps are measured (5)")
    options = parser.parse_args()
    if "LAUNCHED" not in os.environ:  # once more, and this time the start is known
        environment = os.environ | {"LAUNCHED": repr(time.time())}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    flags = [
        *(["--env", options.env] if options.env else []),
        "--steps",
        "1000000000",
        *MORE.get(options.algorithm, []),
    ]
    profile = Profile(options.algorithm, float(os.environ["LAUNCHED"]), options.seconds)
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        sys.argv = [f"{options.algorithm}/main.py", "--train", "--out", out, *flags]
        launch, parts, steps = profile.run()
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    print(table("Launch to the end of the first update", launch, "s ", 1.0))
    print(table(f"An environment step, of {steps:,}", parts, "us", 1e6 / steps))


if __name__ == "__main__":
    command.run(main)
