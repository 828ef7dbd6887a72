"""Which dose a series was taken with, as its name, its folders or the user's own pattern say."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Literal

Role = Literal["full", "low"]

_DOSE = {
    "full": re.compile(r"(full|routine|normal|standard|regular|high)[ _.-]*dose"),
    "low": re.compile(
        r"(low|quarter|reduced|half|tenth|sparse|simulated|(1/|\d+ ?%|\d+ ?percent)\S*)[ _.-]*dose"
    ),
}
"""What says a dose in so many words, in small letters."""
_WORD = {
    "full": re.compile(r"full|fd|fdct|ndct|hdct|fulldose|routine"),
    "low": re.compile(r"low|quarter|ld|ldct|qd|qdct|lowdose|quarterdose|reduced"),
}
"""Words that say so among names of the Mayo 2016 kind: ``full_1mm``, ``L067_QD_1_1.CT.0001``."""
_FILLING = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Roles:
    """Tells full dose from low dose.

    Attributes:
        full: Pattern of the full-dose series; None: by what names say.
        low: Pattern of the low-dose series, likewise. A pattern with ``*`` and ``?`` is compared
            with a file's path below the folder and with its series' description, without regard to
            case.
    """

    full: str | None = None
    low: str | None = None

    def of(self, path: PurePath, description: str, kind: str) -> Role | None:
        """Return the role of a file; None where nothing, or as much for both, speaks for one.

        Args:
            path: The file, relative to the folder that is searched.
            description: SeriesDescription.
            kind: ImageType, as text.
        """
        if self.full is not None or self.low is not None:
            return self._given(path, description)
        texts = (description, *_nearest_first(path), kind)
        for says in (_says_dose, _says_word):
            for text in texts:
                if (role := says(text.lower())) is not None:
                    return role
        return None

    def _given(self, path: PurePath, description: str) -> Role | None:
        """Apply the patterns; where one is given, the other role is what it does not fit."""
        full, low = (
            None if pattern is None else _fits(pattern, path, description)
            for pattern in (self.full, self.low)
        )
        if full is None or low is None:
            is_full = not low if full is None else full
            return "full" if is_full else "low"
        if full == low:
            return None
        return "full" if full else "low"


def without_role(text: str) -> str:
    """Return a patient's id, or a path, without the words in it that say a dose or a thickness.

    Exports that name a person twice, ``L067_FD`` and ``L067_QD``, still mean one.
    """
    # A word goes with the marks before it, so that the rest of the text stays as it is.
    words = re.findall(r"([\\/ _^.-]*)([^\\/ _^.-]+)", text)
    kept = [(mark, word) for mark, word in words if not _is_filler(word.lower())]
    if not kept or len(kept) == len(words):
        return text
    start = kept[0][0] if kept[0] == words[0] else ""
    return start + "".join(mark + word for mark, word in kept)[len(kept[0][0]) :]


def _is_filler(word: str) -> bool:
    says_role = any(pattern.fullmatch(word) for pattern in _WORD.values())
    return says_role or word == "dose" or re.fullmatch(r"\d+(\.\d+)?mm", word) is not None


def _nearest_first(path: PurePath) -> Iterator[str]:
    """Yield the file's name, then its folders from the inmost one."""
    yield from reversed(path.parts)


def _says_dose(text: str) -> Role | None:
    return _one_of(lambda role: _DOSE[role].search(text) is not None)


def _says_word(text: str) -> Role | None:
    words = _FILLING.split(text)
    return _one_of(lambda role: any(_WORD[role].fullmatch(word) for word in words))


def _one_of(says: Callable[[Role], bool]) -> Role | None:
    full, low = says("full"), says("low")
    if full == low:
        return None
    return "full" if full else "low"


def _fits(pattern: str, path: PurePath, description: str) -> bool:
    wanted = pattern.lower()
    return any(fnmatchcase(text.lower(), wanted) for text in (path.as_posix(), description))
