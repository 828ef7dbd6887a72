"""``physfed enrol``: what its arguments become, and which are refused."""

from pathlib import Path
from typing import Any

import pytest

from physfed_ray.cli import main
from physfed_ray.screen import enrol as screen
from physfed_ray.serving.enrol import run
from physfed_ray.serving.enrol.patients import Dealing
from physfed_ray.serving.enrol.wish import Wish


def test_arguments_become_a_wish(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    class Card:
        id = "north"

    def enrol(run_dir: str, wish: Wish, _: object) -> Card:
        asked.extend((run_dir, wish))
        return Card()

    monkeypatch.setattr(run, "enrol", enrol)
    monkeypatch.setattr(screen, "print_enrolled", lambda card, where: print(where))
    line = f"enrol runs/a/ --protocol paper-8 --patients {tmp_path} --id north --rounds 9 --test 2"
    more = "--patience 4 --curve 1,4 --start nearest --seed 7 --threads 2 --again --known-patients"
    assert main([*line.split(), *more.split()]) == 0
    assert capsys.readouterr().out.strip() == "runs/a/enrolled/north"
    dealing = Dealing(tmp_path.resolve(), 0, 2, None, 7)
    assert asked == [
        "runs/a/",
        Wish("paper-8", dealing, "north", 9, 4, (1, 4), "nearest", None, 2, True, True),
    ]
    assert (
        main(["enrol", "runs/a", "--protocol", "paper-8", "--phantoms", "5", "--curve", "none"])
        == 0
    )
    assert asked[3] == Wish("paper-8", Dealing(None, 5), curve=())


def test_one_slice_has_neither_rounds_nor_a_curve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "enrol runs/a --protocol paper-8 --phantoms 5 --one-shot"
    asked: list[Wish] = []

    def enrol(run_dir: str, wish: Wish, _: object) -> object:
        asked.append(wish)
        return type("Card", (), {"id": "north"})

    monkeypatch.setattr(run, "enrol", enrol)
    monkeypatch.setattr(screen, "print_enrolled", lambda card, where: None)
    assert main(line.split()) == 0
    assert asked == [Wish("paper-8", Dealing(None, 5), one_shot=True)]
    for more in ("--rounds 3", "--curve none"):
        assert main([*line.split(), *more.split()]) != 0
        assert "without rounds: leave --rounds and --curve out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--phantoms 3 --curve 0,1", "give numbers such as 1,2,4"),
        ("--phantoms 0", "a whole number of at least 1"),
        ("--phantoms 3 --patients .", "not allowed with"),
        ("", "one of the arguments --patients --phantoms is required"),
    ],
)
def test_arguments_that_make_no_sense_are_told(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(f"enrol runs/a --protocol paper-1 {arguments}".split())
    assert said in capsys.readouterr().err


def test_a_seed_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["enrol", "runs/a", "--protocol", "paper-1", "--phantoms", "3", "--seed", "-1"]) == 2
    )
    assert "--seed -1: give a number from 0" in capsys.readouterr().err
