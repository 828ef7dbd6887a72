"""Run the real-CT comparison: choose each method's learning rate, then three seeds of each.

    python benchmarks/real_ct.py --jobs 2

Every method gets the same care: each learning rate of one grid is tried with one seed and
half of the rounds, the one with the best validation PSNR (mean over the clients, validation
patients under each client's own protocol) is used for all seeds. Test patients are not looked at
before. Runs that exist are not run again, interrupted ones go on, so the script may be stopped
and started at any time. The page is made from the runs by

    physfed compare runs/real_ct/final/* --out docs/results/real_ct.md --classical
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from physfed_ray.experiment import load_experiment

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "real_ct.yaml"
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (1, 2, 3)
METHODS = {
    "local": "{name: local}",
    "fedavg": "{name: fedavg}",
    "fedper": "{name: fedper}",
    "scan_physfed": "{name: scan_physfed}",
    "scan_physfed-adam_eps_1e-8": "{name: scan_physfed}",
    "scan_physfed-public_code": "{name: scan_physfed, variant: public_code}",
}


def run_method(out: Path, method: str, seed: int, lr: float, rounds: int) -> None:
    """Run the experiment with one of the methods."""
    epsilon = {"training.adam_eps": "1e-8"} if method.endswith("adam_eps_1e-8") else {}
    settings = epsilon | {
        "method": METHODS[method],
        "seed": str(seed),
        "training.lr": str(lr),
        "training.rounds": str(rounds),
    }
    run(out, settings)


def run(out: Path, settings: Mapping[str, str]) -> None:
    """Run the experiment in a process of its own, unless it is complete."""
    if (out / "report.html").exists():
        return
    command = [sys.executable, "-m", "physfed_ray", "run", str(EXPERIMENT), "--out", str(out)]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    command += ["--runtime", "inline", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{out} failed: {done.stderr[-2000:]}")
    print(f"done: {out}", file=sys.stderr, flush=True)


def validation_psnr(out: Path) -> float:
    """Return the mean over clients of the validation PSNR after the last round."""
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    last = max(row["round"] for row in rows)
    values = [
        row["value"]
        for row in rows
        if row["round"] == last and row["split"] == "validation" and row["metric"] == "psnr"
    ]
    return sum(values) / len(values)


def main() -> None:
    """Run what is missing and print what was chosen as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--out", type=Path, default=Path("runs/real_ct"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parser.parse_args()
    rounds = load_experiment(EXPERIMENT).training.rounds
    grid = options.out / "grid"
    with ThreadPoolExecutor(options.jobs) as pool:
        trials = [
            pool.submit(run_method, grid / f"{method}-lr{lr:g}", method, SEEDS[0], lr, rounds // 2)
            for method in options.methods
            for lr in LEARNING_RATES
        ]
        for trial in trials:
            trial.result()
        table = {
            method: {
                f"{lr:g}": validation_psnr(grid / f"{method}-lr{lr:g}") for lr in LEARNING_RATES
            }
            for method in options.methods
        }
        chosen = {method: max(LEARNING_RATES, key=lambda lr, row=row: row[f"{lr:g}"])
                  for method, row in table.items()}  # fmt: skip
        (options.out / "learning_rates.json").write_text(
            json.dumps({"validation_psnr": table, "chosen": chosen}, indent=1) + "\n"
        )
        finals = [
            pool.submit(
                run_method, options.out / "final" / f"{method}-seed{seed}", method, seed, lr, rounds
            )
            for seed in SEEDS
            for method, lr in chosen.items()
        ]
        for final in finals:
            final.result()
    print(json.dumps({"benchmark": "real_ct", "validation_psnr": table, "chosen": chosen}))


if __name__ == "__main__":
    main()
