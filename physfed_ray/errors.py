"""The exceptions that a user can cause."""


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
