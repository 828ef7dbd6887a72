"""Preparation is complete, reproducible, resumable, and names nobody."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import reconstruct
from physfed_ray.data.description import DescribedSlices, Slice
from physfed_ray.data.patient import Findings, NoSliceError, PatientSource, PatientVolume
from physfed_ray.data.plan import PreparePlan, plan
from physfed_ray.data.prepare import _tell_pixels, prepare, scan_inline, source_line
from physfed_ray.data.prepared import MANIFEST, Prepared
from physfed_ray.data.scanning import Outcome, do_shard
from physfed_ray.data.shards import Shard
from physfed_ray.data.store import read_client_data, read_scans
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.experiment import Experiment, Reports
from physfed_ray.window import normalise

SPARSE = {
    "views": 24,
    "bins": 400,
    "pixel_mm": 1.0,
    "bin_mm": 1.6,
    "source_mm": 350,
    "detector_mm": 350,
    "photons": 1e5,
}


@pytest.fixture(autouse=True, scope="module")
def _salt() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_SALT", "of the tests")
        yield


def make_experiment(cache: Path, **changes: Any) -> Experiment:
    """Return 2 clients, 1 unseen protocol and 6 small phantoms; keys may have dots as ``__``."""
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {
            "source": {"phantom": {"patients": 6, "slices": 2}},
            "image_size": 48,
            "test_patients": 1,
            "validation_patients": 1,
            "cache": str(cache),
        },
        "reports": {"encoder": "hashed"},
        "clients": [{"id": "a", "protocol": SPARSE}, {"id": "b", "protocol": SPARSE}],
        "unseen": [{"id": "u", "protocol": SPARSE | {"views": 36}}],
        "method": {"name": "fedavg"},
    }
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (values.setdefault(group, {}) if group else values)[name] = value
    return Experiment.model_validate(values)


def contents(prepared: Prepared) -> dict[str, bytes]:
    return {
        path.relative_to(prepared.root).as_posix(): path.read_bytes()
        for path in sorted(prepared.root.rglob("*.arrow"))
    }


def no_work(_: PreparePlan, shards: Sequence[Shard]) -> Iterator[Outcome]:
    assert not shards
    yield from ()


def no_reports(_: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
    assert not slices
    yield from ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(make_experiment(tmp_path_factory.mktemp("cache")))


def test_every_client_has_its_files(prepared: Prepared) -> None:
    assert [client.id for client in prepared.clients] == ["a", "b"]
    for client in prepared.clients:
        assert client.train
        assert client.validation
        assert client.test
        assert (client.patients, client.slices) == (2, 4)
        assert len(read_client_data(client.train)) == 4
        assert len(read_client_data(client.test)) == 2
    (unseen,) = prepared.unseen
    assert (unseen.train, unseen.validation, unseen.patients, unseen.slices) == (None, None, 1, 2)
    splits = prepared.data_summary["splits"]
    assert splits["train"] == {id: {"patients": 2, "slices": 4} for id in ("a", "b")}
    assert splits["unseen"] == {"u": {"patients": 1, "slices": 2}}


def test_patients_never_overlap_and_test_patients_are_everywhere(prepared: Prepared) -> None:
    patients = {path: set(read_client_data(prepared.root / path).patient) for path in (
        "train/a.arrow", "train/b.arrow", "validation/a.arrow", "test/a.arrow"
    )}  # fmt: skip
    assert len(set().union(*patients.values())) == sum(map(len, patients.values())) == 6
    for path in ("test/b.arrow", "unseen/u.arrow"):
        assert set(read_client_data(prepared.root / path).patient) == patients["test/a.arrow"]
    again = read_client_data(prepared.root / "validation/b.arrow").patient
    assert set(again) == patients["validation/a.arrow"]


def test_content_is_what_a_scanner_would_give(prepared: Prepared) -> None:
    a, b, u = (
        read_client_data(prepared.root / path)
        for path in ("test/a.arrow", "test/b.arrow", "unseen/u.arrow")
    )
    np.testing.assert_array_equal(a.full, b.full)
    np.testing.assert_array_equal(a.body, u.body)
    assert not np.array_equal(a.low, b.low), "each client has its own noise"
    np.testing.assert_array_equal(a.g[1], prepared.clients[0].protocol.normalised())
    np.testing.assert_array_equal(u.g[1], prepared.unseen[0].protocol.normalised())
    for data in (a, b, u):
        assert 0 <= data.low.min() < data.low.max() <= 1
        error = np.abs(data.low - data.full)[data.body == 1].mean()
        assert 1e-3 < error < 0.2
        assert data.body.any(axis=(1, 2)).all()
        assert set(np.unique(data.body)) == {0, 1}
        assert data.embedding_mask.all()
        assert all(report for report in data.report)
        np.testing.assert_array_equal(data.slice, [0, 1])


def test_statistics_are_uniform_means_over_training_clients(prepared: Prepared) -> None:
    files = [read_client_data(client.train) for client in prepared.clients if client.train]
    pixels = [data.low.astype(np.float64).ravel() for data in files]
    got = prepared.statistics
    assert got.input_mean == pytest.approx(np.mean([x.mean() for x in pixels]), rel=1e-9)
    assert got.input_std == pytest.approx(np.sqrt(np.mean([x.var() for x in pixels])), rel=1e-9)
    tokens = [data.embedding[:, 0].astype(np.float64) for data in files]
    std = np.sqrt(np.mean([x.var(axis=0) for x in tokens], axis=0))
    np.testing.assert_allclose(got.embedding_mean, np.mean([x.mean(axis=0) for x in tokens], 0))
    np.testing.assert_allclose(got.embedding_std, np.maximum(std, 1e-4))
    assert (got.tokens, got.dim) == files[0].embedding.shape[1:]


def test_manifest_round_trip(prepared: Prepared) -> None:
    assert Prepared.load(prepared.root) == prepared
    assert str(prepared.root) not in (prepared.root / MANIFEST).read_text()


def test_nothing_names_a_patient(prepared: Prepared) -> None:
    cache = prepared.root.parents[1]
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert b"phantom-0" not in path.read_bytes(), path
        assert "phantom-0" not in str(path)


def test_second_run_computes_nothing(prepared: Prepared) -> None:
    cache = prepared.root.parents[1]
    events: list[dict[str, Any]] = []
    again = prepare(make_experiment(cache), no_work, no_reports, events.append)
    assert again == prepared
    assert events[0]["text"].startswith("data: ")
    assert events[1:] == [
        {"event": "prepare", "done": 9, "total": 9, "cached": 9},
        {"event": "reports", "done": 18, "total": 18, "cached": 18, "health": ""},
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"name": "local"}},
        {"training__rounds": 3, "training__lr": 1e-4},
        {"backbone__channels": 8},
        {"name": "other", "federation__participation": 0.5},
        {"data__clinical_windows": {}},
    ],
)
def test_what_does_not_matter_recomputes_nothing(
    prepared: Prepared, changes: dict[str, Any]
) -> None:
    assert (
        prepare(make_experiment(prepared.root.parents[1], **changes), no_work, no_reports)
        == prepared
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"data__image_size": 40},
        {"data__slices_per_patient": 1},
        {"data__window_hu": [-1000, 1000]},
        {"data__centre": "image"},
        {"data__electronic_noise": 1.0},
    ],
)
def test_what_matters_recomputes_everything(prepared: Prepared, changes: dict[str, Any]) -> None:
    todo = plan(make_experiment(prepared.root.parents[1], **changes))
    assert len(todo.missing()) == len(todo.shards)
    assert todo.root != prepared.root


def test_new_unseen_protocol_adds_only_its_own_shards(prepared: Prepared) -> None:
    unseen = [{"id": "u", "protocol": SPARSE | {"views": 36}}, {"id": "v", "protocol": "paper-2"}]
    todo = plan(make_experiment(prepared.root.parents[1], unseen=unseen))
    assert [shard.client for shard in todo.missing()] == ["v"]


def test_a_curved_detector_and_an_arc_are_scanned_and_stand_in_everybodys_g(tmp_path: Path) -> None:
    """The full circle of a flat detector and a short scan of a curved one see the same object."""
    short = SPARSE | {"views": 200, "detector": "arc", "arc_deg": 240}
    clients = [{"id": "a", "protocol": SPARSE | {"views": 300}}, {"id": "b", "protocol": short}]
    made = prepare(make_experiment(tmp_path, clients=clients, data__electronic_noise=0.0))
    assert Prepared.load(made.root) == made
    assert made.clients[1].protocol == Protocol(**short)
    a, b, u = (read_client_data(made.root / f) for f in (
        "test/a.arrow", "test/b.arrow", "unseen/u.arrow"
    ))  # fmt: skip
    assert [data.g[0, 7:].tolist() for data in (a, b, u)] == [
        [0, 1], pytest.approx([1, 2 / 3]), [0, 1],
    ]  # fmt: skip
    np.testing.assert_array_equal(a.full, b.full)
    error = np.sqrt(np.mean((b.low - b.full) ** 2))
    assert error < 1.5 * np.sqrt(np.mean((a.low - a.full) ** 2))


def test_clients_that_share_a_patient_have_their_own_noise(tmp_path: Path) -> None:
    clients = [{"id": id, "protocol": SPARSE} for id in "abc"]
    tiny = {"data__source": {"phantom": {"patients": 2, "slices": 1}}, "clients": clients}
    tiny |= {"data__validation_patients": 0, "unseen": []}
    with pytest.raises(PhysFedError, match=r"2 patients but 4 are needed.*data.reuse_patients"):
        plan(make_experiment(tmp_path, **tiny))
    made = prepare(make_experiment(tmp_path, **tiny, data__reuse_patients=True))
    a, b, c = (read_client_data(client.train) for client in made.clients if client.train)
    test = read_client_data(made.root / "test/a.arrow")
    assert a.patient == b.patient == c.patient != test.patient
    np.testing.assert_array_equal(a.full, c.full)
    assert not np.array_equal(a.low, b.low)


def test_deleted_file_is_joined_again_from_the_shards(prepared: Prepared) -> None:
    before = contents(prepared)
    (prepared.root / "train/a.arrow").unlink()
    with pytest.raises(PhysFedError, match="is gone"):
        Prepared.load(prepared.root)
    assert prepare(make_experiment(prepared.root.parents[1]), no_work, no_reports) == prepared
    assert contents(prepared) == before


def test_order_of_the_shards_does_not_matter(prepared: Prepared, tmp_path: Path) -> None:
    def backwards(todo: PreparePlan, shards: Sequence[Shard]) -> Iterator[Outcome]:
        return scan_inline(todo, shards[::-1])

    events: list[dict[str, Any]] = []
    other = prepare(make_experiment(tmp_path), backwards, progress=events.append)
    assert contents(other) == contents(prepared)
    assert [e["done"] for e in events if e["event"] == "prepare"] == list(range(10))
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


SCRIPT = """
import sys
from pathlib import Path
from physfed_ray.data.prepare import prepare
from physfed_ray.experiment import load_experiment
show = lambda event: print(event.get("done", -1), flush=True)
prepare(load_experiment(Path(sys.argv[1])), progress=show)
"""


def start(cache: Path) -> subprocess.Popen[str]:
    file = cache / "tiny.yaml"
    file.write_text(make_experiment(cache).to_yaml())
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file)], stdout=subprocess.PIPE, text=True
    )


def test_killed_run_loses_only_what_was_in_flight(prepared: Prepared, tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout
    while int(process.stdout.readline()) < 4:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(tmp_path.rglob(MANIFEST))
    events: list[dict[str, Any]] = []
    resumed = prepare(make_experiment(tmp_path), progress=events.append)
    assert events[1]["cached"] >= 4
    assert contents(resumed) == contents(prepared)


def test_two_processes_at_once_agree(prepared: Prepared, tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.split()[-1] == "18"
    both = prepare(make_experiment(tmp_path), no_work, no_reports)
    assert contents(both) == contents(prepared)


class Flawed:
    """A source that fails to load some patients, each with its own error."""

    def __init__(self, source: PatientSource, errors: dict[str, Exception]) -> None:
        self._source, self._errors = source, errors

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Load, or fail for the patients that are flawed."""
        if patient_id in self._errors:
            raise self._errors[patient_id]
        return self._source.load(patient_id, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def prepare_flawed(
    cache: Path, errors: dict[str, Exception], kind: type[Flawed] = Flawed
) -> Prepared:
    def run(todo: PreparePlan, shards: Sequence[Shard]) -> Iterator[Outcome]:
        source = kind(todo.source, errors)
        for shard in shards:
            # Other files, another fingerprint: what an intact source gave must not be reused.
            other = replace(shard.patient, fingerprint=f"{shard.patient.fingerprint} {cache}")
            flawed = replace(shard, patient=other)
            yield do_shard(source, todo.settings, flawed, todo.cache)

    return prepare(make_experiment(cache), run)


def patients_of(cache: Path, split: str, client: str) -> list[Shard]:
    return plan(make_experiment(cache)).shards_of(split, client)


def test_unreadable_patient_is_left_out_with_a_reason(prepared: Prepared, tmp_path: Path) -> None:
    bad, good = patients_of(tmp_path, "train", "a")
    result = prepare_flawed(tmp_path, {bad.patient.id: ValueError("broken pixels of John Doe")})
    unusable = result.data_summary["unusable_patients"]
    assert unusable == {bad.patient.pseudonym: "unreadable (ValueError)"}
    client = result.clients[0]
    assert (client.patients, client.slices) == (1, 2)
    assert client.train
    assert set(read_client_data(client.train).patient) == {good.patient.pseudonym}
    assert contents(result)["train/b.arrow"] == contents(prepared)["train/b.arrow"]


class Short(Flawed):
    """A source that loses the last slice of some patients."""

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Load, less the last slice of the patients that are flawed."""
        return self._source.load(patient_id, 1 if patient_id in self._errors else limit)


def test_unreadable_slices_are_counted(tmp_path: Path) -> None:
    (bad,) = patients_of(tmp_path, "test", "a")
    result = prepare_flawed(tmp_path, {bad.patient.id: ValueError()}, Short)
    assert result.data_summary["unusable_slices"] == {bad.patient.pseudonym: 1}
    assert result.data_summary["splits"]["test"]["a"] == {"patients": 1, "slices": 1}


class Holed(Flawed):
    """A source of which some patients' first slice is no image, and something was found in all."""

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Load, with a first slice that is not finite for the patients that are flawed."""
        volume = self._source.load(patient_id, limit)
        first, *rest = volume.slices
        if patient_id in self._errors:
            first = first + np.inf
        return replace(volume, slices=(first, *rest), findings=Findings(notes={"seen": 2}))


def test_one_bad_slice_costs_one_slice_and_what_was_found_stays_told(tmp_path: Path) -> None:
    (bad,) = patients_of(tmp_path, "test", "a")
    result = prepare_flawed(tmp_path, {bad.patient.id: ValueError()}, Holed)
    assert result.data_summary["unusable_patients"] == {}
    assert result.data_summary["splits"]["test"]["a"] == {"patients": 1, "slices": 1}
    found = {"left_out": {"pixels that are not finite numbers": 1}, "notes": {"seen": 2 * 6}}
    assert result.data_summary["pixels"] == found
    told: list[Any] = []
    again = prepare_flawed(tmp_path, {bad.patient.id: ValueError()}, Holed)
    assert again.data_summary["pixels"] == found, "shards in the cache remember it"
    _tell_pixels(told.append, again)
    assert told[0]["text"] == (
        "data: slices left out: 1 pixels that are not finite numbers; noted: 12 seen"
    )


class Gone(Flawed):
    """A source of which some patients have no usable slice."""

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Load, but for the patients that are flawed."""
        if patient_id in self._errors:
            raise NoSliceError("No slice of a patient decodes.", "left out: 2 for a reason")
        return self._source.load(patient_id, limit)


def test_a_patient_without_slices_is_left_out_with_their_reasons(tmp_path: Path) -> None:
    bad, _ = patients_of(tmp_path, "train", "a")
    result = prepare_flawed(tmp_path, {bad.patient.id: ValueError()}, Gone)
    unusable = {bad.patient.pseudonym: "left out: 2 for a reason"}
    assert result.data_summary["unusable_patients"] == unusable


def test_the_source_line_says_what_was_found_left_out_and_noted() -> None:
    summary = {"patients": 2, "left_out": {"localizer": 3}, "notes": {"derived image, let in": 1}}
    assert source_line(summary) == (
        "data: 2 patients; files left out: 3 localizer; noted: 1 derived image, let in"
    )
    assert source_line({"patients": 2}) == "data: 2 patients"


@pytest.mark.parametrize(("split", "client"), [("train", "b"), ("test", "a")])
def test_client_without_usable_patients_is_refused(tmp_path: Path, split: str, client: str) -> None:
    shards = patients_of(tmp_path, split, client)
    errors: dict[str, Exception] = {shard.patient.id: ValueError() for shard in shards}
    with pytest.raises(PhysFedError, match=f"{split} patients of {client} are unusable") as info:
        prepare_flawed(tmp_path, errors)
    assert shards[0].patient.pseudonym in str(info.value)
    assert shards[0].patient.id not in str(info.value)
    assert not list(tmp_path.rglob(MANIFEST))


def test_unreachable_disk_is_an_error_and_not_an_unreadable_patient(tmp_path: Path) -> None:
    bad, _ = patients_of(tmp_path, "train", "a")
    lost = OSError(5, "Input/output error", f"/scans/{bad.patient.id}/1.dcm")
    with pytest.raises(PhysFedError, match="Input/output error") as info:
        prepare_flawed(tmp_path, {bad.patient.id: lost})
    assert bad.patient.id not in str(info.value)


class Cubes(Flawed):
    """A source whose flawed patients' slices have one axis too many."""

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Load slices of shape (1, h, w)."""
        volume = self._source.load(patient_id, limit)
        if patient_id not in self._errors:
            return volume
        return PatientVolume(
            patient_id,
            tuple(hu[None] for hu in volume.slices),
            volume.spacings_mm,
            volume.positions_mm,
        )


def test_failing_shard_names_pseudonym_and_protocol(tmp_path: Path) -> None:
    (shard,) = patients_of(tmp_path, "unseen", "u")
    pattern = rf"patient {shard.patient.pseudonym} for . \(Protocol\(views=.*failed"
    with pytest.raises(PhysFedError, match=pattern) as info:
        prepare_flawed(tmp_path, {shard.patient.id: ValueError()}, Cubes)
    assert shard.patient.id not in str(info.value)
    assert shard.patient.id not in repr(shard)


def test_real_ct(real_ct: Path, tmp_path: Path) -> None:
    experiment = make_experiment(
        tmp_path, data__source={"dicom": str(real_ct)}, data__slices_per_patient=2
    )
    result = prepare(experiment)
    assert json.dumps(result.data_summary)
    for client in (*result.clients, *result.unseen):
        path = client.train or client.test
        assert path
        data = read_client_data(path)
        assert (data.scale > 0.3).all()
        assert np.bincount(np.unique(data.patient, return_inverse=True)[1]).max() <= 2
        assert np.abs(data.low - data.full)[data.body == 1].mean() < 0.2


def test_for_fresh_noise_training_slices_keep_what_a_quiet_detector_reads(
    prepared: Prepared, tmp_path: Path
) -> None:
    """The rest of the data set is what it is without, and shards that are there stay."""
    shutil.copytree(prepared.root.parents[1], tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.arrow")}
    experiment = make_experiment(tmp_path, data__noise="fresh")
    todo = plan(experiment)
    assert {shard.client for shard in todo.missing()} == {"a", "b"}
    assert todo.cached() == todo.shard_count - len(todo.missing()) == todo.shard_count - 4
    fresh = prepare(experiment, run_reports=no_reports)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.arrow")}
    assert before.items() <= files.items()
    assert len(files) == len(before) + 4
    for name, content in contents(prepared).items():
        if not name.startswith("train"):
            assert (fresh.root / name).read_bytes() == content
    client = fresh.clients[0]
    assert client.train
    own, first = (read_client_data(r / "train/a.arrow", extra) for r, extra in
                  ((fresh.root, ["expected"]), (prepared.root, [])))  # fmt: skip
    np.testing.assert_array_equal(own.low, first.low)
    assert own.extra["expected"].shape == (4, SPARSE["views"], SPARSE["bins"])
    quiet = reconstruct(own.extra["expected"].copy(), client.protocol, experiment.data.simulation)
    error = normalise(quiet, experiment.data.window_hu) - own.low
    assert 0 < np.abs(error).mean() < 0.01
    assert abs(error.mean()) < 1e-3


def test_the_server_has_its_patients_under_every_client_s_protocol(tmp_path: Path) -> None:
    """In one file with each slice's g; fields whose shape follows the protocol are not there."""
    sparse = SPARSE | {"views": 50}
    clients = [{"id": "a", "protocol": SPARSE}, {"id": "b", "protocol": sparse}]
    experiment = make_experiment(tmp_path, clients=clients, data__server_patients=1)
    todo = plan(experiment)
    assert todo.shard_count == len(todo.shards) == 2 + 2 + 2 + 1 + 2 + 1
    made = prepare(experiment)
    assert Prepared.load(made.root) == made
    assert made.server is not None
    assert made.server.path == made.root / "server" / "server.arrow"
    assert (made.server.patients, made.server.slices) == (1, 4)
    assert made.data_summary["splits"]["server"] == {"server": {"patients": 1, "slices": 4}}
    data = read_client_data(made.server.path)
    protocols = [client.protocol.normalised() for client in made.clients]
    np.testing.assert_array_equal(data.g, np.repeat(protocols, 2, axis=0))
    np.testing.assert_array_equal(data.full[:2], data.full[2:])
    assert not np.array_equal(data.low[:2], data.low[2:])
    assert made.record is not None
    assert made.record.dealt["server"] == tuple(dict.fromkeys(data.patient))
    others = [name for group, name in made.record.dealt.items() if group != "server"]
    assert not {*data.patient} & {patient for group in others for patient in group}
    part = next(s for s in todo.shards_of("server", "b"))
    np.testing.assert_array_equal(read_scans(todo.path_of(part)).low, data.low[2:])
    with_fields = replace(todo, fields=("sinogram", "sigma"))
    assert with_fields.fields_of("server") == ("sigma",)
    made.server.path.write_bytes(made.clients[0].test.read_bytes())  # type: ignore[union-attr]
    with pytest.raises(DamagedError, match=r"server\.arrow"):
        Prepared.load(made.root)


def test_without_labels_training_images_have_no_full_dose(tmp_path: Path) -> None:
    clients = [{"id": "a", "protocol": SPARSE}, {"id": "b", "protocol": SPARSE, "labels": False}]
    whole = prepare(make_experiment(tmp_path))
    made = prepare(make_experiment(tmp_path, clients=clients), run_shards=no_work)
    assert made.root != whole.root
    before, now = contents(whole), contents(made)
    assert {name for name in now if now[name] != before[name]} == {"train/b.arrow"}
    bare, paired = (read_client_data(p.root / "train/b.arrow") for p in (made, whole))
    assert np.isnan(bare.full).all()
    np.testing.assert_array_equal(bare.low, paired.low)
    np.testing.assert_array_equal(bare.body, paired.body)
    assert made.statistics == whole.statistics
