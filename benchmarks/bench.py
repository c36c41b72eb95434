"""Side by side with other libraries: throughput, and time to solve.

make bench                                        all rows
make bench ARGS="ppo sac --kind solve"            some algorithms, one kind
make bench ARGS="ppo --rounds 5 --seeds 0 1"      other numbers of runs

Every run is a process of its own; ours and the peers' alternate. What was measured goes to a CSV file row by row, and
at the end to charts and to the tables of the READMEs. It only measures; nothing here passes or fails.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, whose profile.py would pass for Python's own
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import report, solve, throughput
from benchmarks.launch import ALGORITHMS, ROOT, Parser, output
from common import command
from common.command import UserError

KINDS = {"throughput": throughput, "solve": solve}
RESULTS = ROOT / "benchmarks/results"
PACKAGES = {
    "stable_baselines3": "Stable-Baselines3",
    "sb3_contrib": "sb3-contrib",
    "sbx-rl": "SBX",
    "torch": "PyTorch",
    "jax": "JAX",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line. Raises UserError with one line if something is wrong with it."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help="folders to compare (all)")
    parser.add_argument("--kind", choices=list(KINDS), help="one of the two (both)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each library for throughput (2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds for the time to solve (0 1 2)")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-bench/bin/python", help="the peers' Python")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for CSV files and charts; READMEs then stay")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.algorithms if name not in ALGORITHMS]:
        raise UserError(f"there is no folder '{unknown[0]}'; the algorithms are {', '.join(ALGORITHMS)}")
    if options.rounds < 1 or min(options.seeds) < 0:
        raise UserError("--rounds must be at least 1, and --seeds at least 0")
    options.rows = {
        kind: [row for row in KINDS[kind].ROWS if not options.algorithms or row.algorithm in options.algorithms]
        for kind in ([options.kind] if options.kind else KINDS)
    }
    if not any(options.rows.values()):
        raise UserError(f"there is no row of {' or '.join(options.algorithms)} in {options.kind}")
    if any(row.peers for rows in options.rows.values() for row in rows) and not options.peers.is_file():
        raise UserError(f"--peers: there is no {options.peers}; `make bench` installs the other libraries there")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: can't make {options.out} ({error.strerror})") from None
    return options


def where(peers: Path) -> str:
    """The machine and the versions that are compared. Raises UserError if a library is not there."""
    parts = [report.machine()]
    if peers.is_file():
        script = f"import importlib.metadata as m; print(*map(m.version, {list(PACKAGES)}))"
        try:
            versions = output([peers, "-c", script]).split()
        except (OSError, RuntimeError) as problem:
            raise UserError(f"--peers: {peers}: {problem}") from None
        parts += [f"{name} {version}" for name, version in zip(PACKAGES.values(), versions, strict=True)]
    return ", ".join(parts)


def measure(kind: str, row, repeats: list[int], peers: Path, origin: str) -> list[dict]:
    """All runs of a row as lines of the CSV, the libraries in turn; repeats: the seeds of the runs.

    Raises RuntimeError if one fails.
    """
    lines = []
    for seed in repeats:
        runs = {report.OURS: lambda seed=seed: row.run_ours(seed)}
        if kind == "throughput":
            runs[report.LIMIT] = row.limit
        for library in row.peers:
            runs[library] = lambda library=library, seed=seed: row.run_peer(str(peers), library, seed)
        for library, run in runs.items():
            try:
                result = run()
            except RuntimeError as problem:
                raise RuntimeError(f"{row.name}, {library}: {problem}") from None
            values = {column: result.get(column, "") for column in KINDS[kind].COLUMNS}
            today = time.strftime("%Y-%m-%d")
            lines.append({"name": row.name, "library": library, "seed": seed, **values, "date": today, "where": origin})
    return lines


def show(kind: str, lines: list[dict]) -> None:
    """A row on the terminal: median, range, ratio, and the median start-up."""
    value, cell = report.KINDS[kind]
    [row] = report.cells(lines, value).values()
    for library in row:
        startups = [line["startup"] for line in lines if line["library"] == library and line.get("startup")]
        startup = f", start-up {statistics.median(startups):.1f} s" if startups else ""
        print(f"  {library:18} {cell(row, library, False)}{startup}", flush=True)


def main():
    options = parse(sys.argv[1:])
    repeats = {"throughput": list(range(options.rounds)), "solve": options.seeds}
    expected = sum(row.cost * len(repeats[kind]) for kind, rows in options.rows.items() for row in rows)
    print(f"This takes about {math.ceil(expected / 60)} minutes on two cores with nothing else to do.", flush=True)
    origin = where(options.peers)
    for kind, rows in options.rows.items():
        unit = "steps per second" if kind == "throughput" else "seconds from launch to a solved task"
        path, order = options.out / f"{kind}.csv", [row.name for row in KINDS[kind].ROWS]
        for row in rows:
            print(f"\n{row.name}: {unit}", flush=True)
            try:
                new = measure(kind, row, repeats[kind], options.peers, origin)
            except RuntimeError as problem:
                sys.exit(f"error: {problem}")
            show(kind, new)
            kept = [line for line in report.read(path) if line["name"] in order and line["name"] != row.name]
            report.write(path, sorted(kept + new, key=lambda line: order.index(line["name"])))
        if lines := report.read(path):
            report.chart(kind, lines, options.out / f"{kind}.png")
            if options.out.resolve() == RESULTS:
                report.fill_pages(kind, lines)
    print(f"\nTables and charts: {options.out}")


if __name__ == "__main__":
    command.run(main)
