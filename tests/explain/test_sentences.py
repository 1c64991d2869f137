"""The sentences: one for each step of each operation on each kernel, and true there. Product rows 51, 55."""

import re

import pytest
from hypothesis import given, settings
from runs import (
    ALL_PROFILES,
    DELETE,
    KVMGT,
    LOGGER,
    MOVE,
    QUIRK_OFF,
    REFUSES_A_MOVE,
    SLOT,
    TABLES,
    WATCHED,
    at_word,
    end_of,
    moments,
    random_runs,
    run_of,
)

from explorer.engine.commands import (
    Advance,
    Begin,
    BuildPageTables,
    HostTouch,
    ReadTrackerLog,
    SetVcpuMode,
    parse_command,
)
from explorer.engine.profile import get_profile
from explorer.explain.sentences import op_words, sentences_of
from explorer.explain.sources import FUNCTIONS, name_in, source_of
from explorer.history import Run
from explorer.selectors.verdict import verdict_of

RUNS = {
    "kvmgt": (
        *KVMGT,
        "guest_write gpa=0xd0003000",
        MOVE,
        "untrack gfn=0xd0010",
        "track gfn=0xd0010",
        "detach",
        "detach",
    ),
    "a tracker that logs": (*LOGGER, MOVE, "tracker_log", "untrack gfn=0xd0003", "detach user=0", DELETE),
    "everything": (
        SLOT,
        TABLES,
        TABLES,
        "guest_write gpa=0xd0000000",
        "guest_write gpa=0x1000",
        "guest_write gpa=0xd0010000",
        MOVE,
        MOVE + " flags=log",
        "enable_cap cap=168 arg=1",
        "get_dirty_log slot=10",
        "clear_dirty_log slot=10 first=0 num=32",
        MOVE,
        MOVE,
        DELETE,
        "set_region slot=2 gpa=0 size=0x1000 hva=0x7f0000000000 flags=ro",
        "guest_write gpa=0",
    ),
    "a guest that reads and pages": (
        SLOT,
        "host_touch hva=0x100000000000 size=0x20000 value=1",
        "guest_read gpa=0xd0003000",
        "guest_read gpa=0x3000",
        "build_pt gpa=0xd0010000 hva=0x100000010000",
        "vcpu_mode mode=long cr3=0xd0010000",
        "attach",
        "track gfn=0xd0010",
        "guest_read gpa=0x3000",
        "guest_write gpa=0x3000",
        DELETE,
        "guest_read gpa=0x3000",
        "guest_write gpa=0x3000",
        "vcpu_mode mode=prot code=0xd0003000",
        "guest_read gpa=0x3000",
    ),
    "the quirk off": (QUIRK_OFF, SLOT, TABLES, MOVE, "enable_cap cap=213 arg=1", DELETE),
    "refusals": (
        SLOT,
        "set_region slot=11 gpa=0xd0000000 size=0x1000",
        "set_region slot=10 gpa=0xd0000000 size=0x10000 hva=0x100000000000",
        "set_region slot=10 gpa=0x40000000000000 size=0x20000 hva=0x100000000000",
        "set_region slot=1 gpa=1 size=0x1000",
        "set_region slot=1 gpa=0 size=1",
        "set_region slot=1 gpa=0 size=0x1000 hva=1",
        "set_region slot=1 gpa=0 size=0x1000 flags=8",
        "set_region slot=1 as=2 gpa=0 size=0x1000",
        "set_region slot=40000 gpa=0 size=0x1000",
        "set_region slot=1 gpa=0 size=0",
        "set_region slot=1 gpa=0 size=0x80000000000",
        "get_dirty_log slot=10",
        "get_dirty_log slot=10 as=7",
        "clear_dirty_log slot=10 first=0 num=32",
        "clear_dirty_log slot=10 first=1 num=32",
        "enable_cap cap=213 arg=0x10000",
        "track gfn=1",
        "untrack gfn=1",
        "attach user=0 kind=kvmgt",
        "attach user=1 kind=kvmgt",
        "attach user=2 kind=log",
        "attach user=2 kind=log",
        "create_vcpu id=0",
        "create_vcpu id=0",
        "create_irqchip",
        "set_identity_map_addr addr=0x1000",
        "set_tss_addr addr=0xffffffff",
    ),
    "set-up": (
        "set_tss_addr addr=0xfffbd000",
        "set_identity_map_addr addr=0xfffbc000",
        "create_irqchip",
        "create_vcpu id=0",
    ),
    "guest_memfd": (
        "create_guest_memfd fd=3 size=0x40000",
        "create_guest_memfd fd=4 size=0x40000 flags=1",
        "create_guest_memfd fd=5 size=1",
        "set_region2 slot=10 gpa=0xd0000000 size=0x20000 hva=0x100000000000 flags=gmem gmem=3",
        "set_region2 slot=11 gpa=0 size=0x20000 flags=gmem gmem=3 gmem_off=0x10000",
        "set_region2 slot=11 gpa=0 size=0x20000 flags=gmem gmem=3 gmem_off=0x30000",
        "set_region2 slot=11 gpa=0 size=0x20000 flags=gmem gmem=3 gmem_off=1",
        "set_region2 slot=11 gpa=0 size=0x20000 flags=gmem gmem=9",
        "set_region2 slot=11 gpa=0 size=0x20000 flags=gmem",
        "set_region2 slot=10 gpa=0 size=0x20000 flags=gmem gmem=3",
        "set_region2 slot=12 gpa=0 size=0x20000 flags=gmem gmem=4",
        MOVE,
        DELETE,
    ),
    "set-up with a split chip": ("enable_cap cap=SPLIT_IRQCHIP arg=24", "enable_cap cap=SPLIT_IRQCHIP arg=24"),
}
EVERYWHERE = pytest.mark.parametrize("profile", ALL_PROFILES)


def problems_of(moment):
    """Return what is wrong with the form of a moment's sentences, whatever they say."""
    found = sentences_of(moment)
    for text in (t.replace("2^31 - 1 pages", "pages") for t in found[:2]):
        if not text or text != text.strip() or "  " in text:
            yield "empty or badly spaced", text
        elif re.search(
            r"[{}]|None|\bnan\b|<|>(?!=)|\( \)", text.replace("->", "").replace(" >= ", " ").replace(" < ", " ")
        ):
            yield "something is not filled in", text
        elif text[-1] not in ".?" or not (text[0].isupper() or text[0] in "`v"):
            yield "no sentence", text
        elif re.search(r"\b1 (watches|pages|slots|trackers|times)\b|(?<!\d)[02-9] (watch|page|slot|tracker)\b", text):
            yield "one and many", text
        elif re.search(r" (\w+) \1 ", text):
            yield "a word twice", text
    if "`" in found.newcomer:
        yield "a newcomer reads no function names", found.newcomer
    if found.developer.count("`") % 2:
        yield "an open quote", found.developer
    kernel = moment.kvm.profile
    no_call = moment.op is not None and isinstance(
        moment.op.command, ReadTrackerLog | HostTouch | BuildPageTables | SetVcpuMode
    )
    missing = found.developer.endswith("has no such function.")
    assert not missing or kernel.name == "pre_edd4", "only 4.19 lacks a whole ioctl"
    for name in () if missing else re.findall(r"`(\w+)\(", found.developer):
        own = [old for old in FUNCTIONS if name_in(old, kernel) == name]
        if not own:
            yield f"{name}() is no function of {kernel.name}", found.developer
    if not no_call and not missing and source_of(found.function, kernel) is None:
        yield f"no source for {found.function!r} on {kernel.name}", found.developer


@EVERYWHERE
@pytest.mark.parametrize("name", RUNS)
def test_every_step_of_every_operation_has_two_sentences_and_a_source(profile, name):
    run = run_of(profile, *RUNS[name], processor="intel", unrestricted_guest=False)

    assert [problem for moment in moments(run) for problem in problems_of(moment)] == []


@settings(max_examples=25)
@given(random_runs(15))
def test_so_it_is_whatever_happens(run):
    assert [problem for moment in moments(run) for problem in problems_of(moment)] == []


@settings(max_examples=25)
@given(random_runs(15))
def test_every_operation_has_a_name_on_the_timeline_and_a_verdict_of_its_own(run):
    for moment in moments(run):
        verdict = verdict_of(moment)
        assert verdict.title
        assert verdict.title != "Done"
        assert (verdict.icon == "octagon") == (moment.op is not None and moment.op.step.errno is not None)
        assert not re.search(r"[{}]|None|\b1 watches\b", f"{verdict.title} {verdict.subtitle}")
    assert all(all(isinstance(word, str) for word in op_words(command)) for command in run.commands)


def test_a_call_stopped_between_two_steps_has_words_too():
    call = parse_command(SLOT)
    run = run_of("v6_12").then(Begin(call=call), Advance(), Advance())

    assert [problem for moment in moments(run) for problem in problems_of(moment)] == []
    assert [op_words(command) for command in run.commands] == [("Step", "")] * 3


# -- what they say ---------------------------------------------------------------------------------


def newcomer(moment):
    return sentences_of(moment).newcomer


def developer(moment):
    return sentences_of(moment).developer


@EVERYWHERE
def test_a_move_without_external_tracker_is_told_as_harmless(profile):
    run = run_of(profile, *WATCHED, MOVE, external_write_tracking=False)

    assert newcomer(end_of(run)).endswith("On this setup that is harmless: what is mapped next is watched anew.")
    assert "3 watches of shadow paging are released with them" in newcomer(at_word(run, "zap"))


@pytest.mark.parametrize("profile", ["v5_10", "v6_1"])
def test_before_6_6_kvmgt_is_told_first_and_drops_its_watches(profile):
    # kernel-reference 2.2 and 6.5: KVMGT's callback runs before KVM's own, before success is known.
    run = run_of(profile, *KVMGT, MOVE)

    told = newcomer(at_word(run, "zap"))
    assert "KVMGT was told first and dropped its 2 watches, before it is known whether the call succeeds." in told
    assert "harmless" not in newcomer(end_of(run))
    assert "KVMGT dropped its 2 watches on the way" in newcomer(end_of(run))


@pytest.mark.parametrize("profile", REFUSES_A_MOVE)
def test_a_refusal_names_the_check_that_comes_first_in_arch_prepare(profile):
    # kernel-reference 4.6
    found = sentences_of(end_of(run_of(profile, *KVMGT, MOVE)))

    assert found.function == "kvm_arch_prepare_memory_region"
    assert "`kvm_page_track_has_external_user()` is true" in found.developer
    assert "hidden the slot from every reader and thrown away every mapping of the VM" in found.newcomer


def test_with_the_quirk_off_a_refusal_costs_the_mappings_of_the_slot_only():
    run = run_of("v6_12", QUIRK_OFF, *KVMGT, MOVE)

    assert "thrown away the mappings of this slot only" in newcomer(end_of(run))


@pytest.mark.parametrize("profile", ["v6_12", "v6_18", "v7_3"])
def test_a_zap_of_the_slot_alone_says_whether_the_quirk_or_the_type_of_vm_is_the_reason(profile):
    """Kernel-reference 4.8: kvm_memslot_flush_zap_all() asks for the plain type of VM and for the quirk."""
    private = run_of(profile, SLOT, DELETE, vm_type=1, sw_protected_vm=True, tdp=True)
    switched = run_of(profile, SLOT, QUIRK_OFF, DELETE)

    told = [sentences_of(at_word(run, "zap")).developer for run in (private, switched)]

    assert told[0].startswith("In a VM of another type than the plain one, `kvm_arch_flush_shadow_memslot()`")
    assert told[1].startswith("With KVM_X86_QUIRK_SLOT_ZAP_ALL off, `kvm_arch_flush_shadow_memslot()`")


def test_the_posted_patch_refuses_because_the_list_is_empty():
    found = sentences_of(end_of(run_of("v6_6_posted", *WATCHED, MOVE)))

    assert "asks whether the list is empty, and it is" in found.developer
    assert "upside down" in found.newcomer


@pytest.mark.parametrize(
    ("profile", "how"),
    # kernel-reference 4.8, and the call trees of 7.3 for its two halves
    [
        ("pre_edd4", "`kvm_mmu_invalidate_zap_all_pages()`"),
        ("v5_10", "`kvm_mmu_invalidate_zap_pages_in_memslot()`, and calls `kvm_mmu_zap_all_fast()`"),
        ("v6_1", "`kvm_mmu_invalidate_zap_pages_in_memslot()`, and calls `kvm_mmu_zap_all_fast()`"),
        ("v6_6", "`kvm_arch_flush_shadow_memslot()` calls `kvm_mmu_zap_all_fast()`"),
        ("v6_12", "`kvm_arch_flush_shadow_memslot()` calls `kvm_mmu_zap_all_fast()`"),
        ("v7_3", "both halves of `kvm_mmu_zap_all_fast()`"),
    ],
)
def test_the_zap_is_told_as_its_kernel_does_it(profile, how):
    assert how in developer(at_word(run_of(profile, *WATCHED, MOVE, external_write_tracking=False), "zap"))


@EVERYWHERE
def test_a_deletion_runs_the_hook_that_its_kernel_has(profile):
    # kernel-reference 6.5: flush_slot in the zap, or remove_region in the commit.
    run = run_of(profile, *LOGGER, DELETE)
    late = get_profile(profile).region_hook == "track_remove_region"

    assert ("track_remove_region" in developer(at_word(run, "free old"))) == late
    assert ("The tracker is told now." in newcomer(at_word(run, "free old"))) == late
    assert ("was told first" in newcomer(at_word(run, "zap"))) != late


def test_before_5_7_nothing_is_freed_by_a_move_and_the_watches_stand_for_other_pages():
    # kernel-reference 2.1
    run = run_of("pre_edd4", *LOGGER, MOVE)

    assert "for a MOVE, none" in developer(at_word(run, "free old"))
    assert "2 watches now stand for other pages" in newcomer(end_of(run))


@pytest.mark.parametrize(
    ("tdp", "arrays"), [(False, "rmap, lpage_info and the write-track counts"), (True, "lpage_info")]
)
def test_the_arrays_of_a_new_slot_are_those_this_machine_needs(tdp, arrays):
    # kernel-reference 3.4: with the TDP MMU, no shadow root and no tracker only lpage_info, from 6.9 on.
    run = run_of("v6_12", SLOT, tdp=tdp)

    assert developer(at_word(run, "allocate")) == f"`kvm_alloc_memslot_metadata()` allocates {arrays}."


def test_shadowing_is_told_by_what_was_made():
    made = run_of("v6_12", *WATCHED)
    again = made.then(made.commands[1])
    by_hardware = run_of("v6_12", *WATCHED, tdp=True)

    assert "ran 4 times: each upper-level table is write-tracked" in developer(end_of(made))
    assert "makes no new shadow" in newcomer(end_of(again))
    assert "The processor walks the guest’s tables itself" in newcomer(end_of(by_hardware))


def test_tracking_is_told_by_the_count_it_makes_or_that_it_makes_none():
    run = run_of("v6_12", *KVMGT)
    again = run.then(run.commands[-1])

    assert "count is 1 now" in developer(end_of(run))
    assert "believes that it watches page 0xd0003 already" in newcomer(end_of(again))


def test_letting_go_is_told_by_what_it_takes_back():
    run = run_of("v6_1", *KVMGT, "untrack gfn=0xd0010")
    dropped = run_of("v6_1", *KVMGT, MOVE, "untrack gfn=0xd0010")

    assert "`kvm_slot_page_track_remove_page()`: the page’s count is 1 now." in developer(end_of(run))
    assert "KVM takes no watch away" in newcomer(end_of(dropped))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("get_dirty_log slot=10", "keeps no dirty log"),  # kernel-reference 7.3: ENOENT
        ("clear_dirty_log slot=10 first=32 num=32", "no range of pages"),  # EINVAL
        ("track gfn=1", "No slot holds that page."),  # 5.7: EINVAL
        ("enable_cap cap=213 arg=0x80", "does not know"),  # 2.4: the quirk is of 6.12
    ],
)
def test_a_refused_call_says_why(line, cause):
    assert cause in newcomer(end_of(run_of("v6_1", SLOT, line)))


def test_without_the_config_option_nobody_can_attach():
    # kernel-reference 2.3, patch 22
    run = run_of("v6_12", SLOT, "attach kind=kvmgt", external_write_tracking=False)

    assert "CONFIG_KVM_EXTERNAL_WRITE_TRACKING is off" in developer(end_of(run))


def test_a_run_that_did_not_begin_has_a_sentence():
    assert sentences_of(next(moments(Run(run_of("v6_12").start)))).newcomer == "A new VM has no memory yet."
