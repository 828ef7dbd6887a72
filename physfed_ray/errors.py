"""The exceptions that a user can cause."""


class PhysFedError(Exception):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do."""


class DivergedError(PhysFedError):
    """Training diverged: the numbers are no longer finite, and the same run would end so again."""


class NoRoomError(PhysFedError):
    """The Ray cluster has no room now; it may have when others have ended."""
