"""``explorer live``: what it prints, and its exit status."""

from __future__ import annotations

import json

import pytest

from explorer.cli import main
from explorer.live import Device, DeviceError
from explorer.scenarios import load_scenario

STORY = "watches-lost"


@pytest.fixture(scope="module")
def _device():
    try:
        Device().close()
    except DeviceError as error:
        pytest.skip(str(error))


on_the_device = pytest.mark.usefixtures("_device")


@pytest.mark.kvm
@on_the_device
def test_a_story_is_one_object_for_each_operation_and_a_summary(capsys):
    status = main(["live", STORY, "--json"])
    *rows, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())

    steps = load_scenario(STORY).steps
    assert status == 0
    assert [row["index"] for row in rows] == list(range(len(steps)))
    assert {row["agrees"] for row in rows} == {True, None}
    assert all((row["ioctl"] is None) == (row["left_out"] is not None) for row in rows)
    summary = last["summary"]
    assert (summary["operations"], summary["disagreements"]) == (len(steps), 0)
    assert summary["compared"] + sum(summary["left_out"].values()) == len(steps)


@pytest.mark.kvm
@on_the_device
def test_text_says_what_was_not_compared_and_why(capsys):
    status = main(["live", STORY])

    out = capsys.readouterr().out
    assert status == 0
    assert "agrees        set_region slot=0" in out
    assert "not compared  track user=0" in out
    assert "not compared: needs a guest that runs" in out


@pytest.mark.kvm
@on_the_device
def test_a_profile_that_does_not_fit_gives_status_1(tmp_path, capsys):
    log = tmp_path / "a.log"
    log.write_text(
        "ioctl(4, KVM_CREATE_VM, 0) = 5\nioctl(5, KVM_SET_USER_MEMORY_REGION, {slot=600, flags=0, guest_phys_addr=0,"
        " memory_size=4096, userspace_addr=0x7f0000000000}) = 0\n"
    )

    assert main(["live", str(log)]) == 0
    assert main(["live", str(log), "--profile", "v5_10"]) == 1
    assert "= 0, the model says EINVAL" in capsys.readouterr().out


@pytest.mark.kvm
@on_the_device
def test_without_a_run_it_reports_on_the_kernel(capsys):
    status = main(["live", "--json"])

    report = json.loads(capsys.readouterr().out)
    assert status in (0, 1)
    assert {"NR_MEMSLOTS", "MULTI_ADDRESS_SPACE", "READONLY_MEM", "USER_MEMORY2"} <= set(report["capabilities"]["vm"])
    assert all({"what", "seen", "fits", "explained"} == set(row) for row in report["evidence"])
    assert (status == 0) == all(row["explained"] for row in report["evidence"])
    assert report["unknown"]

    main(["live"])
    assert "open\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "/no/kvm"], "explorer: there is no /no/kvm on this machine"),
        (["no-such-story"], "explorer: no-such-story: No such file or directory; give a scenario file"),
        ([STORY, "--profile", "v0"], "explorer: no kernel profile is called 'v0'"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(arguments, message, capsys):
    assert main(["live", *arguments]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
