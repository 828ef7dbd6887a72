"""UIDs that follow from what an image was made of: the same twice, and never another image's."""

from uuid import UUID, uuid5

from pydicom.uid import UID

_OURS = UUID("6d3a6a5e-3f5b-5c0c-9c53-2f0a4b1f7d11")
"""Names of this project's own; changing it changes every UID."""


def derived_uid(*names: str) -> UID:
    """Return the UID that belongs to names (PS3.5 B.2: 2.25 and a UUID made from a name).

    Args:
        names: Of everything that decides what the UID stands for, in this order.
    """
    # Lengths part the names: ("ab", "c") is not ("a", "bc").
    text = "".join(f"{len(name)}:{name}" for name in names)
    return UID(f"2.25.{uuid5(_OURS, text).int}")
