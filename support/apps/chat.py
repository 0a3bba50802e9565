"""Talk with the fine-tuned model: `python -m support.apps.chat`."""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import sys

from ch05.decoding import generate_stream
from ch07.instructions import format_prompt
from support.apps.assistant import ASSISTANT, load_assistant
from support.commands import clean_exit, positive
from support.device.device import pick_device
from support.download.fetch import FetchError
from support.messages import printable, say

WELCOME = (
    "Give an instruction and press Enter; an empty line ends the talk.\n"
    "Each instruction stands alone: the model does not remember the last one."
)


def stream_answer(model, tokenizer, entry, max_new_tokens=100, **sampling):
    """Yield the pieces of the answer to an entry as they come.

    sampling: temperature, top_k, ..., as `generate_stream` takes them. A character of
    several tokens is held back until it is whole.
    """
    prompt = tokenizer.encode_ordinary(format_prompt(entry))
    stream = generate_stream(
        model,
        [prompt],
        max_new_tokens,
        model.context_length,
        eos_id=tokenizer.eot_token,
        **sampling,
    )
    return whole_characters(stream, tokenizer)


def whole_characters(stream, tokenizer):
    """Yield the text of a stream of new ids, for one prompt, piece by piece."""
    new_ids, num_shown = [], 0
    for ids in stream:
        new_ids += ids
        text = tokenizer.decode(new_ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[num_shown:]
            num_shown = len(text)


def talk(model, tokenizer, max_new_tokens=100):
    """Answer the lines of standard input until an empty one."""
    print(WELCOME)
    while instruction := read_line():
        entry = {"instruction": instruction, "input": ""}
        try:
            for piece in stream_answer(model, tokenizer, entry, max_new_tokens):
                print(printable(piece), end="", flush=True)
        except ValueError as error:  # of this instruction; the next may be answered
            say(f"there is no answer: {error}")
        print()


def read_line():
    """A line of standard input that is UTF-8 text; nothing when it ends."""
    try:
        return input("\n> ").strip()
    except UnicodeDecodeError:
        say("that was not UTF-8 text; give the instruction again")
        return read_line()
    except (EOFError, RuntimeError):  # the latter without a standard input
        return ""


def main():
    """Read the command line; turn what a reader can mend into a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m support.apps.chat",
        description="Talk with the fine-tuned model.",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        default=100,
        help="an answer's length at most",
    )
    with clean_exit(ValueError, FetchError, OSError):
        arguments = parser.parse_args()
        try:
            model, tokenizer = load_assistant(ASSISTANT, pick_device())
        except FileNotFoundError:
            sys.exit(
                "nothing is fine-tuned yet: `python -m support.apps.assistant` does it"
            )
        talk(model, tokenizer, arguments.max_new_tokens)


if __name__ == "__main__":
    main()
