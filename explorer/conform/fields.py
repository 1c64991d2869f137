"""The form of a recorded operation: what each value must be, so that nothing else reaches the engine.

Read next: `recording`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["wrong_field", "wrong_slots"]

_U16, _U31, _U32, _U64 = (1 << 16) - 1, (1 << 31) - 1, (1 << 32) - 1, (1 << 64) - 1
_MOST = {
    **dict.fromkeys(("slot", "as"), _U16),
    **dict.fromkeys(("flags", "gflags"), _U32),
    **dict.fromkeys(("user", "id", "gmem"), _U31),
    "val": 0xFF,
    **dict.fromkeys(
        ("gpa", "size", "hva", "uaddr", "gfn", "first", "num", "addr", "arg", "cr3", "code", "gmem_off"), _U64
    ),
}
"""Largest value of each argument that is a number; none is below 0."""
_MODES = ("real", "prot", "long")
_SLOT_VALUES = 6
"""Of a slot in a dump: address space, id, base_gfn, npages, flags, userspace_addr."""


def wrong_field(op: dict[str, Any]) -> str | None:
    """Return which value of an operation is not of its form, in words, or None."""
    for key, value in op.items():
        most = _MOST.get(key)
        if most is not None and (type(value) is not int or not 0 <= value <= most):
            return f"{key} is no number from 0 to {most:#x}"
    if op["op"] == "vcpu_mode" and op.get("mode") not in _MODES:
        return f"mode is none of {', '.join(_MODES)}"
    if type(op.get("cap", 0)) not in (int, str):
        return "cap is neither a number nor a name"
    if not isinstance(op.get("dirty", []), list):
        return "dirty is no list"
    if op["op"] in ("t_query", "t_slot", "t_dump") and not isinstance(op.get("data", {}), dict):
        return "data is no object"
    return wrong_slots(op["data"]) if op["op"] == "t_dump" and "data" in op else None


def wrong_slots(dump: Any) -> str | None:
    """Return what is not of its form in a dump of all slots, in words, or None."""
    if not isinstance(dump, dict) or not isinstance(dump.get("slots"), list):
        return "a dump has no list of slots"
    for slot in dump["slots"]:
        if not isinstance(slot, list) or len(slot) != _SLOT_VALUES or any(type(value) is not int for value in slot):
            return f"a slot of a dump is no list of {_SLOT_VALUES} numbers"
    return None
