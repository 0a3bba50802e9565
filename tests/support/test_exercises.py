"""Each checker accepts right answers of all kinds and rejects plausible wrong ones."""

import importlib
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest
import torch

from support.exercises.checking import (
    EXERCISES,
    NotYet,
    check,
    exercise,
    require_kind,
    verdict,
)
from tests.notebooks.running import (
    ROOT,
    chapter_notebooks,
    checked,
    code_cells,
    read_course,
    solutions,
)

RIGHT, WRONG = {}, {}  # number -> answers
for path in sorted(ROOT.glob("ch[0-9][0-9]")):
    importlib.import_module(f"support.exercises.{path.name}")
    answers = importlib.import_module(f"tests.answers.{path.name}")
    RIGHT |= answers.RIGHT
    WRONG |= answers.WRONG


@pytest.fixture(autouse=True)
def random_numbers_stay():
    """Checking an answer leaves the reader's random numbers as they were."""
    state = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), state)


@cache
def numbers(path):
    """Numbers of the exercises that a notebook checks, in order."""
    return checked(code_cells(read_course(path)))


def test_every_exercise_is_set_once_and_answered_once():
    posed = [number for path in chapter_notebooks() for number in numbers(path)]
    solved = [number for path in solutions() for number in numbers(path)]
    assert sorted(posed) == sorted(EXERCISES)
    assert solved == [number for number in posed if number[-1].isdigit()]


def test_an_exercise_belongs_to_its_notebook():
    """Numbers and letters of a section go on from one of its notebooks to the next."""
    posed = Counter()
    for path in chapter_notebooks():
        section = path.name.partition("_")[0]
        for number in numbers(path):
            first = "1" if number[-1].isdigit() else "a"
            expected = chr(ord(first) + posed[section, first])
            posed[section, first] += 1
            assert number == f"{section}.{expected}"


def test_nothing_is_not_attempted():
    said = {number: verdict(number, None) for number in EXERCISES}
    assert said == {number: f"{number}: not attempted" for number in EXERCISES}


STUBS = """
def plain(x): ...
def with_docstring(x, y=3):
    '''What it does.'''
    ...
def with_pass(x):
    pass
class Module(nn.Module):
    '''What it is.'''
    def __init__(self, width):
        super().__init__()
        ...
    def forward(self, x):
        '''What it does.'''
        ...
class WithDocstring(nn.Module):
    def __init__(self):
        '''What it does.'''
        super().__init__()
        ...  # your lines
    def forward(self, x): ...
"""
BEGUN = """
def returns_none(x):
    x + 1
def returns_constant(w, x, y):
    '''What it does.'''
    return 30.0
class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
    def forward(self, x):
        ...
"""


def defined(source):
    """The functions and classes that a source defines, by their names."""
    found = {"nn": torch.nn}
    exec(source, found)
    return {n: v for n, v in found.items() if n not in ("nn", "__builtins__")}


@pytest.mark.parametrize("name", defined(STUBS))
def test_an_empty_function_or_class_is_not_attempted(name):
    for number in ("2.0.a", "2.0.f"):
        assert verdict(number, defined(STUBS)[name]) == f"{number}: not attempted"


def test_what_was_begun_is_not_right_yet():
    begun = defined(BEGUN)
    assert "is a `return` missing?" in verdict("2.0.a", begun["returns_none"])
    assert "it is 30, not" in verdict("2.0.d", begun["returns_constant"])
    said = verdict("2.0.f", begun["Module"])
    assert said == "2.0.f: not yet, because nothing is written yet in forward"


@pytest.mark.parametrize("label", ["", "write", "write, 5 minutes", "w, 5 minutes, •"])
def test_a_checker_says_what_kind_of_exercise_it_is(label):
    with pytest.raises(ValueError, match="is not like 'write, 5 minutes, ••'"):
        exercise("9.9.9", label, "a hint")


@pytest.mark.parametrize("number", sorted(EXERCISES))
def test_right_answers_are_accepted_however_they_are_written(number):
    assert len(RIGHT[number]) >= 2
    for answer in RIGHT[number]:
        assert verdict(number, answer) == f"{number}: right"


@pytest.mark.parametrize("number", sorted(EXERCISES))
def test_wrong_answers_are_rejected_with_a_reason(number):
    assert len(WRONG[number]) >= 3
    for answer in [*WRONG[number], object()]:
        said = verdict(number, answer)
        assert said.startswith(f"{number}: not yet, because "), said
        assert len(said.partition("because ")[2]) > 10


def test_each_chapter_has_checkers():
    assert {number[0] for number in EXERCISES} == set("234567")


def test_check_finds_the_checkers_of_a_chapter_by_itself():
    code = "from support.exercises import check; check('6.2.1')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "6.2.1: not attempted\n", done.stderr


def test_an_unknown_number_is_named():
    with pytest.raises(ValueError, match="no exercise '9.9.9'"):
        check("9.9.9", 1)


def test_a_hint_comes_on_asking(capsys):
    number = min(EXERCISES)
    check(number)
    check(number, hint=True)
    hint = EXERCISES[number][2]
    not_attempted = f"{number}: not attempted\n"
    assert capsys.readouterr().out == f"{not_attempted}{not_attempted}Hint: {hint}\n"


def test_a_class_that_a_notebook_defined_counts_like_the_modules():
    """In a notebook the reader hands in the notebook's class, not the module's."""
    namesake = type("MultiHeadAttention", (), {})
    require_kind(namesake(), "MultiHeadAttention")
    with pytest.raises(NotYet, match="class MultiHeadAttention, not int"):
        require_kind(1, "MultiHeadAttention")
    with pytest.raises(NotYet, match="not a class: call it"):
        require_kind(namesake, "MultiHeadAttention")
