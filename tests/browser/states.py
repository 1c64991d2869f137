"""States of the page worth a picture, each by the keys and clicks that lead there from the opening."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screen import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from screen import Screen

__all__ = ["SIZES", "STATES", "THEMES", "lay_out_for_a_talk", "until_tab_drawn", "wear"]

SIZES = {"1920": (1920, 1080), "1366": (1366, 768)}
THEMES = ("light", "dark", "hc")
BOOT_LOG = ROOT / "assets/traces/q72-pc-bars/strace.log.gz"
FAILING_LINE = (
    "ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)"
)


def wear(screen: Screen, theme: str) -> Screen:
    """Press the key of the themes until the page wears this one."""
    worn = "document.querySelector('.mx-frame').dataset.theme ?? 'light'"
    while screen.page.evaluate(worn) != theme:
        revision = screen.revision
        screen.press("t").until_drawn_anew(revision)
    return screen


def opening(screen: Screen) -> None:
    """The newcomer's question."""
    screen.until_read(".question", "follow")


def window(screen: Screen) -> None:
    """Inside the MOVE: readers see INVALID, new arrays are made, watches will be lost."""
    moved_with_a_tracker(screen)
    for _ in range(4):
        screen.press("Shift+ArrowLeft")
    screen.until_at(16, 5)


def moved(screen: Screen) -> None:
    """The answer to the question: the MOVE is accepted and the watches are gone."""
    screen.press("3").until_at(12, 9)


def moved_with_a_tracker(screen: Screen) -> None:
    """The MOVE of 6.1 has taken a tracker's watches."""
    screen.tell("What happens to the watches").press("Enter").until_at(16, 9)


def refused(screen: Screen) -> None:
    """KVMGT is attached, the kernel refuses the MOVE, and says so late."""
    screen.tell("Rejected is not free").press("Enter").press("2").until_read(".mx-panel-guards", "FIRED")


def violation(screen: Screen) -> None:
    """An accepted MOVE that breaks an invariant, marked on the timeline."""
    screen.tell("Before the patch").press("Enter").until_at(16, 9)
    screen.page.wait_for_selector(".tl-node.is-broken", state="attached")


def kernels(screen: Screen) -> None:
    """The verdict matrix and the same run on every kernel."""
    moved_with_a_tracker(screen)
    screen.press("4")
    screen.page.wait_for_function(
        "() => { const d = document.querySelector('.mx').dataset; return d.kernels === d.rev }"
    )


def kernels_before_the_check(screen: Screen) -> None:
    """The same where KVMGT loses its watches: the kernel of the page is 6.1."""
    screen.tell("Rejected is not free").press("Enter").until_at(16, 7)
    screen.choose("chip-kernel", "6.1").press("4")
    screen.page.wait_for_function(
        "() => { const d = document.querySelector('.mx').dataset; return d.kernels === d.rev }"
    )


def guards_before_the_check(screen: Screen) -> None:
    """The checks and the bill of a MOVE that 6.1 allows under KVMGT."""
    screen.tell("Rejected is not free").press("Enter").until_at(16, 7)
    screen.choose("chip-kernel", "6.1").press("2").until_read(".mx-panel-guards", "track_flush_slot")


def kvmgt(screen: Screen) -> None:
    """The GPU driver's tables after an accepted MOVE."""
    screen.tell("KVMGT from inside").press("Enter").until_at(24, 0)
    screen.press("5")
    until_tab_drawn(screen, "kvmgt")


def compare(screen: Screen) -> None:
    """MOVE beside DELETE and CREATE."""
    screen.press("6")
    until_tab_drawn(screen, "compare")


def over_time(screen: Screen) -> None:
    """Slots over time: a boot log of QEMU, at its call 52."""
    screen.page.locator(".mx-import input[type=file]").set_input_files(BOOT_LOG)
    screen.until_read(".mx-bar", "Every recorded result agrees.")
    screen.page.locator(".mx-scrub").fill("51")
    screen.press("7")
    until_tab_drawn(screen, "over-time")


def calls(screen: Screen) -> None:
    """The functions of a refused MOVE beside those that 6.12 was recorded to enter."""
    screen.tell("Rejected is not free").press("Enter").until_at(16, 7)
    screen.press("8")
    until_tab_drawn(screen, "calls")


def imported(screen: Screen) -> None:
    """A boot log of QEMU was replayed, and one failing line is looked through behind it."""
    screen.page.locator(".mx-import input[type=file]").set_input_files(BOOT_LOG)
    screen.until_read(".mx-bar", "Every recorded result agrees.")
    line = screen.page.locator(".mx-import textarea")
    if not line.is_visible():  # a notebook's cell has the fields in a drawer
        screen.press("c")
    line.fill(FAILING_LINE)
    screen.page.get_by_role("button", name="Replay").click()
    screen.until_read(".mx-bar", "The line stands behind the last call").until_read(".mx-panel-guards", "FIRED")


def talk(screen: Screen) -> None:
    """The refused MOVE, laid out for a talk."""
    refused(screen)
    lay_out_for_a_talk(screen)


def lay_out_for_a_talk(screen: Screen) -> Screen:
    """Press the key of the talk's layout and wait until everything is drawn in its size."""
    revision = screen.revision
    return screen.press("p").until_drawn_anew(revision)


def until_tab_drawn(screen: Screen, name: str) -> Screen:
    """Wait until a tab that Python draws while it is open shows the stop of the page."""
    screen.page.wait_for_function(
        "name => { const d = document.querySelector('.mx').dataset; return d.state === 'ready'"
        " && d.late === `${name} ${d.rev} ${d.op}:${d.cell}` }",
        arg=name,
    )
    return screen


STATES: dict[str, Callable[[Screen], None]] = {
    "opening": opening,
    "moved": moved,
    "window": window,
    "refused": refused,
    "violation": violation,
    "kernels": kernels,
    "kernels-6.1": kernels_before_the_check,
    "guards-6.1": guards_before_the_check,
    "kvmgt": kvmgt,
    "compare": compare,
    "over-time": over_time,
    "calls": calls,
    "imported": imported,
    "talk": talk,
}
