"""Inputs that once broke the reading of files: the command line answers each of them."""

import pytest
from fuzz import FINDS, OPTIONS, answer

CASES = [(path.name, options) for path in sorted(FINDS.glob("*")) for options in OPTIONS[path.name.partition("-")[0]]]


def test_there_are_finds():
    assert CASES


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value[-1:])
)
def test_a_find_is_answered(name, options, tmp_path):
    wrong = answer(name.partition("-")[0], (FINDS / name).read_bytes(), tmp_path, options=options)

    assert wrong is None, wrong
