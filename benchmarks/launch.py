"""The processes that are measured, one for each run, and the command lines of those that start them."""

import argparse
import json
import subprocess
import time
from pathlib import Path

from common.command import UserError

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = sorted(path.parent.name for path in ROOT.glob("*/agent.py"))
PEERS = {"Stable-Baselines3": "sb3", "SBX": "sbx"}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message):
        raise UserError(f"{message}; --help lists the arguments")


def output(command: list) -> str:
    """What a command prints. Raises RuntimeError with the last line of its complaint if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    return done.stdout


def run_peer(python: str, case: dict) -> dict:
    """What peers.py prints for this case."""
    case = {"processes": False, **case, "launched": time.time()}
    return json.loads(output([python, ROOT / "benchmarks/peers.py", json.dumps(case)]).splitlines()[-1])
