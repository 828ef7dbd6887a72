"""On a machine with a GPU: prove in minutes that the system works there, and measure what it gives.

Steps in order of worth, each within its share of the time; what one leaves goes to the next. Each
measurement is written at once (results.jsonl), and the page (gpu.md) after each step. A step that
fails is named with its error, and the next one begins. A second call with the same folder leaves
out what is done at this commit and goes on with the runs. docs/gpu.md says what it needs.
"""

import argparse
import faulthandler
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_steps import ceilings, correctness, denoising, packing, paper, reporter, training
from gpu_steps.clock import Clock, OutOfTime
from gpu_steps.record import ROOT, Record
from gpu_steps.setting import Setting

from physfed_ray.errors import sentence


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        work: Does it.
        share: Of the time, beside those of the steps after it.
        missing: Says why it cannot be done here; empty if it can.
    """

    work: Callable[[Setting], None]
    share: float
    missing: Callable[[], str] = str


STEPS: Mapping[str, Step] = {
    "correctness": Step(correctness.run, 0.17),
    "ceilings": Step(ceilings.run, 0.03),
    "training step": Step(training.run, 0.13),
    "paper": Step(paper.run, 0.5),
    "packing": Step(packing.run, 0.08),
    "denoising": Step(denoising.run, 0.04),
    "reporter": Step(reporter.run, 0.05, reporter.missing),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="after which all has ended")
    parser.add_argument("--out", type=Path, required=True, help="folder; the same to go on")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--data", type=Path, help="CT that gpu_pack.py wrote; else phantoms")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    args = parser.parse_args()
    if not args.dry and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: add --dry to try the steps on the CPU")
    if args.data is not None and not args.data.is_file():
        parser.error(f"there is no file {args.data}: write it with gpu_pack.py")
    return args


def main() -> int:
    """Run the steps; 0 if none failed."""
    args = parse()
    faulthandler.dump_traceback_later(60 * args.minutes, exit=True)  # whatever hangs then
    clock = Clock(args.minutes)
    device = "cpu" if args.dry else "cuda"
    record = Record(args.out, device, args.dry)
    failed = False
    for place, name in enumerate(list(STEPS)):
        if name not in args.steps or record.done(name):
            continue
        later = sum(STEPS[n].share for n in list(STEPS)[place:] if n in args.steps)
        budget = clock.left() * STEPS[name].share / later
        state, seconds, why = attempt(name, args, clock, budget, record, device)
        failed |= state == "failed"
        record.ended(name, state, round(seconds, 1), why)
        print(f"{name}: {state} after {seconds:.1f} s {why}".rstrip(), flush=True)
    print(args.out / "gpu.md")
    return int(failed)


def attempt(
    name: str, args: argparse.Namespace, clock: Clock, budget: float, record: Record, device: str
) -> tuple[str, float, str]:
    """Do a step within its budget; return how it ended, its seconds, and why."""
    began = time.monotonic()
    state, why = "done", STEPS[name].missing()
    if why:
        return "skipped", 0.0, why
    try:
        if budget < 1:
            raise OutOfTime
        with clock.limit(budget) as own:
            STEPS[name].work(Setting(args.out, device, args.dry, own, record, args.data))
    except OutOfTime:
        state, why = "cut", "its time was over"
    except Exception as error:
        state, why = "failed", sentence(error)[:1000]
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()
    return state, time.monotonic() - began, why


if __name__ == "__main__":
    sys.path.insert(1, str(ROOT))  # the tests' models, also where the project is not installed
    sys.exit(main())
