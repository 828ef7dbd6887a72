"""A folder of CT series in, a folder of denoised series out."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from physfed_ray.data.dicom.whole_series import Found, WholeSeries, find_series
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.familiarity import Familiarity, familiarity
from physfed_ray.serving.output import (
    alone,
    check_places,
    check_same,
    read_record,
    write_record,
)
from physfed_ray.serving.parts import Outcome, RunParts, cut, here
from physfed_ray.serving.trained import TrainedRun
from physfed_ray.serving.wanted import Wanted, model_of

FORMAT = 1


@dataclass(frozen=True)
class Denoised:
    """What a call has done.

    Attributes:
        out: The folder.
        found: What was read.
        made: Slices written now.
        there: Slices that an earlier call had written.
        left_out: Images that are not in the folder, by reason.
        notes: What is to be said of images that are, by what was done to them.
        seconds: What the denoising took.
    """

    out: Path
    found: Found
    made: int
    there: int
    left_out: dict[str, int]
    notes: dict[str, int]
    seconds: float


def denoise_folder(
    wanted: Wanted,
    source: Path,
    out: Path,
    *,
    derived: bool = False,
    run_parts: RunParts = here,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Denoised:
    """Denoise every series under a folder.

    A call that was interrupted goes on where it was: what is there is not made again, and what is
    made has the same bytes as without the interruption.

    Args:
        wanted: The model.
        source: A folder, a DICOMDIR, or a file.
        out: A new folder, or one that the same call has begun.
        derived: Denoise what was computed from other images as well.
        run_parts: Makes the batches of slices; by default in this process.
        on_event: Receives ``message`` and ``denoise`` events.

    Raises:
        PhysFedError: The places, the model or the images do not do.
    """
    source, out = source.absolute(), out.absolute()  # an actor may stand elsewhere
    check_places(source, out)
    run, denoiser = wanted.load()
    near = familiarity(denoiser.protocol, run.card.clients, run.card.further)
    _tell_choice(denoiser, near, on_event)
    found = find_series(source, derived=derived)
    _tell_found(found, on_event)
    record = _record(wanted, run, denoiser, near, found)
    with alone(out):
        before = read_record(out)
        if before is not None:
            check_same(out, before, record)
            record["series"] = {**before["series"], **record["series"]}
        write_record(out, record)
        counter = _Counter(found.slices, on_event)
        parts = [part for series in found.series for part in cut(series, wanted.batch)]
        for outcome in run_parts(wanted, denoiser.model_hash, out, parts):
            counter.add(outcome)
        result = counter.result(out, found)
        record |= {"left_out": result.left_out, "notes": result.notes, "complete": True}
        write_record(out, record)
    return result


def going_on(out: Path, wanted: Wanted, given: Sequence[str]) -> Wanted:
    """Return what is wanted, with what an earlier call has settled and this one does not name.

    Args:
        out: The folder.
        wanted: What this call wants.
        given: Names of attributes that the user gave: ``batch``, ``threads``, ``rule``.
    """
    before = read_record(out) or {}
    settled = {name: before[name] for name in ("batch", "threads", "rule")
               if name in before and name not in given}  # fmt: skip
    return replace(wanted, **settled)


def _record(
    wanted: Wanted, run: TrainedRun, denoiser: Denoiser, near: Familiarity, found: Found
) -> dict[str, Any]:
    """Return what ``denoised.json`` says; no path and nobody's name is in it."""
    choice = denoiser.choice
    return {
        "format": FORMAT,
        "model": asdict(model_of(run, denoiser, wanted.rule)),
        "choice": {"policy": choice.policy, "client": choice.client, "words": str(choice)},
        "protocol": denoiser.protocol.values(),
        "nearest_training_protocol": asdict(near),
        **wanted.pixels(),
        "series": {series.name: _series_record(series) for series in found.series},
        "left_out": dict(found.left_out),
        "notes": dict(found.notes),
        "complete": False,
    }


def _series_record(series: WholeSeries) -> dict[str, Any]:
    return {"slices": len(series.slices), "images": series.digest}


def _tell_choice(denoiser: Denoiser, near: Familiarity, on_event: Callable[[Event], None]) -> None:
    def say(text: str) -> None:
        on_event({"event": "message", "text": text})

    say(f"model: {denoiser.choice}")
    if denoiser.choice.policy == "own":
        return
    usual = "" if near.usual is None else f" (training protocols: at most {near.usual:.3f} apart)"
    say(f"nearest training protocol: client {near.client}, distance {near.distance:.3f}{usual}")
    if near.warning:
        say(f"warning: {near.warning}")


def _tell_found(found: Found, on_event: Callable[[Event], None]) -> None:
    def say(text: str) -> None:
        on_event({"event": "message", "text": text})

    say(f"found {len(found.series)} series, {found.slices} slices, in {found.files} files")
    if any(series.in_frames for series in found.series):
        say("enhanced (multi-frame) CT is written as classic CT, one file for each slice")


class _Counter:
    """Adds outcomes up and tells how far it is."""

    def __init__(self, total: int, on_event: Callable[[Event], None]) -> None:
        self._total, self._on_event = total, on_event
        self._done = self._made = self._there = 0
        self._left_out, self._notes = Counter[str](), Counter[str]()
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count a part in."""
        self._done += outcome.slices
        self._made += outcome.made
        self._there += outcome.there
        self._left_out += outcome.left_out
        self._notes += outcome.notes
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = self._made / seconds
        self._on_event(
            {"event": "denoise", "done": self._done, "total": self._total, "there": self._there,
             "slices_per_s": rate,
             "eta_s": (self._total - self._done) / rate if rate else 0.0}
        )  # fmt: skip

    def result(self, out: Path, found: Found) -> Denoised:
        """Return what was done.

        Raises:
            PhysFedError: Nothing was, because no pixels could be read.
        """
        left_out = Counter(found.left_out) + self._left_out
        counts = {"left_out": dict(sorted(left_out.items()))}
        if not self._made + self._there:
            from physfed_ray.data.left_out import left_out_words

            raise PhysFedError(
                f"none of {self._total} slices could be denoised ({left_out_words(counts)}): "
                "export the images again"
            )
        notes = Counter(found.notes) + self._notes
        seconds = time.monotonic() - self._began
        return Denoised(out, found, self._made, self._there, counts["left_out"],
                        dict(sorted(notes.items())), seconds)  # fmt: skip
