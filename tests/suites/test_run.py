"""A suite run for real, on tiny phantoms: what is done, skipped, resumed, and named as failed."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.cli import main
from physfed_ray.errors import DivergedError, PhysFedError
from physfed_ray.federation.rounds import Rounds
from physfed_ray.rundir.long_table import LongTable
from physfed_ray.rundir.run_directory import Manifest, RunDirectory
from physfed_ray.suites.resources import alone, side_by_side
from physfed_ray.suites.run import run_suite
from physfed_ray.suites.state import State, mark_diverged, record, standing, state_of
from physfed_ray.suites.suite import Suite, SuiteRun, load_suite
from physfed_ray.suites.tasks import tasks

TINY = """
suite: tiny
experiment:
  name: tiny
  reports: {encoder: hashed}
  data:
    source: {phantom: {patients: 4, slices: 1}}
    image_size: 32
    test_patients: 1
    validation_patients: 1
    cache: cache
  clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
  backbone: {channels: 2}
  training: {rounds: 2, batch_size: 2, evaluate_every: 2}
methods: [fedavg, fedper]
"""
GRID = "learning_rates: {grid: [1e-3, 3e-3, 9e-3], rounds: 1}\n"


def suite_in(folder: Path, text: str = TINY, *overrides: str) -> Suite:
    (folder / "tiny.yaml").write_text(text)
    return load_suite(folder / "tiny.yaml", overrides)


def write_run(out: Path | str, run: SuiteRun, psnr: float | None = 30.0) -> None:
    """Write what a complete run leaves: settings, checkpoint, metrics, summary, log."""
    rounds = run.experiment.training.rounds
    with closing(RunDirectory(f"{out}/{run.path}")) as directory:
        directory.write("experiment.yaml", run.experiment.to_yaml().encode())
        directory.commit(Manifest(rounds, {"c1": 0, "c2": 0}))
        if psnr is None:
            return
        rows = [(number, client, split, "psnr", psnr + offset - 9 * (number < rounds))
                for number in range(rounds + 1) for client, offset in (("c1", -1.0), ("c2", 1.0))
                for split in ("validation", "test")]  # fmt: skip
        rows = [(n, c, s, m, value + 50 * (s == "test" and run.path.endswith("lr0.001")))
                for n, c, s, m, value in rows]  # fmt: skip
        directory.write_table("metrics.parquet", LongTable(rows=rows))
        directory.write_json("summary.json", {"wall_s": 2.0 * rounds})
        directory.append_line("run.log", json.dumps({"event": "done"}))


def log_events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "run.log").read_text().splitlines()]


# What is done, and which learning rate is chosen, from what lies in the run directories.


def test_a_run_is_done_when_its_last_round_and_its_report_are_there(tmp_path: Path) -> None:
    run = suite_in(tmp_path).runs[0]
    assert state_of(str(tmp_path), run) == State(0, 2)
    write_run(tmp_path, run, psnr=None)
    assert state_of(str(tmp_path), run) == State(2, 2)  # killed before its report
    assert state_of(str(tmp_path), run).words == "interrupted after round 2"
    write_run(tmp_path, run)
    assert state_of(str(tmp_path), run) == State(2, 2, done=True, seconds=4.0)
    with (tmp_path / run.path / "run.log").open("a") as log:
        log.write('{"event": "round", "rou')  # resumed for more rounds, and killed in a line
    assert not state_of(str(tmp_path), run).done


def test_a_run_that_was_not_measured_by_what_is_asked_for_is_not_done(tmp_path: Path) -> None:
    plain, asked = (
        suite_in(tmp_path, TINY, *more).runs[0] for more in ((), ("evaluation.metrics=[fsim]",))
    )
    write_run(tmp_path, plain)
    assert state_of(str(tmp_path), asked) == State(2, 2)
    write_run(tmp_path, asked)
    assert state_of(str(tmp_path), asked).done
    assert state_of(str(tmp_path), plain).done


def test_a_suite_on_a_bucket_is_read_likewise(tmp_path: Path) -> None:
    suite, bucket = suite_in(tmp_path, TINY + GRID), "memory://bucket/suite"
    fedavg, _ = suite.variants
    for trial, psnr in zip(fedavg.trials, (30.0, 31.0, 33.0), strict=True):
        write_run(bucket, trial, psnr)
    write_run(bucket, fedavg.runs[0].at(9e-3))
    now = standing(suite, bucket)
    assert now.states["runs/fedavg-red_cnn-seed1"].done
    record(bucket, fedavg, now.chosen[fedavg.name])
    assert (
        json.loads(RunDirectory(bucket).read("learning_rates.json"))[fedavg.name]["chosen"] == 9e-3
    )
    left = [task.name for task in tasks(suite, now)]
    assert left[0] == "data of seed 1"
    assert all(name.startswith("fedper-") for name in left[1:])


def test_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, suite_in(tmp_path).runs[0])
    other = suite_in(tmp_path, TINY, "training.batch_size=1")
    with pytest.raises(PhysFedError, match=r"fedavg-red_cnn-seed1 was made with other settings"):
        standing(other, str(tmp_path))


@pytest.fixture
def tried(tmp_path: Path) -> tuple[Suite, Path]:
    """Return a suite whose trials are settled: fedavg is best in the middle, fedper diverged."""
    suite = suite_in(tmp_path, TINY + GRID)
    fedavg, fedper = suite.variants
    for trial, psnr in zip(fedavg.trials, (30.0, 33.0, 31.0), strict=True):
        write_run(tmp_path, trial, psnr)
    write_run(tmp_path, fedper.trials[0], 31.5)
    write_run(tmp_path, fedper.trials[1], 31.5)
    write_run(tmp_path, fedper.trials[2], psnr=None)
    mark_diverged(str(tmp_path / fedper.trials[2].path), "loss is nan")
    return suite, tmp_path


def test_the_rate_with_the_best_validation_psnr_is_chosen(tried: tuple[Suite, Path]) -> None:
    suite, out = tried
    chosen = standing(suite, str(out)).chosen
    assert chosen["fedavg-red_cnn"].scores == {1e-3: 30.0, 3e-3: 33.0, 9e-3: 31.0}
    assert chosen["fedavg-red_cnn"].lr == 3e-3  # though 1e-3 has the best test PSNR
    assert not chosen["fedavg-red_cnn"].at_edge
    assert chosen["fedper-red_cnn"].scores == {1e-3: 31.5, 3e-3: 31.5, 9e-3: None}
    assert chosen["fedper-red_cnn"].lr == 1e-3  # the lower of two that are equally good
    assert chosen["fedper-red_cnn"].at_edge


def test_no_rate_is_chosen_before_the_last_trial(tried: tuple[Suite, Path]) -> None:
    suite, out = tried
    (out / suite.variants[0].trials[1].path / "run.log").unlink()
    now = standing(suite, str(out))
    assert set(now.chosen) == {"fedper-red_cnn"}
    left = [(task.name, task.needs) for task in tasks(suite, now)]
    assert left == [
        ("data of seed 1", ()),
        ("fedavg-red_cnn-lr0.003", ("data of seed 1",)),
        ("fedavg-red_cnn-seed1", ("data of seed 1", "fedavg-red_cnn-lr0.003")),
        ("fedper-red_cnn-seed1", ("data of seed 1",)),
    ]


def test_complete_runs_need_no_trials(tried: tuple[Suite, Path]) -> None:
    suite, out = tried
    (out / suite.variants[0].trials[1].path / "run.log").unlink()
    write_run(out, suite.variants[0].runs[0].at(9e-3))
    now = standing(suite, str(out))
    assert now.states["runs/fedavg-red_cnn-seed1"].done
    (left,) = tasks(suite, now)
    assert left.name == "fedper-red_cnn-seed1"
    assert left.needs == ()  # nobody shares its data, which it prepares itself


def test_a_complete_run_at_another_rate_than_the_chosen_is_refused(
    tried: tuple[Suite, Path],
) -> None:
    suite, out = tried
    write_run(out, suite.variants[0].runs[0].at(9e-3))
    with pytest.raises(PhysFedError, match=r"fedavg-red_cnn-seed1 was made with other settings"):
        standing(suite, str(out))


def test_describe_says_what_is_missing(tried: tuple[Suite, Path], capsys: Any) -> None:
    _, out = tried
    assert main(["describe", str(out / "tiny.yaml"), "--out", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fedavg-red_cnn-seed1", "0.003", "2", "missing"] in lines
    assert ["fedavg", "30.00", "33.00", "31.00", "0.003"] in lines
    assert ["fedper", "31.50", "31.50", "diverged", "0.001", "(edge)"] in lines
    assert lines[-1] == ["6", "of", "8", "done"]


def test_divergence_is_told_from_other_failures(make_spec: Any, monkeypatch: Any) -> None:
    from physfed_ray.experiment import Federation
    from physfed_ray.runtime.inline import InlineRuntime

    spec = make_spec("fedavg", clients=2, unseen=0)
    loss = type(spec.method).loss
    monkeypatch.setattr(
        type(spec.method),
        "loss",
        lambda *given: (loss(*given)[0] * float("nan"), {}),
    )
    with closing(InlineRuntime(spec)) as place:
        rounds = Rounds(spec, Federation(), place, None, lambda _: None, lambda _: None)
        with pytest.raises(DivergedError, match="loss is nan"):
            rounds.run()


# What may run beside what.


def test_one_process_at_a_time_works_on_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(PhysFedError, match="another `physfed` is at work"):
        run_suite(suite_in(tmp_path), str(tmp_path), runtime="inline")


def test_runs_side_by_side_fit_cores_and_memory(tmp_path: Path, monkeypatch: Any) -> None:
    resources = "physfed_ray.suites.resources"
    variants = suite_in(tmp_path, TINY, "training.threads=2").variants
    monkeypatch.setattr(f"{resources}.torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(f"{resources}.os.sched_getaffinity", lambda _: set(range(9)))
    monkeypatch.setattr(f"{resources}.run_bytes", lambda _: 3.0e9)
    monkeypatch.setattr(f"{resources}._free_bytes", lambda: 100_000_000_000)
    assert side_by_side(variants, None, "inline", None) == 4  # 9 cores, 2 threads each
    monkeypatch.setattr(f"{resources}._free_bytes", lambda: 10_000_000_000)
    assert side_by_side(variants, None, "inline", None) == 3
    assert side_by_side(variants, 7, "inline", None) == 7
    assert side_by_side(variants, None, "ray", None) == 1
    assert side_by_side(variants, 2, "ray", "10.0.0.1:6379") == 2
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(PhysFedError, match="--jobs 2 would start Ray 2 times"):
        side_by_side(variants, 2, "ray", None)


# Real runs.


def command(suite: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "physfed_ray", "run", str(suite), "--out", str(out),
            "--runtime", "inline", *more]  # fmt: skip


def manifests(run_dir: Path) -> set[str]:
    return {path.parent.name for path in run_dir.glob("checkpoints/round-*/state.json")}


def run_cli(suite: Path, out: Path) -> tuple[int, str]:
    """Run a suite by the command line, in this process; return the status and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["run", str(suite), "--out", str(out), "--runtime", "inline"])
    return status, printed.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Run the tiny suite with one run that cannot be written, then again after that is mended."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tiny.yaml").write_text(TINY)
    out = folder / "out"
    blocked = out / "runs" / "fedper-red_cnn-seed1" / "summary.json"
    blocked.mkdir(parents=True)  # a folder where a file must be
    first = run_cli(folder / "tiny.yaml", out)
    blocked.rmdir()
    page = (out / "tiny.md").exists()
    log = (out / "runs" / "fedavg-red_cnn-seed1" / "run.log").read_bytes()
    again = run_cli(folder / "tiny.yaml", out)
    return {
        "folder": folder, "out": out, "first": first, "page": page, "again": again, "log": log,
    }  # fmt: skip


def test_a_failed_run_stops_no_other_and_is_named(finished: Mapping[str, Any]) -> None:
    status, printed = finished["first"]
    assert status == 1
    assert "fedavg-red_cnn-seed1: done in" in printed
    last = printed.strip().splitlines()
    assert last[-2].startswith("failed: fedper-red_cnn-seed1: ")
    assert "holds other files (summary.json)" in last[-2]
    assert last[-1].startswith("1 failed; what they printed: ")
    assert not finished["page"]


def test_only_what_is_missing_is_run_and_all_is_compared(finished: Mapping[str, Any]) -> None:
    (status, printed), out = finished["again"], finished["out"]
    assert status == 0, printed
    assert "fedavg-red_cnn-seed1" not in printed
    assert "fedper-red_cnn-seed1: done in" in printed
    assert "1 of 2 done, 1 running, 0 left" in printed
    assert (out / "runs" / "fedavg-red_cnn-seed1" / "run.log").read_bytes() == finished["log"]
    page = (out / "tiny.md").read_text()
    assert "2 runs of 2 methods" in page
    assert printed.strip().splitlines()[-1] == f"page: {out / 'tiny.md'}"
    summary = json.loads((out / "runs" / "fedper-red_cnn-seed1" / "summary.json").read_text())
    assert summary["command"].startswith("physfed run ")


def test_a_finished_suite_starts_nothing(finished: Mapping[str, Any]) -> None:
    suite = load_suite(finished["folder"] / "tiny.yaml")
    events: list[Mapping[str, Any]] = []
    result = run_suite(suite, str(finished["out"]), runtime="inline", on_event=events.append)
    assert events == []
    assert not result.failed


@pytest.mark.cluster
def test_a_killed_suite_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    text = TINY.replace("rounds: 2", "rounds: 60").replace("[fedavg, fedper]", "[fedavg]")
    (tmp_path / "tiny.yaml").write_text(text)
    out = tmp_path / "out"
    run_dir = out / "runs" / "fedavg-red_cnn-seed1"
    process = subprocess.Popen(
        command(tmp_path / "tiny.yaml", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ends = time.monotonic() + 250
    while not manifests(run_dir) - {"round-0000", "round-0001", "round-0002"}:
        assert process.poll() is None, "the suite ended before it could be killed"
        assert time.monotonic() < ends, "no round was completed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while time.monotonic() < ends and in_session(process.pid):
        time.sleep(0.05)
    assert not in_session(process.pid)
    stood = state_of(str(out), load_suite(tmp_path / "tiny.yaml").runs[0])
    assert 3 <= stood.rounds < 60

    done = subprocess.run(
        command(tmp_path / "tiny.yaml", out), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    starts = [event["from_round"] for event in log_events(run_dir) if event["event"] == "start"]
    assert starts == [0, stood.rounds]
    assert log_events(run_dir)[-1]["event"] == "done"


def in_session(leader: int) -> list[int]:
    """Return the processes of a session that are at work (those waiting to be reaped are not)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_trials_come_first_and_their_choice_is_used_and_recorded(
    finished: Mapping[str, Any], tmp_path: Path
) -> None:
    prepared = finished["folder"] / "cache"  # the same data
    text = TINY.replace("[fedavg, fedper]", "[fedavg]").replace(
        "cache: cache", f"cache: {prepared}"
    )
    text += GRID
    suite = suite_in(tmp_path, text.replace("[1e-3, 3e-3, 9e-3]", "[1e-3, 3e-2]"))
    out = tmp_path / "out"
    result = run_suite(suite, str(out), jobs=2, runtime="inline")
    assert not result.failed
    (variant,) = suite.variants
    chosen = result.chosen[variant.name]
    scores = {lr: score for lr, score in chosen.scores.items() if score is not None}
    assert set(scores) == {1e-3, 3e-2}
    assert chosen.lr == max(scores, key=scores.__getitem__)
    recorded = json.loads((out / "learning_rates.json").read_text())
    assert recorded == {
        variant.name: {
            "seed": 1,
            "rounds": 1,
            "validation_psnr": {f"{lr:g}": score for lr, score in scores.items()},
            "chosen": chosen.lr,
        }
    }
    now = standing(suite, str(out))
    assert now.chosen[variant.name] == chosen
    assert all(state.done for state in now.states.values())


@pytest.mark.parametrize(
    "arguments", [["run", "one.yaml", "--jobs", "2"], ["describe", "one.yaml", "--out", "runs"]]
)
def test_what_belongs_to_suites_is_refused_for_one_experiment(
    arguments: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("name: one\n")
    assert main(arguments) == 2
    assert (
        f"{arguments[2]} is for suites, and one.yaml is one experiment" in capsys.readouterr().err
    )
