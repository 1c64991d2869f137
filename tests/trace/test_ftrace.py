"""ftrace, trace-cmd and perf: calls in two lines each, zaps and SPTEs between them."""

import gzip
import json

import pytest
from logs import EVENTS, TRACES, H, name_of, replay, run

from explorer.trace.source import file_source

TASK = "  qemu-system-x86-812     [001] .....  4297.38{:04}: "


def log(*events, head=True):
    lines = [TASK.format(n) + event for n, event in enumerate(events)]
    return replay("# tracer: nop", *lines) if head else replay(*lines)


def enter(slot, gpa=0, size=0x100000, *, flags=0, fd=12, cmd="0x4020ae46", hva=H):
    fields = f"slot={slot} flags={flags:#x} gpa={gpa:#x} size={size:#x} hva={hva:#x}"
    return f"ioctl_enter: (0x43fe50) fd={fd} cmd={cmd} {fields}"


def leave(ret=0):
    return f"ioctl_ret: (0x4017c7 <- 0x43fe50) ret={ret}"


def create_vm(fd=12):
    return enter(0, size=0, fd=11, cmd="0xae01", hva=0), leave(fd)


ZAP = "kvm_mmu_zap_all_fast: kvm-mmu-valid-gen 1 used_pages 2f"
SPTE = "kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 0 new_spte 600000010000"
WALK = "kvm_mmu_pagetable_walk: addr fee00000 pferr 4 U"


def truth(path):
    """Return the errnos that the VMM of a recorded log got, in order; None is success."""
    said = gzip.decompress((path.parent / "truth.jsonl.gz").read_bytes()).decode()
    names = {17: "EEXIST", 22: "EINVAL"}
    return [names.get(json.loads(line)["errno"]) for line in said.splitlines()]


@pytest.mark.parametrize("path", EVENTS, ids=name_of)
def test_every_recorded_log_of_a_tracer_is_read_and_none_of_its_lines_is_lost(path):
    source = file_source(path)

    found = run(source)
    source.close()

    assert found.summary.disagreements == 0
    assert not any(reason.startswith(("no line", "no event", "binary")) for reason in found.reasons)


@pytest.mark.parametrize("folder", ["ftrace-own-probe-moves", "ftrace-own-probe-walk"])
def test_the_engine_gives_the_errnos_that_the_vmm_got_and_the_log_does_not_name(folder):
    path = TRACES / folder / "ftrace.log.gz"
    source = file_source(path)

    found = run(source)
    source.close()

    assert found.errnos == truth(path)
    assert {row.recorded_errno for row in found.rows} == {None, "errno 0"}


def test_a_probe_shows_the_calls_that_qemus_own_trace_shows():
    folder = TRACES / "ftrace-q72-probe"
    sources = file_source(folder / "ftrace.log.gz"), file_source(folder / "qemu-trace.log.gz")

    probe, trace = (run(source) for source in sources)
    for source in sources:
        source.close()

    assert [row[4:10] for row in probe.rows] == [row[4:10] for row in trace.rows]
    assert probe.summary.final_layout == trace.summary.final_layout
    assert set(probe.agrees) == {None}


def test_events_of_system_calls_do_not_show_what_a_structure_holds():
    found = log(
        "sys_ioctl(fd: 3, cmd: 0xae01, arg: 0)",
        "sys_ioctl -> 0x5",
        "sys_ioctl(fd: 5, cmd: 0x4020ae46, arg: 0x7ffc4d5e5a10)",
        "sys_ioctl -> 0xffffffffffffffef",
    )

    assert found.rows == []
    assert found.reasons[1:] == ["arguments not shown, only where they are in memory"] * 2
    assert found.summary.vms == 1


@pytest.mark.parametrize(
    "form", [("sys_enter_ioctl: ", "sys_exit_ioctl: "), ("syscalls:sys_enter_ioctl: ", " syscalls:sys_exit_ioctl: ")]
)
def test_the_system_call_within_a_probed_call_names_its_errno(form):
    arguments = "fd: 0x0000000c, cmd: 0x4020ae46, arg: 0x7ffc4d5e5a10"
    found = log(
        *create_vm(),
        *(enter(0), leave()),
        *(enter(1), form[0] + arguments, form[1] + "0xffffffffffffffef", leave(-1)),
        *(enter(1, 0x100000), form[0] + arguments, form[1] + "0x0", leave()),
    )

    assert [(row.recorded_ret, row.recorded_errno) for row in found.rows] == [(0, None), (-1, "EEXIST"), (0, None)]
    assert found.agrees == [True, True, True]


def test_zaps_and_sptes_are_put_beside_the_operations_by_order():
    found = log(
        ZAP, *create_vm(), enter(0), leave(), SPTE, SPTE, enter(0, size=0), ZAP, leave(), SPTE, WALK, "kvm_exit: reason"
    )

    events = found.summary.mmu_events
    assert events.by_name == {"kvm_mmu_zap_all_fast": 2, "kvm_tdp_mmu_spte_changed": 3}
    assert events.by_operation == {
        -1: {"zap after": 1},
        0: {"SPTE after": 2},
        1: {"zap during": 1, "SPTE after": 1},
    }
    assert found.reasons[1:] == ["another trace event: kvm_mmu_pagetable_walk", "another trace event: kvm_exit"]


def test_a_trace_of_the_mmu_alone_is_a_log_without_operations():
    found = log(ZAP, SPTE, head=False)

    assert found.rows == []
    assert found.summary.used == 2
    assert found.summary.mmu_events.by_operation == {-1: {"zap after": 1, "SPTE after": 1}}


def test_lost_events_make_the_vm_doubtful():
    lines = [TASK.format(n) + event for n, event in enumerate([*create_vm(), enter(0), leave()])]
    later = [TASK.format(9) + event for event in (enter(3, size=0), leave())]

    found = replay(*lines, "CPU:1 [LOST 40 EVENTS]", *later)

    assert found.agrees == [True, True]
    assert found.notes[1].endswith("events were lost at line 5")


def test_threads_of_one_vmm_are_told_apart_by_their_numbers():
    first, second = (f" vcpu-{pid} [000] 1.0{pid}: " for pid in (1, 2))

    found = replay(first + enter(0), second + enter(1), second + leave(-1), first + leave())

    assert [(row.slot, row.recorded_ret) for row in found.rows] == [(1, -1), (0, 0)]


def test_a_probe_that_fetches_no_arguments_says_so():
    found = log(
        *create_vm(),
        "ioctl_enter: (0x43fe50) arg1=0x5",
        leave(),
        "ioctl_enter: (0x43fe50) fd=12 cmd=0x4020ae46",
        leave(),
    )

    assert found.rows == []
    assert found.reasons[1] == "a probe that does not fetch fd and cmd"
    assert found.reasons[3:] == ["arguments not shown, only where they are in memory"] * 2
