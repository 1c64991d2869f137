"""The composed operation: its kind, the text of its fields, and what that means before it is applied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from explorer.engine.commands import AttachTracker, Command, GuestWrite, SetMemoryRegion, TrackGfn, UntrackGfn
from explorer.engine.events import GuestWriteServed, MappingsZapped
from explorer.engine.types import PAGE_SHIFT, ExplorerError
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from explorer.explain.changes import changes_that_work
from explorer.explain.ledger import ledger_of
from explorer.explain.quantity import QuantityError, parse_quantity
from explorer.explain.words import errno_text, hex_text, pages_text, plural, size_text
from explorer.history import Run, Stop
from explorer.history.moment import attempted_change, moment_at

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot
    from explorer.history import OpDetail

__all__ = [
    "FIELDS_OF",
    "KINDS",
    "Compose",
    "ComposeKind",
    "Preflight",
    "command_of",
    "compose_for",
    "hints",
    "preflight",
]

ComposeKind = Literal["create", "move", "delete", "flags", "track", "untrack", "attach", "write"]
KINDS: tuple[tuple[ComposeKind, str], ...] = (
    ("create", "Create"),
    ("move", "Move"),
    ("delete", "Delete"),
    ("flags", "Flags"),
    ("track", "Track"),
    ("untrack", "Untrack"),
    ("attach", "Attach"),
    ("write", "Write"),
)
_REGION = ("slot", "base", "size", "hva", "flags")
FIELDS_OF: dict[ComposeKind, tuple[str, ...]] = {
    "create": _REGION,
    "move": _REGION,
    "delete": ("slot",),
    "flags": _REGION,
    "track": ("gfn",),
    "untrack": ("gfn",),
    "attach": ("tracker",),
    "write": ("gpa", "bytes"),
}
_FLAG_WORDS = {"log": KVM_MEM_LOG_DIRTY_PAGES, "ro": KVM_MEM_READONLY, "rw": 0, "none": 0}
_HOST_BASE = 0x7F00_0000_0000
_NEW_SIZE = 0x20000


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """Kind and fields as text, exactly as typed."""

    kind: ComposeKind = "move"
    fields: tuple[tuple[str, str], ...] = (("slot", ""), ("base", ""), ("size", ""), ("hva", ""), ("flags", "0"))
    shown: bool = False
    """Whether the operation is on the screen as the next one."""

    def text(self, name: str) -> str:
        """Return the text of a field."""
        return dict(self.fields).get(name, "")

    def with_field(self, name: str, text: str) -> Compose:
        """Return the composition with another text in a field."""
        return replace(self, fields=tuple((n, text if n == name else t) for n, t in self.fields), shown=True)

    @classmethod
    def fresh(cls, kind: ComposeKind, kvm: Kvm, slot: KvmMemorySlot | None) -> Compose:
        """Return a composition of a kind, filled in from the slot in focus or from what is free."""
        values = _region_values(kind, kvm, slot) if "slot" in FIELDS_OF[kind] else _other_values(kind, slot)
        return cls(kind=kind, fields=tuple((name, values.get(name, "")) for name in FIELDS_OF[kind]), shown=True)


def _region_values(kind: ComposeKind, kvm: Kvm, slot: KvmMemorySlot | None) -> dict[str, str]:
    if kind == "create" or slot is None:
        used = {s.id for s in kvm.slots()}
        free = next(i for i in range(len(used) + 1) if i not in used)
        last = kvm.active().gfn_tree.last()
        end = 0 if last is None else kvm.active().id_hash[last[1]].end_gfn
        base = (end + 0x1FF) >> 9 << 9
        return {
            "slot": str(free),
            "base": hex_text(base << PAGE_SHIFT),
            "size": hex_text(_NEW_SIZE),
            "hva": hex_text(_HOST_BASE + (base << PAGE_SHIFT)),
            "flags": "0",
        }
    name = f"{slot.as_id}:{slot.id}" if slot.as_id else str(slot.id)
    base = slot.base_gfn + (1 if kind == "move" else 0)
    flags = slot.flags ^ (KVM_MEM_LOG_DIRTY_PAGES if kind == "flags" else 0)
    return {
        "slot": name,
        "base": hex_text(base << PAGE_SHIFT),
        "size": hex_text(slot.npages << PAGE_SHIFT),
        "hva": hex_text(slot.userspace_addr),
        "flags": flags_text_of(flags),
    }


def _other_values(kind: ComposeKind, slot: KvmMemorySlot | None) -> dict[str, str]:
    base = slot.base_gfn if slot is not None else 0
    return {
        "gfn": hex_text(base + 3 if slot is not None and slot.npages > 3 else base),
        "tracker": "kvmgt" if kind == "attach" else "",
        "gpa": hex_text(base << PAGE_SHIFT),
        "bytes": "8",
    }


def flags_text_of(flags: int) -> str:
    """Return flags as they are typed: words where there are words."""
    words = [word for word, bit in _FLAG_WORDS.items() if bit and flags & bit]
    rest = flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)
    return ",".join(words) + (f",{rest:#x}" if rest and words else hex_text(rest) if rest or not words else "")


def compose_for(command: Command) -> Compose:
    """Return the composition that stands for a command."""
    match command:
        case SetMemoryRegion():
            values = {
                "slot": f"{command.as_id}:{command.slot}" if command.as_id else str(command.slot),
                "base": hex_text(command.guest_phys_addr),
                "size": hex_text(command.memory_size),
                "hva": hex_text(command.userspace_addr),
                "flags": flags_text_of(command.flags),
            }
            kind: ComposeKind = "move" if command.memory_size else "delete"
            return Compose(kind=kind, fields=tuple((name, values[name]) for name in FIELDS_OF[kind]), shown=True)
        case TrackGfn():
            return Compose(kind="track", fields=(("gfn", hex_text(command.gfn)),), shown=True)
        case _:
            return Compose()


def command_of(compose: Compose) -> Command | ExplorerError | None:
    """Return the command a composition stands for, or the error that says which field cannot be read."""
    try:
        return _command(compose)
    except ExplorerError as error:
        return error


def _command(compose: Compose) -> Command | None:
    def number(name: str) -> int:
        return parse_quantity(compose.text(name), what=name)

    match compose.kind:
        case "track":
            return TrackGfn(gfn=number("gfn"))
        case "untrack":
            return UntrackGfn(gfn=number("gfn"))
        case "write":
            return GuestWrite(gpa=number("gpa"), nbytes=number("bytes"))
        case "attach":
            kind = compose.text("tracker").strip().lower()
            if kind not in ("kvmgt", "log"):
                raise QuantityError(f"tracker: {kind[:20]!r} is no tracker; write kvmgt or log")
            return AttachTracker(kind="kvmgt" if kind == "kvmgt" else "log")
        case _:
            as_id, _, slot = compose.text("slot").strip().rpartition(":")
            size = 0 if compose.kind == "delete" else number("size")
            return SetMemoryRegion(
                slot=parse_quantity(slot, what="slot"),
                as_id=parse_quantity(as_id, what="address space") if as_id else 0,
                flags=parse_flags(compose.text("flags")) if compose.kind != "delete" else 0,
                guest_phys_addr=0 if compose.kind == "delete" else number("base"),
                memory_size=size,
                userspace_addr=0 if compose.kind == "delete" else number("hva"),
            )


def parse_flags(text: str) -> int:
    """Return the flags a text stands for: words and numbers with commas."""
    total = 0
    for part in (text.strip() or "0").split(","):
        word = part.strip().lower()
        total |= _FLAG_WORDS[word] if word in _FLAG_WORDS else parse_quantity(word, what="flags")
    return total


def hints(compose: Compose, kvm: Kvm) -> dict[str, str]:
    """Return a short remark under each field: what its value means beside the slot as it is."""
    command = command_of(compose)
    if not isinstance(command, SetMemoryRegion):
        return {}
    old = kvm.slot(command.slot, command.as_id) if command.as_id < len(kvm.memslots) else None
    found: dict[str, str] = {}
    if command.memory_size:
        pages = command.memory_size >> PAGE_SHIFT
        same = old is not None and old.npages == pages
        found["size"] = f"{pages_text(pages)}{', unchanged' if same else f', {size_text(command.memory_size)}'}"
        if old is not None:
            by = command.guest_phys_addr - (old.base_gfn << PAGE_SHIFT)
            found["base"] = "where it is" if by == 0 else f"{'up' if by > 0 else 'down'} by {_distance(abs(by))}"
    return found


def _distance(nbytes: int) -> str:
    return "one page" if nbytes == 1 << PAGE_SHIFT else size_text(nbytes)


class Preflight(NamedTuple):
    """What the composed operation would do, run on a copy."""

    title: str
    text: str
    refused: bool
    error: bool
    """Whether a field cannot be read."""


def preflight(compose: Compose, ghost: OpDetail | None, *, hidden: bool) -> Preflight:
    """Return the preflight lines: class, result and number of side effects."""
    if hidden:
        return Preflight("", "Hidden until you have answered", refused=False, error=False)
    if not compose.shown:
        return Preflight("", "Choose an operation, or change a field of this one.", refused=False, error=False)
    command = command_of(compose)
    if isinstance(command, ExplorerError):
        return Preflight("", str(command), refused=False, error=True)
    if ghost is None:
        return Preflight("", "Change a field to compose the next operation.", refused=False, error=False)
    if isinstance(ghost.command, SetMemoryRegion):
        return _region_preflight(ghost, ghost.command)
    errno = ghost.step.errno
    served = next((e for e in ghost.step.events if isinstance(e, GuestWriteServed)), None)
    if served is not None:
        words = {
            "ram": "Plain memory: nobody is told.",
            "emulated": "The page is watched: the write is caught and reported.",
            "mmio": "No slot there: the VMM must answer.",
            "read-only": "A read-only slot: the VMM must answer.",
            "retry": "The slot is INVALID: the guest tries again.",
        }
        return Preflight("Guest write", words.get(served.outcome, f"{served.outcome}."), refused=False, error=False)
    if errno is not None:
        return Preflight("", f"Refused with {errno_text(errno)}.", refused=True, error=False)
    return Preflight("", "Accepted.", refused=False, error=False)


def _region_preflight(ghost: OpDetail, call: SetMemoryRegion) -> Preflight:
    change = ghost.step.change or attempted_change(ghost.before, call)
    name = change.value if change is not None else "The call"
    why = {
        "CREATE": "because there is no such slot",
        "DELETE": "because the size is 0",
        "MOVE": "because base_gfn differs",
        "FLAGS_ONLY": "because only flags differ",
        "NOOP": "because nothing differs",
    }.get(name, "")
    title = f"{name}, {why}" if why else name
    effects = _side_effects(ghost)
    errno = ghost.step.errno
    if errno is not None:
        fired = ghost.step.refused_by
        found = next((result.operands for result in ghost.step.results if result.guard is fired), "")
        why = f"The check “{fired.title}” fails: {found}." if fired is not None else ""
        tail = f" after {plural(len(effects), 'side effect')} that stay" if effects else ", and nothing is touched"
        refused = f"Refused with {errno_text(errno)}{tail}. {why}{_what_works(ghost, call)}"
        told = title if effects or ghost.step.change is not None else ""
        return Preflight(told, refused, refused=True, error=False)
    return Preflight(
        title, "Accepted. " + ", ".join(effects).capitalize() + ("." if effects else ""), refused=False, error=False
    )


def _what_works(ghost: OpDetail, call: SetMemoryRegion) -> str:
    """Return the smallest change that the engine accepts, as a sentence."""
    change = next(iter(changes_that_work(ghost.before, call, most=1)), None)
    return f" Would work: {change.words}." if change is not None else ""


def _side_effects(ghost: OpDetail) -> list[str]:
    """Return what the call does besides its result, each in a few words."""
    call = ghost.command
    assert isinstance(call, SetMemoryRegion), "only region calls have phases"
    if call.as_id >= len(ghost.before.memslots):
        return []
    effects = []
    run = Run(ghost.before, (call,))
    ledger = ledger_of(moment_at(run, Stop(0, 10**6)))
    lost = ledger.lost if ledger is not None else 0
    if lost:
        effects.append(f"{plural(lost, 'watch')} lost")
    zaps = [e for e in ghost.step.events if isinstance(e, MappingsZapped)]
    if zaps:
        effects.append("all mappings zapped" if zaps[0].scope == "all" else "the slot’s mappings zapped")
    step = ghost.step.kvm.active(call.as_id).generation - ghost.before.active(call.as_id).generation
    if step:
        effects.append(f"generation +{step}")
    swaps = sum(cell.swaps for cell in ghost.cells)
    if swaps > 1 and ghost.step.errno is not None:
        effects.append(f"{swaps} waits for all readers")
    return effects
