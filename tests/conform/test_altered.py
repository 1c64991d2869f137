"""A recording with one value changed is reported as just that mismatch; what is no recording says why."""

import gzip
import json

import pytest
from pack_recordings import RECORDINGS, compress

from explorer.cli import main
from explorer.conform import conform

SOURCE = RECORDINGS / "6.12/npt1/tracker.jsonl.gz"


def scenarios(path=SOURCE):
    return {data["name"]: data for data in map(json.loads, gzip.decompress(path.read_bytes()).splitlines())}


def write(path, *datas):
    text = "".join(json.dumps(data) + "\n" for data in datas).encode()
    path.write_bytes(compress(text) if path.suffix == ".gz" else text)
    return path


ALTERED = [
    # corpus, scenario, operation, the path to the value, another value, the field it is reported under, the check
    ("tracker", "attach_track_move", 8, ("errno",), "EEXIST", "errno", "external_user"),
    ("tracker", "attach_track_move", 8, ("ret",), 0, "ret", "external_user"),
    ("tracker", "attach_track_move", 8, ("errno",), None, "errno", "external_user"),
    ("tracker", "attach_track_move", 0, ("errno",), "EINVAL", "errno", None),
    ("tracker", "attach_track_move", 11, ("data", "count"), 3, "count", None),
    ("tracker", "attach_track_move", 12, ("data", "found"), True, "found", None),
    ("tracker", "attach_track_move", 13, ("data", "generation", 0), 4, "generation", None),
    ("tracker", "attach_track_move", 13, ("data", "node_idx", 0), 0, "node_idx", None),
    ("tracker", "attach_track_move", 13, ("data", "nr_memslot_pages"), 17, "nr_memslot_pages", None),
    ("tracker", "attach_track_move", 13, ("data", "indirect_shadow_pages"), 1, "indirect_shadow_pages", None),
    ("tracker", "attach_track_move", 13, ("data", "slots", 0, 2), 1, "slots", None),
    ("tracker", "attach_track_move", 7, ("data", "gfn_write_track", "sum"), 4, "gfn_write_track", None),
    ("tracker", "attach_track_move", 7, ("data", "lpage_info", 0, "values", 0), 5, "lpage_info", None),
    ("tracker", "attach_track_move", 7, ("data", "rmap", 2), True, "rmap", None),
    ("tracker", "attach_track_move", 7, ("data", "dirty_bitmap"), True, "dirty_bitmap", None),
    ("tracker", "delete_and_recreate", -1, ("slots",), [], "slots", None),
    ("handwritten", "caps", 2, ("value",), 509, "value", None),
    ("handwritten", "gmem_default_vm", 0, ("errno",), "EINVAL", "errno", None),
    ("handwritten", "gmem_default_vm", 6, ("errno",), "EEXIST", "errno", "flags"),
    ("handwritten", "gmem_sw_protected_vm", 0, ("errno",), None, "errno", None),
    ("handwritten", "guest_sees_moves", 5, ("value",), 18, "value", None),
    ("handwritten", "move_onto_other", -1, ("generation", 0), 1, "generation", None),
]


@pytest.mark.parametrize("case", ALTERED, ids=lambda case: f"{case[1]}-{case[5]}-{case[4]}")
def test_one_altered_value_is_reported_as_that_mismatch(tmp_path, capsys, case):
    corpus, name, index, keys, value, field, guard = case
    data = scenarios(SOURCE.parent / f"{corpus}.jsonl.gz")[name]
    holder = data["final_slots"] if index < 0 else data["ops"][index]
    at = len(data["ops"]) if index < 0 else index
    place = holder
    for key in keys[:-1]:
        place = place[key]
    assert place[keys[-1]] != value
    place[keys[-1]] = value
    path = write(tmp_path / "altered.jsonl.gz", data)

    status = main(["conform", "--json", str(path)])

    report = json.loads(capsys.readouterr().out)
    assert (status, report["mismatched"], len(report["mismatches"])) == (1, 1, 1)
    (mismatch,) = report["mismatches"]
    expected, got = mismatch.pop("expected"), mismatch.pop("got")
    assert mismatch == {
        "file": str(path),
        "scenario": name,
        "kernel": "6.12",
        "index": at,
        "op": "final_slots" if index < 0 else data["ops"][at]["op"],
        "field": field,
        "guard": guard,
    }
    assert expected != got


def test_altered_dirty_pages_are_noticed(tmp_path):
    """On 6.12 no guest wrote in this scenario, so its pages are known: initially all are dirty."""
    data = scenarios(SOURCE.parent / "handwritten.jsonl.gz")["dirty_init_set_then_move"]
    (at, op) = next((i, op) for i, op in enumerate(data["ops"]) if op.get("dirty_count"))
    op["dirty_count"] += 1

    report = conform([write(tmp_path / "dirty.jsonl", data)])

    (mismatch,) = report.mismatches
    assert (mismatch.index, mismatch.field) == (at, "dirty_count")
    assert mismatch.expected == mismatch.got + 1


def test_an_altered_callback_is_noticed(tmp_path):
    data = scenarios()["delete_and_recreate"]
    (at, op) = next((i, op) for i, op in enumerate(data["ops"]) if op["op"] == "t_events" and op["data"])
    op["data"][0]["npages"] += 1

    (mismatch,) = conform([write(tmp_path / "callback.jsonl", data)]).mismatches

    assert (mismatch.index, mismatch.field) == (at, "data")


def test_the_text_report_names_scenario_operation_field_and_both_values(tmp_path, capsys):
    data = scenarios()["attach_track_move"]
    data["ops"][8]["errno"] = "EEXIST"
    path = write(tmp_path / "altered.jsonl", data)

    assert main(["conform", str(path)]) == 1

    out = capsys.readouterr().out
    assert f"{path}: attach_track_move[8] set_region.errno: recorded 'EEXIST', got 'EINVAL', check external_user" in out
    assert "mismatched         1" in out


def test_a_long_list_of_mismatches_is_cut_and_says_so(capsys):
    assert main(["conform", "--profile", "v6_1", str(SOURCE)]) == 1

    out = capsys.readouterr().out
    assert out.count(": recorded ") == 20
    assert "more; --json lists all" in out


def test_json_has_these_keys_and_only_these(capsys):
    without_module = RECORDINGS / "host-6.18-pvm/handwritten.jsonl.gz"
    assert main(["conform", "--json", str(SOURCE), str(without_module)]) == 0

    report = json.loads(capsys.readouterr().out)
    assert {key: type(value) for key, value in report.items()} == {
        "scenarios": int,
        "operations": int,
        "matched": int,
        "mismatched": int,
        "unmodelled": int,
        "mismatches": list,
        "unmodelled_by": list,
    }
    assert report["matched"] + report["mismatched"] + report["unmodelled"] == report["operations"]
    assert {frozenset(row) for row in report["unmodelled_by"]} == {frozenset({"kernel", "what", "count"})}


# -- what is no recording --------------------------------------------------------------------------

GOOD = {"name": "n", "kernel": "6.12", "config": {"run": "qemu-tcg-svm"}, "ops": []}
NOT_RECORDINGS = {
    "plain text": (b"hello\n", "not a recording"),
    "half a line": (json.dumps(GOOD).encode()[:-9], "not a recording"),
    "a list": (b"[1, 2]\n", "object with name, config and ops"),
    "no operations": (b'{"name": "n", "config": {}}\n', "object with name, config and ops"),
    "another kernel": (json.dumps(GOOD | {"kernel": "2.6.20"}).encode(), "'2.6.20' has no profile.*--profile"),
    "no kernel": (json.dumps({k: v for k, v in GOOD.items() if k != "kernel"}).encode(), "has no profile"),
    "no text": (b"\xff\xfe\x00", "not a recording"),
    "an operation without its arguments": (json.dumps(GOOD | {"ops": [{"op": "set_region"}]}).encode(), "file.jsonl:2"),
    "an operation without a name": (json.dumps(GOOD | {"ops": [{"slot": 1}]}).encode(), "file.jsonl:2"),
    "operations that are none": (json.dumps(GOOD | {"ops": ["set_region"]}).encode(), "file.jsonl:2"),
    "a configuration that is none": (json.dumps(GOOD | {"config": []}).encode(), "file.jsonl:2"),
}


@pytest.mark.parametrize(("content", "complaint"), NOT_RECORDINGS.values(), ids=NOT_RECORDINGS)
def test_what_is_no_recording_exits_with_2_and_says_where(tmp_path, capsys, content, complaint):
    path = tmp_path / "file.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + content)

    assert main(["conform", str(path)]) == 2

    assert capsys.readouterr().err.startswith(f"explorer: {path}:")
    with pytest.raises(Exception, match=complaint) as raised:
        conform([path])
    assert type(raised.value).__name__ == "RecordingError"


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "not gzip"])
def test_a_damaged_gzip_file_exits_with_2(tmp_path, capsys, damage):
    whole = bytearray(SOURCE.read_bytes())
    path = tmp_path / "file.jsonl.gz"
    if damage == "corrupt":
        whole[len(whole) // 2] ^= 0xFF
    path.write_bytes({"truncated": whole[: len(whole) // 2], "corrupt": whole, "not gzip": b"{}\n"}[damage])

    assert main(["conform", str(path)]) == 2

    assert "not a recording" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "complaint"), [(lambda path: path / "absent.jsonl", "no such file"), (lambda path: path, "no .jsonl")]
)
def test_a_path_without_recordings_exits_with_2(tmp_path, capsys, make, complaint):
    assert main(["conform", str(make(tmp_path))]) == 2

    assert complaint in capsys.readouterr().err


def test_an_unknown_profile_exits_with_2_and_names_the_known(capsys):
    assert main(["conform", "--profile", "v9", str(SOURCE)]) == 2

    assert "v6_12" in capsys.readouterr().err
