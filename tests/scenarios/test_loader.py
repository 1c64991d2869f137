"""A wrong scenario file is told with its name, the key, and what could stand there."""

import pytest

from explorer.scenarios import ScenarioError, load_scenario
from explorer.scenarios.loader import parse_scenario

GOOD = """
id = "x"
title = "A title"
teaches = "Something."
look = "Something."
source = "Somewhere."
profile = "v6_12"
{top}
[[step]]
say = "A slot."
do = "{do}"
{step}
"""
SLOT = "set_region slot=1 gpa=0x1000 size=0x1000 hva=0x7f0000000000"


def parsed(text=None, *, top="", step="", do=SLOT):
    return parse_scenario(GOOD.format(top=top, step=step, do=do) if text is None else text, where="my.toml")


def complaint(text=None, **parts):
    with pytest.raises(ScenarioError) as error:
        parsed(text, **parts)
    message = str(error.value)
    assert message.startswith("my.toml: ")
    return message.removeprefix("my.toml: ")


def test_a_good_file_is_read():
    scenario = parsed(top='next = "track gfn=3"', step='expect = { errno = "EINVAL", brief = "as0 gen=0:" }')

    assert (scenario.id, scenario.profile.name, len(scenario.steps)) == ("x", "v6_12", 1)
    assert (scenario.steps[0].errno, scenario.steps[0].brief) == ("EINVAL", "as0 gen=0:")
    assert scenario.next.gfn == 3


@pytest.mark.parametrize("key", ["id", "title", "teaches", "look", "source", "profile"])
def test_a_missing_key_is_named(key):
    lines = [line for line in GOOD.format(top="", step="", do=SLOT).splitlines() if not line.startswith(key)]

    told = complaint("\n".join(lines))

    assert told.startswith(f"{key} missing")
    assert "id, title, teaches, look, source, profile, step" in told


def test_a_file_without_a_step_is_told():
    assert complaint('id="x"\ntitle="t"\nteaches="t"\nlook="l"\nsource="s"\nprofile="v6_1"').startswith("step missing")


def test_what_is_no_toml_is_told_with_its_line():
    assert "not TOML" in (told := complaint("id = ?"))
    assert "line 1" in told


CASES = [
    # what is wrong, what the message must hold: the key, and what is expected
    ({"top": "colour = 3"}, ["unknown key colour", "title"]),
    ({"top": "next = 3"}, ["next is 3", "expected a text"]),
    ({"top": 'next = "jump"'}, ["next", "'jump' is no command", "set_region"]),
    ({"top": 'at = "13"'}, ["at is '13'", "'13.6'"]),
    ({"top": f'at = "1.{"9" * 5000}"'}, ["at is '1.999", "'13.6'"]),
    ({"top": f"beat = {'9' * 5000}"}, ["not TOML", "digits"]),
    ({"top": f"beat = {'[' * 5000}"}, ["nested too deeply"]),
    ({"top": "like = [1]"}, ["like", "[1]", "first-look"]),
    ({"top": f'layout = "{"x" * 5000}"'}, ["layout", "'xxx", "q72-pc-3584M"]),
    ({"top": 'layout = "\\u0000"'}, ["layout", "q72-pc-3584M"]),
    ({"top": f'owners = {{ {"9" * 5000} = "RAM" }}'}, ["owners has 999", "a slot id and a text"]),
    ({"step": "expect = { errno = [1] }"}, ["errno is [1]", "EINVAL"]),
    ({"step": "expect = { errno = { a = 1 } }"}, ["errno is {'a': 1}", "EINVAL"]),
    ({"top": 'beat = "one"'}, ["beat is 'one'", "a number"]),
    ({"top": 'like = "nowhere"'}, ["like", "'nowhere'", "first-look"]),
    ({"top": 'like = "inside-the-move"'}, ["like", "'inside-the-move'", "another scenario"]),
    ({"top": 'layout = "nowhere"'}, ["layout", "'nowhere'", "q72-pc-3584M"]),
    ({"top": 'layout = "../10-first-look"'}, ["layout", "q72-pc-3584M"]),
    ({"top": "config = { color = 1 }"}, ["config has color", "host_phys_bits", "tdp"]),
    ({"top": 'config = { tdp = "no" }'}, ["config: tdp is 'no'", "expected bool"]),
    ({"top": "config = { host_phys_bits = 3 }"}, ["config: host_phys_bits is 3", "32 to 52"]),
    ({"top": 'config = { host_phys_bits = "46" }'}, ["config: host_phys_bits is '46'", "expected int"]),
    ({"top": 'config = { processor = "arm" }'}, ["config: processor is 'arm'", "amd, intel"]),
    ({"top": 'owners = { ten = "RAM" }'}, ["owners has ten", "a slot id"]),
    ({"top": "owners = { 10 = 3 }"}, ["owners has 10 = 3", "a text"]),
    ({"step": "expect = { errno = 22 }"}, ["step 1", "errno is 22", "EINVAL"]),
    ({"step": 'expect = { errno = "EWRONG" }'}, ["step 1", "errno is 'EWRONG'", "EEXIST"]),
    ({"step": "expect = { brief = 1 }"}, ["step 1", "brief is 1", "a text"]),
    ({"step": "expect = { error = 1 }"}, ["step 1", "expect has error", "errno and brief"]),
    ({"step": "repeat = 0"}, ["step 1", "repeat is 0", "1 to"]),
    ({"step": 'repeat = "2"'}, ["step 1", "repeat is '2'", "a number"]),
    ({"step": "repeat = 2\nstride = { slot = 1.5 }"}, ["step 1", "stride: slot = 1.5", "whole number"]),
    ({"step": "repeat = 2\nstride = { wing = 1 }"}, ["step 1", "stride: wing", "wing="]),
    ({"step": 'sya = "x"'}, ["step 1", "unknown key sya", "say, do"]),
    ({"do": "set_region slot=1"}, ["step 1", "do", "needs gpa="]),
    ({"do": "set_region slot=one gpa=0 size=0"}, ["step 1", "slot=one", "a number"]),
]


@pytest.mark.parametrize(("parts", "wanted"), CASES, ids=[next(iter(parts.values()))[:30] for parts, _ in CASES])
def test_a_value_that_cannot_be_is_told_with_what_could(parts, wanted):
    told = complaint(**parts)

    assert [words for words in wanted if words not in told] == []


def test_an_unknown_kernel_is_told_with_those_there_are():
    told = complaint(GOOD.format(top="", step="", do=SLOT).replace("v6_12", "v9"))

    assert "profile" in told
    assert "'v9'" in told
    assert "pre_edd4" in told


def test_a_step_that_is_no_table_is_told():
    text = 'id="x"\ntitle="t"\nteaches="t"\nlook="l"\nsource="s"\nprofile="v6_1"\nstep = ["say"]'

    assert complaint(text) == "step 1: expected a table with say and do"


def test_a_story_there_is_not_is_told_with_those_there_are():
    with pytest.raises(ScenarioError, match="no scenario is called 'nothing'; there are first-look"):
        load_scenario("nothing")
