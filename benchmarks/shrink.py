"""Make the weights of a policy that plays from pictures small enough to ship: under 1 MB.

python benchmarks/shrink.py model/ppo/Pong-v0 ppo/pretrained/Pong-v0

A pixel that is hardly ever lit needs no weights in a dense layer, and numbers of 16 bits, of which the last six are 0,
pack well. Play with both (`--test --test-episodes 100`), and tell what it costs.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.launch import Parser
from common import command, environments
from common.acting import ACTIVATIONS
from common.command import UserError
from common.files import replacing

STATES = 40_000  # that are looked at
RARE = 5  # a pixel lit in fewer of them is left out
BITS = 4  # of the ten of a 16-bit number's fraction


def lit(env, policy, states: int) -> np.ndarray:
    """In how many states each pixel is not 0, int [n]; every other action is drawn at random.

    policy: from a state int8 [n] to logits.
    """
    rng, counts, seen = np.random.default_rng(0), 0, 0
    while seen < states:
        state, _ = env.reset()
        done = False
        while not done:
            counts, seen = counts + (state != 0), seen + 1
            action = np.argmax(policy(state)) if seen % 2 else rng.integers(env.action_space.n)
            state, _, terminated, truncated, _ = env.step(int(action))
            done = terminated or truncated
    return counts


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    """float16, the nearest numbers with so many bits of fraction."""
    words, step = array.astype(np.float16).view(np.uint16), np.uint16(1 << (10 - bits))
    return ((words + step // 2) // step * step).view(np.float16)


def shrink(source: Path, target: Path) -> None:
    """Write the networks of the folder `source`, actor.npz and others beside it, to the folder `target`.

    target: has the environment's name, as folders of weights have.
    """
    networks = {path.name: dict(np.load(path, allow_pickle=False)) for path in source.glob("[ac]*.npz")}
    if "actor.npz" not in networks:
        raise UserError(f"there are no weights in {source}")
    W, b, V, c, *_ = networks["actor.npz"].values()  # a log-std may follow
    if W.ndim == 2:  # a convolution's weights are of no one pixel
        env = environments.make(target.name, 0)
        if len(c) != env.action_space.n:
            raise UserError(f"{source}: convolutions and networks of one hidden layer can be made smaller, no others")
        function = ACTIVATIONS["relu" if "relu" in next(iter(networks["actor.npz"])) else "tanh"]

        def policy(state):
            pixels = np.flatnonzero(state)
            return function(state[pixels].astype(np.float32) @ W[pixels] + b) @ V + c

        rare = lit(env, policy, STATES) < RARE
        for weights in networks.values():
            next(iter(weights.values()))[rare] = 0
    target.mkdir(parents=True, exist_ok=True)
    for name, weights in networks.items():
        with replacing(target / name) as path:
            np.savez_compressed(path, **{key: rounded(array, BITS) for key, array in weights.items()})
        print(f"{target / name}: {(target / name).stat().st_size / 1e6:.2f} MB")
    if (source / "config.json").exists():
        shutil.copy(source / "config.json", target)  # what lies there may be of other weights


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder with weights")
    parser.add_argument("target", type=Path, help="where the small ones go")
    options = parser.parse_args()
    shrink(options.source, options.target)


if __name__ == "__main__":
    command.run(main)
