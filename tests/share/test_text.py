"""What all formats share: text from outside stays text, and what cannot be written is refused in one sentence."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import DELETE, LOG_ON, MOVE, SLOT, run_of

from explorer.engine.types import ExplorerError
from explorer.share import FORMATS, Told, export
from explorer.share.text import plain

HOSTILE = '*/ int evil; /* */*/ """ \\ \n\r\n# ??/\n \N{RIGHT-TO-LEFT OVERRIDE} %s <script> `x` ' + "'" * 3 + "\\"


@given(st.text() | st.text(alphabet="*/?\\ \n\"'"))
def test_text_from_outside_is_one_line_of_ascii_that_ends_no_comment(text):
    line = plain(text)

    assert line.isascii()
    assert line.isprintable()
    assert not any(pair in line for pair in ("*/", "/*", "??"))
    assert not line.endswith("\\")


def test_a_quotation_mark_becomes_its_plain_form():
    assert plain("KVM’s “own” slot — 5–6") == 'KVM\'s "own" slot - 5-6'


@pytest.mark.parametrize("name", ["c", "selftest"])
def test_no_title_and_no_note_gets_out_of_a_comment_of_c(name, tmp_path, gcc):
    told = Told(run_of("v6_18", SLOT, "track gfn=1", LOG_ON, DELETE), HOSTILE, (HOSTILE,) * 4)
    source = tmp_path / "a.c"
    source.write_text(export(told, name))

    bare = subprocess.run(
        [gcc, "-fpreprocessed", "-dD", "-E", "-P", source], capture_output=True, text=True, check=True
    )

    assert "*/ int evil" not in source.read_text()
    assert "evil" not in bare.stdout  # the preprocessor has taken every comment away


def test_no_title_and_no_note_gets_out_of_a_comment_of_python():
    told = Told(run_of("v6_18", SLOT, "track gfn=1", DELETE), HOSTILE, (HOSTILE,) * 3)

    lines = export(told, "python").splitlines()

    compile("\n".join(lines), "script", "exec")
    assert all(line.lstrip().startswith("#") for line in lines if "evil" in line)
    assert sum("evil" in line for line in lines) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_every_kind_of_run(name):
    lines = [
        *(SLOT, LOG_ON, "enable_cap cap=168 arg=3", "get_dirty_log slot=10", "clear_dirty_log slot=10 first=0 num=32"),
        *("create_guest_memfd fd=5 size=0x10000", "set_region2 slot=3 gpa=0 size=0x1000 hva=0x1000 flags=gmem gmem=5"),
        *("set_tss_addr addr=0xfffbd000", "set_identity_map_addr addr=0xfffbc000", "create_irqchip", "create_vcpu"),
        *("attach user=0", "track gfn=0xd0003", "guest_write gpa=0xd0003000", "begin " + MOVE, "advance"),
    ]

    text = export(Told(run_of("v6_18", *lines), "all of it"), name)

    assert "all of it" in text
    assert text.isascii()
    assert text.endswith("\n")


def test_what_cannot_be_written_is_one_sentence():
    long = run_of("v6_18", *[SLOT] * 20_001)

    with pytest.raises(ExplorerError, match=r"no format 'pdf'; there are strace, python, markdown, selftest, c$"):
        export(Told(long), "pdf")
    with pytest.raises(ExplorerError, match=r"^20,001 operations are too many for a C reproducer, which takes 20,000"):
        export(Told(long), "c")
    assert export(Told(long), "strace").count("KVM_SET_USER_MEMORY_REGION") == 20_001
