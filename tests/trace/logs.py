"""Logs for tests: made up line by line, or the recorded ones of ``assets/traces``."""

import functools
import gzip
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

from explorer.engine.profile import get_profile
from explorer.engine.types import PAGE_SHIFT
from explorer.trace.replay import Replay
from explorer.trace.source import Source, file_source

TRACES = Path(__file__).parents[2] / "assets" / "traces"
RECORDED = sorted(path for path in TRACES.glob("*/*.gz") if re.match(r"(dst-)?(qemu-trace\.log|strace\.)", path.name))
EVENTS = sorted(path for path in TRACES.glob("*/*.log.gz") if re.match(r"(ftrace|perf-\w+)\.log", path.name))
"""Logs of tracers: most do not name the errnos, some not the arguments."""
H = 0x7F00_0000_0000


def replay(*lines, name="test.log", profile=None, end="\n"):
    """Replay a log made of `lines`, text or bytes."""
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    source = Source(name, io.BytesIO(b"\n".join(raw) + end.encode()))
    return run(source, get_profile(profile) if profile else None)


def run(source, profile=None):
    """Replay a source to its end and check that no line is lost."""
    player = Replay(source, profile)
    player.gaps = gaps = []
    rows = list(player.rows())
    summary = player.summary()
    nonempty = sum(1 for line in source.lines() if line.strip())
    assert summary.used + len(summary.skipped) == nonempty
    assert [(gap.line, gap.reason) for gap in gaps] == list(summary.skipped)
    assert sorted({gap.line for gap in gaps}) == sorted(gap.line for gap in gaps)
    assert summary.operations == len(rows)
    assert [row.number for row in rows] == list(range(len(rows)))
    assert summary.disagreements == sum(row.agrees is False for row in rows)
    return SimpleNamespace(
        rows=rows,
        summary=summary,
        gaps=gaps,
        reasons=[gap.reason for gap in gaps],
        kinds=[row.kind for row in rows],
        errnos=[row.errno for row in rows],
        vms=[row.vm for row in rows],
        notes=[row.note for row in rows],
        agrees=[row.agrees for row in rows],
    )


def region(slot=0, gpa=0, size=0x100000, *, hva=H, flags=0, fd=5, errno=None, pid=""):
    """Return a region call as strace writes it."""
    result = "0" if errno is None else f"-1 {errno} (Some text)"
    return f"{pid}ioctl({fd}, KVM_SET_USER_MEMORY_REGION, {struct(slot, gpa, size, hva, flags)}) = {result}"


def struct(slot=0, gpa=0, size=0x100000, hva=H, flags=0):
    gpa, hva = (hex(value) if value else "0" for value in (gpa, hva))
    return f"{{slot={slot}, flags={flags}, guest_phys_addr={gpa}, memory_size={size}, userspace_addr={hva}}}"


def create_vm(fd=5, *, pid="", device=3):
    return f"{pid}ioctl({device}, KVM_CREATE_VM, 0) = {fd}"


def event(slot=0, gpa=0, size=0x100000, *, ua=H, flags=0, ret=0, space=None):
    """Return the line that QEMU writes; `space` chooses the newer form."""
    if space is None:
        return f"kvm_set_user_memory Slot#{slot} flags={flags:#x} gpa={gpa:#x} size={size:#x} ua={ua:#x} ret={ret}"
    return (
        f"kvm_set_user_memory AddrSpace#{space} Slot#{slot} flags={flags:#x} gpa={gpa:#x} size={size:#x} ua={ua:#x}"
        f" guest_memfd=-1 guest_memfd_offset=0x0 ret={ret}"
    )


# -- recorded logs ---------------------------------------------------------------------------------


def name_of(path):
    return f"{path.parent.name}/{path.name}"


def sidecar(path):
    return json.loads(gzip.decompress((path.parent / f"{path.parent.name}.json.gz").read_bytes()))


def truths(path):
    """Return what QEMU said of its layout: [(lines of this log until then, {(gpa, size, hva)})]."""
    prefix = "dst-" if path.name.startswith("dst-") else ""
    column = 1 if "strace" in path.name else 0
    found = []
    for truth in sorted(path.parent.glob(f"{prefix}truth-*.json.gz")):
        said = json.loads(gzip.decompress(truth.read_bytes()))
        tree = truth.parent / truth.name.replace("truth-", "mtree-").replace(".json", ".txt")
        lines = said["log_lines"]["stopped"][column]
        if lines is not None:
            hosts = {int(gpa, 16): int(hva, 16) for gpa, hva in said["gpa2hva"].items()}
            found.append((lines, {(gpa, size, hosts[gpa]) for gpa, size in _kvm_ranges(tree)}))
    return sorted(found, key=lambda pair: pair[0])


def _kvm_ranges(tree):
    for view in gzip.decompress(tree.read_bytes()).decode().split("FlatView #"):
        if 'AS "memory"' in view:
            for first, last in re.findall(r"([0-9a-f]{16})-([0-9a-f]{16}) \(.* KVM\s*$", view, re.MULTILINE):
                yield int(first, 16), int(last, 16) - int(first, 16) + 1


@functools.cache
def recorded(path):
    """Replay a recorded log once, whatever is asked of it; the layouts are those at its truths."""
    source = file_source(path)
    player = Replay(source)
    moments = truths(path)
    layouts, live, before = [], [], None
    agrees = set()
    for row in player.rows():
        while len(layouts) < len(moments) and moments[len(layouts)][0] < row.line:
            layouts.append(_ranges(before))
        before = player.lift.machines[row.vm].kvm
        agrees.add(row.agrees)
        live.append(row.live_slots)
    layouts += [_ranges(before)] * (len(moments) - len(layouts))
    summary = player.summary()
    nonempty = sum(1 for line in source.lines() if line.strip())
    source.close()
    return SimpleNamespace(
        summary=summary,
        nonempty=nonempty,
        layouts=layouts,
        expected=[ranges for _, ranges in moments],
        agrees=agrees,
        max_live=max(live, default=0),
    )


def _ranges(kvm):
    if kvm is None:
        return set()
    return {(s.base_gfn << PAGE_SHIFT, s.npages << PAGE_SHIFT, s.userspace_addr) for s in kvm.slots()}
