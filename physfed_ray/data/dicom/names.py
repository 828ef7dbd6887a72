"""What words in ImageType and SeriesDescription say of an image: dose sheet, localizer, or nothing.

This is a tool for low dose, and its users' series are called so: "dose" alone says nothing.
"""

import re
from collections.abc import Iterable

_ADJECTIVES = (
    r"ultra|very|extra|super|sub|nano|micro|milli|low(er|est)?|reduced|minimal|min|half|third|"
    r"quarter|tenth|full|normal|standard|std|routine|regular|high(er)?|care|smart|single|"
    r"\d+([.,]\d+)?\s*(%|percent|msv|mgy)?"
)
_QUALIFIED_DOSE = re.compile(rf"(?<![a-z])({_ADJECTIVES})[\s_\-/]*(ct[\s_\-/]*)?dose", re.I)
_SHEET = r"(report|info(rmation)?|record|summary|sheet|page|data|screen|protocol)"
_DOSE_TYPE = re.compile(
    rf"SCREEN.?SAVE.*|((CT|PATIENT|RADIATION).?)?DOSE(.?{_SHEET})?|(CT_SOM\d+ )?PROT(OCOL)?", re.I
)
_DOSE_DESCRIPTION = re.compile(
    r"dose.?(report|info(rmation)?\b|record|summary|sheet|page|screen)"
    r"|^\W*(patient|exam).?(protocol|summary)\W*$",
    re.I,
)
_LOCALIZER = r"(locali[sz]ers?|scouts?|surviews?|topograms?|scanograms?|scano|topo)"
_LOCALIZER_TYPE = re.compile(rf"(?<![A-Z]){_LOCALIZER}(?![A-Z])", re.I)
_LOCALIZER_FIRST = re.compile(rf"\W*{_LOCALIZER}(?![a-z])", re.I)


def is_dose_sheet(image_type: Iterable[str], description: str) -> bool:
    """Return whether the words are those of a picture of text: a dose report, a protocol sheet."""
    if any(_DOSE_TYPE.fullmatch(value.strip()) for value in image_type):
        return True
    return bool(_DOSE_DESCRIPTION.search(_QUALIFIED_DOSE.sub(" ", description)))


def is_localizer(image_type: Iterable[str], description: str) -> bool:
    """Return whether the words are those of a planning image, which vendors name differently.

    A description counts where it begins with such a name, or where ImageType does not call the
    image axial: "after scout" may well describe slices.
    """
    kinds = [value.strip().upper() for value in image_type]
    if any(map(_LOCALIZER_TYPE.search, kinds)) or _LOCALIZER_FIRST.match(description):
        return True
    return "AXIAL" not in kinds and bool(_LOCALIZER_TYPE.search(description))


def is_hounsfield(rescale_type: str) -> bool:
    """Return whether RescaleType allows Hounsfield units, however it is spelled.

    Blank and "US" are "unspecified", which older scanners write beside Hounsfield units.
    ``HU_MOD`` (the modified units of dual-energy images) is another scale.
    """
    if not rescale_type.strip():
        return True
    letters = re.sub(r"[^a-z_]", "", rescale_type.casefold())
    return letters in ("hu", "us", "unspecified") or bool(
        re.match(r"houn[a-z]?s?f[ie]+ld", letters)
    )
