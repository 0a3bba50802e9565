"""A larger model as a judge of answers, by a local Ollama server (7.8)."""

import json

import psutil
import requests
from tqdm.auto import tqdm

from ch07.instructions import format_question

OLLAMA_URL = "http://localhost:11434/api/chat"
OPTIONS = {"seed": 123, "temperature": 0, "num_ctx": 2048}  # the same answer each time
SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["score"],
}


class OllamaError(Exception):
    """The server cannot be asked, or does not answer as it should."""


def check_if_running(process_name):
    """True if a process whose name contains process_name runs on this machine."""
    names = (process.info["name"] for process in psutil.process_iter(["name"]))
    return any(process_name in (name or "") for name in names)


def query_model(prompt, model="llama3", url=OLLAMA_URL, schema=None, timeout=300):
    """A model's answer to a prompt; schema: the JSON Schema that it must follow.

    Raises OllamaError when no server answers within `timeout` seconds, when it has no
    such model, and when what it says is not Ollama's protocol.
    """
    messages = [{"role": "user", "content": prompt}]
    data = {"model": model, "messages": messages, "options": OPTIONS, "stream": False}
    if schema:
        data["format"] = schema
    try:
        reply = requests.post(url, json=data, timeout=(3, timeout)).json()
    except requests.Timeout:
        reason = f"gave no answer within {timeout} seconds"
    except requests.JSONDecodeError:
        reason = "does not speak Ollama's protocol"
    except requests.ConnectionError:
        reason = "is not there: `ollama serve` starts it"
    else:
        if isinstance(reply, dict) and "message" in reply:
            return reply["message"]["content"]
        reason = f"says {reply}; `ollama pull {model}` fetches a missing model"
    raise OllamaError(f"the server at {url} {reason}")


def judge_prompt(entry, answer):
    """What the judge is asked about one answer."""
    return (
        f"Here is an instruction: `{format_question(entry)}`\n"
        f"This answer is known to be right: `{entry['output']}`\n"
        f"Score the answer `{answer}` from 0, useless, to 100, as good as the right "
        "one. Reply with the score alone."
    )


def generate_model_scores(json_data, json_key, model="llama3", url=OLLAMA_URL):
    """The judge's score, 0 to 100, of the answer that each entry has at json_key.

    An empty answer scores 0 unasked. Raises OllamaError as `query_model` does, and for
    a score that is none.
    """
    scores = []
    for entry in tqdm(json_data, desc="judging", unit="answer", leave=False):
        if not entry[json_key].strip():
            scores.append(0)
            continue
        prompt = judge_prompt(entry, entry[json_key])
        reply = query_model(prompt, model, url, schema=SCORE)
        scores.append(read_score(reply))
    return scores


def read_score(reply):
    """The number in a judge's reply, {"score": 85}."""
    try:
        score = json.loads(reply)["score"]
    except (json.JSONDecodeError, KeyError, TypeError):
        score = None
    if not isinstance(score, int) or not 0 <= score <= 100:
        raise OllamaError(f"the judge replied {reply[:60]!r} and not a score to 100")
    return score
