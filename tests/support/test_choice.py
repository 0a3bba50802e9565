"""The fastest exact way is chosen, once a machine; plain PyTorch where in doubt."""

import json
import os

import pytest
import torch

from support.device import choice
from support.device.choice import fastest, recall, remember

EXACT = [torch.tensor([1.0, -2.0], dtype=torch.float64)]


@pytest.fixture(autouse=True)
def free_choice(monkeypatch, tmp_path):
    """Nothing is known; choices are kept in a temporary file."""
    monkeypatch.delenv("LLMS_PLAIN", raising=False)
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "models" / "choices.json")


@pytest.fixture
def clock(monkeypatch):
    """make(seconds, error): a way that takes so long by a planted clock."""
    now = [0.0]

    def make(seconds, error=0.0):
        seconds = iter(seconds if isinstance(seconds, list) else [seconds] * 99)

        def way():
            now[0] += next(seconds)
            return [(EXACT[0] * (1 + error)).float()]

        return way

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    return make


@pytest.mark.parametrize(
    ("plain", "other", "expected"),
    [(10, 9, "other"), (10, 9.6, "plain"), (10, 10, "plain"), (10, 20, "plain")],
)
def test_the_faster_way_is_chosen_and_plain_pytorch_wins_ties(
    clock, plain, other, expected
):
    assert fastest("work", {"plain": clock(plain), "other": clock(other)}) == expected


def test_it_has_to_be_as_much_faster_as_is_asked(clock):
    for gain, expected in ((1.2, "other"), (1.3, "plain")):
        ways = {"plain": clock(10), "other": clock(8)}
        assert fastest(f"work {gain}", ways, least_gain=gain) == expected


def test_the_fastest_of_several(clock):
    ways = {"plain": clock(10), "a": clock(7), "b": clock(5), "c": clock(6)}
    assert fastest("work", ways) == "b"


@pytest.mark.parametrize("error", [1e-4, 2e-3, float("nan")])
def test_a_faster_way_that_is_not_exact_is_left_alone(clock, error):
    ways = {"plain": clock(10, 1e-7), "other": clock(1, error), "third": clock(5)}
    assert fastest("work", ways, lambda: EXACT) == "third"
    remember("work", "other")  # for example by a process in which it was exact
    ways = {"plain": clock(10, 1e-7), "other": clock(1, error)}
    assert fastest("work", ways, lambda: EXACT) == "plain"


def test_a_disturbance_does_not_decide(clock):
    """They take turns, the first run does not count, and the fewest seconds do."""
    ways = {
        "plain": clock([5, 12, 12, 10, 99, 12]),
        "other": clock([99, 8, 99, 99, 99, 99]),
    }
    assert fastest("work", ways) == "other"


def counting(ways):
    """The ways, and a list to which each adds its name when it is called."""
    called = []
    return {n: lambda n=n: called.append(n) for n in ways}, called


def test_what_is_known_is_not_timed_again():
    ways, called = counting(["plain", "other"])
    first = fastest("work", ways)
    num_called = len(called)
    assert fastest("work", ways) == first == recall("work")
    assert len(called) == num_called > 0
    fastest("other work", ways)
    assert len(called) > num_called and recall("work") == first


OTHERS = {
    "PyTorch": ("torch.__version__", "1.0"),
    "machine": ("platform.node", lambda: "another"),
    "system": ("platform.platform", lambda: "another"),
    "threads": ("torch.get_num_threads", lambda: 64),
    "processor": ("torch.cpu.get_capabilities", lambda: {"cpu_name": "another"}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_choice_made_elsewhere_is_made_anew(monkeypatch, what):
    remember("work", "other")
    assert recall("work") == "other"
    name, value = OTHERS[what]
    monkeypatch.setattr(f"support.device.choice.{name}", value)
    assert recall("work") is None
    remember("more work", "plain")  # the file is this machine's now
    assert recall("work") is None and recall("more work") == "plain"


DAMAGED = [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"3", b"null", b'{"machine": []}']
DAMAGED += [b"[" * 10**5, b'{"a":' * 10**5]


@pytest.mark.timeout(30)  # a pipe would be waited for
def test_choices_are_not_read_from_a_pipe():
    choice.CHOICES.parent.mkdir()
    os.mkfifo(choice.CHOICES)
    assert recall("work") is None
    remember("work", "other")
    assert choice.CHOICES.is_file() and recall("work") == "other"


@pytest.mark.parametrize("bad", ["null", "3", "[" * 900 + "]" * 900, '{"a": [2]}'])
def test_a_damaged_choice_is_made_anew(bad):
    remember("work", "other")
    remember("more work", "plain")
    content = choice.CHOICES.read_text()
    choice.CHOICES.write_text(content.replace('"other"', bad))
    assert (recall("work"), recall("more work")) == (None, "plain")
    remember("work", "other")
    assert json.loads(choice.CHOICES.read_text()) == json.loads(content)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_choices_is_written_anew(content):
    remember("work", "other")
    whole = choice.CHOICES.read_bytes()
    choice.CHOICES.write_bytes(content)
    assert recall("work") is None
    remember("work", "other")
    assert choice.CHOICES.read_bytes() == whole


@pytest.mark.parametrize("known", ["abacus", 3, None, ["plain"]])
def test_a_way_that_does_not_exist_any_more_is_not_chosen(known):
    remember("work", "other")
    kept = json.loads(choice.CHOICES.read_text(encoding="utf-8"))
    kept["choices"]["work"] = known
    choice.CHOICES.write_text(json.dumps(kept), encoding="utf-8")
    ways, called = counting(["plain", "other"])
    assert fastest("work", ways) in ways and called


def test_a_choice_that_cannot_be_kept_is_made_each_time():
    choice.CHOICES.parent.write_text("a file stands where the folder should be")
    ways, called = counting(["plain", "other"])
    fastest("work", ways)
    num_called = len(called)
    fastest("work", ways)
    assert len(called) == 2 * num_called


@pytest.mark.parametrize(
    ("value", "is_plain"), [("1", True), ("yes", True), ("0", False)]
)
def test_plain_pytorch_everywhere(clock, monkeypatch, value, is_plain):
    remember("work", "other")
    monkeypatch.setenv("LLMS_PLAIN", value)
    ways = {"plain": clock(10), "other": clock(1)}
    assert fastest("work", ways) == ("plain" if is_plain else "other")


def test_a_single_way_is_not_timed():
    ways, called = counting(["plain"])
    assert fastest("work", ways) == "plain" and not called
