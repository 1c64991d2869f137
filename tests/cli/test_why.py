"""``explorer why``: what it prints, how it exits, and the shape of its JSON."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from explorer.cli import main
from explorer.engine.apply import apply
from explorer.engine.commands import parse_command
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm

TRACES = Path(__file__).parents[2] / "assets" / "traces"
LINE = (
    "ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)"
)
LOG = TRACES / "q72-pc-pam" / "strace.log.gz"


def as_json(capsys, *arguments):
    status = main(["why", "--json", *map(str, arguments)])
    return status, json.loads(capsys.readouterr().out)


def test_a_line_after_its_boot_log_names_the_check_the_slot_in_the_way_and_what_works(capsys):
    status = main(["why", "--after", str(LOG), LINE])
    out = capsys.readouterr().out

    assert status == 0
    assert "kvm_check_memslot_overlap() of 6.18 refuses the call with −EEXIST" in out
    assert "in the way  slot 2 has 0xc0000 to " in out
    assert "What would work: each was run in the model" in out
    assert "  delete slot 2 first (a CREATE)" in out


def test_json_has_the_documented_keys(capsys):
    status, found = as_json(capsys, "--after", LOG, LINE)

    assert status == 0
    assert list(found) == ["line", "recorded", "explained", "answer", "assumptions", "call", "reasons"]
    assert (found["line"], found["recorded"], found["explained"]) == (LINE, "EEXIST", True)
    assert found["call"]["guest_phys_addr"] == 0xC0000
    (reason,) = found["reasons"]
    assert list(reason) == [
        "assumptions",
        "assumed_commands",
        "errno",
        "check",
        "compared",
        "cost",
        "arguments",
        "same_errno",
        "in_the_way",
        "changes",
        "no_change_because",
    ]
    assert reason["check"] == {
        "name": "overlap",
        "title": "no overlap with another slot",
        "function": "kvm_check_memslot_overlap",
        "file": "virt/kvm/kvm_main.c",
        "kernel": "6.18",
        "number": 13,
        "of": 16,
    }
    assert reason["arguments"][3] == {
        "name": "memory_size",
        "value": 131072,
        "hex": "0x20000",
        "words": "128 KiB, 32 pages",
    }
    assert reason["in_the_way"][0]["slot"] == 2
    assert 1 <= len(reason["changes"]) <= 3
    assert reason["no_change_because"] is None


def test_the_commands_of_json_lead_from_an_empty_vm_to_the_refusal_and_past_it(capsys):
    _, found = as_json(capsys, LINE)
    (reason,) = found["reasons"]
    kvm = new_vm("v6_18", VmConfig())
    for line in reason["assumed_commands"]:
        kvm = apply(kvm, parse_command(line)).kvm

    for change in reason["changes"]:
        after = kvm
        for line in change["commands"]:
            step = apply(after, parse_command(line))
            assert step.errno is None
            after = step.kvm


def test_a_line_alone_tells_what_it_assumes(capsys):
    status = main(["why", LINE])
    out = capsys.readouterr().out

    assert status == 0
    assert "- The kernel is taken for 6.18, and nothing is known of the VM." in out
    assert "Which one, and how far it reaches, is not known" in out


def test_reasons_that_look_the_same_are_all_told(capsys):
    status = main(["why", LINE.replace("EEXIST", "EINVAL")])
    out = capsys.readouterr().out

    assert status == 0
    assert "The line alone cannot decide; " in out
    assert "no external page tracker" in out


def test_the_line_may_come_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(LINE.encode() + b"\n")))

    assert main(["why", "--profile", "v5_10", "-"]) == 0
    assert "of 5.10 refuses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LINE.replace("-1 EEXIST (File exists)", "0"), "there is no refusal to explain"),
        (LINE.replace("EEXIST", "EBUSY"), "The model does not return EBUSY"),
    ],
)
def test_what_is_not_explained_gives_status_1(capsys, line, words):
    assert main(["why", line]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "this is nothing; expected one line of strace"),
        (["no such thing"], "no line of a log that is known: no such thing"),
        ([f"{LINE}\n{LINE}"], "this is 2 lines"),
        (
            [LINE.replace("-1 EEXIST", "-1 EBADF")],
            "refused before KVM looked at it: EBADF, there is no such descriptor",
        ),
        (["ioctl(9, KVM_RUN, 0) = 0"], "expected one line of strace"),
        ([LINE, "--after", "no-such.log"], "no-such.log: No such file or directory"),
        ([LINE, "--after", __file__], "not a log that is known"),
        ([LINE, "--profile", "v9"], "no kernel profile is called 'v9'"),
    ],
)
def test_wrong_input_gives_status_2_and_one_sentence(capsys, arguments, words):
    assert main(["why", *arguments]) == 2

    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_control_characters_of_a_line_are_not_sent_to_the_terminal(capsys):
    main(["why", LINE.replace("File exists", "\x1b]0;title\x07")])

    assert "\x1b" not in capsys.readouterr().out
