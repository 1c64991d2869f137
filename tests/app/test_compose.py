"""What a person composes: any operation of the engine, in fields that take what people type."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from explorer.app import machines, telling
from explorer.app import state as actions
from explorer.app.compose import KINDS, OTHER_KINDS, WALK, Compose, commands_of, compose_for, fields_of, hints
from explorer.app.frames import preflight_panel
from explorer.app.preflight import preflight
from explorer.app.state import AppState, initial_state
from explorer.engine.commands import (
    ClearDirtyLog,
    Command,
    CommandError,
    EnableCap,
    SetMemoryRegion2,
    SetVcpuMode,
    arguments,
    parse_command,
)
from explorer.engine.config import VmConfig
from explorer.engine.state import new_vm
from explorer.engine.types import ExplorerError
from explorer.engine.uapi import KvmMrChange
from explorer.history import Stop

ALL_KINDS = tuple(kind for kind, _ in (*KINDS, *OTHER_KINDS) if kind != WALK)
NEW = new_vm("v6_12", VmConfig())
VERBS_THE_STEPS_STAND_FOR = {"begin", "advance"}


@pytest.fixture
def moved() -> AppState:
    return actions.apply_composed(initial_state())


def command_of(compose: Compose) -> Command | ExplorerError:
    commands = commands_of(compose, NEW)
    return commands if isinstance(commands, ExplorerError) else commands[0]


def typed(kind: str, **fields: str) -> Compose:
    return Compose(kind=kind, fields=tuple((name, fields.get(name, "")) for name in fields_of(kind)), shown=True)


def test_every_operation_of_the_grammar_can_be_composed() -> None:
    with pytest.raises(CommandError) as told:
        parse_command("nonsense")
    listed = str(told.value).partition("there are ")[2].split(", ")
    assert set(listed) - VERBS_THE_STEPS_STAND_FOR - {"set_region"} <= set(ALL_KINDS)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_fresh_composition_is_complete_and_runs(moved: AppState, kind: str) -> None:
    chosen = actions.choose(moved, kind)
    assert chosen.ghost is not None, command_of(chosen.compose)
    lines = preflight(chosen.compose, chosen.run.end, chosen.ghost, hidden=False)
    assert lines.text
    assert not lines.error
    applied = actions.apply_composed(chosen)
    assert len(applied.run) == len(moved.run) + 1


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_a_command_is_composed_as_gives_the_command_again(moved: AppState, kind: str) -> None:
    command = command_of(actions.choose(moved, kind).compose)
    assert not isinstance(command, ExplorerError)
    assert command_of(compose_for(command)) == command


def test_fields_take_units_words_and_a_slot_of_the_second_address_space() -> None:
    assert command_of(typed("clear_dirty_log", slot="1:10", first="0", num="2M")) == ClearDirtyLog(
        slot=10, as_id=1, first_page=0, num_pages=1 << 21
    )
    assert command_of(typed("enable_cap", cap="DISABLE_QUIRKS2", arg="0x80")) == EnableCap(cap=213, arg=0x80)
    assert command_of(typed("vcpu_mode", mode="Long", cr3="3G-16M")) == SetVcpuMode(mode="long", cr3=0xBF00_0000)
    region = command_of(typed("set_region2", slot="3", flags="gmem", gpa="1M", size="64k", hva="0", gmem="5"))
    assert region == SetMemoryRegion2(slot=3, flags=4, guest_phys_addr=1 << 20, memory_size=1 << 16, guest_memfd=5)


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("attach", {"kind": "nobody"}, "kind=nobody is no tracker"),
        ("vcpu_mode", {"mode": "<b>"}, "is no mode of a vCPU"),
        ("create_guest_memfd", {"fd": "3"}, "needs size="),
        ("guest_read", {"gpa": "-1"}, "gpa is below 0"),
        ("get_dirty_log", {"slot": "x:1"}, "address space"),
        ("enable_cap", {"cap": "EVERYTHING", "arg": "1"}, "cap=EVERYTHING is not a number"),
        ("create_vcpu", {"id": "two"}, "id: cannot read 'two'"),
    ],
)
def test_what_cannot_be_read_is_said_and_changes_nothing(
    moved: AppState, kind: str, fields: dict[str, str], told: str
) -> None:
    state = actions.choose(moved, kind)
    for name in fields_of(kind):
        state = actions.edit(state, name, fields.get(name, ""))
    lines = preflight(state.compose, state.run.end, state.ghost, hidden=False)
    assert lines.error
    assert told in lines.text
    refused = actions.apply_composed(state)
    assert refused.run == moved.run
    assert refused.notice is not None
    assert told in refused.notice.text


def test_a_random_walk_is_applied_as_one_and_its_preflight_told_the_truth(moved: AppState) -> None:
    chosen = actions.choose(moved, WALK)
    said = preflight(chosen.compose, chosen.run.end, chosen.ghost, hidden=False)
    walked = actions.apply_composed(chosen)
    new = walked.run.outcomes[len(moved.run) :]
    refused = sum(outcome.errno is not None for outcome in new)
    assert said.title == f"{len(new)} operations"
    assert said.text.startswith(f"{refused} of them")
    assert actions.apply_composed(chosen).run == walked.run
    too_long = actions.edit(chosen, "operations", "1e9")
    assert preflight(too_long.compose, too_long.run.end, too_long.ghost, hidden=False).error
    assert actions.apply_composed(too_long).run == moved.run


def test_arguments_names_the_verb_it_does_not_know() -> None:
    with pytest.raises(CommandError, match="'fly' is no command"):
        arguments("fly")


@pytest.mark.parametrize(
    ("profile", "zap", "told"),
    [
        # kernel-reference 5.6: the quirk-off code as first queued leaves the shadow pages; its fix zaps them.
        ("v6_12", "all", "3 watches released by the zap (harmless), all mappings zapped"),
        ("v6_12", "slot only", "3 watches released by the zap (harmless), the slot’s mappings zapped"),
        ("v6_12_quirk_posted", "slot only", "3 watches lost (harmful)"),
    ],
)
def test_the_preflight_of_a_move_says_whether_what_happens_to_the_watches_hurts(
    profile: str, zap: str, told: str
) -> None:
    opened = initial_state()
    machine = opened.machine._replace(profile=profile, zap_slot_only=zap == "slot only")

    state = machines.set_machine(opened, machine)
    lines = preflight(state.compose, state.run.end, state.ghost, hidden=state.question)

    assert told in lines.text
    assert telling.truth(state) == 3, "they are gone either way"


def test_the_preflight_names_every_slot_in_the_way() -> None:
    state = actions.edit(initial_state(), "base", "0xc0000")

    lines = preflight(state.compose, state.run.end, state.ghost, hidden=False)

    # The layout has slots at 0xc0, 0xca and 0xcd, and the next at 0xe8.
    assert "touch slot 3 at [0xc0, 0xca). Slots 3, 5 and 6 are in the way." in lines.text


def test_enter_in_a_field_applies_what_the_fields_say_changed_or_not(moved: AppState) -> None:
    read = tuple(text for _, text in actions.choose(moved, "track").compose.fields)
    hidden = actions.choose(moved, "track")
    assert actions.apply_fields(hidden, read).run.commands[-1] == parse_command(f"track gfn={read[0]}")

    assert actions.apply_fields(hidden, ("0xd0005",)).run.commands[-1] == parse_command("track gfn=0xd0005")
    assert actions.apply_fields(hidden, ("1", "2", "3")).run == actions.apply_composed(hidden).run


def test_what_is_composed_in_the_past_is_judged_where_it_is_applied(moved: AppState) -> None:
    there = moved.run.end.slot(10)
    back = actions.choose(actions.step_to(moved, Stop(11, 0)), "move")
    was = back.base.slot(10)
    assert there is not None
    assert was is not None
    assert there.base_gfn != was.base_gfn, "the story moves slot 10"

    again = actions.edit(back, "base", hex(there.base_gfn << 12))
    lines = preflight(again.compose, again.base, again.composed_here(), hidden=False)
    assert lines.title == "MOVE, because base_gfn differs"  # at the end of the run it would be a no-op
    assert "one page" in hints(again.compose, again.base)["base"]
    panel = json.dumps(preflight_panel(again))
    assert "Applied here, it sets 1 later operation aside." in panel

    applied = actions.apply_composed(again)
    assert applied.run.outcomes[-1].change is KvmMrChange.MOVE
    assert len(applied.run) == 13
    assert applied.later == 0


def test_what_cannot_be_applied_at_the_end_may_be_composed_before_it() -> None:
    state = actions.choose(initial_state(), "delete")
    deleted = actions.apply_composed(actions.edit(state, "slot", "10"))
    assert deleted.run.end.slot(10) is None

    back = actions.step_to(deleted, Stop(11, 0))
    composed = replace(back, compose=replace(back.compose, shown=True))
    ghost = composed.composed_here()
    assert ghost is not None
    assert ghost.step.change is KvmMrChange.DELETE
    assert ghost.number == 12
