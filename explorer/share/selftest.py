"""A run as a skeleton in the manner of the kernel's own KVM selftests, an assertion for each outcome.

It is a beginning: its helpers are those of ``tools/testing/selftests/kvm/include/kvm_util.h``, which change; where the
test belongs, what it is called and what it requires is for whoever submits it to say.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from explorer.engine.commands import format_command
from explorer.live.bare import bare
from explorer.share.ioctl_c import CAPS, comment, errno_c, members_c, number_c, runs_c, say_before, string_c
from explorer.share.text import header, largest_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from explorer.live import BareOp
    from explorer.share.text import Told

__all__ = ["write"]

_REQUIRES = {
    "KVM_SET_USER_MEMORY_REGION2": "KVM_CAP_USER_MEMORY2",
    "KVM_CREATE_GUEST_MEMFD": "KVM_CAP_GUEST_MEMFD",
}


def write(told: Told) -> Iterator[str]:
    """Iterate over the lines."""
    ops = bare(told.run)
    names = {op.call.name for op in ops if op.call is not None}
    yield "// SPDX-License-Identifier: GPL-2.0-only"
    yield from comment(
        *header(told),
        "",
        "A skeleton: expectations are the model's. To do: name, Makefile entry, what else it requires.",
    )
    template = (resources.files("explorer.share") / "templates" / "selftest.c.txt").read_text(encoding="utf-8")
    always, for_dirty_logs = template.split("@DIRTY@\n")
    yield always.rstrip("\n")
    if any(op.dirty is not None for op in ops):
        yield for_dirty_logs.rstrip("\n")
    yield ""
    yield "int main(int argc, char *argv[])"
    yield "{"
    vm_type = told.run.start.config.vm_type
    make = f"vm_create_barebones_type({vm_type})" if vm_type else "vm_create_barebones()"
    yield "\tstruct kvm_vm *vm;"
    if names & {"KVM_GET_DIRTY_LOG", "KVM_CLEAR_DIRTY_LOG"}:
        yield f"\tconst size_t pages = {number_c((largest_slot(ops) >> 12) // 64 * 64 + 64)};"
        yield "\tuint64_t *bitmap = malloc(pages / 8);"
    asked = (op.call for op in ops if op.call is not None and op.call.name == "KVM_SET_USER_MEMORY_REGION2")
    fds = sorted({call.fd for call in asked if call.fd is not None and not call.fd >> 31})
    for fd in fds:
        yield f"\tint gmem_{fd} = 0; /* 0 is an open file, but no guest_memfd */"
    yield ""
    yield from (f"\tTEST_REQUIRE(kvm_has_cap({cap}));" for cap in _required(ops, names))
    yield f"\tvm = {make};"
    for op in ops:
        yield ""
        yield from say_before(told, op)
        if op.call is not None:
            yield from _step(op, fds)
    yield ""
    if names & {"KVM_GET_DIRTY_LOG", "KVM_CLEAR_DIRTY_LOG"}:
        yield "\tfree(bitmap);"
    yield "\tkvm_vm_free(vm);"
    yield "\treturn 0;"
    yield "}"


def _required(ops: tuple[BareOp, ...], names: set[str]) -> list[str]:
    """Return the capabilities without which an operation that is expected to work cannot."""
    wanted = [cap for name, cap in _REQUIRES.items() if name in names]
    enabled = (op.call for op in ops if op.call is not None and op.call.name == "KVM_ENABLE_CAP" and op.errno is None)
    wanted += [CAPS[dict(call.members)["cap"]] for call in enabled]
    return list(dict.fromkeys(wanted))


def _step(op: BareOp, fds: list[int]) -> Iterator[str]:
    call = op.call
    assert call is not None, "what is left out is no step"
    values = dict(call.members)
    numbers = members_c(call)
    end = f"{errno_c(op.errno)}, {string_c(format_command(op.command))});"
    match call.name:
        case "KVM_SET_USER_MEMORY_REGION":
            ret = f"__vm_set_user_memory_region(vm, {', '.join(numbers[:4])},\n\t\t\t(void *){numbers[4]})"
        case "KVM_SET_USER_MEMORY_REGION2":
            fd = values["guest_memfd"]
            file = number_c(fd) if fd >> 31 else f"gmem_{fd}"
            ret = (
                f"__vm_set_user_memory_region2(vm, {', '.join(numbers[:4])},\n"
                f"\t\t\t(void *){numbers[4]}, {file}, {numbers[5]})"
            )
        case "KVM_CREATE_GUEST_MEMFD":
            made = f"__vm_create_guest_memfd(vm, {number_c(values['size'])}, {number_c(values['flags'])})"
            # One that is not made leaves the number to what had it; one that no slot is put on needs none.
            ret = made if op.errno is not None or call.fd not in fds else f"gmem_{call.fd} = {made}"
        case "KVM_GET_DIRTY_LOG":
            yield "\t{"
            yield f"\t\tstruct kvm_dirty_log log = {{ .slot = {numbers[0]}, .dirty_bitmap = bitmap }};"
            if op.dirty:
                yield f"\t\tstatic const uint64_t dirty[][2] = {{ {runs_c(op.dirty)} }};"
            yield ""
            yield "\t\tmemset(bitmap, 0, pages / 8);"
            yield f"\t\tEXPECT(__vm_ioctl(vm, KVM_GET_DIRTY_LOG, &log), {end}"
            if op.dirty is not None:
                yield f"\t\texpect_dirty(bitmap, pages, {f'dirty, {len(op.dirty)}' if op.dirty else 'NULL, 0'});"
            yield "\t}"
            return
        case "KVM_CLEAR_DIRTY_LOG":
            yield "\t{"
            yield "\t\tstruct kvm_clear_dirty_log log = {"
            yield f"\t\t\t.slot = {numbers[0]}, .num_pages = {numbers[1]}, .first_page = {numbers[2]},"
            yield "\t\t\t.dirty_bitmap = bitmap,"
            yield "\t\t};"
            yield ""
            yield "\t\tmemset(bitmap, 0xff, pages / 8);"
            yield f"\t\tEXPECT(__vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, &log), {end}"
            yield "\t}"
            return
        case "KVM_ENABLE_CAP":
            ret = f"__vm_enable_cap(vm, {', '.join(numbers)})"
        case "KVM_SET_IDENTITY_MAP_ADDR":
            yield "\t{"
            yield f"\t\tuint64_t addr = {numbers[0]};"
            yield ""
            yield f"\t\tEXPECT(__vm_ioctl(vm, {call.name}, &addr), {end}"
            yield "\t}"
            return
        case _:
            ret = f"__vm_ioctl(vm, {call.name}, (void *){number_c(call.value)})"
    yield f"\tEXPECT({ret},"
    yield f"\t       {end}"
