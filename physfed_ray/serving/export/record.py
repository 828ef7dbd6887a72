"""What a run directory says of a model's data and scores, for the card of an export."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from physfed_ray.metrics.registry import owner
from physfed_ray.rundir.long_table import METRICS_FILE
from physfed_ray.rundir.manifest import round_name
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.enrol.card import EnrolledCard, Result
from physfed_ray.window import Window

KEYS = ("patients", "slices")
_STARTS = {
    "initial": "initial weights",
    "nearest": "those of the nearest client",
    "shared": "a copy of the shared ones",
}


@dataclass(frozen=True)
class Score:
    """One metric of a model.

    Attributes:
        name: The metric's, with its window: ``psnr[-160,240]``.
        unit: Of both numbers, "" without one.
        before: Its mean over the low-dose images, None where the run did not measure it.
        after: Its mean over the denoised images.
        decimals: Digits after the point.
    """

    name: str
    unit: str
    before: float | None
    after: float
    decimals: int


@dataclass(frozen=True)
class Record:
    """What a run says of one of its models.

    Attributes:
        scores: Of its last evaluation of the model; empty where it made none.
        split: On which images: ``test``, ``validation``, or ``unseen/POLICY``.
        counts: ``patients`` and ``slices`` of each split, by its name; of training also those of
            all clients together.
        source: What kind of data: ``phantom``, ``dicom`` or ``measured`` pairs; "" where the run
            has not finished.
        joined: How the client joined the run after its last round; "" for a client of the run.
    """

    scores: tuple[Score, ...] = ()
    split: str = ""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    source: str = ""
    joined: str = ""


def enrolled_record(client: EnrolledCard, run: Record, window_hu: Window) -> Record:
    """Return what is known of an enrolled client's model.

    Args:
        client: The client.
        run: What the run says of its own data.
        window_hu: The experiment's window.
    """
    counts: dict[str, Mapping[str, int]] = {
        part: dict(zip(KEYS, (len(held), sum(held.values())), strict=True))
        for part, held in client.patients.items()
    }
    everybody = run.counts.get("train, all clients")
    counts |= {} if everybody is None else {"train, all clients of the run": everybody}
    before, after = (_over_slices(client, part) for part in (client.results[0], client.results[-1]))
    return Record(
        scores=tuple(_score(m, after[m], before.get(m), window_hu) for m in after),
        split="test",
        counts=counts,
        source=str(client.source.get("kind", "")),
        joined="The client joined the run after its last round: it trained "
        f"{', '.join(client.trained)} alone, on its own patients, from {_STARTS[client.start]}.",
    )


def _over_slices(client: EnrolledCard, result: Result) -> dict[str, float]:
    """Return each metric's mean over the slices of the client's test patients."""
    slices = client.patients["test"]
    return {
        metric: sum(slices[p] * value for p, value in means.items()) / sum(slices.values())
        for metric, means in result.scores.items()
    }


def read_record(
    directory: RunDirectory, number: int, name: str, choice: Choice, window_hu: Window
) -> Record:
    """Read what a run says of a model.

    Args:
        directory: The run directory.
        number: The round that the model was trained to.
        name: The client's name, or the protocol's where it is no client's.
        choice: Which model it is.
        window_hu: The experiment's window, that of metrics without another.
    """
    split, scores = _scores(directory, number, name, choice, window_hu)
    data = _data(directory)
    splits = data.get("splits", {})
    counts: dict[str, Mapping[str, int]] = {}
    for part in ("train", "validation", "test"):
        held = splits.get(part, {})
        if name in held:
            counts[part] = {key: int(held[name].get(key, 0)) for key in KEYS}
        if part == "train" and held:
            counts["train, all clients"] = {
                key: sum(int(own.get(key, 0)) for own in held.values()) for key in KEYS
            }
    return Record(scores, split, counts, str(data.get("source", {}).get("kind", "")))


def _data(directory: RunDirectory) -> dict[str, Any]:
    """Return what the summary of a finished run says of its data."""
    if not directory.has("summary.json"):
        return {}
    summary = directory.read_json("summary.json")
    data = summary.get("data") if isinstance(summary, dict) else None
    return data if isinstance(data, dict) else {}


def _scores(
    directory: RunDirectory, number: int, name: str, choice: Choice, window_hu: Window
) -> tuple[str, tuple[Score, ...]]:
    table = directory.read_table(METRICS_FILE)
    if not len(table):
        table = directory.read_table(f"{round_name(number)}/{METRICS_FILE}")
    rows = table.where(client=name, round=number)
    if choice.policy == "own":
        pairs = [("test", "test/input"), ("validation", "validation/input")]
    else:
        pairs = [(f"unseen/{choice.policy}", "unseen/input")]
    for split, before in pairs:
        after = rows.where(split=split).means("metric")
        if after:
            low = rows.where(split=before).means("metric")
            return split, tuple(_score(m, after[m], low.get(m), window_hu) for m in after)
    return "", ()


def _score(name: str, after: float, before: float | None, window_hu: Window) -> Score:
    known = owner(name)
    metric = None if known is None else known[1]
    scale = 1.0 if metric is None else metric.scale
    shown = name if "[" in name else f"{name}[{window_hu[0]:g},{window_hu[1]:g}]"
    return Score(
        shown,
        "" if metric is None else metric.unit,
        None if before is None else before * scale,
        after * scale,
        4 if metric is None else metric.decimals,
    )
