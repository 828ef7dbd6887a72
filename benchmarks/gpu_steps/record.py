"""What was measured: one JSON line each as it comes, and a page that is written again and again."""

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from physfed_ray.device import device_words

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


class Record:
    """``results.jsonl`` and ``gpu.md`` of a folder, which a second call goes on with.

    Args:
        out: The folder.
        device: ``cpu`` or ``cuda``.
        dry: Whether only the way is tried, with tiny sizes.
    """

    def __init__(self, out: Path, device: str, dry: bool) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._lines, self._page = out / "results.jsonl", out / "gpu.md"
        self.rows: list[Row] = []
        if self._lines.exists():
            text = self._lines.read_text()
            self.rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        self.facts = {
            "machine": device_words(device),
            "processor": device_words("cpu"),
            "torch": torch.__version__,
            "CUDA": torch.version.cuda or "none",
            "Python": platform.python_version(),
            "commit": _commit(),
            "date": time.strftime("%Y-%m-%d %H:%M %Z"),
            "sizes": "tiny: a dry run, whose numbers say nothing" if dry else "the paper's",
        }
        self._add({"kind": "call", **self.facts})

    def measured(self, step: str, table: str, **values: Any) -> None:
        """Write a measurement down at once.

        Args:
            step: Name of the step.
            table: Title of its table on the page.
            values: The columns.
        """
        self._add({"kind": "row", "step": step, "table": table, **values})

    def ended(self, step: str, state: str, seconds: float, why: str = "") -> None:
        """Write down how a step ended (done, cut, skipped, failed), and the page anew."""
        line = {"kind": "step", "step": step, "state": state, "seconds": seconds, "why": why}
        self._add(line)
        self._page.write_text(self.page())

    def done(self, step: str) -> bool:
        """Say whether a step is done at this commit on this machine."""
        same = False
        for row in self.rows:
            if row["kind"] == "call":
                same = all(row[key] == self.facts[key] for key in ("machine", "commit", "sizes"))
            elif row["kind"] == "step" and row["step"] == step and row["state"] == "done" and same:
                return True
        return False

    def page(self) -> str:
        """Return the page as Markdown; of lines that were measured twice, the later ones."""
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        steps = {row["step"]: row for row in self.rows if row["kind"] == "step"}
        lines = [
            {"step": s, "ended": r["state"], "seconds": r["seconds"], "why": r["why"]}
            for s, r in steps.items()
        ]
        parts = ["# On a GPU: `python benchmarks/gpu.py`", facts, _table(lines)]
        tables: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows:
            if row["kind"] == "row":
                values = {k: v for k, v in row.items() if k not in ("kind", "step", "table")}
                first = str(next(iter(values.values()), ""))
                tables.setdefault((row["step"], row["table"]), {})[first] = values
        for (step, table), rows in tables.items():
            parts += [f"## {step}: {table}", _table(list(rows.values()))]
        return "\n\n".join(parts) + "\n"

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        with self._lines.open("a") as file:
            file.write(json.dumps(row, default=str) + "\n")
            file.flush()


def _table(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    body = [[_cell(row.get(name, "")) for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
