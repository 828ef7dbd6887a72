"""Reading YAML: what is taken, what is refused with its line, and that nothing ends otherwise."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.file import DEEPEST, apply_overrides, parse_yaml, read_yaml, set_key


def refusal(text: str) -> str:
    with pytest.raises(PhysFedError) as refused:
        parse_yaml(text, "file")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_merge_keys_take_over_what_is_not_written() -> None:
    text = "base: &base {rounds: 3, lr: 0.1}\nown: {<<: *base, lr: 0.2}\n"
    assert parse_yaml(text, "file")["own"] == {"rounds": 3, "lr": 0.2}
    several = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b], z: 3}\n"
    assert parse_yaml(several, "file")["c"] == {"x": 1, "y": 2, "z": 3}
    chain = "c: {<<: &b {<<: &a {x: 1, y: 1}, y: 2}, x: 3}\nb: *b\na: *a\n"
    assert parse_yaml(chain, "file") == {
        "c": {"x": 3, "y": 2},
        "b": {"x": 1, "y": 2},
        "a": {"x": 1, "y": 1},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is written twice"),
        ("a: {x: 1, x: 1}\n", "line 1: the key 'x' is written twice"),
        ("1: a\n0x1: b\n", "line 2: the key '1' is written twice"),
        ("b: &b {x: 1}\na: {<<: *b, <<: *b}\n", "line 2: the key '<<' is written twice"),
        ("b: &b {x: 1}\na: {<<: *b, x: 1, x: 2}\n", "line 2: the key 'x' is written twice"),
        ("a: {<<: 3}\n", "not valid YAML"),
    ],
)
def test_a_key_that_is_written_twice_is_refused_with_its_line(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize("text", ["0012", "-007", "[0012]", "{a: 00_12}", "010"])
def test_an_octal_number_is_told_to_be_quoted(text: str) -> None:
    assert "octal" in refusal(f"test_patients: {text}")
    assert "put it in quotes" in refusal(f"test_patients: {text}")


@pytest.mark.parametrize("text", ["1:30", "12:30:45"])
def test_a_number_of_base_60_is_told_to_be_quoted(text: str) -> None:
    assert f'("{text}")' in refusal(f"a: {text}")


def test_plain_numbers_stay_numbers() -> None:
    text = "[0, 12, -3, 0x1F, 1_000, 1e-3, +2E5, 0.5, '0012', 0812]"
    expected = [0, 12, -3, 31, 1000, 1e-3, 2e5, 0.5, "0012", "0812"]
    assert parse_yaml(text, "file") == expected


@pytest.mark.parametrize("opened", ["[", "{a: ", "- "])
@pytest.mark.parametrize("deep", [DEEPEST + 2, 3000])
def test_what_is_nested_too_deeply_is_refused_with_its_line(opened: str, deep: int) -> None:
    assert f"line 1: groups and lists lie in each other more than {DEEPEST} deep" in refusal(
        opened * deep
    )


def test_a_file_may_be_nested_as_deep_as_the_limit() -> None:
    assert parse_yaml("[" * DEEPEST + "]" * DEEPEST, "file")


@pytest.mark.parametrize("text", ["a: &a [1, *a]\n", "&a {b: {c: *a}}\n"])
def test_what_contains_itself_is_refused(text: str) -> None:
    assert "inside what it stands for" in refusal(text)


def test_aliases_that_explode_are_refused() -> None:
    lines = ["a0: &a0 [x]"]
    for n in range(1, 12):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    assert "more than 5,000,000 values" in refusal("\n".join(lines))


def test_a_number_of_endless_digits_stays_text_for_the_schema() -> None:
    assert parse_yaml("9" * 5000, "file") == "9" * 5000
    assert parse_yaml("0x" + "F" * 5000, "file") == "0x" + "F" * 5000


@pytest.mark.parametrize(
    "text",
    ["a: 2020-13-45", "a: !!timestamp x", "a: !!int x", "a: !!float x", "a: !!binary é", "!!int {}",
     "a: !!bool x", "a: !!python/object:os.system {}", "? [[a]]\n: b", "a\0b", "a: *b",
     "%", "a\n---\nb"],
)  # fmt: skip
def test_what_yaml_cannot_mean_is_a_sentence_with_its_place(text: str) -> None:
    assert refusal(text).startswith("file")


YAML_WORDS = st.lists(
    st.sampled_from(
        ["a", "b", ":", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "<<: ", "1",
         "0", "012", ".inf", ".nan", "1e400", "'", '"', "|", ">", "#", "? ", "!!", "!!int ", "%",
         "!!timestamp ", "!!set ", "!!omap ", "~", "2020-01-99", "\t", "\\", "---\n", "é", "\ud800"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(st.text(max_size=40) | YAML_WORDS)
def test_any_text_is_read_or_refused(text: str) -> None:
    told = "file"
    try:
        parse_yaml(text, "file")
    except PhysFedError as error:
        told = str(error)
    assert told.startswith("file")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=10,
    )
)
def test_what_is_written_is_read_back(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert yaml.safe_dump(parse_yaml(text, "file"), allow_unicode=True) == text


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / ("a" * 300), "cannot be read: File name too long"),
        (tmp_path / "a\0b", "null byte"),
        (tmp_path / "none", "there is no experiment file"),
    ):
        with pytest.raises(PhysFedError, match=words):
            read_yaml(path)
    (tmp_path / "latin").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(PhysFedError, match="not text: byte 6 is not UTF-8"):
        read_yaml(tmp_path / "latin")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("name: a", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "file") == {"name": "a"}


@pytest.mark.parametrize("place", ["²", "9" * 5000, "3", "-1", "x"])
def test_a_place_that_a_list_has_not_is_refused(place: str) -> None:
    with pytest.raises(PhysFedError, match="'clients' is a list of 1; use 0 to 0"):
        set_key({"clients": [{}]}, ["clients", place, "id"], "a", "--set")


def test_an_override_of_endless_length_is_cut_short() -> None:
    with pytest.raises(PhysFedError, match=r"--set =9+…: write key=value") as error:
        apply_overrides({}, ["=" + "9" * 5000])
    assert len(str(error.value)) < 200


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_override_is_set_or_refused(key: str, value: str) -> None:
    content = {"name": "a", "clients": [{"id": "b"}]}
    with contextlib.suppress(PhysFedError):
        apply_overrides(content, [f"{key}={value}", f"clients.0.{key}={value}"])
