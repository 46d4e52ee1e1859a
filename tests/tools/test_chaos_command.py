"""The command line of the chaos harness: which options belong together, and what to type to repeat a run."""

import pytest

from tests.chaos import __main__ as command


@pytest.mark.parametrize(
    ("options", "repeated"),
    [
        (["--seed", "8", "--cycles", "20"], "make chaos SEED=8 CYCLES=20"),
        (["--quick", "--json", "chaos.json"], "make chaos SEED=1 ARGS=--quick"),
        (["--notifications", "--quick"], "make chaos SEED=1 'ARGS=--quick --notifications'"),
        (
            ["--notifications", "900", "--share", "0.5", "--seed", "7"],
            "make chaos SEED=7 'ARGS=--notifications 900 --share 0.5'",
        ),
    ],
)
def test_a_run_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, options: list[str], repeated: str) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", *options])
    arguments = command._arguments()
    plan = command._plan(arguments) if arguments.notifications is None else command._notification_plan(arguments)
    assert plan.command == repeated


@pytest.mark.parametrize("options", [["--notifications", "--cycles", "5"], ["--share", "0.5"]])
def test_options_of_the_other_traffic_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", *options])
    with pytest.raises(SystemExit):
        command._arguments()
    assert "not for a run of" in capsys.readouterr().err
