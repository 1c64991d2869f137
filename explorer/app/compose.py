"""The composed operation: its kind, the text of its fields, and what that means before it is applied."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from explorer.engine.commands import (
    Command,
    SetMemoryRegion,
    SetMemoryRegion2,
    arguments,
    format_command,
    parse_command,
    verb_of,
)
from explorer.engine.types import PAGE_SHIFT, PAGE_SIZE, ExplorerError
from explorer.engine.uapi import KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from explorer.explain.quantity import parse_quantity
from explorer.explain.words import hex_text, pages_text, size_text
from explorer.scenarios import random_walk

if TYPE_CHECKING:
    from explorer.engine.state import Kvm, KvmMemorySlot

__all__ = ["KINDS", "OTHER_KINDS", "WALK", "Compose", "commands_of", "compose_for", "fields_of", "hints"]

WALK = "walk"
"""The one kind that stands for several operations."""

KINDS = (
    ("create", "Create"),
    ("move", "Move"),
    ("delete", "Delete"),
    ("flags", "Flags"),
    ("track", "Track"),
    ("untrack", "Untrack"),
    ("attach", "Attach"),
    ("guest_write", "Write"),
)
"""The operations with a button each. A kind is a verb of the command grammar, or one use of ``set_region``."""
OTHER_KINDS = (
    ("guest_read", "Guest reads memory"),
    ("vcpu_mode", "Guest changes mode, CR3"),
    ("shadow_tables", "Guest page tables, shadowed"),
    ("build_pt", "Guest page tables, written"),
    ("host_touch", "VMM touches its memory"),
    ("detach", "Detach a tracker"),
    ("tracker_log", "Read a tracker’s log"),
    ("submit_workload", "Guest submits GPU work"),
    ("get_dirty_log", "GET_DIRTY_LOG"),
    ("clear_dirty_log", "CLEAR_DIRTY_LOG"),
    ("enable_cap", "ENABLE_CAP"),
    ("set_region2", "SET_USER_MEMORY_REGION2"),
    ("create_guest_memfd", "CREATE_GUEST_MEMFD"),
    ("create_vcpu", "CREATE_VCPU"),
    ("create_irqchip", "CREATE_IRQCHIP"),
    ("set_tss_addr", "SET_TSS_ADDR"),
    ("set_identity_map_addr", "SET_IDENTITY_MAP_ADDR"),
    (WALK, "Random walk"),
)
"""The rest of the grammar, and a random walk. The steps of a call stand for ``begin`` and ``advance``."""
_REGION = ("slot", "base", "size", "hva", "flags")
_OF_WALK = {"seed": "1", "operations": "20"}
_USES_OF_REGION = {"create": _REGION, "move": _REGION, "flags": _REGION, "delete": ("slot",)}
_WORD_FIELDS = {"kind", "mode", "cap", "flags"}
_NO_LETTER = re.compile(r"[^\w,]")
_FLAG_WORDS = {"log": KVM_MEM_LOG_DIRTY_PAGES, "ro": KVM_MEM_READONLY, "rw": 0, "none": 0}
_HOST_BASE = 0x7F00_0000_0000
_NEW_SIZE = 0x20000


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """Kind and fields as text, exactly as typed."""

    kind: str = "move"
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
    def fresh(cls, kind: str, kvm: Kvm, slot: KvmMemorySlot | None) -> Compose:
        """Return a composition of a kind, filled in from the slot in focus or from what is free."""
        values = _region_values(kind, kvm, slot) if kind in _USES_OF_REGION else _other_values(kind, slot)
        return cls(kind=kind, fields=tuple((name, values.get(name, "")) for name in fields_of(kind)), shown=True)


def fields_of(kind: str) -> tuple[str, ...]:
    """Return the names of the fields of a kind, in their order."""
    if kind in _USES_OF_REGION:
        return _USES_OF_REGION[kind]
    names = _arguments(kind)
    beside_slot = {"as"} if "slot" in names else set()  # the field of a slot takes as:slot
    return tuple(name for name in names if name not in {"user"} | beside_slot)


def _arguments(kind: str) -> dict[str, str | None]:
    return dict(_OF_WALK) if kind == WALK else arguments(kind)


def _region_values(kind: str, kvm: Kvm, slot: KvmMemorySlot | None) -> dict[str, str]:
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
    base = slot.base_gfn + (1 if kind == "move" else 0)
    flags = slot.flags ^ (KVM_MEM_LOG_DIRTY_PAGES if kind == "flags" else 0)
    return {
        "slot": _slot_text(slot.id, slot.as_id),
        "base": hex_text(base << PAGE_SHIFT),
        "size": hex_text(slot.npages << PAGE_SHIFT),
        "hva": hex_text(slot.userspace_addr),
        "flags": flags_text_of(flags),
    }


def _other_values(kind: str, slot: KvmMemorySlot | None) -> dict[str, str]:
    """Return values that make sense: of the slot in focus where there is one, else the grammar's defaults."""
    values = {name: default or "0" for name, default in _arguments(kind).items()}
    values |= {"kind": "kvmgt", "mode": "long", "cap": "MANUAL_DIRTY_LOG_PROTECT2", "arg": "1", "code": "", "fd": "3"}
    values |= {"num": "64", "gmem": "3", "addr": "0xfffbc000" if kind == "set_identity_map_addr" else "0xfffbd000"}
    if slot is not None:
        base, size = slot.base_gfn << PAGE_SHIFT, slot.npages << PAGE_SHIFT
        gfn = slot.base_gfn + (3 if slot.npages > 3 and kind != "shadow_tables" else 0)
        values |= {
            "slot": _slot_text(slot.id, slot.as_id),
            "as": str(slot.as_id),
            "gfn": hex_text(gfn),
            "num": str(slot.npages),
        }
        values |= {"gpa": hex_text(base), "cr3": hex_text(base), "hva": hex_text(slot.userspace_addr)}
        values["size"] = hex_text(PAGE_SIZE if kind == "host_touch" else size)
    return values


def flags_text_of(flags: int) -> str:
    """Return flags as they are typed: words where there are words."""
    words = [word for word, bit in _FLAG_WORDS.items() if bit and flags & bit]
    rest = flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)
    return ",".join(words) + (f",{rest:#x}" if rest and words else hex_text(rest) if rest or not words else "")


def compose_for(command: Command) -> Compose:
    """Return the composition that stands for a command."""
    kind = verb_of(command)
    if kind in ("begin", "advance"):
        return Compose()
    if isinstance(command, SetMemoryRegion) and not isinstance(command, SetMemoryRegion2):
        values = {
            "slot": _slot_text(command.slot, command.as_id),
            "base": hex_text(command.guest_phys_addr),
            "size": hex_text(command.memory_size),
            "hva": hex_text(command.userspace_addr),
            "flags": flags_text_of(command.flags),
        }
        kind = "move" if command.memory_size else "delete"
    else:
        given = dict(word.split("=", 1) for word in format_command(command).split()[1:])
        values = {name: default or "" for name, default in arguments(kind).items()} | given
        if "slot" in values:
            values["slot"] = _slot_text(int(values["slot"]), int(values["as"]))
    return Compose(kind=kind, fields=tuple((name, values[name]) for name in fields_of(kind)), shown=True)


def commands_of(compose: Compose, kvm: Kvm) -> tuple[Command, ...] | ExplorerError:
    """Return the commands a composition stands for on `kvm`, or the error that says which field cannot be read."""
    try:
        if compose.kind != WALK:
            return (_command(compose),)
        seed, operations = (parse_quantity(compose.text(name), what=name) for name in _OF_WALK)
        return random_walk(kvm, seed=seed, operations=operations)
    except ExplorerError as error:
        return error


def _command(compose: Compose) -> Command:
    def number(name: str) -> int:
        return parse_quantity(compose.text(name), what=name)

    if compose.kind not in _USES_OF_REGION:
        words = [_word(name, text) for name, text in compose.fields if text.strip()]
        return parse_command(" ".join([compose.kind, *words]))
    slot, as_id = _parse_slot(compose.text("slot"))
    size = 0 if compose.kind == "delete" else number("size")
    return SetMemoryRegion(
        slot=slot,
        as_id=as_id,
        flags=parse_flags(compose.text("flags")) if compose.kind != "delete" else 0,
        guest_phys_addr=0 if compose.kind == "delete" else number("base"),
        memory_size=size,
        userspace_addr=0 if compose.kind == "delete" else number("hva"),
    )


def _word(name: str, text: str) -> str:
    """Return a field as the command grammar has it: a number with its units worked out, a word as it is."""
    word = text.strip()
    if name == "slot":
        slot, as_id = _parse_slot(word)
        return f"slot={slot} as={as_id}" if as_id else f"slot={slot}"
    if name in _WORD_FIELDS and not word[0].isdigit():
        return f"{name}={_NO_LETTER.sub('?', word if name == 'cap' else word.lower())}"
    return f"{name}={parse_quantity(word, what=name):#x}"


def _parse_slot(text: str) -> tuple[int, int]:
    """Return slot id and address space of ``10`` or ``1:10``."""
    as_id, _, slot = text.strip().rpartition(":")
    return parse_quantity(slot, what="slot"), parse_quantity(as_id, what="address space") if as_id else 0


def _slot_text(slot: int, as_id: int) -> str:
    return f"{as_id}:{slot}" if as_id else str(slot)


def parse_flags(text: str) -> int:
    """Return the flags a text stands for: words and numbers with commas."""
    total = 0
    for part in (text.strip() or "0").split(","):
        word = part.strip().lower()
        total |= _FLAG_WORDS[word] if word in _FLAG_WORDS else parse_quantity(word, what="flags")
    return total


def hints(compose: Compose, kvm: Kvm) -> dict[str, str]:
    """Return a short remark under each field: what its value means beside the slot as it is."""
    commands = commands_of(compose, kvm) if compose.kind != WALK else ()
    if isinstance(commands, ExplorerError) or not commands or not isinstance(commands[0], SetMemoryRegion):
        return {}
    command = commands[0]
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
