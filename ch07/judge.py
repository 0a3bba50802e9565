"""A larger model that judges answers, on a local Ollama server (7.8)."""

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
MAX_REPLY_BYTES = 2**20  # bytes of a server's reply
MAX_UNANSWERED = 3  # questions in a row without a reply before we stop


class OllamaError(Exception):
    """The server cannot be reached, or its reply is not valid."""


class NoJudgeError(OllamaError):
    """There is no such server or model, so another try is useless."""


def check_if_running(process_name):
    """True if a process whose name contains process_name runs on this machine."""
    names = (process.info["name"] for process in psutil.process_iter(["name"]))
    return any(process_name in (name or "") for name in names)


def post(url, data, timeout):
    """Send JSON to a server; return the status and the bytes of its reply.

    Raises OllamaError for a reply that is not complete within `timeout` seconds, or has
    more than MAX_REPLY_BYTES; NoJudgeError if no server can be reached.
    """
    settings = {"timeout": (3, None), "stream": True, "allow_redirects": False}
    with WatchedSession() as session:
        session.set_deadline(timeout)  # in total, even if bytes keep coming slowly
        try:
            with session.post(url, json=data, **settings) as reply:
                body, fault = reply.raw.read(MAX_REPLY_BYTES + 1), None
        except NETWORK_ERRORS as error:
            fault = error
    if session.expired:
        raise OllamaError(f"gave no answer within {timeout} seconds")
    if fault and session.sockets:
        raise OllamaError("closed the connection before its answer was complete")
    if isinstance(fault, ValueError):
        raise NoJudgeError(f"cannot be asked: {one_line(fault)}")
    if fault:
        raise NoJudgeError("cannot be reached: start it with `ollama serve`")
    if len(body) > MAX_REPLY_BYTES:
        raise OllamaError(f"sent more than {MAX_REPLY_BYTES:,} bytes")
    return reply.status_code, body


def read_answer(status, body, model):
    """The model's answer in a server's reply; OllamaError if there is none."""
    answer = None
    try:
        reply = json.loads(body)
        said = one_line(reply)
        answer = reply["message"]["content"]
    except (ValueError, RecursionError):
        words = f"does not speak Ollama's protocol (status {status})"
        raise OllamaError(words) from None
    except (TypeError, LookupError):
        pass  # this is no answer: the error below shows it
    if status == 200 and isinstance(answer, str):
        return printable(answer)
    if status == 404:
        raise NoJudgeError(
            f"says {said}; `ollama pull {model}` downloads a missing model"
        )
    raise OllamaError(f"says {said}")


def query_model(prompt, model="llama3", url=OLLAMA_URL, schema=None, timeout=300):
    """A model's answer to a prompt; schema: the JSON Schema that it must follow.

    Control characters are written as escapes, so that the answer can be printed. Raises
    OllamaError if no complete answer comes within `timeout` seconds, or the reply does
    not follow Ollama's protocol; NoJudgeError if there is no such server or model.
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
    """The prompt that asks the judge about one answer."""
    return (
        f"Here is an instruction: `{format_question(entry)}`\n"
        f"This answer is known to be right: `{entry['output']}`\n"
        f"Score the answer `{answer}` from 0, useless, to 100, as good as the right "
        "one. Reply with the score alone."
    )


def read_score(reply):
    """Read the score, a whole number from 0 to 100, in a judge's reply.

    It accepts {"score": 85}, 85, "85", 85.0, Score: 85 and 85/100, also between three
    backticks and after </think>. It raises OllamaError for anything else, for example a
    score in a sentence, a fraction, or true.
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
        raise OllamaError(
            f"the judge replied {reply[:60]!r} instead of a score from 0 to 100"
        )
    return int(found[1])


def generate_model_scores(json_data, json_key, model="llama3", url=OLLAMA_URL):
    """The judge's scores, from 0 to 100, of the entries' answers at json_key.

    An empty answer scores 0, and the judge is not asked. If a score cannot be obtained,
    a message names the entry, and its score is nan. A server that is gone, or has not
    replied to MAX_UNANSWERED questions in a row, is not asked again. Raises OllamaError
    if it has given no score before. After Ctrl-C, the scores so far are returned.
    """
    scores = [math.nan if entry[json_key].strip() else 0 for entry in json_data]
    to_ask = [i for i, score in enumerate(scores) if math.isnan(score)]
    num_silent = 0  # questions in a row without a reply
    for i in tqdm(to_ask, desc="judging", unit="answer", leave=False):
        prompt = judge_prompt(json_data[i], json_data[i][json_key])
        try:
            num_silent += 1
            reply = query_model(prompt, model, url, schema=SCORE)
            num_silent = 0
            scores[i] = read_score(reply)
        except OllamaError as error:
            is_over = isinstance(error, NoJudgeError) or num_silent == MAX_UNANSWERED
            if is_over and all(math.isnan(scores[j]) for j in to_ask):
                raise
            say(f"entry {i} has no score: {error}")
            if is_over:
                say(f"the judge is not asked about the entries after entry {i}")
                break
        except KeyboardInterrupt:
            say(f"stopped: there are no scores from entry {i} on")
            break
    return scores
