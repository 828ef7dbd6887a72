"""The command line as a user meets it: help, one-line errors, exit statuses."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from physfed_ray.cli import main
from physfed_ray.cli.parser import make_parser

COMMANDS = (
    "run",
    "reports",
    "submit",
    "jobs",
    "prepare",
    "report",
    "denoise",
    "compare",
    "enrol",
    "surrogate",
    "protocols",
    "methods",
    "metrics",
    "describe",
    "export",
    "experiments",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"  physfed {command}" in text.split("examples:")[1]


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(f"\n    {command}" in listed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_are_valid_command_lines(command: str, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    examples = capsys.readouterr().out.split("examples:\n")[1].splitlines()
    assert examples
    for line in examples:
        make_parser().parse_args(shlex.split(line)[1:])


def test_protocols_prints_the_paper_s_table(capsys):
    assert main(["protocols", "paper-2"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "paper-2" in line)
    assert row.split() == ["paper-2", "128", "768", "0.78", "0.58", "350", "300", "1e6"]


def test_metrics_prints_names_units_and_directions(capsys):
    assert main(["metrics"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "psnr dB better: higher every window" in lines
    assert "nps ICRU report 87, where evaluation.metrics names it" in lines
    assert "fd_efflite0 better: lower every window, one number for all slices" in lines
    assert "nps_area_hu2 HU² better: lower experiment's window" in lines
    assert "mtf10_900hu_per_mm 1/mm better: higher edge of a phantom" in lines


def test_methods_prints_names_papers_and_settings(capsys):
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    for words in ("local", "fedavg", "fedper", "scan_physfed", "Yang et al. 2025", "tau"):
        assert words in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nowhere.yaml"],
        ["submit", "nowhere.yaml"],
        ["jobs", "--address", "http://127.0.0.1:1"],
        ["prepare", "nowhere.yaml"],
        ["describe", "nowhere.yaml"],
        ["report", "nowhere"],
        ["denoise", "nowhere", "in", "out", "--client", "c1"],
        ["compare", "nowhere"],
        ["enrol", "nowhere", "--protocol", "paper-1", "--phantoms", "3"],
        ["enrol", "nowhere", "--protocol", "paper-1", "--patients", "nowhere"],
        ["surrogate", "nowhere.yaml"],
        ["protocols", "papier-*"],
        ["export", "nowhere", "--client", "c1", "--format", "onnx"],
        ["run", "quickstrat"],
        ["experiments", "quickstrat"],
    ],
)
def test_a_user_s_mistake_is_one_line_and_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("physfed: error: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("name: [", "this is not valid YAML"),
        ("name: a\ndata: {source: {dicom: ct}}\nclients: paper-1\nmethod: {name: fedavg}\n",
         "data.source.dicom is a path relative to the file"),
    ],
)  # fmt: skip
def test_submit_finds_mistakes_before_it_looks_for_the_cluster(content, problem, capsys, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    nowhere = ["--address", "http://127.0.0.1:1"]
    assert main(["submit", str(path), *nowhere]) == 2
    assert problem in capsys.readouterr().err


def physfed(*arguments: str | Path) -> list[str]:
    code = "import sys; from physfed_ray.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def heed_ctrl_c() -> None:
    """Undo that a suite started in the background ignores SIGINT, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_a_run_that_the_printed_command_finishes(tmp_path: Path, capsys):
    experiment = tmp_path / "my own.yaml"
    experiment.write_text(
        "name: small\n"
        "data: {source: {phantom: {patients: 4, slices: 1}}, test_patients: 1, image_size: 32,\n"
        "  cache: cache, validation_patients: 1}\n"
        "clients: 'paper-[12]'\n"
        "backbone: {channels: 4}\n"
        "method: {name: fedper}\n"
        "training: {rounds: 60, batch_size: 2, evaluate_every: 60}\n"
    )
    arguments = ["run", experiment, "--out", tmp_path / "run", "--runtime", "inline"]
    with subprocess.Popen(
        physfed(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("round 3/60") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    advice = errors.strip().splitlines()[-1]
    assert advice.startswith("physfed: stopped; to go on: physfed run ")
    assert advice.endswith(" --resume")

    assert main([str(word) for word in arguments]) == 2  # without --resume
    assert "add --resume" in capsys.readouterr().err

    assert main(shlex.split(advice.split("to go on: physfed ")[1])) == 0
    finished = capsys.readouterr().out
    assert "round 60/60" in finished
    assert "round 2/60" not in finished
    assert f"report: {tmp_path}/run/report.html" in finished
