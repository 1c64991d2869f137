"""Why a line of a log came back with its errno, with a log before it and without one."""

import contextlib
import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine.apply import apply
from explorer.engine.profile import PROFILES, get_profile
from explorer.explain.why import why
from explorer.trace.one_line import read_log_before, read_one_line
from explorer.trace.records import TraceError
from explorer.trace.source import bytes_source

TRACES = Path(__file__).parents[2] / "assets" / "traces"
H = 0x7F00_0000_0000


def strace(slot=4, gpa=0xC0000, size=0x20000, *, flags=0, hva=H, errno="EEXIST"):
    result = "0" if errno is None else f"-1 {errno} (Some text)"
    fields = f"slot={slot}, flags={flags}, guest_phys_addr={gpa:#x}, memory_size={size}, userspace_addr={hva:#x}"
    return f"ioctl(9, KVM_SET_USER_MEMORY_REGION, {{{fields}}}) = {result}"


BOOT = (
    "ioctl(3, KVM_CREATE_VM, 0) = 9",
    strace(0, 0, 0xA0000, errno=None),
    strace(3, 0xD0000, hva=H + 0x1000000, errno=None),
)


def alone(text, profile="v6_18", **options):
    return why(read_one_line(text), get_profile(profile), **options)


def after(log, text, profile=None):
    source = bytes_source("boot.log", "\n".join(log).encode(), limit_bytes=1 << 20)
    line = read_one_line(text)
    return why(line, get_profile("v6_18"), read_log_before(source, line, profile))


def guards(found):
    return [reason.xray.guard.name for reason in found.reasons]


ALONE = [
    # a line by itself, and the checks that may have refused it, the simplest VM first
    (strace(), ["overlap"]),
    (strace(errno="EINVAL"), ["same_size", "same_hva", "same_readonly", "external_user"]),
    (strace(size=0, errno="EINVAL"), ["slot_exists"]),
    (strace(gpa=0xC0800, errno="EINVAL"), ["gpa_aligned"]),
    (strace(1 << 16, errno="EINVAL"), ["as_id", "same_size", "same_hva", "same_readonly", "external_user"]),
    (strace(errno="ENOMEM"), ["array_memory"]),
    (strace(flags="KVM_MEM_LOG_DIRTY_PAGES", errno="ENOMEM"), ["bitmap_memory", "array_memory"]),
    (strace(gpa=1 << 50, errno="EINVAL"), ["max_gfn"]),
    (f"kvm_set_user_memory Slot#4 flags=0x0 gpa=0xc0000 size=0x20000 ua={H:#x} ret=-17", ["overlap"]),
]


@pytest.mark.parametrize(("text", "names"), ALONE)
def test_a_line_alone_is_explained_by_the_smallest_vms_that_refuse_it_so(text, names):
    found = alone(text, other_kernels=False)

    assert guards(found)[: len(names)] == names
    for reason in found.reasons:
        kvm = reason.start
        for command in reason.commands:
            kvm = apply(kvm, command).kvm
        assert apply(kvm, found.line.call).errno.name == found.line.errno


def test_what_is_not_known_of_the_slot_in_the_way_is_said():
    found = alone(strace())

    (assumed,) = found.reasons[0].assumptions
    assert assumed == (
        "Another slot has some of 0xc0000 to 0xdffff. Which one, and how far it reaches, is not known: slot 0 over"
        " exactly this range stands for it. Slot 4 does not exist."
    )
    assert found.assumptions == ("The kernel is taken for 6.18, and nothing is known of the VM.",)


def test_arguments_that_are_refused_on_any_vm_need_no_assumption():
    assert alone(strace(gpa=0xC0800, errno="EINVAL")).reasons[0].assumptions == ()


def test_a_slot_that_only_older_kernels_refuse_is_told_as_a_question_of_the_kernel():
    # kernel-reference 8: 509 slots before 5.12.
    found = alone(strace(600, errno="EINVAL"))

    by_id = next(reason for reason in found.reasons if reason.xray.guard.name == "user_slot_id")
    assert by_id.assumptions == ("The kernel is one like 5.10 and not 6.18.",)


def test_a_move_that_is_refused_only_under_a_tracker_is_no_reason_where_moves_are_free():
    # kernel-reference 2.3: the test came with 6.6.
    assert "external_user" in guards(alone(strace(errno="EINVAL"), "v6_6", other_kernels=False))
    assert "external_user" not in guards(alone(strace(errno="EINVAL"), "v6_1", other_kernels=False))


def test_what_no_vm_returns_is_not_explained():
    found = alone(strace(errno="EBUSY"))

    assert not found.explained
    assert found.answer.startswith("The model does not return EBUSY for this call on any VM that was tried")


def test_an_accepted_call_is_nothing_to_explain():
    assert alone(strace(errno=None)).answer == "KVM accepted this call: there is no refusal to explain."


def test_a_call_without_its_result_is_answered_by_the_model():
    call = strace(flags=8).rpartition(" = ")[0]

    found = alone(call)

    assert guards(found) == ["region_flags"]
    assert found.assumptions[-1] == "The line does not show how the call ended: this is what the model says."


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_explains_an_overlap(profile):
    assert guards(alone(strace(), profile, other_kernels=False)) == ["overlap"]


# -- after a log -----------------------------------------------------------------------------------


def test_after_its_log_the_line_needs_no_assumption_and_names_the_true_slot():
    found = after(BOOT, strace())

    (reason,) = found.reasons
    assert reason.assumptions == ()
    assert [(w.slot.id, w.slot.base_gfn) for w in reason.xray.in_the_way] == [(3, 0xD0)]
    assert [change.words for change in reason.xray.changes] == [
        "base 0xb0000, down by 64 KiB: the nearest place below that is free",
        "size 0x10000, 64 KiB: up to slot 3",
        "delete slot 3 first",
    ]


def test_a_line_that_is_in_the_log_is_taken_at_its_place():
    later = strace(3, size=0, errno=None)

    found = after((*BOOT, strace(), later), strace())

    assert guards(found) == ["overlap"]
    assert found.assumptions[0] == "The line is line 4 of boot.log: the VM is as it was then."


def test_of_two_vms_the_one_behind_the_descriptor_is_taken():
    other = (
        "ioctl(3, KVM_CREATE_VM, 0) = 10",
        *(strace(i, i << 24, errno=None).replace("(9", "(10") for i in range(9)),
    )

    assert [w.slot.id for w in after((*BOOT, *other), strace()).reasons[0].xray.in_the_way] == [3]


def test_a_log_that_does_not_lead_to_the_errno_says_so_and_what_must_have_happened():
    log = (*BOOT, strace(4, 0x8000000, errno=None))

    found = after(log, strace(size=0x10000 * 3))

    assert found.assumptions[-1] == (
        "After this log the model would refuse it with EINVAL: more than the log shows must have happened."
    )
    assert found.reasons[0].assumptions == ("Slot 4, which the log has, was deleted meanwhile.",)
    assert [w.slot.id for w in found.reasons[0].xray.in_the_way] == [3]


def test_a_move_that_the_log_does_not_explain_may_be_due_to_a_tracker():
    found = after(BOOT, strace(3, 0x10000000, hva=H + 0x1000000, errno="EINVAL"))

    assert found.reasons[0].assumptions == (
        "An external page tracker such as KVMGT is attached, which the log does not show.",
    )
    assert found.reasons[0].xray.changes[0].words == "detach KVMGT first"


def test_qemus_own_trace_may_be_the_log_of_a_line_of_strace():
    log = gzip.decompress((TRACES / "q72-pc-pam" / "qemu-trace.log.gz").read_bytes()).decode().splitlines()

    found = after(log, strace())

    assert guards(found) == ["overlap"]
    assert found.assumptions[0] == "The line is taken for a call on the only VM of the log, at the log’s end."


@pytest.mark.parametrize("name", ["own-fails", "own-fails-510"])
def test_every_refused_line_of_a_recorded_log_is_explained_by_its_own_log(name):
    log = gzip.decompress((TRACES / name / "strace.log.gz").read_bytes()).decode().splitlines()
    lines = [text for text in log if re.search(r"SET_USER_MEMORY_REGION.* = -1 E(INVAL|EXIST|NOMEM)", text)]
    assert len(lines) > 20

    for text in dict.fromkeys(lines):
        source = bytes_source("own.log", "\n".join(log).encode(), limit_bytes=1 << 24)
        if "ioctl(3" in text:  # /dev/kvm itself, as the line or the log says
            with pytest.raises(TraceError, match=r"descriptor 3 is (/dev/kvm, not a|no) VM"):
                read_log_before(source, read_one_line(text))
            continue
        line = read_one_line(text)
        found = why(line, get_profile("v6_18"), read_log_before(source, line))
        assert [reason.assumptions for reason in found.reasons] == [()], text
        assert found.reasons[0].xray.errno.name == line.errno


U64 = st.one_of(
    st.integers(0, 1 << 40),
    st.sampled_from([0, 0x1000, 0xC0000, 1 << 46, 1 << 52, (1 << 64) - 4096, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)


@settings(deadline=None, max_examples=150)
@given(
    slot=st.one_of(st.integers(0, 8), st.integers(0, (1 << 32) - 1)),
    flags=st.one_of(st.integers(0, 7), st.integers(0, (1 << 32) - 1)),
    gpa=U64,
    size=U64,
    hva=U64,
    errno=st.sampled_from(["EEXIST", "EINVAL", "ENOMEM", "EBUSY", "ENOENT"]),
    with_log=st.booleans(),
)
def test_whatever_the_numbers_are_each_reason_gives_the_errno_and_each_change_works(
    slot, flags, gpa, size, hva, errno, with_log
):
    text = strace(slot, gpa, size, flags=hex(flags), hva=hva, errno=errno)
    found = after(BOOT, text) if with_log else alone(text)

    assert found.answer
    for reason in found.reasons:
        kvm = reason.start
        for command in reason.commands:
            kvm = apply(kvm, command).kvm
        assert apply(kvm, found.line.call).errno.name == errno
        for change in reason.xray.changes:
            changed = kvm
            for command in change.commands:
                step = apply(changed, command)
                assert step.errno is None
                changed = step.kvm


@settings(max_examples=300)
@given(st.one_of(st.text(), st.text().map(lambda t: strace() + t), st.integers(0, 150).map(lambda n: strace()[:n])))
def test_no_text_makes_reading_a_line_fail_in_another_way(text):
    with contextlib.suppress(TraceError):
        assert read_one_line(text).call
