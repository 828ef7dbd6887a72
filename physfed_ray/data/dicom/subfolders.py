"""In which folder a patient's files lie, where only folders tell patients apart."""

import os
import re
from pathlib import Path

_BELOW_A_PATIENT = re.compile(
    r"""
      (\d+\.){4,}\d+                                      # a UID
    | (19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?!\d).*        # a date first, 20200131
    | [0-3]\d[-_.][0-3]\d[-_.](19|20)\d\d.*               # 01-31-2020-NA-CT
    | (st|std|study|studies|se|ser|series|acq|acquisition|scan|scans|ses|session|visit|exam|phase
       |timepoint|tp|recon|kernel|stack|baseline|follow[-_ ]?up|prior)
      [-_ .]*\d*
    | ct|dcm|dicom|images?
    | \d+\.\d+-.*                                         # 3.000000-Chest, as TCIA writes series
    """,
    re.I | re.X,
)


def patient_folder(path: Path, root: Path) -> tuple[str, ...]:
    """Return the folder below the root that is taken for the patient's, () for the root itself.

    It is the file's own folder, or the first above it that is not called as studies, series and
    scans are (``ST0001``, ``series 3``, a date, a UID), but always below the root.
    """
    folder = os.path.relpath(path.parent, root)
    parts = () if folder == "." else tuple(folder.split(os.sep))
    while len(parts) > 1 and _BELOW_A_PATIENT.fullmatch(parts[-1]):
        parts = parts[:-1]
    return parts
