"""The page of reports: who is shown, who is near, what it says, and that it is safe to open."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.prepared import Prepared, PreparedClient, Statistics
from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.pages.reports_page import _scanner, find, write_reports_page
from physfed_ray.results.meaning import meaning
from physfed_ray.results.neighbours import choose, first_sentence, gather, nearest
from tests.conftest import random_client_data

DIM = 8
ANGLES = {"p0": 0.0, "p1": 0.1, "p2": 0.5, "p3": 1.5, "p4": 3.0}
"""Direction of each patient's embeddings; slice k of a patient lies 0.01 k further on."""
Make = Callable[..., Prepared]


def at(angle: float) -> np.ndarray:
    """Return a unit vector at an angle, (8,)."""
    return np.array([np.cos(angle), np.sin(angle), *[0] * (DIM - 2)], np.float32)


def client_data(patients: list[str], slices: int, **changes: object) -> ClientData:
    """Return slices whose embeddings lie where their patients are."""
    data = random_client_data(1, len(patients) * slices)
    owner = [p for p in patients for _ in range(slices)]
    position = np.tile(np.arange(slices), len(patients)).astype(np.int32)
    vectors = [at(ANGLES[p] + 0.01 * k) for p, k in zip(owner, position, strict=True)]
    reports = [f"Patient {p}. Slice {k}." for p, k in zip(owner, position, strict=True)]
    whole = replace(
        data, patient=owner, slice=position, report=reports, embedding=np.stack(vectors)[:, None]
    )
    return replace(whole, **changes)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a maker of data sets of clients with the given data."""

    def prepared(*clients: ClientData, mean: float = 0.0, std: float = 1.0) -> Prepared:
        entries = []
        for k, data in enumerate(clients):
            path = tmp_path / "data" / "train" / f"c{k}.arrow"
            write_client_data(path, data)
            protocol = PRESETS[f"paper-{k + 1}"]
            entries.append(PreparedClient(f"c{k}", protocol, path, None, None, len(data), 1))
        constants = Statistics(0.5, 0.2, [mean] * DIM, [std] * DIM, 1, DIM)
        made = Prepared(
            tmp_path / "data", 24, (-1000, 2000), tuple(entries), (), constants, {"source": {}}
        )
        made.save()
        return made

    return prepared


def test_a_scanner_is_put_in_words() -> None:
    usual = PRESETS["paper-1"]
    assert _scanner(usual).endswith("250 mm to the detector, 100,000 photons a ray")
    short = replace(usual, detector="arc", arc_deg=240)
    assert _scanner(short) == f"{_scanner(usual)}, a curved detector, an arc of 240 degrees"


class Page(HTMLParser):
    """What a browser would show, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and what it loads."""
        self.tags.append(tag)
        self.sources += [
            value or ""
            for name, value in attrs
            if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data


def test_neighbours_are_one_of_each_other_patient_by_cosine(make: Make) -> None:
    corpus = gather(make(client_data(["p0", "p1"], 3), client_data(["p2", "p3", "p4"], 3)))
    others, own = nearest(corpus, 0, 3)
    assert [corpus.patient[n.index] for n in others] == ["p1", "p2", "p3"]
    assert [int(corpus.position[n.index]) for n in others] == [0, 0, 0]
    np.testing.assert_allclose([n.cosine for n in others], np.cos([0.1, 0.5, 1.5]), atol=1e-6)
    assert own is not None
    assert (corpus.patient[own.index], corpus.position[own.index]) == ("p0", 1)
    assert own.cosine == pytest.approx(np.cos(0.01))


def test_the_same_slice_again_is_a_neighbour_only_where_its_patient_has_no_other(
    make: Make,
) -> None:
    twice = gather(make(client_data(["p0"], 2), client_data(["p0"], 2)))
    _, own = nearest(twice, 0, 3)
    assert own is not None
    assert twice.position[own.index] == 1
    single = gather(make(client_data(["p0"], 1), client_data(["p0"], 1)))
    assert nearest(single, 0, 3)[0] == []
    assert nearest(single, 0, 3)[1] is not None
    assert nearest(gather(make(client_data(["p0"], 1))), 0, 3) == ([], None)


def test_cosines_are_of_standardised_vectors(make: Make) -> None:
    data = client_data(["p0", "p3"], 1)
    corpus = gather(make(data, mean=0.5, std=2.0))
    x, y = (data.embedding[:, 0] - 0.5) / 2
    (other,), _ = nearest(corpus, 0, 3)
    assert other.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert other.plain == pytest.approx(np.cos(1.5))


def test_tokens_that_are_padding_do_not_count(make: Make) -> None:
    tokens = np.stack([np.stack([at(0.2), at(0.4), at(9.0)]), np.stack([at(1.0)] * 3)])
    mask = np.array([[1, 1, 0], [1, 0, 0]], np.uint8)
    data = client_data(["p0", "p1"], 1, embedding=tokens, embedding_mask=mask)
    corpus = gather(make(data))
    np.testing.assert_allclose(corpus.plain, [at(0.3), at(1.0)], atol=1e-6)


def test_the_slices_shown_are_spread_and_repeatable(make: Make) -> None:
    names = list(ANGLES)
    corpus = gather(make(*(client_data(names[: k + 2], 4) for k in range(4))))
    chosen = choose(corpus, 8, seed=1)
    assert len(set(chosen)) == 8
    assert sorted(np.unique(corpus.client[chosen], return_counts=True)[1]) == [2, 2, 2, 2]
    assert len(set(corpus.patient[chosen].tolist())) >= 4
    assert len(set(corpus.position[chosen].tolist())) >= 3
    assert chosen == choose(corpus, 8, seed=1)
    assert chosen != choose(corpus, 8, seed=2)
    assert sorted(choose(corpus, 999, seed=1)) == list(range(len(corpus)))


def test_a_large_data_set_is_thinned_evenly(make: Make) -> None:
    prepared = make(client_data(["p0"], 40), client_data(["p1"], 20))
    corpus = gather(prepared, most=15)
    assert (len(corpus), corpus.total) == (15, 60)
    assert corpus.position.tolist() == [*range(0, 40, 4), *range(0, 20, 4)]
    assert corpus.report[11] == "Patient p1. Slice 4."


def test_meaning_tells_text_that_follows_anatomy_from_text_that_does_not(make: Make) -> None:
    """Patients of two kinds of pictures; the embedding tells the kind, or the client instead."""
    rng = np.random.default_rng(1)
    kinds = rng.random((2, 24, 24)).astype(np.float32)
    names = [f"q{k}" for k in range(12)]
    kind = np.arange(12) % 2
    full = kinds[kind] + 0.1 * rng.random((12, 24, 24)).astype(np.float32)

    def data(angles: np.ndarray, half: slice) -> ClientData:
        noise = rng.normal(0, 0.01, (6, 1, DIM)).astype(np.float32)
        embedding = np.stack([at(a) for a in angles[half]])[:, None] + noise
        whole = random_client_data(1, 6)
        return replace(whole, full=full[half], embedding=embedding, patient=names[half])

    halves = slice(0, 6), slice(6, 12)
    good = meaning(gather(make(*(data(2.0 * kind, h) for h in halves))), seed=1)
    assert good.picture.neighbours > 0.9
    assert good.picture.chance < 0.8
    bad = meaning(gather(make(*(data(2.0 * (np.arange(12) > 5), h) for h in halves))), seed=1)
    assert bad.client.neighbours == 1.0
    assert bad.client.chance == pytest.approx(5 / 11)
    assert bad.picture.neighbours < 0.8


def test_meaning_counts_texts_that_patients_share(make: Make) -> None:
    texts = ["Alike.", "Alike.", "One.", "Alike.", "Two two.", "Two two."]
    data = client_data(["p0", "p1", "p2"], 2, report=texts)
    found = meaning(gather(make(data)), seed=1)
    assert found.texts == 3
    assert found.repeated == pytest.approx(3 / 6)  # p2's repetition is its own
    assert found.words == (1, 1.0, 2)
    assert found.openings[0] == ("Alike.", 3, 2)
    assert found.rescanned is None


def test_meaning_compares_the_same_slice_under_two_protocols(make: Make) -> None:
    one = client_data(["p0", "p1"], 2)
    other = client_data(["p0", "p1"], 2, report=["Other."] * 2 + one.report[2:])
    found = meaning(gather(make(one, other)), seed=1)
    assert found.rescanned == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Chest CT. Lungs clear.", "Chest CT."),
        ("No stop", "No stop"),
        ("Line one\nline two. x", "Line one"),
        ("3.5 mm nodule. Rest.", "3.5 mm nodule."),
        ("", ""),
    ],
)
def test_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_the_page_holds_texts_pictures_and_neighbours_and_loads_nothing(
    make: Make, tmp_path: Path
) -> None:
    prepared = make(client_data(["p0", "p1"], 3), client_data(["p2", "p3", "p4"], 3))
    page = Page(write_reports_page(prepared, tmp_path / "new" / "page.html", 4))
    assert page.tags.count("article") == 4
    shown = re.findall(r'<p class="report">(.*?)</p>', page.html)
    assert len(shown) == 4
    assert all(re.fullmatch(r"Patient p\d\. Slice \d\.", text) for text in shown)
    tags = re.findall(r'<span class="tag">(.*?)</span>', page.html)
    assert tags == [*["another patient"] * 3, "same patient"] * 4
    assert page.tags.count("img") == 4 * (3 + 4)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "cuts the lung window" in page.text
    assert "nan" not in page.text


def test_pictures_show_the_low_dose_slice_in_its_window(make: Make, tmp_path: Path) -> None:
    low = np.zeros((1, 24, 24), np.float32)
    low[0, :, :12] = (40 + 1000) / 3000  # soft tissue beside air
    page = Page(
        write_reports_page(make(client_data(["p0"], 1, low=low)), tmp_path / "page.html", 1)
    )
    lung, soft, bone = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        for source in page.sources[:3]
    )
    assert soft.shape == (24, 24)
    for picture, tissue, air in ((lung, 1390 / 1500, 350 / 1500), (soft, 0.5, 0), (bone, 0.3, 0)):
        assert picture[5, 3] == pytest.approx(255 * tissue, abs=1)
        assert picture[5, 20] == pytest.approx(255 * air, abs=1)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script> & <b>bold</b>. Rest",
        '"><img src=x onerror=alert(1)>',
        "肺 ü 🫁",
        "",
    ],
)
def test_any_text_is_shown_as_it_is(make: Make, tmp_path: Path, text: str) -> None:
    data = client_data(["p0", "p1"], 1, report=[text, text])
    page = Page(write_reports_page(make(data), tmp_path / "page.html", 2))
    assert "script" not in page.tags
    assert len(page.sources) == page.tags.count("img") == 2 * (3 + 1)
    assert page.text.count(text or "(the report is empty)") >= 2


def test_one_slice_is_enough(make: Make, tmp_path: Path) -> None:
    page = Page(write_reports_page(make(client_data(["p0"], 1)), tmp_path / "page.html", 12))
    assert page.tags.count("article") == 1
    assert "Nearest reports" not in page.text
    assert "nan" not in page.text


def test_the_page_is_the_same_every_time(make: Make, tmp_path: Path) -> None:
    prepared = make(client_data(["p0", "p1"], 3), client_data(["p2", "p3"], 3))
    one, two = (write_reports_page(prepared, tmp_path / name, 5) for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()


def test_a_page_that_cannot_be_written_is_one_sentence(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhysFedError, match=r"cannot be written .*choose another --out"):
        write_reports_page(make(client_data(["p0"], 1)), tmp_path / "file" / "page.html", 1)


def test_prepared_data_are_found_and_take_no_settings(make: Make) -> None:
    prepared = make(client_data(["p0"], 1))
    assert find(prepared.root) == prepared
    with pytest.raises(PhysFedError, match="--set seed=2 does not apply"):
        find(prepared.root, ["seed=2"])


def test_a_folder_that_is_neither_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"neither a run directory .* nor a folder of prepared"):
        find(tmp_path)


def test_a_run_whose_patients_are_elsewhere_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(
        "name: x\ndata: {source: {dicom: /nowhere/ct}}\nclients: 'paper-1'\n"
        "method: {name: fedavg}\n"
    )
    with pytest.raises(PhysFedError, match=r"not on this machine .*--set data.source.dicom=FOLDER"):
        find(tmp_path)
    assert find(tmp_path, [f"data.source.dicom={tmp_path}"]).name == "x"
