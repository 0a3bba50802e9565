"""A larger model as a judge of answers, by a local Ollama server (7.8)."""

import json
import math
import re

import psutil
from tqdm.auto import tqdm

from ch07.instructions import format_question
from support.download.request import NETWORK_ERRORS, WatchedSession, proxy_note
from support.messages import one_line, printable, say

OLLAMA_URL = "http://localhost:11434/api/chat"
OPTIONS = {"seed": 123, "temperature": 0, "num_ctx": 2048}  # the same answer each time
SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["score"],
}
LONGEST = 2**20  # bytes of a server's reply
PATIENCE = 3  # questions in a row that may stay without a reply


class OllamaError(Exception):
    """The server cannot be asked, or does not answer as it should."""


class NoJudge(OllamaError):
    """There is no such server, or no such model: asking again is no use."""


def check_if_running(process_name):
    """True if a process whose name contains process_name runs on this machine."""
    names = (process.info["name"] for process in psutil.process_iter(["name"]))
    return any(process_name in (name or "") for name in names)


def post(url, data, timeout):
    """Send JSON to a server: the status and the bytes of its reply.

    Raises OllamaError for a reply that is not complete within `timeout` seconds, or is
    longer than LONGEST; NoJudge when there is nobody to send it to.
    """
    settings = {"timeout": (3, None), "stream": True, "allow_redirects": False}
    with WatchedSession() as session:
        session.set_deadline(timeout)  # in all, however slowly the bytes come
        try:
            with session.post(url, json=data, **settings) as reply:
                body, fault = reply.raw.read(LONGEST + 1), None
        except NETWORK_ERRORS as error:
            fault = error
    if session.expired:
        raise OllamaError(f"gave no answer within {timeout} seconds")
    if fault and session.sockets:
        raise OllamaError("broke off before its answer was complete")
    if isinstance(fault, ValueError):
        raise NoJudge(f"cannot be asked: {one_line(fault)}")
    if fault:
        raise NoJudge("is not there: `ollama serve` starts it")
    if len(body) > LONGEST:
        raise OllamaError(f"sent more than {LONGEST:,} bytes")
    return reply.status_code, body


def read_answer(status, body, model):
    """The model's answer in a server's reply; OllamaError when it holds none."""
    answer = None
    try:
        reply = json.loads(body)
        said = one_line(reply)
        answer = reply["message"]["content"]
    except (ValueError, RecursionError):
        words = f"does not speak Ollama's protocol (status {status})"
        raise OllamaError(words) from None
    except (TypeError, LookupError):
        pass  # not the form of an answer: `said` shows it
    if status == 200 and isinstance(answer, str):
        return printable(answer)
    if status == 404:
        raise NoJudge(f"says {said}; `ollama pull {model}` fetches a missing model")
    raise OllamaError(f"says {said}")


def query_model(prompt, model="llama3", url=OLLAMA_URL, schema=None, timeout=300):
    """A model's answer to a prompt; schema: the JSON Schema that it must follow.

    Control characters are spelled out, so that the answer can be printed. Raises
    OllamaError when no complete answer comes within `timeout` seconds, or what comes is
    not Ollama's protocol; NoJudge when there is no such server or model.
    """
    messages = [{"role": "user", "content": prompt}]
    data = {"model": model, "messages": messages, "options": OPTIONS, "stream": False}
    if schema:
        data["format"] = schema
    try:
        return read_answer(*post(url, data, timeout), model)
    except OllamaError as error:
        error.args = (f"the server at {one_line(url)} {error}{proxy_note(url)}",)
        raise


def judge_prompt(entry, answer):
    """What the judge is asked about one answer."""
    return (
        f"Here is an instruction: `{format_question(entry)}`\n"
        f"This answer is known to be right: `{entry['output']}`\n"
        f"Score the answer `{answer}` from 0, useless, to 100, as good as the right "
        "one. Reply with the score alone."
    )


def read_score(reply):
    """The whole number from 0 to 100 that is all of a judge's reply.

    Read are {"score": 85}, 85, "85", 85.0, Score: 85 and 85/100, also between three
    backticks and after </think>. OllamaError for anything else: a score in a sentence,
    a fraction, true.
    """
    text = reply.rpartition("</think>")[2]
    if text.count("```") == 2:
        text = text.split("```")[1].removeprefix("json")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        value = value.get("score")
    form = r"(?:score\s*[:=]?\s*)?([0-9]{1,3})(?:\.0*)?(?:\s*/\s*100)?"
    found = re.fullmatch(form, str(value).strip(), re.IGNORECASE)
    if not found or int(found[1]) > 100:
        raise OllamaError(f"the judge replied {reply[:60]!r} and not a score to 100")
    return int(found[1])


def generate_model_scores(json_data, json_key, model="llama3", url=OLLAMA_URL):
    """The judge's score, 0 to 100, of the answer that each entry has at json_key.

    An empty answer scores 0 unasked. An entry whose score cannot be had is named, and
    has nan. A server that is gone, or leaves PATIENCE questions in a row without a
    reply, is not asked again; OllamaError if it has given no score before.
    """
    scores = [math.nan if entry[json_key].strip() else 0 for entry in json_data]
    to_ask = [i for i, score in enumerate(scores) if math.isnan(score)]
    num_silent = 0  # questions without a reply, in a row
    for i in tqdm(to_ask, desc="judging", unit="answer", leave=False):
        prompt = judge_prompt(json_data[i], json_data[i][json_key])
        try:
            num_silent += 1
            reply = query_model(prompt, model, url, schema=SCORE)
            num_silent = 0
            scores[i] = read_score(reply)
        except OllamaError as error:
            is_over = isinstance(error, NoJudge) or num_silent == PATIENCE
            if is_over and all(math.isnan(scores[j]) for j in to_ask):
                raise
            say(f"entry {i} has no score: {error}")
            if is_over:
                say(f"the judge is not asked after entry {i}")
                break
    return scores
