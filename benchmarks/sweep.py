"""Compare samplers, and pruning with none, on a small sweep: paired over the samplers' seeds.

    python benchmarks/sweep.py --out runs/sweeps

Runs the trials of experiments/sweep_small.yaml (or of another sweep) with TPE, with random
proposals and with TPE and the file's pruner, once for each seed of the sampler; no final tests.
Stopped and started again, it goes on. Prints one JSON line. The first trial has the base's own
values in every arm; ``proposed_db`` is the best of what the sampler itself proposed. ``slices.png``
and the importances are of all trials of the sweeps without pruning.
"""

import argparse
import json
import platform
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from physfed_ray.pages.figures import png
from physfed_ray.sweep.driver import Driver
from physfed_ray.sweep.figures import slices
from physfed_ray.sweep.folder import STUDY, Folder
from physfed_ray.sweep.page import importances, tried
from physfed_ray.sweep.pool import Setup, TrialPool
from physfed_ray.sweep.space import load_sweep
from physfed_ray.sweep.study import SweepStudy

SMALL = Path(__file__).parents[1] / "experiments" / "sweep_small.yaml"
ARMS = {
    "tpe": ["pruner=none"],
    "random": ["pruner=none", "sampler.name=random"],
    "tpe_pruned": [],
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, default=SMALL)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the sampler, from 1")
    parser.add_argument("--jobs", type=int, default=1, help="1 makes proposals repeatable")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def run(args: argparse.Namespace, arm: str, seed: int, pooled: SweepStudy) -> dict[str, Any]:
    """Run the trials of one arm with one seed; return the best score and the rounds.

    Trials that were not pruned are added to ``pooled``.
    """
    overrides = [*args.set, *ARMS[arm], f"sampler.seed={seed}", "concurrent=1"]
    sweep = load_sweep(args.sweep, overrides)
    folder = Folder(str(args.out / f"{arm}-{seed}"))
    setup = Setup(folder, resume=True, runtime="inline", jobs=args.jobs)
    study = SweepStudy(sweep.file, folder.local / STUDY, sweep.settings())
    pool = TrialPool(setup, None, args.jobs, lambda event: None)
    try:
        Driver(sweep, setup, study, pool, lambda event: None).run()
    finally:
        pool.stop()
    trials = tried(study)
    if arm != "tpe_pruned":
        pooled.study.add_trials(study.trials)
    best = study.best()
    assert best is not None
    return {
        "best": best.values[0],
        "proposed": max(trial.objectives[0] for trial in trials[1:] if trial.objectives),
        "rounds": sum(trial.rounds for trial in trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "trials": len(trials),
    }


def main() -> None:
    """Run the benchmark."""
    args = parse()
    seeds = range(1, args.seeds + 1)
    sweep = load_sweep(args.sweep, args.set)
    pooled = SweepStudy(sweep.file, None)
    found = {arm: [run(args, arm, seed, pooled) for seed in seeds] for arm in ARMS}
    figure = slices(tried(pooled), sweep.file.space, sweep.file.objectives[0])
    (args.out / "slices.png").write_bytes(png(figure, dpi=120))
    best = {arm: [result["best"] for result in results] for arm, results in found.items()}
    rounds = {arm: sum(result["rounds"] for result in results) for arm, results in found.items()}

    def differences(first: str, second: str) -> list[float]:
        return [round(a - b, 4) for a, b in zip(best[first], best[second], strict=True)]

    result = {
        "benchmark": "sweep",
        "sweep": args.sweep.stem,
        "cpu": platform.processor() or platform.machine(),
        "trials": found["tpe"][0]["trials"],
        "best_db": {arm: [round(value, 4) for value in values] for arm, values in best.items()},
        "mean_db": {arm: round(mean(values), 4) for arm, values in best.items()},
        "spread_db": {arm: round(stdev(values), 4) for arm, values in best.items()},
        "proposed_db": {
            arm: [round(result["proposed"], 4) for result in results]
            for arm, results in found.items()
        },
        "tpe_minus_random_db": differences("tpe", "random"),
        "pruned_minus_tpe_db": differences("tpe_pruned", "tpe"),
        "pruned": [result["pruned"] for result in found["tpe_pruned"]],
        "rounds": rounds,
        "importances": {key: round(value, 3) for key, value in importances(pooled).items()},
        "rounds_saved": round(1 - rounds["tpe_pruned"] / rounds["tpe"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
