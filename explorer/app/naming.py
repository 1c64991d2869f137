"""Names for slots: QEMU's memory tree, given to the page after a log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from explorer.app.state import Notice, redraw
from explorer.explain.words import plural
from explorer.trace.records import TraceError
from explorer.trace.source import bytes_source
from explorer.trace.tree import is_tree, name_slots, read_tree

if TYPE_CHECKING:
    from explorer.app.state import AppState
    from explorer.trace.tree import Naming

__all__ = ["holds_tree", "name_layout"]

_SHOWN = 200


def holds_tree(content: bytes, *, limit_bytes: int) -> bool:
    """Return whether a file holds a memory tree and no log; what cannot be read is for the importer to tell."""
    try:
        return is_tree(bytes_source("", content, limit_bytes=limit_bytes))
    except TraceError:
        return False


def name_layout(state: AppState, content: bytes, name: str, limit_bytes: int) -> AppState:
    """Name the slots of the VM at the stop; what fits nowhere is told, and nothing but names changes.

    Raises
    ------
    TraceError
        If there is no flat view of the guest's memory in the file, or none of its ranges is a slot.
    """
    tree = read_tree(bytes_source(name, content, limit_bytes=limit_bytes))
    naming = name_slots(state.kvm, tree)
    if not naming.owners:
        raise TraceError(
            f"{name}: none of the {plural(len(tree.slots()), 'range')} of this memory tree is a slot at this step."
            " Import the log of the same VM first, and go to the step at which the tree was printed."
        )
    return redraw(
        replace(
            state,
            backings=naming.backings,
            notice=Notice(_words(naming), "info", naming.mismatches[:_SHOWN], heading="What does not fit", stays=True),
        )
    )


def _words(naming: Naming) -> str:
    names = sorted({found.owner for _, found in naming.owners})
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    words = f"{plural(len(naming.owners), 'slot')} named: {listed}."
    if naming.mismatches:
        words += f" {plural(len(naming.mismatches), 'mismatch')} of tree and slots."
    return words
