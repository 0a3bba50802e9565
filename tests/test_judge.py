"""The judge, against a stand-in on this machine that speaks Ollama's protocol."""

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests

from ch07.judge import (
    OllamaError,
    check_if_running,
    generate_model_scores,
    judge_prompt,
    query_model,
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

    def post(url, **settings):
        asked.update(settings, url=url)
        raise requests.Timeout

    monkeypatch.setattr(requests, "post", post)
    with pytest.raises(OllamaError, match="gave no answer within 300 seconds"):
        query_model("Hello?")
    assert asked["url"] == "http://localhost:11434/api/chat"
    assert asked["json"]["model"] == "llama3"
    assert asked["timeout"] == (3, 300)  # to be let in, and for the answer


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((404, {"error": "model 'llama3' not found"}), "not found.*ollama pull llama3"),
        ((500, b"<html>oops</html>"), "does not speak Ollama's protocol"),
        ((200, {"done": True}), "says {'done': True}"),
        ((200, [1, 2]), r"says \[1, 2\]"),
        (("silent", b""), "gave no answer within 0.2 seconds"),
    ],
)
def test_what_goes_wrong_is_one_sentence(ollama, reply, reason):
    ollama.replies += [reply]
    timeout = 0.2 if reply[0] == "silent" else 20
    with pytest.raises(OllamaError, match=reason):
        query_model("Hello?", "llama3", ollama.url, timeout=timeout)


def test_no_server_is_one_sentence():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api/chat"
        with pytest.raises(OllamaError, match="is not there: `ollama serve` starts"):
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


@pytest.mark.parametrize(
    "reply",
    ["eighty", '{"points": 3}', '{"score": 101}', '{"score": -1}', '{"score": "9"}']
    + ['{"score": 9.5}', "[7]"],
)
def test_a_score_that_is_none_is_an_error(ollama, reply):
    ollama.replies += [message(reply)]
    with pytest.raises(OllamaError, match="the judge replied"):
        generate_model_scores([ENTRY | {"answer": "a"}], "answer", url=ollama.url)


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
