"""Who was overtaken changes nothing on servers any more, and nobody takes over in the middle of a change."""

from pathlib import Path

import pytest

from verdigris.domain.errors import ControllerSuperseded, EngineError
from verdigris.engines import control
from verdigris.engines.control import Control


def test_who_was_overtaken_is_refused(tmp_path: Path) -> None:
    first, second = Control(tmp_path, 1), Control(tmp_path, 2)
    first.take_over()
    first.require()
    second.take_over()
    for refused in (first.require, first.take_over):
        with pytest.raises(ControllerSuperseded):
            refused()
    with pytest.raises(ControllerSuperseded), first.effect():
        pytest.fail("nothing may be done here")
    second.require()
    second.take_over()  # again, as after a crash in the middle of a start


def test_the_epoch_is_kept(tmp_path: Path) -> None:
    Control(tmp_path, 9).take_over()
    Control(tmp_path, 10).take_over()  # more digits: compared as numbers
    with pytest.raises(ControllerSuperseded):
        Control(tmp_path, 9).require()


def test_nobody_takes_over_in_the_middle_of_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_TAKEOVER_LIMIT_S", 0.05)
    first, second = Control(tmp_path, 1), Control(tmp_path, 2)
    first.take_over()
    with first.effect():
        with pytest.raises(EngineError, match="in the middle of changing"):
            second.take_over()
        first.require()
    second.take_over()


def test_without_an_epoch_nothing_is_checked(tmp_path: Path) -> None:
    Control(tmp_path, 7).take_over()
    nobody = Control(tmp_path, None)
    nobody.take_over()
    nobody.require()
    with pytest.raises(ControllerSuperseded):
        Control(tmp_path, 6).require()
