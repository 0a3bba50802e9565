"""The judge, against a stand-in on this machine that speaks Ollama's protocol."""

import io
import json
import math
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ch07.judge import (
    MAX_REPLY_BYTES,
    NoJudgeError,
    OllamaError,
    check_if_running,
    generate_model_scores,
    judge_prompt,
    query_model,
    read_score,
)
from tests.ollama import message

ENTRY = {"instruction": "Make it plural.", "input": "goose", "output": "geese"}


def test_a_question_and_its_answer(ollama):
    ollama.replies += [message("Llamas eat grass.")]
    found = query_model("What do llamas eat?", "llama3", ollama.url)
    assert found == "Llamas eat grass."
    (asked,) = ollama.asked
    assert asked["model"] == "llama3"
    assert asked["messages"] == [{"role": "user", "content": "What do llamas eat?"}]
    assert asked["stream"] is False
    assert asked["options"] == {"seed": 123, "temperature": 0, "num_ctx": 2048}
    assert "format" not in asked


def test_the_model_and_the_place_are_ollamas_own_if_no_other_is_named(monkeypatch):
    asked = {}

    def post(url, data, timeout):
        asked.update(data, url=url, timeout=timeout)
        return 200, b'{"message": {"content": "Yes."}}'

    monkeypatch.setattr("ch07.judge.post", post)
    assert query_model("Hello?") == "Yes."
    assert asked["url"] == "http://localhost:11434/api/chat"
    assert (asked["model"], asked["timeout"]) == ("llama3", 300)


HEAD = b"HTTP/1.0 200 OK\r\n\r\n"
UNWANTED = [
    ((404, {"error": "model 'llama3' not found"}), "not found.*ollama pull llama3"),
    ((500, {"error": "out of memory"}), "says {'error': 'out of memory'}"),
    ((500, {"message": {"content": "85"}}), "says {'message'"),
    ((500, b"<html>oops</html>"), "does not speak Ollama's protocol"),
    ((302, b""), "does not speak Ollama's protocol"),
    ((200, b"\xff\xfe\xfd"), "does not speak Ollama's protocol"),
    ((200, b"[" * 100_000), "does not speak Ollama's protocol"),
    ((200, b"9" * 5000), "does not speak Ollama's protocol"),
    ((200, {"done": True}), "says {'done': True}"),
    ((200, [1, 2]), r"says \[1, 2\]"),
    ((200, None), "says None"),
    ((200, "text"), "says text"),
    ((200, {"message": "text"}), "says {'message': 'text'}"),
    ((200, {"message": None}), "says {'message': None}"),
    ((200, {"message": {}}), "says {'message': {}}"),
    ((200, {"message": {"content": None}}), "says {'message': {'content': None}}"),
    ((200, {"message": {"content": ["85"]}}), "says"),
    ((200, {"error": "\x1b[2J\x07\u202e" + "a" * 5000}), "says"),
    (("drip", b""), "closed the connection before its answer was complete"),
    (("drip", b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{"), "not speak"),
    (("silent", b""), "gave no answer within 0.2 seconds"),
    (("drip", HEAD + b"a" * 3000), "gave no answer within 0.2 seconds"),
    (("drip", b"HTTP/1.0 200 OK\r\nX: " + b"a" * 3000), "no answer within 0.2 s"),
    (("endless", HEAD + b"a" * 10_000), f"more than {MAX_REPLY_BYTES:,} bytes"),
    (("endless", b"HTTP/1.0 200 OK\r\n" + b"X: a\r\n" * 9), "closed the connection"),
]


@pytest.mark.parametrize(("reply", "reason"), UNWANTED)
def test_what_goes_wrong_is_one_sentence(ollama, reply, reason):
    ollama.replies += [reply]
    timeout = 0.2 if "0.2" in reason else 20
    start = time.monotonic()
    with pytest.raises(OllamaError, match=reason) as caught:
        query_model("Hello?", "llama3", ollama.url, timeout=timeout)
    assert time.monotonic() - start < 5  # drips would take 15 s
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    if reply[0] == "endless":
        assert ollama.cut.wait(5)  # the connection is not kept


def test_no_redirect_is_followed(ollama, monkeypatch):
    place = f"Location: {ollama.url}\r\n\r\n".encode()
    ollama.replies += [("drip", b"HTTP/1.0 307 Elsewhere\r\n" + place)]
    ollama.replies += [message("What you should not see.")]
    with pytest.raises(OllamaError, match="status 307"):
        query_model("Hello?", "llama3", ollama.url)


def test_an_answer_can_be_printed(ollama):
    ollama.replies += [message("One\n\ttwo \x1b[2Jthree\x07 \u202e été 潮")]
    found = query_model("Hello?", "llama3", ollama.url)
    assert found == "One\n\ttwo \\x1b[2Jthree\\x07 \\u202e été 潮"


def test_a_proxy_that_stands_between_is_named(ollama, monkeypatch):
    """Here it is the stand-in that plays the proxy and refuses."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = ollama.url.removesuffix("/api/chat")
    monkeypatch.setenv("http_proxy", proxy.replace("//", "//me:secret@"))
    ollama.replies += [(403, b"<html>Not through me.</html>")]
    with pytest.raises(OllamaError, match="through the proxy.*NO_PROXY=localhost") as e:
        query_model("Hello?", url="http://localhost:9/api/chat")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("url", ["localhost:11434", "", "http://[::1/", "a\x1b"])
def test_what_is_no_url_is_one_sentence(url):
    with pytest.raises(NoJudgeError, match="cannot be asked: ") as caught:
        query_model("Hello?", url=url)
    assert str(caught.value).isprintable()


def test_no_server_is_one_sentence():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api/chat"
        with pytest.raises(NoJudgeError, match="be reached: start it with `ollama"):
            query_model("Hello?", url=url)


def test_scores(ollama):
    ollama.replies += [message('{"score": 85}'), message('{"score": 0}')]
    data = [ENTRY | {"answer": text} for text in ("geese", " ", "gooses")]
    found = generate_model_scores(data, "answer", "other", ollama.url)
    assert found == [85, 0, 0]
    asked = ollama.asked
    assert len(asked) == 2  # the empty answer was not sent
    assert asked[0]["messages"][0]["content"] == judge_prompt(ENTRY, "geese")
    assert {question["model"] for question in asked} == {"other"}
    score = {"type": "integer", "minimum": 0, "maximum": 100}
    assert asked[0]["format"]["properties"] == {"score": score}
    assert asked[0]["format"]["required"] == ["score"]


READ = ["85", "85.0", "85.", " 85\n", '"85"', "085", "85/100", "85 / 100", "8.5e1"]
READ += ["Score: 85", "score 85", "SCORE = 85.0", '{"score": 85}', '{"score": 85.0}']
READ += ['{"score": "85"}', '{"score": "85/100"}', '{"why": "9 of 10", "score": 85}']
WRAPPED = [
    "{}",
    "```json\n{}\n```",
    "```\n{}```",
    "Here:\n```json\n{}\n```\nBye.",
]
WRAPPED += ["<think>\nMaybe 12, or {{}}.\n</think>\n\n{}", "Or 12?</think>```{}```"]
REFUSED = ["", "eighty", "true", '{"score": true}', "null", '{"score": null}', "[85]"]
REFUSED += ["101", "-1", "-0.5", '{"score": 101}', '{"score": -1}', '{"score": "-1"}']
REFUSED += ["nan", "NaN", "Infinity", "1e400", "-1e400", '{"score": 1e400}', "9" * 5000]
REFUSED += [
    "9.5",
    '{"score": 9.5}',
    '{"points": 3}',
    '{"score": [85]}',
    '{"score": {}}',
]
REFUSED += [
    "85 90",
    "85, or 90",
    "8/10",
    "85/90",
    "I'd say 85 of 100.",
    "85%?",
    "[" * 9999,
]
REFUSED += ["Score: 85 or 90", "```85``` or ```90```", "<think>85", "٨٥", "8 5", "1000"]


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("reply", READ)
def test_a_score_is_read_as_judges_write_it(reply, wrapped):
    found = read_score(wrapped.format(reply))
    assert (found, type(found)) == (85, int)


@pytest.mark.parametrize("reply", REFUSED)
def test_anything_else_is_no_score(reply):
    with pytest.raises(OllamaError, match="the judge replied .* instead of a score"):
        read_score(reply)


@given(st.one_of(st.integers(-200, 200), st.floats(), st.booleans(), st.none()))
def test_a_number_is_a_score_if_it_is_a_whole_one_to_100(number):
    is_score = type(number) in (int, float) and number in range(101)
    for reply in (json.dumps(number), json.dumps({"score": number})):
        if is_score:
            assert read_score(reply) == number
        else:
            with pytest.raises(OllamaError):
                read_score(reply)


@given(st.text())
def test_any_text_is_a_score_or_none(reply):
    try:
        assert read_score(reply) in range(101)
    except OllamaError as error:
        assert str(error).isprintable()


def scores_of(ollama, *answers):
    data = [ENTRY | {"answer": answer} for answer in answers]
    return generate_model_scores(data, "answer", url=ollama.url)


def test_ctrl_c_keeps_the_scores_so_far(monkeypatch, capsys):
    replies = iter(["85", "60"])

    def reply_or_stop(*_, **options):
        for reply in replies:
            return reply
        raise KeyboardInterrupt

    monkeypatch.setattr("ch07.judge.query_model", reply_or_stop)
    data = [ENTRY | {"answer": answer} for answer in ("a", " ", "b", "c", "d")]
    found = generate_model_scores(data, "answer")
    assert found[:3] == [85, 0, 60] and all(map(math.isnan, found[3:]))
    assert capsys.readouterr().out == "stopped: there are no scores from entry 3 on\n"


BAD = [reply for reply, _ in UNWANTED if reply[0] in (200, 500)]
BAD += [message(reply) for reply in ("eighty", "", "\x1b[2J", '{"score": true}')]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_reply_costs_one_score(ollama, capsys, bad, place):
    good = [message('{"score": 85}'), message("60")]
    ollama.replies += [*good[:place], bad, *good[place:]]
    found = scores_of(ollama, "a", "b", "c")
    assert math.isnan(found.pop(place)) and found == [85, 60]
    shown = capsys.readouterr()
    assert f"entry {place} has no score: the " in shown.out
    assert "\x1b[2J" not in shown.out and "\u202e" not in shown.out


def test_a_console_without_a_character_costs_no_score(ollama, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    ollama.replies += [(500, {"error": "潮"}), message("60")]
    assert scores_of(ollama, "a", "b")[1] == 60


def test_bad_replies_are_no_reason_to_give_up(ollama):
    ollama.replies += [message("none")] * 7 + [message("60")]
    assert scores_of(ollama, *"abcdefgh")[-1] == 60


@pytest.mark.parametrize("first", ["a", " "])
def test_a_judge_who_is_not_there_is_asked_once(ollama, first):
    ollama.replies += [(404, {"error": "no such model"})]
    with pytest.raises(NoJudgeError, match="ollama pull"):
        scores_of(ollama, first, "b", "c", "d")
    assert len(ollama.asked) == 1


def test_a_server_that_never_replies_is_asked_three_times(ollama):
    ollama.replies += [(500, {"error": "out of memory"})] * 9
    with pytest.raises(OllamaError, match="out of memory"):
        scores_of(ollama, *"abcdefg")
    assert len(ollama.asked) == 3


@pytest.mark.parametrize(
    ("fault", "times"),
    [((404, {"error": "no such model"}), 1), ((500, b"oops"), 3), (("drip", b""), 3)],
)
def test_a_judge_who_goes_leaves_his_scores(ollama, capsys, fault, times):
    ollama.replies += [message("85")] + [fault] * 9
    found = scores_of(ollama, "a", "b", " ", *"cdefg")
    assert (found[0], found[2]) == (85, 0)  # the empty one needs no judge
    assert all(map(math.isnan, found[1:2] + found[3:])) and len(found) == 8
    assert len(ollama.asked) == 1 + times
    assert "is not asked about the entries after entry" in capsys.readouterr().out


def test_the_judge_is_told_all():
    prompt = judge_prompt(ENTRY, "gooses")
    for text in ("Make it plural. goose", "geese", "gooses", "100"):
        assert text in prompt


def test_processes_are_found_by_name():
    name = Path(os.path.realpath(sys.executable)).name
    assert check_if_running(name[:6])
    assert not check_if_running("no process bears this name")


def test_processes_without_a_name_are_passed_over(monkeypatch):
    """A system keeps the names of some of them to itself."""
    processes = [SimpleNamespace(info={"name": name}) for name in (None, "ollama")]
    monkeypatch.setattr(psutil, "process_iter", lambda attributes: processes)
    assert check_if_running("ollama") and not check_if_running("llama3")
