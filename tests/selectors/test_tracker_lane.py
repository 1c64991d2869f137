"""The tracker's own tables beside KVM's counts, on one axis. Product row 37's facts as a picture."""

from runs import KVMGT, LOGGER, MOVE, run_of

from explorer.history.moment import moment_at
from explorer.selectors.gpa_map import select_gpa_map


def flags_lane(run, **options):
    """Return the lane of KVMGT's flags at the end of a run; None if there is none."""
    lanes = select_gpa_map(moment_at(run, run.last_stop), **options).lanes
    return next((lane for lane in lanes if lane.name == "KVMGT’s flags"), None)


def test_while_kvmgt_watches_its_flags_and_its_table_agree() -> None:
    lane = flags_lane(run_of("v6_1", *KVMGT))

    assert [mark.kind for mark in lane.marks] == ["external", "external"]
    assert [label.text for label in lane.labels] == ["2 set"]


def test_after_a_move_without_the_patch_the_flags_say_what_the_table_no_longer_does() -> None:
    lane = flags_lane(run_of("v6_1", *KVMGT, MOVE))

    assert [mark.kind for mark in lane.marks] == ["lost", "lost"]
    assert [(label.text, label.role) for label in lane.labels] == [("2 set, 2 not in its table", "lost")]
    assert "it will not ask again" in lane.marks[0].hover


def test_where_none_of_its_pages_is_shown_the_lane_says_so() -> None:
    lane = flags_lane(run_of("v6_1", *KVMGT), window=(0x100, 0x200))

    assert lane.marks == ()
    assert [label.text for label in lane.labels] == ["2 set, elsewhere"]


def test_a_tracker_that_only_listens_keeps_no_such_table_and_a_small_map_has_no_room_for_one() -> None:
    assert flags_lane(run_of("v6_1", *LOGGER)) is None
    assert flags_lane(run_of("v6_1", *KVMGT), host_lane=False) is None
