"""``explorer export``: what it writes, where, and its exit status."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest

from explorer.cli import main
from explorer.scenarios import load_scenario, scenario_names
from explorer.share import FORMATS

STORY = "watches-lost"


@pytest.mark.parametrize("story", scenario_names())
@pytest.mark.parametrize("name", FORMATS)
def test_every_story_is_written_in_every_format(story, name, capsys):
    assert main(["export", story, "--format", name]) == 0

    assert capsys.readouterr().out.isascii()


def test_a_log_that_is_exported_is_replayed_to_the_same(capsys, monkeypatch):
    main(["export", STORY, "--format", "strace"])
    log = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(log.encode())))

    assert main(["export", "-", "--format", "strace"]) == 0

    def calls(text):
        return [line for line in text.splitlines() if "KVM_SET_USER_MEMORY_REGION" in line]

    assert calls(capsys.readouterr().out) == calls(log) != []


def test_a_file_is_written_and_nothing_is_printed(tmp_path, capsys):
    target = tmp_path / "repro.c"

    assert main(["export", STORY, "--format", "c", "-o", str(target)]) == 0

    assert capsys.readouterr().out == ""
    assert target.read_text().startswith("/*\n * What happens to the watches\n")


def test_json_holds_the_text_and_what_it_is(capsys):
    main(["export", STORY, "--format", "markdown", "--first", "3", "--profile", "v6_18", "--json"])

    row = json.loads(capsys.readouterr().out)
    assert (row["format"], row["title"], row["operations"]) == ("markdown", load_scenario(STORY).title, 3)
    assert "profile v6_18" in row["text"]
    assert "4. " not in row["text"]


def test_a_scenario_file_is_taken_too(tmp_path, capsys):
    file = tmp_path / "own.toml"
    file.write_text(
        'id="a"\ntitle="Mine"\nteaches="t"\nlook="l"\nsource="s"\nprofile="v6_18"\n'
        '[[step]]\nsay="One slot."\ndo="set_region slot=1 gpa=0 size=0x1000"\n'
    )

    assert main(["export", str(file), "--format", "python"]) == 0
    assert "# Mine\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--format", "c"], "explorer: nothing: No such file or directory; give a scenario file, a log"),
        ([STORY, "--format", "c", "-o", "/no/such/x.c"], "explorer: /no/such/x.c: No such file or directory; choose"),
        (["/dev/null", "--format", "c"], "explorer: /dev/null: there is no line in it."),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_status_2(arguments, message, capsys):
    assert main(["export", *arguments]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--format", "pdf"], ["--format", "c", "--first", "0"], []])
def test_a_wrong_option_is_refused_by_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["export", STORY, *arguments])

    assert refused.value.code == 2
    assert "error" in capsys.readouterr().err
