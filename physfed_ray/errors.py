"""The one exception that a user can cause."""


class PhysFedError(Exception):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do."""
