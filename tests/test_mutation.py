"""The script that makes the engine wrong in hundreds of ways, tried on a few of them."""

from __future__ import annotations

import ast

import pytest
from mutants import mutants
from mutation import Verdict, complaints, table, verdict_of

MUTANTS = {mutant.id: mutant for mutant in mutants()}


def test_there_is_a_mutant_for_every_guard_row_phase_zap_and_account():
    from explorer.engine.guards import ladder_of  # noqa: PLC0415 - the other tests read source only
    from explorer.engine.memslots import ROLL_BACK  # noqa: PLC0415
    from explorer.engine.profile import PROFILES  # noqa: PLC0415

    guards = {g.name for p in PROFILES.values() for kind in ("region", "gmem") for g in sum(ladder_of(p, kind), ())}

    assert guards <= {name.partition(": invert ")[2] for name in MUTANTS}
    assert {f"memslots: ROLL_BACK without {p.name}" for p in ROLL_BACK if p.name != "return"} <= set(MUTANTS)
    for what in (
        "zap_sptes(",
        "kvm_mmu_zap_all_fast(",
        "write_track_add(",
        "write_track_remove(",
        "kvm.nr_memslot_pages +=",
    ):
        assert any(what in name for name in MUTANTS), what
    assert len(MUTANTS) >= 60


def test_each_mutant_is_a_program_and_differs_from_the_engine_in_one_place():
    for mutant in list(MUTANTS.values())[::9]:
        original, changed = ast.unparse(mutant.original).splitlines(), ast.unparse(mutant.tree()).splitlines()

        compile(mutant.tree(), mutant.module, "exec")
        assert original != changed, mutant.id


@pytest.mark.parametrize(
    ("mutant", "judges", "seen"),
    [
        # c70934e0ab2d as it was posted three times: kernel-reference 10.2
        ("guards: invert external_user", ["recordings"], "attach_track_move: errno"),
        ("memslots: ROLL_BACK without restore_old", ["recordings"], "attach_track_move"),
        ("kvmgt: kvmgt_page_track_flush_slot() without _forget(kvm, user, gfns)", ["invariants"], "test_invariants.py"),
    ],
)
def test_a_wrong_engine_is_noticed(mutant, judges, seen):
    verdict = verdict_of(mutant, judges)

    assert verdict.judge == judges[0]
    assert seen in verdict.detail


def test_a_mutant_that_no_judge_looks_for_survives_and_must_have_a_reason():
    verdict = verdict_of("guards: invert external_user", [])
    assert verdict.judge is None
    assert table([verdict])[0].startswith("SURVIVED")

    name = verdict.mutant
    assert complaints([verdict], {}) == [f"survived without a reason: {name}"]
    assert complaints([verdict], {name: ""}) == [f"survived without a reason: {name}"]
    assert complaints([verdict], {name: "nobody was asked"}) == []


def test_a_reason_that_is_no_longer_needed_is_told():
    noticed = Verdict("a", "recordings", "errno", 1.0)

    assert complaints([noticed], {"a": "it survived once"}) == ["listed, but no survivor: a"]
    assert complaints([noticed], {"b": "of another run"}, whole=False) == []
