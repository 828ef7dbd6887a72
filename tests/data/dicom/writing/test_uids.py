"""UIDs by name: valid, the same twice, and different for different names."""

from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.data.dicom.writing.uids import derived_uid

NAMES = st.lists(st.text("a1:", max_size=3), max_size=3)


@given(NAMES, NAMES)
def test_a_uid_stands_for_its_names(names: list[str], others: list[str]):
    uid = derived_uid(*names)
    assert uid.is_valid
    assert len(uid) <= 64
    assert (uid == derived_uid(*others)) == (names == others)


def test_no_uid_changes_between_versions():
    assert derived_uid("image", "1.2.3") == "2.25.236807676176532682507361955415547609722"
