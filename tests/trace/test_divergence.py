"""Which kernel a log fits: every profile is judged, few are run."""

import io

import pytest
from logs import RECORDED, create_vm, name_of, region

from explorer.engine.profile import PROFILES, get_profile
from explorer.trace.divergence import compare_profiles
from explorer.trace.replay import Replay
from explorer.trace.source import Source, file_source

VARIED = [path for path in RECORDED if path.parent.name in ("own-fails", "own-vms", "own-gmem-613", "q52-pc-firmware")]


def source(*lines):
    return Source("test.log", io.BytesIO("\n".join([*lines, ""]).encode()))


@pytest.mark.parametrize("path", VARIED, ids=name_of)
def test_a_profile_that_is_not_run_has_the_results_it_would_have_had(path):
    log = file_source(path)

    found = compare_profiles(log)

    assert {fit.profile for fit in found.fits} == set(PROFILES)
    for fit in found.fits:
        rows = list(Replay(log, get_profile(fit.profile)).rows())
        differ = [row for row in rows if row.agrees is False]
        explained = sum(row.agrees is True for row in rows)
        assert (fit.operations, fit.explained, fit.disagreements) == (len(rows), explained, len(differ))
        assert [row.line for row in fit.first] == [row.line for row in differ[:20]]
    log.close()


def test_only_kernels_that_could_differ_are_run():
    found = compare_profiles(source(create_vm(), region(), region(1, 0x1000, errno="EEXIST")))

    assert sum(fit.same_as is None for fit in found.fits) < len(PROFILES)
    assert found.best.disagreements == 0


def test_a_slot_beyond_the_limit_of_old_kernels_tells_them_apart():
    old = compare_profiles(source(create_vm(), region(600, errno="EINVAL"), region(1, 0x800000)))
    new = compare_profiles(source(create_vm(), region(600), region(1, 0x800000)))

    assert {fit.profile for fit in old.fits if not fit.disagreements} == {"pre_edd4", "v5_10"}
    assert old.best.profile == "v5_10"
    assert [(row.line, row.guard) for row in new.of("v5_10").first] == [(2, "user_slot_id")]
    assert new.best.profile == "v7_3"


def test_the_first_difference_comes_first():
    found = compare_profiles(source(create_vm(), region(), region(1, 0x800000, errno="EINVAL"), region(2, errno=None)))

    assert [row.line for row in found.best.first] == [3, 4]


def test_a_limit_bounds_the_work_and_is_told():
    lines = [create_vm(), *(region(n, n << 32, 4096) for n in range(50))]

    assert [compare_profiles(source(*lines), limit=limit).whole for limit in (None, 50, 49)] == [True, True, False]
    assert compare_profiles(source(*lines), limit=7).best.operations == 7
