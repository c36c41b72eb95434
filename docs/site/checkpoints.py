"""The policies of a run of training on the way, for the page to play with: python docs/site/checkpoints.py [ALG ENV].

Trains as `python ALG/main.py --train --env ENV` does, and writes docs/site/checkpoints/ALG_ENV.npz: actor and critic in
float16 at a few points of the run. The last point is the folder's pretrained weights, or the run's end where there are
none. Without arguments: all folders, one after the other, 10 to 90 seconds each.
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.site.networks import ENVIRONMENTS, FILES  # noqa: E402

PARTS = (0, 0.1, 0.2, 0.35, 0.6, 1)  # of the steps that the run took
SNAPSHOTS = 60  # in how many steps of equal length the run is watched


def record(folder: str, env: str) -> None:
    """Train, keep what `agent.save` writes at each snapshot, and write those that are nearest to PARTS."""
    snapshots = {}  # steps: (running reward, arrays by name)

    def snapshot(run):
        with tempfile.TemporaryDirectory() as place:
            run.agent.save(place)
            arrays = {}
            for network, file in FILES[folder].items():
                if file and (Path(place) / f"{file}.npz").exists():
                    with np.load(Path(place) / f"{file}.npz") as weights:
                        arrays |= {f"{network}/{name}": weights[name] for name in weights.files}
        snapshots[run.steps] = run.rows[-1][3] if run.rows else np.nan, arrays

    main = importlib.import_module(f"{folder}.main")
    train = main.train

    def train_watched(*arguments):
        from common.progress import Training  # only now: TensorFlow is loaded, and as the command loads it

        enter, log = Training.__enter__, Training.log

        def watched_enter(run):
            snapshot(run)
            return enter(run)

        def watched_log(run, reward, length):
            log(run, reward, length)
            budget = run.config.steps or run.config.episodes
            done = run.steps if run.config.steps else run.episode
            if done >= budget * len(snapshots) / SNAPSHOTS:
                snapshot(run)

        Training.__enter__, Training.log = watched_enter, watched_log
        train(*arguments)

    main.train = train_watched
    with tempfile.TemporaryDirectory() as out:
        sys.argv = ["main.py", "--train", "--env", env, "--out", out]
        main.main()

    steps = np.array(sorted(snapshots))
    chosen = sorted({int(steps[np.abs(steps - part * steps[-1]).argmin()]) for part in PARTS})
    if (ROOT / folder / "pretrained" / env).exists():
        chosen = [each for each in chosen if each != steps[-1]]
    arrays = {}
    for each in chosen:
        running, weights = snapshots[each]
        arrays[f"{each}/running"] = np.float32(running)
        for name, array in weights.items():
            small = name.split("/")[-1] in ("mean", "var", "count")  # of states: they are few, and not small numbers
            arrays[f"{each}/{name}"] = array.astype(np.float32 if small else np.float16)
    target = ROOT / "docs" / "site" / "checkpoints" / f"{folder}_{env}.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **arrays)
    print(f"{target.relative_to(ROOT)}: {chosen} steps, {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    runs = [[folder, env] for env, folders in ENVIRONMENTS.items() for folder in folders]
    if sys.argv[1:] in runs:
        record(*sys.argv[1:])
    elif sys.argv[1:]:
        print(f"error: give nothing, or one of {', '.join(map(' '.join, runs))}", file=sys.stderr)
        sys.exit(2)
    else:
        for run in runs:
            subprocess.run([sys.executable, __file__, *run], check=True)
