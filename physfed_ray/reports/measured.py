"""The measured reporter: sentences in a radiologist's manner about what was measured on a slice.

The region is a guess from measurements alone. The words, not only the numbers, follow the
findings, because embeddings of sentences that differ in numbers alone are almost equal. The pixel
size is unknown, so sizes are told as parts of the field of view or of the body's cross-section.
"""

from typing import TYPE_CHECKING

import numpy as np

from physfed_ray.code_version import code_version
from physfed_ray.reports.base import Reporter
from physfed_ray.reports.wording import balance, count, grade, hounsfield, percent, place

if TYPE_CHECKING:
    from physfed_ray.reports.measurements import Measurements

SHAFT_HU = 750.0
"""On the smoothed slice only the shafts of long bones are denser than this."""
NOTHING = "Axial CT slice without any body in the field of view: air only."


class MeasuredReporter(Reporter):
    """Reports of four to eight short sentences: deterministic, no weights, no network."""

    name = "measured"

    @property
    def version(self) -> str:
        """See ``Reporter``."""
        return code_version("reports/measured.py", "reports/measurements.py", "reports/wording.py")

    def report(self, hu: np.ndarray) -> list[str]:
        """See ``Reporter``; slices with air outside the inscribed circle."""
        # Hosts know this class but describe nothing: they need not load SciPy.
        from physfed_ray.reports.measurements import measure, smooth

        return [describe(measure(image)) for image in smooth(hu)] if len(hu) else []


def describe(m: "Measurements | None") -> str:
    """Return the report of one slice's measurements."""
    if m is None:
        return NOTHING
    region = guess_region(m)
    sentences = [
        *_OPENINGS[region](m),
        _size(m),
        *_fat(m),
        *_bone(m, region),
        *_gas(m, region),
        *_contrast(m),
        *_rest(m),
    ]
    return " ".join(sentences)


def guess_region(m: "Measurements") -> str:
    """Return the key of ``_OPENINGS`` that fits best.

    Skull encloses its contents; lungs make a chest; of the rest, trunks are wide with the loose
    bone of the spine behind the middle, pelves are wide with bone at the sides or in front, and
    limbs are round with a dense shaft.
    """
    aspect = m.width / m.depth
    if m.bodies > 1:
        return "limb"
    if m.enclosed > 0.45:
        return "head"
    if m.lung.share > 0.05:
        return "chest"
    if aspect > 1.9 and m.bone.share > 0.04:
        return "shoulders"
    if m.lung.share > 0:
        return "lung bases"
    backbone = m.spine > 0.5 and m.bone.front < 0.4 and m.bone.peak_hu < SHAFT_HU
    ribs = m.bone.pieces > 3 and m.bone.largest < 0.025
    if aspect > 1.3:
        return "abdomen" if backbone or ribs else "pelvis"
    if backbone and aspect > 1.05 and (m.bone.pieces > 1 or m.gas.share > 0.004):
        return "abdomen"
    return "pelvis" if m.bone.largest > 0.07 and m.field_share > 0.6 else "limb"


def _head(m: "Measurements") -> list[str]:
    inside = "with pneumatised sinuses" if m.gas.share > 0.01 else "at the level of the brain"
    return [
        f"Axial CT of the head {inside}.",
        f"The skull encloses {percent(m.enclosed)} of the section; intracranial tissue "
        f"averages {hounsfield(m.soft_hu)}.",
    ]


def _chest(m: "Measurements") -> list[str]:
    heart = m.solid.share > 0.03 and m.solid.front > 0.55 and m.solid.right < 0.45
    if m.lung.front < 0.3:
        level = "through the lung bases, with the liver dome and diaphragm in front of the lungs"
    elif heart:
        level = "at the level of the heart"
    elif m.lung.front > 0.6 and m.width / m.depth > 1.45:
        level = "through the upper chest and shoulder girdle"
    else:
        level = "at the level of the great vessels and hila"
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
            "Consolidation, effusion or organs displace much of the lung",
        ),
    )
    return f"{word}, {percent(m.mediastinum)} of the thoracic space."


def _lung_bases(m: "Measurements") -> list[str]:
    return [
        "Axial CT of the upper abdomen just below the diaphragm: liver, stomach and bowel.",
        f"Only the posterior lung bases are seen, {percent(m.lung.share)} of the section.",
        *_organs(m),
    ]


def _shoulders(m: "Measurements") -> list[str]:
    return [
        "Axial CT of the lower neck and shoulders, with clavicles, scapulae and humeral heads.",
        "No aerated lung parenchyma." if not m.lung.share else "The lung apices are just seen.",
    ]


def _abdomen(m: "Measurements") -> list[str]:
    return ["Axial CT of the abdomen below the lungs: liver, kidneys and bowel.", *_organs(m)]


def _organs(m: "Measurements") -> list[str]:
    if m.solid.largest < 0.06:
        return ["Bowel loops and mesentery without a large solid organ."]
    side = balance(
        m.solid.right,
        "mainly on the right, as the liver is",
        "larger on the right: liver, with spleen or stomach opposite",
        "on both sides: liver and kidneys, spleen or psoas muscles",
        "larger on the left: spleen, stomach or bowel",
        "mainly on the left, as the spleen and stomach are",
    )
    return [f"Solid abdominal organs take {percent(m.solid.share)}, {side}."]


def _pelvis(m: "Measurements") -> list[str]:
    bone = balance(
        m.bone.right,
        "iliac bone and hip on the right side only",
        "hip bones on both sides, more on the right",
        "symmetric iliac bones, acetabula or femoral heads",
        "hip bones on both sides, more on the left",
        "iliac bone and hip on the left side only",
    )
    return [
        f"Axial CT of the pelvis with {bone}.",
        "Gluteal and pelvic floor muscles surround the bones.",
    ]


def _limb(m: "Measurements") -> list[str]:
    if m.bodies > 1:
        first = "Axial CT of both thighs or lower legs, two separate limbs side by side."
    elif m.bone.share > 0.1:
        first = "Axial CT of a limb through a joint with wide spongy bone ends, such as the knee."
    elif m.bone.share > 0:
        first = "Axial CT of a single limb, a thigh or an arm, around the shaft of a long bone."
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


def _bone(m: "Measurements", region: str) -> list[str]:
    if m.bone.share == 0:
        return ["No bone is seen."] if region != "shoulders" else []
    amount = percent(m.bone.share)
    if region == "limb":
        canal = "with a marrow canal" if m.marrow > 0.08 else "dense throughout"
        return [f"Cortical bone {canal}, {amount}, {place(m.bone)}."]
    if region in ("chest", "abdomen", "lung bases"):
        spine = "the vertebra behind" if m.spine > 0.5 else "ribs and spine all around"
        return [f"Bone {amount}: {spine}."]
    return [f"Bone {amount} in {count(m.bone.pieces)}."]


def _gas(m: "Measurements", region: str) -> list[str]:
    if m.gas.share < 0.002:
        return []
    where = {
        "chest": "Airways or air pockets",
        "shoulders": "The trachea",
        "head": "Air cells",
        "limb": "Gas in the soft tissue",
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
