"""Counts of what was read, in words."""

from physfed_ray.pages.data_words import data_words

SUMMARY = {
    "source": {
        "kind": "dicom",
        "left_out": {"not DICOM": 2},
        "left_out_file_numbers": {"not DICOM": [3, 4]},
        "missing_from_dicomdir": 0,
        "told_by_a_later_version": True,
    },
    "unusable_patients": {},
    "unused_patients": 3,
}


def test_no_raw_key_is_left() -> None:
    found = data_words(SUMMARY)
    assert found == [
        ("Kind of source", "dicom"),
        ("Left out: not DICOM", "2"),
        ("Left out, by their numbers in the sorted listing: not DICOM", "3, 4"),
        ("Listed by a DICOMDIR and not there", "0"),
        ("Told by a later version", "yes"),
        ("Patients that nobody needed", "3"),
    ]
    assert not [name for name, _ in found if "_" in name or "." in name]
