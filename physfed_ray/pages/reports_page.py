"""The page of ``physfed reports``: slices beside their reports and nearest neighbours."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from physfed_ray.atomic import atomic_file
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.prepared import MANIFEST, Prepared
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.pages import render
from physfed_ray.results.meaning import Meaning, meaning
from physfed_ray.results.neighbours import (
    Corpus,
    Neighbour,
    choose,
    first_sentence,
    gather,
    nearest,
)
from physfed_ray.window import Window

WINDOWS: Mapping[str, Window] = {
    "Lung": (-1350.0, 150.0),
    "Soft tissue": (-160.0, 240.0),
    "Bone": (-500.0, 1300.0),
}
THUMBNAIL_HU: Window = (-900.0, 700.0)
"""Wide, so that lungs, organs and bones are told apart in one small picture."""
PICTURE_PX, THUMBNAIL_PX = 320, 160
OTHERS = 3


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        label: What it shows.
        base64: Its PNG.
    """

    label: str
    base64: str


@dataclass(frozen=True)
class Near:
    """A neighbour on the page.

    Attributes:
        same: Whether it is of the same patient.
        cosine: Of the standardised embeddings.
        plain: Of the embeddings as they are.
        sentence: First sentence of its report.
        caption: Whose it is.
        picture: What it looks like.
    """

    same: bool
    cosine: str
    plain: str
    sentence: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class Shown:
    """A slice on the page.

    Attributes:
        title: Client and place.
        protocol: The seven numbers of its scanner.
        split: What its client uses it for.
        report: Its text.
        pictures: It in each window.
        neighbours: The nearest slices of other patients, then that of its own.
    """

    title: str
    protocol: str
    split: str
    report: str
    pictures: list[Picture]
    neighbours: list[Near]


def find(target: Path, overrides: Sequence[str] = ()) -> Experiment | Prepared:
    """Return the experiment to prepare, or the data that a folder holds ready.

    Args:
        target: An experiment file, a run directory, or a folder of prepared data.
        overrides: ``key=value`` entries, for an experiment or a run.

    Raises:
        PhysFedError: It is none of these, or the patients of a run are not on this machine.
    """
    if not target.is_dir():
        return load_experiment(target, overrides)
    if (target / "experiment.yaml").is_file():
        experiment = load_experiment(target / "experiment.yaml", overrides)
        folder = experiment.data.source.folder
        if folder is not None and not folder.is_dir():
            raise PhysFedError(
                f"the patients of the run {target} are not on this machine (no folder {folder}): "
                "look at its reports where it ran, or say where they lie with "
                f"--set data.source.{'pairs' if experiment.data.source.pairs else 'dicom'}=FOLDER"
            )
        return experiment
    if not (target / MANIFEST).is_file():
        raise PhysFedError(
            f"{target} is neither a run directory (it has no experiment.yaml) nor a folder of "
            f"prepared data (it has no {MANIFEST}): give one of them, or an experiment file"
        )
    if overrides:
        raise PhysFedError(
            f"{target} is a folder of prepared data, to which --set {overrides[0]} does not "
            "apply: give the experiment file instead"
        )
    return Prepared.load(target)


def write_reports_page(
    prepared: Prepared, out: Path, count: int, experiment: Experiment | None = None
) -> Path:
    """Write the page, one file that opens offline.

    Args:
        prepared: The slices and their reports.
        out: The page.
        count: Slices to show, spread over clients, patients and positions.
        experiment: Where reporter, encoder and seed are told; None where only the data are known.

    Returns:
        Where it lies.

    Raises:
        PhysFedError: A file cannot be read or written.
    """
    seed = 1 if experiment is None else experiment.seed
    corpus = gather(prepared)
    chosen = choose(corpus, count, seed)
    found = meaning(corpus, seed)
    html = render(
        "reports.html",
        name=f"data {prepared.root.name[:8]}" if experiment is None else experiment.name,
        lead=_lead(corpus, chosen),
        numbers=_numbers(corpus, found),
        openings=found.openings,
        makers=_makers(prepared, experiment),
        windows=_windows_sentence(prepared.window_hu),
        slices=[_shown(prepared, corpus, k) for k in chosen],
    )
    try:
        with atomic_file(out) as temporary:
            temporary.write_text(html, encoding="utf-8")
    except OSError as error:
        raise PhysFedError(
            f"{out} cannot be written ({error.strerror}): choose another --out"
        ) from error
    return out


def _lead(corpus: Corpus, chosen: Sequence[int]) -> str:
    compared = "" if len(corpus) == corpus.total else f" ({len(corpus):,} of them compared)"
    clients, patients = (
        len(set(column[list(chosen)].tolist())) for column in (corpus.client, corpus.patient)
    )
    return (
        f"{len(chosen)} of {corpus.total:,} slices{compared}, spread over {clients} clients and "
        f"{patients} patients, each with its report and the slices whose reports lie nearest."
    )


def _numbers(corpus: Corpus, found: Meaning) -> list[tuple[str, str]]:
    """Return the tiles of the summary: value and meaning."""
    fewest, middle, most = found.words
    tiles = [
        (f"{corpus.total:,}", f"slices of {len(set(corpus.patient.tolist()))} patients, "
         f"{len(set(corpus.client.tolist()))} clients and unseen protocols"),
        (f"{found.texts:,}", f"different reports among {len(corpus):,} slices"),
        (_percent(found.repeated), "of the slices have a report that another patient's slice has "
         "word for word"),
        (f"{middle:.0f} words", f"in the median report; {fewest} to {most}"),
        (f"{found.plain[0]:.3f}", "cosine of two slices' embeddings, median of random pairs "
         f"(5% to 95%: {found.plain[1]:.3f} to {found.plain[2]:.3f})"),
        (f"{found.standard[0]:.2f}", "the same after standardisation, as the network sees them "
         f"({found.standard[1]:.2f} to {found.standard[2]:.2f})"),
        (f"{found.picture.neighbours:.2f}", "correlation of the pictures of nearest neighbours "
         f"from different patients; {found.picture.chance:.2f} by chance"),
        (_percent(found.patient.neighbours), "of the nearest slices elsewhere are the same "
         f"patient's; {_percent(found.patient.chance)} by chance"),
        (_percent(found.client.neighbours), "of the nearest slices of other patients are the same "
         f"client's; {_percent(found.client.chance)} by chance"),
    ]  # fmt: skip
    if found.rescanned is not None:
        cosine, same = found.rescanned
        tiles.append(
            (f"{cosine:.2f}", "cosine, standardised, of one slice scanned under two protocols; "
             f"{_percent(same)} of them have the same text")
        )  # fmt: skip
    return [(value, text) for value, text in tiles if "nan" not in value]


def _percent(share: float) -> str:
    return "nan" if math.isnan(share) else f"{100 * share:.0f}%"


def _makers(prepared: Prepared, experiment: Experiment | None) -> list[tuple[str, str]]:
    """Return who wrote and embedded the reports."""
    size = f"{prepared.statistics.tokens} x {prepared.statistics.dim} numbers a report"
    if experiment is None:
        return [("Reporter", "not told by prepared data: give the experiment"), ("Embedding", size)]
    describer = experiment.reports.make()
    pairs = []
    for role, spec, version in (
        ("Reporter", experiment.reports.reporter, describer.reporter.version),
        ("Text encoder", experiment.reports.encoder, describer.encoder.version),
    ):
        settings = spec.settings.model_dump(mode="json").items()
        pairs += [(role, spec.name), *((f"{role}: {key}", str(value)) for key, value in settings)]
        pairs.append((f"{role}: version", version))
    return [*pairs, ("Embedding", size)]


def _windows_sentence(stored: Window) -> str:
    shown = ", ".join(f"{k.lower()} {low:g} to {high:g}" for k, (low, high) in WINDOWS.items())
    cut = [
        name.lower() for name, (low, high) in WINDOWS.items() if low < stored[0] or high > stored[1]
    ]
    sentence = f"The low-dose slice, which the reporter read, in HU windows: {shown}."
    if not cut:
        return sentence
    return (
        f"{sentence} The images are stored from {stored[0]:g} to {stored[1]:g} HU "
        f"(data.window_hu), which cuts the {' and '.join(cut)} window off there; the reporter saw "
        "the whole range."
    )


def _scanner(protocol: Protocol) -> str:
    """Return a protocol in words; the kind of detector and the arc where they are unusual."""
    kind = ["a curved detector"] if "detector" in protocol.further else []
    arc = [f"an arc of {protocol.arc_deg:g} degrees"] if "arc_deg" in protocol.further else []
    return ", ".join(
        [
            f"{protocol.views:g} views, {protocol.bins:g} bins of {protocol.bin_mm:g} mm, "
            f"pixels of {protocol.pixel_mm:g} mm, {protocol.source_mm:g} mm to the source, "
            f"{protocol.detector_mm:g} mm to the detector, {protocol.photons:,.0f} photons a ray",
            *kind,
            *arc,
        ]
    )


def _shown(prepared: Prepared, corpus: Corpus, k: int) -> Shown:
    others, own = nearest(corpus, k, OTHERS)
    clients = {c.id: c for c in (*prepared.clients, *prepared.unseen)}
    protocol = clients[str(corpus.client[k])].protocol
    image = _hu(corpus.low(k), prepared.window_hu)
    return Shown(
        title=_owner(corpus, k),
        protocol=_scanner(protocol),
        split=corpus.split[k],
        report=corpus.report[k],
        pictures=[Picture(name, _png(image, w, PICTURE_PX)) for name, w in WINDOWS.items()],
        neighbours=[_near(prepared, corpus, k, n) for n in (*others, *([own] if own else []))],
    )


def _near(prepared: Prepared, corpus: Corpus, k: int, neighbour: Neighbour) -> Near:
    other = neighbour.index
    same = bool(corpus.patient[other] == corpus.patient[k])
    again = same and corpus.position[other] == corpus.position[k]
    image = _hu(corpus.low(other), prepared.window_hu)
    return Near(
        same=same,
        cosine=f"{neighbour.cosine:.2f}",
        plain=f"{neighbour.plain:.3f}",
        sentence=first_sentence(corpus.report[other]),
        caption=("same slice, " if again else "") + _owner(corpus, other),
        picture=Picture(_owner(corpus, other), _png(image, THUMBNAIL_HU, THUMBNAIL_PX)),
    )


def _owner(corpus: Corpus, k: int) -> str:
    return f"{corpus.client[k]}, patient {corpus.patient[k]}, slice {int(corpus.position[k])}"


def _hu(image: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    return np.asarray(image * np.float32(window[1] - window[0]) + np.float32(window[0]))


def _png(hu: NDArray[np.float32], window: Window, most_px: int) -> str:
    """Return a slice (n, n) in HU as a PNG in base64, at most so many pixels a side."""
    grey = np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1) * 255
    picture = Image.fromarray(grey.round().astype(np.uint8))
    picture.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
