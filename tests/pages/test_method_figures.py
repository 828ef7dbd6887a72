"""Figures with one line or box a method: what is drawn is what the runs recorded."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.pages.method_figures import (
    Course,
    method_boxes,
    method_styles,
    training_courses,
)
from physfed_ray.results.compare_courses import (
    courses,
    courses_csv,
    slice_scores,
    spent_until,
)
from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.groups import group_runs
from physfed_ray.results.runs import read_results

MakeRun = Callable[..., Path]
KINDS = {f"g{k}": "generic" for k in range(7)} | {f"p{k}": "personalised" for k in range(8)}


@pytest.fixture
def comparison(make_run: MakeRun) -> Comparison:
    """Return two seeds of FedAvg, and Local, which sends nothing."""
    small = {"n": 24, "slices": 2, "rounds": 5, "unseen": 1}
    runs = [make_run("fedavg", seed, **small) for seed in (1, 2)]
    runs.append(make_run("local", 1, bytes_each_way=0.0, **small))
    return Comparison(group_runs([read_results(run) for run in runs]), {})


def _course(ends: tuple[float, float] = (8.0, 40.0), points: int = 4) -> Course:
    x = np.linspace(0.25, 1, points)
    scores = {"psnr": (40 + x, 0.1 * x), "ssim": (90 + x, 0.1 * x)}
    return Course(10 * x, ends[0] * x, ends[1] * x, scores)


def test_spending_adds_up_over_all_rounds_also_those_without_a_score(
    comparison: Comparison,
) -> None:
    run = comparison.first
    _, seconds = run.curve("system", "seconds")["server"]
    found = spent_until(run, "seconds", [0, 2, 5, 9])
    assert found == pytest.approx([0, sum(seconds[:2]), sum(seconds), sum(seconds)])


def test_courses_rise_and_average_over_seeds(comparison: Comparison) -> None:
    found = courses(comparison, "validation")
    assert list(found) == ["FedAvg", "Local"]
    course = found["FedAvg"]
    assert course.rounds.tolist() == [1, 2, 3, 4, 5]
    assert course.sent == pytest.approx([2 * 59.0 * r for r in range(1, 6)])
    for spent in (course.sent, course.seconds):
        assert (np.diff(spent) > 0).all()
    runs = comparison.groups[0].runs
    means = [np.mean([v[1][-1] for v in r.curve("validation", "ssim").values()]) for r in runs]
    mean, spread = course.scores["ssim"]
    assert mean[-1] == pytest.approx(100 * np.mean(means))
    assert spread[-1] == pytest.approx(100 * np.std(means, ddof=1))
    assert not found["Local"].sent.any()


def test_the_csv_holds_every_point(comparison: Comparison) -> None:
    found = courses(comparison, "validation")
    lines = list(csv.DictReader(io.StringIO(courses_csv(found))))
    assert [line["method"] for line in lines] == ["FedAvg"] * 5 + ["Local"] * 5
    assert float(lines[4]["megabytes_sent"]) == pytest.approx(found["FedAvg"].sent[-1])
    assert float(lines[4]["psnr"]) == pytest.approx(found["FedAvg"].scores["psnr"][0][-1], 1e-5)


def test_scores_against_rounds_bytes_and_time_share_their_axes() -> None:
    styles = method_styles({"A": "generic", "B": "personalised"})
    figure = training_courses({"A": _course(), "B": _course((4.0, 30.0))}, styles, "validation")
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["PSNR (dB)", "SSIM (%)"]
    assert [ax.get_xlabel() for ax in axes[1]] == [
        "round", "MB sent, both ways, all clients", "training time (s)"
    ]  # fmt: skip
    ends = [ax.lines[0].get_xdata()[-1] for ax in axes[0]]  # type: ignore[index]
    assert ends == [10, 8, 40]
    assert "validation" in axes[0, 0].get_title(loc="left")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    assert axes[0, 1].get_xscale() == "linear"
    assert axes[0, 0].collections


def test_a_method_that_sends_nothing_is_a_level_line_at_its_last_score() -> None:
    styles = method_styles({"A": "generic", "Local": "personalised"})
    figure = training_courses({"A": _course(), "Local": _course((0.0, 9.0))}, styles, "test")
    by_bytes, by_time = figure.axes[1], figure.axes[2]
    assert by_bytes.lines[1].get_ydata() == pytest.approx([41, 41])
    assert len(by_time.lines[1].get_xdata()) == 4  # type: ignore[arg-type]


def test_totals_far_apart_make_the_axis_logarithmic_and_many_methods_drop_the_bands() -> None:
    names = [f"g{k}" for k in range(7)] + ["p0", "p1"]
    made = {name: _course((2.0 * 3**k, 40.0)) for k, name in enumerate(names)}
    figure = training_courses(made, method_styles(KINDS), "test")
    assert figure.axes[1].get_xscale() == "log"
    assert figure.axes[2].get_xscale() == "linear"
    assert not figure.axes[0].collections


def test_no_two_methods_look_alike() -> None:
    styles = method_styles(KINDS)
    assert len(set(styles.values())) == len(KINDS)
    assert {styles[f"g{k}"].dash for k in range(7)} == {"--"}
    assert styles["p7"].marker


def test_boxes_hold_all_slices_of_all_clients_and_seeds(comparison: Comparison) -> None:
    panels = slice_scores(comparison)
    assert list(panels) == ["PSNR (dB)", "SSIM (%)"]
    assert {label: len(v) for label, v in panels["PSNR (dB)"].items()} == {
        "Input": 2 * 8 * 2,
        "FedAvg": 2 * 8 * 2,
        "Local": 8 * 2,
    }
    styles = method_styles({group.label: group.kind for group in comparison.groups})
    figure = method_boxes(panels, styles)
    left, right = figure.axes
    assert [ax.get_xlabel() for ax in (left, right)] == list(panels)
    assert [text.get_text() for text in left.get_yticklabels()] == ["Input", "FedAvg", "Local"]
    assert left.yaxis_inverted()
    assert right.yaxis_inverted()
    assert len(left.patches) == len(right.patches) == 3
    median = left.lines[4].get_xdata()  # after the whiskers and caps of the first box
    assert median == pytest.approx([np.median(panels["PSNR (dB)"]["Input"])] * 2)
