"""The exceptions that a user can cause, and where they came from."""

from collections.abc import Iterator
from contextlib import contextmanager


class PhysFedError(Exception):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do."""


class DivergedError(PhysFedError):
    """Training diverged: the numbers are no longer finite, and the same run would end so again."""


class NoRoomError(PhysFedError):
    """The Ray cluster has no room now; it may have when others have ended."""


class DamagedError(PhysFedError):
    """A file is not as it was written: cut off, overwritten, another's, or gone.

    Args:
        where: The file.
        cure: What to do.
        what: What is wrong with it.
    """

    def __init__(
        self, where: str, cure: str, what: str = "is damaged (it is not as it was written)"
    ) -> None:
        super().__init__(f"{where} {what}: {cure}")
        self.where = where
        self.fault = f"{where} {what}"

    def __reduce__(self) -> tuple[type[PhysFedError], tuple[str]]:
        return PhysFedError, (str(self),)


@contextmanager
def at_work(note: str) -> Iterator[None]:
    """Let whatever fails meanwhile say what was being done.

    The exception stays what it is; the note travels with it, also between processes.

    Args:
        note: Such as ``while training client c1 in round 3``.
    """
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def sentence(error: BaseException) -> str:
    """Return an exception as one line, with what was being done, and its kind if it is no message.

    Args:
        error: Any exception; of one that Ray hands over, what it stands for is told.
    """
    cause, notes = getattr(error, "cause", None), getattr(error, "__notes__", [])
    if isinstance(cause, BaseException):
        error, notes = cause, [*getattr(cause, "__notes__", []), *notes]
    text = " ".join(str(error).split())
    if not isinstance(error, PhysFedError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{', '.join(notes)}: {text}" if notes else text
