"""Look for input that breaks reading: ``python tests/fuzz.py [SECONDS]`` (default 10 minutes), or ``make fuzz``.

Recorded logs, memory trees, JSON lines and recordings of kernels are cut, mixed and damaged, and given to the command
line as files; so are single lines, to ``explorer why``. Scenario files are given to their reader. Input that reaches
code in the readers which none reached before is kept and changed further. Only a result of the command line, or a
`ScenarioError`, counts as an answer: a traceback, a run of more than ten seconds, or more memory than `MEMORY` is a
find. It is written to ``tests/trace/finds``, where `test_finds.py` runs it from then on.
"""

import contextlib
import gzip
import hashlib
import io
import random
import resource
import sys
import tempfile
import traceback
from pathlib import Path
from time import monotonic

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FINDS = TESTS / "trace" / "finds"
TRACES = ROOT / "assets" / "traces"
MEMORY = 600 << 20
LONGEST_SECONDS = 10.0
LONGEST_RUN = 300
"""Steps up to which the run of a scenario is made, too."""
WATCHED = tuple(str(ROOT / "explorer" / part) for part in ("trace", "conform", "cli", "scenarios"))
LIBRARY = ROOT / "explorer" / "scenarios" / "library"
OPTIONS = {
    "replay": (
        ("replay",),
        ("replay", "--json"),
        ("replay", "--preview"),
        ("replay", "--preview", "--json"),
        ("replay", "--profiles", "--limit", "20"),
        ("replay", "--abi", "v6_1", "v6_6"),
        ("replay", "--profile", "v5_10"),
        ("export", "--format", "strace"),
    ),
    "tree": (("replay", str(TRACES / "own-basic" / "strace.log.gz"), "--tree"),),
    "conform": (("conform",), ("conform", "--json")),
    "why": (
        ("why", "-"),
        ("why", "-", "--json"),
        ("why", "-", "--profile", "v5_10"),
        ("why", "-", "--after", str(TRACES / "own-basic" / "strace.log.gz")),
    ),
    "scenario": ((),),
}
"""Command lines by kind of input; the file comes last, where the input is a file. `why` reads standard input."""
NUMBERS = (
    *("0", "1", "-1", "0x0", "511", "512", "4095", "4096", "0xfff", "0x1000", "32763", "32764", "65535", "65536"),
    *("0x7fffffff", "0x80000000", "0xffffffff", "0x100000000", "0x7ffffffff000", "0x7fffffffffffffff"),
    *("0xffffffffffffffff", "18446744073709551616", "1e9", "1.5", "NaN", "null", "true", '"x"', "[]", "{}", "٣", ""),
    "9" * 5000,
)
WORDS = (
    *(
        "KVM_SET_USER_MEMORY_REGION",
        "KVM_SET_USER_MEMORY_REGION2",
        "KVM_CREATE_VM",
        "guest_memfd=12",
        "KVM_MEM_READONLY",
    ),
    *(
        "<unfinished ...>",
        "<... ioctl resumed>",
        "EEXIST",
        "errno 0",
        "[pid 7] ",
        "12<CPU 0/KVM> ",
        "(INJECTED)",
        " = ? ",
    ),
    *(
        "set_region",
        "create_guest_memfd",
        "clear_dirty_log",
        "build_pt",
        "track",
        "shadow_tables",
        "guest_write",
        "vcpu_mode",
    ),
    *(
        '"do"',
        '"errno"',
        '"vm"',
        '"config"',
        "FlatView #0",
        ' AS "KVM-SMRAM", root: smram',
        "KVM",
        '\nlike = "first-look"\n',
        '\nlayout = "q72-pc-3584M"\n',
        '\nat = "13.6"\n',
        "\n[[step]]\n",
        '\nexpect = { errno = "EINVAL" }\n',
        "\nrepeat = 3\nstride = { slot = 1 }\n",
        "[" * 5000,
        "\x1b[31m",
        "\0",
        "\r",
    ),
)
JSON_LINES = (
    '{"memslot-explorer": "calls", "version": 1, "profile": "v7_3", "config": {"tdp": true, "processor": "intel"}}',
    '{"do": "set_region slot=0 gpa=0x0 size=0x200000 hva=0x7f0000000000 flags=log", "errno": null}',
    '{"do": "set_region2 slot=1 gpa=0x400000 size=0x1000 hva=0x7f1000000000 flags=gmem gmem=3", "errno": null}',
    '{"do": "create_guest_memfd fd=3 size=0x100000", "errno": null}',
    '{"do": "clear_dirty_log slot=0 first=0 num=64", "errno": "EINVAL"}',
    '{"do": "enable_cap cap=168 arg=1", "errno": null, "vm": 2}',
    '{"do": "attach user=0 kind=kvmgt", "errno": null}',
    '{"do": "track gfn=3", "errno": null}',
    '{"do": "create_vcpu", "errno": null}',
    '{"do": "build_pt gpa=0x1000", "errno": null}',
    '{"do": "vcpu_mode mode=long cr3=0x1000", "errno": null}',
    '{"do": "guest_write gpa=0x2000 bytes=8", "errno": null}',
    '{"do": "shadow_tables gfn=1 levels=4", "errno": null}',
    '{"do": "host_touch hva=0x7f0000000000 size=0x1000", "errno": null}',
    '{"memslot-explorer": "snapshot", "version": 1, "kernel": "6.12.9"}',
    '{"vm": 0, "as_id": 0, "slot": 2, "base_gfn": 1048320, "npages": 256, "userspace_addr": 4096, "flags": 2}',
)
WHY_LINE = (
    "ioctl(9, KVM_SET_USER_MEMORY_REGION, {slot=4, flags=0, guest_phys_addr=0xc0000, memory_size=131072,"
    " userspace_addr=0x7f0000000000}) = -1 EEXIST (File exists)"
)


def seeds(chance):
    """Return families of inputs, each a list of (kind, content): windows of everything that is recorded."""
    found = {
        "json": [("replay", "\n".join(lines).encode()) for lines in (JSON_LINES, JSON_LINES[:14], JSON_LINES[14:])]
    }
    for path in sorted(TRACES.glob("*/*.gz")):
        kind = "tree" if "mtree-" in path.name else "replay"
        if kind == "replay" and not any(word in path.name for word in ("trace", "perf", "truth.jsonl")):
            continue
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        found.setdefault(path.name.split(".")[0].split("-")[0], []).append((kind, window(chance, lines)))
    for path in sorted((ROOT / "assets" / "recordings").rglob("*.jsonl.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        few = [line for line in chance.sample(lines, min(2, len(lines))) if len(line) < 9000]
        found.setdefault("conform", []).append(("conform", b"".join(few)))
    found["why"] = [("why", line) for line in refused_lines(chance)]
    for path in sorted([*LIBRARY.glob("*.toml"), *LIBRARY.glob("machines/*.toml")]):
        found.setdefault("scenario", []).append(("scenario", path.read_bytes()))
    for path in sorted(FINDS.glob("*")):
        found.setdefault("finds", []).append((path.name.partition("-")[0], path.read_bytes()))
    return found


def refused_lines(chance):
    """Return lines of one call each, most of them refused, of every way in which logs write them."""
    found = [WHY_LINE.encode()]
    for path in sorted(TRACES.glob("*/*.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines()
        calls = [line for line in lines if b"SET_USER_MEMORY_REGION" in line or b"kvm_set_user_memory" in line]
        failed = [line for line in calls if b"= -1 E" in line or b"ret -" in line]
        found += chance.sample(failed, min(3, len(failed))) + calls[:1]
    return found


def window(chance, lines):
    """Return a few lines, half of the time from the start."""
    at = 0 if chance.random() < 0.5 else chance.randrange(max(len(lines) - 20, 1))
    return b"".join(lines[at : at + 30])


# -- change ----------------------------------------------------------------------------------------


def changed(chance, content, other):
    """Return a change of `content`, perhaps with parts of `other`."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        content = chance.choice(
            (bytes_changed, lines_changed, lines_changed, number_changed, number_changed, word_put)
        )(chance, content, other)
    if chance.random() < 0.05:
        content = gzip.compress(content, mtime=0)
        content = bytes_changed(chance, content, other) if chance.random() < 0.8 else content
    return content[:60_000]


def bytes_changed(chance, content, _other):
    text = bytearray(content or b" ")
    at = chance.randrange(len(text))
    what = chance.randrange(4)
    if what == 0:
        text[at] ^= 1 << chance.randrange(8)
    elif what == 1:
        del text[at : at + chance.choice((1, 3, 30, 3000))]
    elif what == 2:
        text[at:at] = bytes(text[at : at + 12]) * chance.choice((1, 2, 400))
    else:
        text[at:at] = chance.choice((b"\n", b")", b"(", b"{", b"}", b" = ", b"\0", b"\xff", b'"', b"<", b"\\", b"["))
    return bytes(text)


def lines_changed(chance, content, other):
    lines = content.splitlines(keepends=True) or [b"\n"]
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    what = chance.randrange(4)
    if what == 0:
        lines[at], lines[to] = lines[to], lines[at]
    elif what == 1:
        lines.insert(at, lines[to])
    elif what == 2:
        del lines[at]
    else:
        lines.insert(at, chance.choice(other.splitlines(keepends=True) or [b"\n"]))
    return b"".join(lines)


def number_changed(chance, content, _other):
    starts = [at for at, byte in enumerate(content) if 48 <= byte <= 57 and not (at and content[at - 1 : at].isalnum())]
    if not starts:
        return content
    at = chance.choice(starts)
    end = at
    while end < len(content) and content[end : end + 1].isalnum():
        end += 1
    return content[:at] + chance.choice(NUMBERS).encode() + content[end:]


def word_put(chance, content, _other):
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.choice(WORDS).encode() + content[at:]


# -- run -------------------------------------------------------------------------------------------


def answer(kind, content, folder, *, options=None, reached=None):
    """Run the command line on a file; return what is wrong with how it ended, or None."""
    from explorer.cli import main  # noqa: PLC0415 - only once memory is limited

    path = folder / ("input.jsonl" if kind == "conform" else "input.log")
    path.write_bytes(content)
    arguments = [*(options or OPTIONS[kind][0]), *([] if kind in ("why", "scenario") else [str(path)])]
    if kind == "tree":
        arguments = [arguments[0], *arguments[2:], arguments[1]]
    began = monotonic()
    out, err, given = io.StringIO(), io.StringIO(), sys.stdin
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sys.stdin = io.TextIOWrapper(io.BytesIO(content))
            if reached is not None:
                sys.settrace(reached.watch)
            try:
                status = scenario_status(content) if kind == "scenario" else main(arguments)
            finally:
                sys.settrace(None)
                sys.stdin = given
    except BaseException as error:  # noqa: BLE001 - each is a find
        return f"{type(error).__name__} of {arguments}\n{traceback.format_exc()}"
    if status not in (0, 1, 2) or (status == 2 and not err.getvalue().startswith("explorer: ")):
        return f"status {status} of {arguments}: {err.getvalue()[:300]}"
    if "\x1b" in out.getvalue() + err.getvalue():
        return f"a control character reaches the terminal: {arguments}"
    took = monotonic() - began
    if took > LONGEST_SECONDS and reached is not None:  # watching takes time: what counts is without
        return answer(kind, content, folder, options=options)
    if took > LONGEST_SECONDS:
        return f"{took:.0f} seconds of {arguments}"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return f"{most >> 20} MB after {arguments}" if most > MEMORY else None


def scenario_status(content):
    """Read a scenario file and make its run; return what the command line would."""
    from explorer.engine.types import ExplorerError  # noqa: PLC0415 - only once memory is limited
    from explorer.scenarios.loader import parse_scenario  # noqa: PLC0415
    from explorer.scenarios.runner import unmet  # noqa: PLC0415

    try:
        scenario = parse_scenario(content.decode("utf-8", "replace"))
        if len(scenario.steps) < LONGEST_RUN:
            unmet(scenario)
    except ExplorerError as error:
        sys.stderr.write(f"explorer: {error}")
        return 2
    return 0


class Reached:
    """Pairs of lines of the readers that ran one after the other; new ones make an input worth keeping."""

    def __init__(self):
        self.known, self.new, self._last = set(), 0, 0

    def watch(self, frame, event, _argument):
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event in ("call", "line"):
            here = hash((frame.f_code.co_filename, frame.f_lineno))
            if (self._last, here) not in self.known:
                self.known.add((self._last, here))
                self.new += 1
            self._last = here
        return self.watch

    def fresh(self):
        """Return how many pairs are new since the last time."""
        self.new, new = 0, self.new
        return new


def fuzz(seconds, seed):
    """Fuzz for a while; return how many inputs were run and how many broke something."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    corpus, reached = seeds(chance), Reached()
    runs = finds = 0
    known = set()
    began = monotonic()
    with tempfile.TemporaryDirectory() as name:
        while (left := began + seconds - monotonic()) > 0:
            family = chance.choice(list(corpus))
            kind, content = chance.choice(corpus[family])
            options = chance.choice(OPTIONS[kind])
            other = chance.choice(corpus[family if chance.random() < 0.8 else chance.choice(list(corpus))])[1]
            content = changed(chance, content, other)
            wrong = answer(kind, content, Path(name), options=options, reached=reached)
            runs += 1
            if reached.fresh() and wrong is None:
                corpus[family].append((kind, content))
            if wrong is not None and (place := tuple(wrong.splitlines()[-3:])) not in known:
                known.add(place)
                finds += 1
                keep(kind, content, wrong)
            if runs % 500 == 0:
                most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                inputs = sum(map(len, corpus.values()))
                pairs = len(reached.known)
                tell(f"{runs} runs, {inputs} inputs kept, {pairs} pairs, {finds} finds, {most} MB, {left:.0f} s left")
    return runs, finds


def keep(kind, content, wrong):
    """Write an input that broke something to where the tests find it."""
    FINDS.mkdir(exist_ok=True)
    path = FINDS / f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    tell(f"FIND {path.relative_to(ROOT)}: {wrong}")


def tell(text):
    print(text, flush=True)  # noqa: T201 - a script


def main():
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, 4 * MEMORY))
    sys.path.insert(0, str(ROOT))
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)  # noqa: S311
    tell(f"seed {seed}")
    runs, finds = fuzz(seconds, seed)
    tell(f"{runs} inputs, {finds} finds")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
