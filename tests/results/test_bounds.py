"""What a bound is chosen by, and who is ahead of it in its own table."""

import numpy as np

from physfed_ray.results.bounds import bound_words
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.tables import ScoreTable, TableRow


def table(*rows: tuple[str, float, float, bool]) -> ScoreTable:
    made = [TableRow(label, np.array([[[p, s]]]), ranked) for label, p, s, ranked in rows]
    return ScoreTable("", ("#1",), tuple(WHOLE), tuple(made))


def test_an_oracle_that_is_beaten_says_what_it_is_chosen_by() -> None:
    words = bound_words(
        table(
            ("Input", 30, 0.80, True),
            ("FedPer, ensemble", 39, 0.99, True),
            ("FedPer, nearest", 40.001, 0.95, True),
            ("FedPer, oracle", 40, 0.95, False),
        )
    )
    assert "highest mean PSNR" in words
    assert words.endswith("ahead of it here: FedPer, ensemble (SSIM).")


def test_pooled_is_said_to_be_no_limit() -> None:
    words = bound_words(table(("FedAvg", 41, 0.9, True), ("Pooled", 40, 0.95, False)))
    assert "bounds nothing" in words
    assert words.endswith("ahead of it here: FedAvg (PSNR).")
    assert "ahead" not in bound_words(table(("FedAvg", 39, 0.9, True), ("Pooled", 40, 0.95, False)))


def test_nothing_is_said_where_all_compete_or_nothing_is_a_number() -> None:
    assert bound_words(table(("FedAvg", 41, 0.9, True))) == ""
    nan = float("nan")
    assert "ahead" not in bound_words(table(("FedAvg", nan, 1, True), ("Pooled", 40, nan, False)))
