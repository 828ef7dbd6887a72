"""The measured reporter: sentences in a radiologist's manner about what was measured on a slice.

The region is named where ``regions`` is sure of it, and left open elsewhere. The words, not only
the numbers, follow the findings, because embeddings of sentences that differ in numbers alone are
almost equal. The pixel size is unknown, so sizes are told as parts of the field of view or of the
body's cross-section.
"""

from typing import TYPE_CHECKING

import numpy as np

from physfed_ray.code_version import code_version
from physfed_ray.reports.base import Reporter
from physfed_ray.reports.regions import name_region
from physfed_ray.reports.wording import balance, count, grade, hounsfield, percent, place

if TYPE_CHECKING:
    from physfed_ray.reports.measurements import Measurements

OPEN = "Axial CT slice, region not determined."
"""How a report begins that names no region."""
NOTHING = "Axial CT slice without any body in the field of view: air only."


class MeasuredReporter(Reporter):
    """Reports of four to eight short sentences: deterministic, no weights, no network."""

    name = "measured"

    @property
    def version(self) -> str:
        """See ``Reporter``."""
        parts = ("measured.py", "measurements.py", "bodies.py", "layout.py", "wording.py")
        return code_version(*(f"reports/{part}" for part in (*parts, "regions.py", "regions.npz")))

    def report(self, hu: np.ndarray) -> list[str]:
        """See ``Reporter``; slices with air outside the inscribed circle."""
        # Hosts know this class but describe nothing: they need not load SciPy.
        from physfed_ray.reports.measurements import measure, smooth

        return [describe(measure(image)) for image in smooth(hu)] if len(hu) else []


def describe(m: "Measurements | None") -> str:
    """Return the report of one slice's measurements."""
    if m is None:
        return NOTHING
    region = name_region(m)
    sentences = [
        *(_OPENINGS[region](m) if region else _tissues(m)),
        _size(m),
        *_fat(m),
        *_bone(m, region),
        *_gas(m, region),
        *_contrast(m),
        *_rest(m),
    ]
    return " ".join(sentences)


def _tissues(m: "Measurements") -> list[str]:
    """Say what the slice is made of, where no region can be named."""
    lung = f"{percent(m.lung.share)} aerated lung" if m.lung.share else "no aerated lung within"
    parts = f"{percent(m.soft.share)} soft tissue ({hounsfield(m.soft_hu)}) and {lung}"
    bodies = "Two separate sections" if m.bodies > 1 else "One section"
    return [f"{OPEN} {bodies} with {parts}, {_laid_out(m.solid.right)}."]


def _laid_out(right: float) -> str:
    return balance(
        right,
        "the bulk of it on the right",
        "more of it on the right",
        "on both sides alike",
        "more of it on the left",
        "the bulk of it on the left",
    )


def _head(m: "Measurements") -> list[str]:
    inside = "with air in sinuses" if m.gas.share > 0.01 else "without air in sinuses"
    return [
        f"Axial CT of the head {inside}.",
        f"The skull encloses {percent(m.enclosed)} of the section; intracranial tissue "
        f"averages {hounsfield(m.soft_hu)}.",
    ]


def _chest(m: "Measurements") -> list[str]:
    left = m.solid.share > 0.03 and m.solid.front > 0.55 and m.solid.right < 0.45
    if m.lung.front < 0.3:
        level = "with soft tissue in front of the lungs"
    elif left:
        level = "with a mass of soft tissue in front on the left, as the heart is"
    elif m.lung.front > 0.6 and m.width / m.depth > 1.45:
        level = "of broad shape, with the lungs in front"
    else:
        level = "without a large mass of soft tissue on the left"
    return [f"Axial CT of the chest {level}.", _lungs(m), _mediastinum(m)]


def _lungs(m: "Measurements") -> str:
    amount = grade(m.lung.share, (0.12, 0.25, 0.4), ("poorly", "moderately", "well", "very well"))
    sides = balance(
        m.lung.right,
        "the right lung is much larger",
        "the right lung is slightly larger",
        "right and left lung are alike",
        "the left lung is slightly larger",
        "the left lung is much larger",
    )
    return f"The lungs are {amount} aerated, {percent(m.lung.share)} of the section; {sides}."


def _mediastinum(m: "Measurements") -> str:
    word = grade(
        m.mediastinum,
        (0.3, 0.42, 0.55),
        (
            "The mediastinum is narrow",
            "The mediastinum has its usual width",
            "The mediastinum is broad",
            "Much between the lungs' borders is not aerated",
        ),
    )
    return f"{word}, {percent(m.mediastinum)} of the thoracic space."


def _lung_bases(m: "Measurements") -> list[str]:
    return [
        "Axial CT at the diaphragm: the upper abdomen with the bases of the lungs.",
        f"Aerated lung takes {percent(m.lung.share)} of the section.",
        *_organs(m),
    ]


def _shoulders(m: "Measurements") -> list[str]:
    return [
        "Axial CT of the lower neck and shoulders.",
        "No aerated lung parenchyma." if not m.lung.share else "The lung apices are just seen.",
    ]


def _neck(m: "Measurements") -> list[str]:
    airway = "with the airway open" if m.gas.share else "without air in the airway"
    return [f"Axial CT of the neck, {airway}.", f"Soft tissue averages {hounsfield(m.soft_hu)}."]


def _abdomen(m: "Measurements") -> list[str]:
    return ["Axial CT of the abdomen below the lungs.", *_organs(m)]


def _organs(m: "Measurements") -> list[str]:
    if m.solid.largest < 0.06:
        return ["Loops and strands of soft tissue without a large solid organ."]
    side = balance(
        m.solid.right,
        "mainly on the right, as the liver is",
        "more on the right",
        "on both sides alike",
        "more on the left",
        "mainly on the left",
    )
    return [f"Solid organs and muscle take {percent(m.solid.share)}, {side}."]


def _pelvis(m: "Measurements") -> list[str]:
    bone = balance(
        m.bone.right,
        "bone on the right side only",
        "bones on both sides, more on the right",
        "bones on both sides alike",
        "bones on both sides, more on the left",
        "bone on the left side only",
    )
    return [f"Axial CT of the pelvis or hip, {bone}."]


def _limb(m: "Measurements") -> list[str]:
    if m.bodies > 1:
        first = "Axial CT of two separate limbs side by side."
    elif m.bone.share > 0.1:
        first = "Axial CT of a limb with wide bone, as at a joint."
    elif m.bone.share > 0:
        first = "Axial CT of a single limb around a long bone."
    else:
        first = "Axial CT of soft tissue of a limb without bone."
    bulk = grade(
        m.solid.largest,
        (0.12, 0.3, 0.45),
        (
            "Slender muscles are separated by fat planes",
            "Muscle compartments are distinct",
            "Bulky muscle compartments with few fat planes",
            "A large confluent soft-tissue mass fills the limb",
        ),
    )
    return [first, f"{bulk} ({hounsfield(m.soft_hu)})."]


_OPENINGS = {
    "head": _head,
    "chest": _chest,
    "lung bases": _lung_bases,
    "shoulders": _shoulders,
    "neck": _neck,
    "abdomen": _abdomen,
    "pelvis": _pelvis,
    "limb": _limb,
}


def _size(m: "Measurements") -> str:
    size = grade(
        m.field_share,
        (0.3, 0.5, 0.65),
        ("Small section", "Section of medium size", "Large section", "Very large section"),
    )
    shape = grade(
        m.width / m.depth, (0.9, 1.15, 1.5), ("taller than wide", "round", "oval", "broad and flat")
    )
    return f"{size}, {shape}, filling {percent(m.field_share)} of the field of view."


def _fat(m: "Measurements") -> list[str]:
    amount = grade(
        m.fat.share,
        (0.12, 0.25, 0.4),
        ("little fat", "a moderate amount of fat", "abundant fat", "marked adiposity"),
    )
    rim = grade(m.fat_rim, (0.1, 0.18), ("a thin", "a moderate", "a thick"))
    return [f"There is {amount} ({percent(m.fat.share)}) with {rim} subcutaneous layer."]


def _bone(m: "Measurements", region: str | None) -> list[str]:
    if m.bone.share == 0:
        return ["No bone is seen."]
    amount = percent(m.bone.share)
    if region == "limb":
        canal = "with a marrow canal" if m.marrow > 0.08 else "dense throughout"
        return [f"Cortical bone {canal}, {amount}, {place(m.bone)}."]
    if region in ("chest", "abdomen", "lung bases"):
        spine = "most of it in the middle behind" if m.spine > 0.5 else "spread round the section"
        return [f"Bone {amount}, {spine}."]
    where = "" if region else f", {place(m.bone)}"
    return [f"Bone {amount} in {count(m.bone.pieces)}{where}."]


def _gas(m: "Measurements", region: str | None) -> list[str]:
    if m.gas.share < 0.002:
        return []
    where = {
        "chest": "Airways or air pockets",
        "shoulders": "Gas in the airway",
        "neck": "Gas in the airway",
        "head": "Air cells",
        "limb": "Gas in or beside the soft tissue",
        None: "Gas",
    }.get(region, "Bowel gas")
    return [f"{where}, {percent(m.gas.share)}, {place(m.gas)}."]


def _contrast(m: "Measurements") -> list[str]:
    if m.contrast.share < 0.005:
        return []
    word = "Contrast-enhanced vessels or organs" if m.contrast.largest > 0.008 else "Dense foci"
    return [f"{word}, {percent(m.contrast.share)}, {place(m.contrast)}."]


def _rest(m: "Measurements") -> list[str]:
    found = []
    if m.metal > 0:
        found.append("Metal with streak artefacts.")
    if m.small_bodies:
        found.append("An arm or another small part lies beside the body.")
    if m.symmetry > 0.8:
        found.append("The section is symmetric.")
    elif m.symmetry < 0.6:
        found.append("The two sides differ markedly.")
    return found
