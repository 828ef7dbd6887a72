"""Whose image it is, by name, birth date and sex, as far as a header tells.

Names are compared, and never stored or logged.
"""

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

from pydicom.dataset import Dataset

from physfed_ray.data.dicom.tags import text

SIMILAR = 0.8
"""Names that share this part of their letters may be one name, mistyped."""

_PLACEHOLDERS = frozenset(
    [
        "na",
        "nan",
        "nil",
        "null",
        "none",
        "no",
        "noid",
        "noname",
        "name",
        "unknown",
        "unk",
        "undefined",
        "unspecified",
        "notspecified",
        "notavailable",
        "notapplicable",
        "empty",
        "blank",
        "default",
        "removed",
        "deleted",
        "hidden",
        "masked",
        "redacted",
        "confidential",
        "private",
        "deidentified",
        "deident",
        "patient",
        "patientid",
        "patientname",
        "pat",
        "id",
        "test",
        "x",
        "dummy",
        "nn",
    ]
)
_TITLES = frozenset(["dr", "prof", "mr", "mrs", "ms", "miss", "herr", "frau", "med"])
_NO_BIRTH_DATES = ("19000101", "18000101", "00010101", "11111111", "99991231")


@dataclass(frozen=True, order=True)
class Person:
    """What tells people apart; a blank disagrees with nothing.

    Attributes:
        name: Words of the name in one spelling: without case, accents, titles and punctuation.
        birth: Digits of the birth date, or of what is known of it (``1950``).
        sex: ``M``, ``F`` or blank.
    """

    name: tuple[str, ...] = ()
    birth: str = ""
    sex: str = ""

    def contradicts(self, other: "Person") -> bool:
        """Return whether name, birth date or sex show that these are two people."""
        return (
            not _same_name(self.name, other.name)
            or not _same_birth(self.birth, other.birth)
            or bool(self.sex and other.sex and self.sex != other.sex)
        )

    def has_in_common(self, other: "Person") -> bool:
        """Return whether a name (mistyped perhaps) or a birth date suggests one person."""
        if self.birth and other.birth and _same_birth(self.birth, other.birth):
            return True
        if not self.name or not other.name:
            return False
        words = ("".join(sorted(self.name)), "".join(sorted(other.name)))
        return _same_name(self.name, other.name) or (
            SequenceMatcher(None, *words).ratio() >= SIMILAR
        )


NOBODY = Person()


def person_of(dataset: Dataset, patient_id: str) -> Person:
    """Return whom a header names; a name that only repeats the id says nothing."""
    # Alphabetic, ideographic and phonetic forms of one name are parted by "=".
    forms = [_words(form) for form in text(dataset, "PatientName").split("=")]
    name = next((form for form in forms if form), ())
    if name == _words(patient_id) or is_placeholder("".join(name)) or name[0].startswith("anon"):
        name = ()
    birth = re.sub(r"\D", "", text(dataset, "PatientBirthDate"))[:8]
    if len(birth) < 4 or not birth.strip("0") or birth in _NO_BIRTH_DATES:
        birth = ""
    sex = text(dataset, "PatientSex").upper()[:1]
    return Person(name, birth, sex if sex in ("M", "F") else "")


def is_placeholder(patient_id: str) -> bool:
    """Return whether an id (or a name) is blank in disguise, which several people may share."""
    letters = re.sub(r"[\W_]", "", patient_id.casefold())
    return (
        not letters.strip("0")
        or letters in _PLACEHOLDERS
        or bool(re.fullmatch(r"anon(ym[a-z]*)?|x+", letters))
    )


def _words(name: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    for written, short in (("ae", "a"), ("oe", "o"), ("ue", "u")):
        plain = plain.replace(written, short)
    words = re.findall(r"[^\W_]+", plain)
    return tuple(word for word in words if word not in _TITLES)


def _same_name(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Compare words in any order; the shorter name may lack words or shorten them to initials."""
    if not one or not other or "".join(one) == "".join(other):
        return True
    short, long = sorted((one, other), key=len)
    rest = list(long)
    for word in sorted(short, key=len, reverse=True):
        match = next((w for w in rest if w == word), None) or next(
            (w for w in rest if min(len(w), len(word)) == 1 and w[0] == word[0]), None
        )
        if match is None:
            return False
        rest.remove(match)
    return True


def _same_birth(one: str, other: str) -> bool:
    """Compare dates; only the year may be known, or be given as the first of January."""
    if not one or not other or one.startswith(other) or other.startswith(one):
        return True
    return one[:4] == other[:4] and "0101" in (one[4:], other[4:])
