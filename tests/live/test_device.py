"""The device: what comes of it when it is not there, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from runs import SLOT, run_of

from explorer.live import Device, DeviceError, Limits, perform

WAITS = """
import sys
from explorer.live import Device
device = Device()
answers = device.perform([], vm_type=0)
print(device.pid, flush=True)
sys.stdin.read()
"""
IN_THE_MIDDLE = """
import sys
from explorer.engine.commands import parse_command
from explorer.history import Run
from explorer.live import Device, look_at_host, perform
device = Device()
host = look_at_host(device)
lines = ["set_region slot=1 gpa=0x%x size=0x200000 hva=0x7f0000000000 flags=log" % (i << 21) for i in range(6000)]
rows = perform(Run.new(host.profile, host.config, [parse_command(line) for line in lines]), device)
assert next(rows).agrees
print(device.pid, flush=True)
sys.stdin.read()
"""


def test_a_device_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(DeviceError, match=r"^there is no \S+/kvm on this machine: KVM is not loaded, or a container"):
        Device(path=tmp_path / "kvm")


def test_a_file_that_is_no_kvm_is_one_sentence():
    with pytest.raises(DeviceError, match=r"^/dev/null makes no VM: KVM_CREATE_VM fails with ENOTTY; is it KVM\?$"):
        Device(path=Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_device_that_may_not_be_opened_is_one_sentence(tmp_path):
    closed = tmp_path / "kvm"
    closed.touch(mode=0)

    with pytest.raises(DeviceError, match="this user may not open"):
        Device(path=closed)


@pytest.mark.kvm
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("program", [WAITS, IN_THE_MIDDLE], ids=["idle", "in the middle of a run"])
def test_nothing_is_left_when_the_program_is_killed(program):
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.ppid() == parent.pid

    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=10)

    assert child.wait(timeout=5) is None  # gone; it was no child of ours, so there is no status


@pytest.mark.kvm
@pytest.mark.usefixtures("device")
def test_the_process_ends_with_the_context():
    with Device() as own:
        child = psutil.Process(own.pid)

    assert not child.is_running()


@pytest.mark.kvm
@pytest.mark.usefixtures("device")
def test_a_run_that_is_given_up_ends_the_process(host):
    with Device() as own:
        rows = perform(run_of(host.profile.name, *[SLOT] * 10, processor="pvm"), own)
        next(rows)
        rows.close()

        with pytest.raises(DeviceError, match="the process that held /dev/kvm ended"):
            list(perform(run_of(host.profile.name, SLOT), own))


@pytest.mark.kvm
@pytest.mark.usefixtures("device")
def test_a_run_that_takes_too_long_is_given_up():
    lines = ["set_region slot=1 gpa=0x100000 size=0x40000000 hva=0x7f0000000000 flags=log", "get_dirty_log slot=1"]

    with (
        Device(Limits(seconds=0.2)) as own,
        pytest.raises(DeviceError, match=r"^the run was not done within 0\.2 s; the VM was given up$"),
    ):
        list(perform(run_of("v6_18", lines[0], *[lines[1]] * 90_000), own))


@pytest.mark.kvm
@pytest.mark.usefixtures("device")
def test_memory_behind_a_slot_is_reserved_and_not_touched(host):
    with Device() as own:
        lines = ["set_region slot=1 gpa=0 size=0x100000000 hva=0x600000000000", "get_dirty_log slot=1"]
        rows = perform(run_of(host.profile.name, *lines, *[lines[1]] * 50_000, processor="pvm"), own)
        next(rows)

        ours = [line for line in Path(f"/proc/{own.pid}/smaps").read_text().split("\n") if line.startswith("6000")]
        resident = psutil.Process(own.pid).memory_info().rss

    assert [line.split()[:2] for line in ours] == [["600000000000-600100000000", "---p"]]
    assert resident < 200 << 20
