"""``explorer replay``: preview, owners, the kernel that fits, who would break."""

import json
from pathlib import Path

import pytest

from explorer.cli import main

TRACES = Path(__file__).parents[2] / "assets" / "traces"
H = 0x7F00_0000_0000
CREATE_VM = "ioctl(3, KVM_CREATE_VM, 0) = 5"


def region(slot=0, gpa=0, *, flags=0, errno=None):
    result = "0" if errno is None else f"-1 {errno} (Some text)"
    fields = f"slot={slot}, flags={flags}, guest_phys_addr={gpa}, memory_size=1048576, userspace_addr={H:#x}"
    return f"ioctl(5, KVM_SET_USER_MEMORY_REGION, {{{fields}}}) = {result}"


@pytest.fixture
def log(tmp_path):
    def write(*lines):
        path = tmp_path / "vmm.log"
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return str(path)

    return write


def test_the_preview_has_a_row_for_each_line_and_the_counts_below(log, capsys):
    status = main(["replay", "--preview", log(CREATE_VM, region(), region(1, 0x1000), "\x1b[31mno line")])
    out = capsys.readouterr().out.splitlines()

    assert status == 1
    assert out[2].split(maxsplit=4) == ["2", "1", "operation", "0", "CREATE slot 0"]
    assert "?operation 1" in out[3]
    assert out[3].endswith("CREATE slot 1: the log says success, the model EEXIST (overlap)")
    assert out[4].endswith("skipped        no line of strace")
    assert "strace: lines by what they became: 1 operation, 1 doubtful, 1 used, 1 skipped" in out


def test_the_preview_as_json_has_an_object_for_each_line_and_the_counts_last(log, capsys):
    main(["replay", "--preview", "--json", log(CREATE_VM, region())])
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())

    assert rows[1] == {"line": 2, "lines": 1, "became": "operation", "operation": 0, "why": "CREATE slot 0"}
    assert last["lines"] == {"operation": 1, "doubtful": 0, "used": 1, "skipped": 0}


def test_a_tree_names_the_slots_at_the_end_of_a_log(capsys):
    folder = TRACES / "q72-pc-firmware"

    status = main(["replay", "--tree", str(folder / "mtree-end.txt.gz"), str(folder / "strace.log.gz")])
    out = capsys.readouterr().out

    assert status == 0
    assert "slot 0:1      0xfffc0000..0x100000000    pc.bios (rom, prio 0)" in out
    assert "9 named, 0 mismatches" in out


def test_a_tree_of_another_moment_lists_what_does_not_fit(capsys):
    folder = TRACES / "q72-pc-firmware"

    status = main(["replay", "--json", "--tree", str(folder / "mtree-start.txt.gz"), str(folder / "strace.log.gz")])
    found = json.loads(capsys.readouterr().out)

    assert status == 1
    assert "line 16: pc.rom at 0xc0000..0xe0000: there lies slot 2 at 0xc0000..0xca000" in found["mismatches"]


def test_the_profiles_are_listed_with_what_they_explain(log, capsys):
    status = main(["replay", "--profiles", log(CREATE_VM, region(600, errno="EINVAL"), region(1, 0x800000))])
    out = capsys.readouterr().out

    assert status == 0
    assert "best fit: v5_10, pre_edd4 explain the log equally well" in out
    assert "line 2: CREATE of slot 600: recorded EINVAL, modelled success" in out


def test_a_log_that_no_kernel_explains_gives_status_1_and_its_first_difference(log, capsys):
    status = main(["replay", "--profiles", log(CREATE_VM, region(), region(1, 0x800000, errno="EIO"), region(2))])
    out = capsys.readouterr().out

    assert status == 1
    assert "1 results differ on v7_3, the first of them:\n  line 4, operation 1: CREATE of slot 2" in out


def test_a_limit_is_said(log, capsys):
    main(["replay", "--profiles", "--limit", "1", log(CREATE_VM, region(), region(1, 0x800000))])

    assert capsys.readouterr().out.startswith("the first 1 operations, compared with 10 kernels")


def test_the_abi_lens_answers_whether_the_vmm_moves(log, capsys):
    status = main(["replay", "--abi", "v6_1", "v6_6", log(CREATE_VM, region(), region(0, 0x800000))])
    out = capsys.readouterr().out

    assert status == 1
    assert out.startswith("Does this VMM ever MOVE? 1 times in 2 operations.\n  lines 3\n")
    assert "1  results change: v6_6 when an external tracker attaches" in out
    assert "line 3: MOVE of slot 0: success, then EINVAL (external_user)" in out


def test_the_abi_lens_as_json(log, capsys):
    status = main(["replay", "--abi", "v6_1", "v6_6", "--json", log(CREATE_VM, region())])
    found = json.loads(capsys.readouterr().out)

    assert (status, found["moves"]) == (0, {"accepted": 0, "refused": 0, "lines": []})
    assert [comparison["changes"] for comparison in found["comparisons"]] == [[], [], [], []]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--abi", "v6_1", "v0"], "no kernel profile is called 'v0'"),
        (["--tree", "none.txt"], "none.txt: No such file"),
        (["--tree", __file__], "no flat view of the address space"),
    ],
)
def test_wrong_input_gives_status_2_and_one_sentence(log, capsys, arguments, message):
    status = main(["replay", *arguments, log(CREATE_VM, region())])
    captured = capsys.readouterr()

    assert (status, captured.out) == (2, "")
    assert captured.err.startswith("explorer: ")
    assert message in captured.err


def test_views_exclude_each_other_and_a_limit_is_a_number(log, capsys):
    for wrong in (["--preview", "--profiles"], ["--limit", "-1"], ["--limit", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(["replay", *wrong, log(region())])
    assert "Traceback" not in capsys.readouterr().err
