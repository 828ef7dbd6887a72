"""Tries seeds of one kind or of all, and prints one JSON line: ``python -m tests.fuzz.command``."""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# Processes are forked here, and OpenMP's threads do not survive that.
os.environ["OMP_NUM_THREADS"] = "1"

from tests.fuzz.dicom import Dicom
from tests.fuzz.harness import FINDINGS, Kind, progress, summarise, sweep
from tests.fuzz.runs import Arrow, Checkpoints, Runs
from tests.fuzz.yaml_files import Yaml

SHARES = {"dicom": 0.5, "yaml": 0.3, "arrow": 0.08, "checkpoint": 0.08, "run": 0.04}
"""Of all attempts: the cheap kinds get more."""


def kinds(slow: float) -> dict[str, Kind]:
    """Return the kinds by name.

    Args:
        slow: Part of the attempts on run directories that train or draw pages.
    """
    made: list[Kind] = [Dicom(), Yaml(), Arrow(), Checkpoints(slow / 2), Runs(slow)]
    return {kind.name: kind for kind in made}


def main(arguments: Sequence[str] | None = None, count: int = 1000) -> int:
    """Try seeds; return 1 if there are findings.

    Args:
        arguments: The command line.
        count: Attempts, where the command line does not say.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=SHARES, help="only this kind; by default all")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=count, help="attempts in all")
    parser.add_argument("--slow", type=float, default=0.15, help="part of runs that go on")
    options = parser.parse_args(arguments)
    chosen = [options.kind] if options.kind else list(SHARES)
    known, results = kinds(options.slow), {}
    with tempfile.TemporaryDirectory(prefix="physfed-fuzz-") as folder:
        for name in chosen:
            kind, began = known[name], time.monotonic()
            kind.prepare(Path(folder, "base"))
            share = round(options.count * SHARES[name]) if len(chosen) > 1 else options.count
            seeds = range(options.seed, options.seed + share)
            outcomes = sweep(kind, seeds, Path(folder), progress(kind, share))
            results[name] = summarise(outcomes) | {"wall_s": round(time.monotonic() - began, 1)}
    print(json.dumps({"seed": options.seed, "kinds": results}))
    return int(any(set(found["results"]) & set(FINDINGS) for found in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
