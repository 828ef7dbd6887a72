"""One vector a report against a vector a token, in the real-CT experiment, three seeds.

    python benchmarks/report_tokens.py --jobs 2

SCAN-PhysFed with the embedding of the measured report as one vector or as up to 32, each with the
anatomy map on the bottleneck alone (the paper) and on the skips too (where it matters more, see
docs/results/real_ct.md). The learning rate is the one that was chosen there for a single vector.
Runs that exist are not run again. The page is made from the runs by

    physfed compare runs/report_tokens/* --out docs/results/report_tokens.md
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modulation import inspect_run
from real_ct import SEEDS, run

TOKENS = (1, 32)
PLACES = {"bottleneck": "false", "skips": "true"}


def main() -> None:
    """Run what is missing, and print what the modulation does in each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--out", type=Path, default=Path("runs/report_tokens"))
    options = parser.parse_args()
    runs = {
        options.out / f"tokens-{tokens}-{place}-seed{seed}": {
            "reports.encoder": f"{{name: minilm, tokens: {tokens}}}",
            "method": f"{{name: scan_physfed, modulate_skips: {skips}}}",
            "seed": str(seed),
        }
        for seed in SEEDS
        for place, skips in PLACES.items()
        for tokens in TOKENS
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, runs, runs.values()))
    for out in runs:
        print(json.dumps({"benchmark": "report_tokens", "run": out.name} | inspect_run(out)))


if __name__ == "__main__":
    main()
