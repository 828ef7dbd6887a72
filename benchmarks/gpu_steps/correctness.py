"""Step 1: the tests that need a GPU, and the scanner's operator against the CPU."""

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from gpu_steps.record import ROOT
from gpu_steps.setting import PROTOCOLS, Setting
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError

RAY_TESTS = "tests/runtime/"
ADJOINT = 1e-4
"""Most that <A x, y> and <x, A^T y> may differ, of |A x| |y|, in float32."""
SAME = 1e-4
"""Most that an image or a sinogram may differ from the CPU's, of its largest value."""


def run(setting: Setting) -> None:
    """Run the step."""
    wrong = operator_faults(setting)
    wrong += suite_faults(setting)
    if wrong:
        raise PhysFedError("; ".join(wrong))


def operator_faults(setting: Setting) -> list[str]:
    """Compare A, A^T and B of every protocol with the CPU's; return what is wrong."""
    wrong = []
    for name in PROTOCOLS[: setting.size(len(PROTOCOLS), 1)]:
        protocol, n = PRESETS[name], setting.size(256, 32)
        if setting.dry:
            protocol = replace(protocol, views=32)
        found = compared(FanBeam(protocol, n), setting)
        setting.record.measured("correctness", "FanBeam against the CPU", protocol=name, **found)
        bad = [key for key, value in found.items() if value > (ADJOINT if key == "dot" else SAME)]
        if bad:
            wrong.append(f"FanBeam of {name}: {', '.join(bad)} beyond its bound")
    return wrong


def compared(operator: FanBeam, setting: Setting) -> dict[str, float]:
    """Return how far the device's A, A^T and B are from the CPU's, and from each other."""
    rng = torch.Generator().manual_seed(0)
    protocol, n = operator.protocol, operator.n
    x = torch.rand(2, 1, n, n, generator=rng)
    y = torch.rand(2, 1, protocol.views, protocol.bins, generator=rng)
    there = operator.project(x.to(setting.device))
    back = operator.back_project(y.to(setting.device))
    ax, aty = there.double().cpu(), back.double().cpu()
    dot = ((ax * y.double()).sum() - (x.double() * aty).sum()).abs()
    again = operator.project(x.to(setting.device))
    return {
        "A": _apart(there, operator.project(x)),
        "A^T": _apart(back, operator.back_project(y)),
        "FBP": _apart(operator.fbp(y.to(setting.device)), operator.fbp(y)),
        "dot": float(dot / (ax.norm() * y.double().norm())),
        "A twice": _apart(again, there.cpu()),
    }


def _apart(there: Tensor, here: Tensor) -> float:
    return float((there.cpu() - here).abs().max() / here.abs().max())


def suite_faults(setting: Setting) -> list[str]:
    """Run the tests with the marker ``cuda``, and return what is wrong.

    A file that cannot be imported for want of a package counts as left out; it is named.
    """
    files = cuda_tests(setting)
    if setting.dry:
        files = files[:1]
    report = setting.out.absolute() / "cuda_tests.xml"
    options = ["--continue-on-collection-errors", f"--junitxml={report}", "-m", "cuda"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *files]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    limit = max(1.0, 0.9 * setting.clock.left())
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            timeout=limit,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"the tests took longer than {limit:.0f} s"]
    if not report.exists():
        return [f"pytest did not run: {' '.join(ended.stdout.split()[-40:])} {ended.stderr[-400:]}"]
    return told(report.read_text(), setting)


def cuda_tests(setting: Setting) -> list[str]:
    """Return the files with tests on a GPU; those of Ray's room only where Ray is."""
    marked = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "@pytest.mark.cuda" in (text := path.read_text()) or "marks=pytest.mark.cuda" in text
    ]
    if importlib.util.find_spec("ray") is not None:
        return marked
    kept = [name for name in marked if not name.startswith(RAY_TESTS)]
    for name in set(marked) - set(kept):
        result = f"left out: {name}, which needs Ray"
        setting.record.measured("correctness", "tests marked cuda", result=result, tests=1)
    return kept


def told(report: str, setting: Setting) -> list[str]:
    """Count the tests of a report of pytest's, and return those that failed and why.

    Args:
        report: JUnit's XML.
        setting: Where the counts are recorded.
    """
    counts: Counter[str] = Counter()
    wrong = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}".strip(".")
        fault = case.find("failure") if case.find("failure") is not None else case.find("error")
        if fault is None:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
        elif "ModuleNotFoundError" in (text := fault.text or "") or "ImportError" in text:
            counts[f"left out: {name} ({text.strip().splitlines()[-1].strip()})"] += 1
        else:
            counts["failed"] += 1
            wrong.append(f"{name}: {(fault.get('message') or '')[:200]}")
    for state, count in counts.items():
        setting.record.measured("correctness", "tests marked cuda", result=state, tests=count)
    return wrong
