"""What `explorer serve` is asked for, and what it asks of Voila."""

from __future__ import annotations

from pathlib import Path

import pytest

from explorer.cli import main
from explorer.cli.serve import voila_command

NOTEBOOK = Path("90_dashboard.ipynb")


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "1e9"])
def test_an_idle_time_that_is_none_is_refused_in_words(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", f"--idle={text}"])

    assert f"'{text}' is no number of minutes; write one such as 30" in capsys.readouterr().err


def test_only_who_asks_for_it_has_sessions_with_an_open_tab_ended() -> None:
    asked = voila_command(NOTEBOOK, 1, preheat=1, idle_minutes=5)
    assert "--MappingKernelManager.cull_idle_timeout=300" in asked
    assert "--MappingKernelManager.cull_connected=True" in asked

    assert "--MappingKernelManager.cull_connected=False" in voila_command(NOTEBOOK, 1, preheat=1)
