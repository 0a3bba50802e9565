"""Talk with the assistant that was fine-tuned: `python -m support.apps.chat`."""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import sys

from ch05.decoding import generate_stream
from ch07.instructions import format_prompt
from support.apps.assistant import ASSISTANT, COMMAND, load_assistant
from support.commands import clean_exit
from support.device.device import pick_device
from support.download.fetch import FetchError
from support.messages import printable, say

WELCOME = (
    "Type an instruction and press Enter. An empty line ends the chat.\n"
    "The model answers each instruction separately: it does not remember earlier ones."
)


def stream_answer(model, tokenizer, entry, max_new_tokens=100, **sampling):
    """Yield the answer to an entry piece by piece, as the model generates it.

    sampling: temperature, top_k, ..., as in `generate_stream`. A character that takes
    several tokens is yielded when it is complete.
    """
    prompt = tokenizer.encode_ordinary(format_prompt(entry))
    settings = {"eos_id": tokenizer.eot_token} | sampling
    run = model, [prompt], max_new_tokens, model.context_length
    return decode_stream(generate_stream(*run, **settings), tokenizer)


def decode_stream(stream, tokenizer):
    """Yield the text of a stream of new ids, for one prompt, piece by piece."""
    new_ids, num_shown = [], 0
    for ids in stream:
        new_ids += ids
        text = tokenizer.decode(new_ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[num_shown:]
            num_shown = len(text)


def chat(model, tokenizer):
    """Answer the lines of standard input until an empty one."""
    print(WELCOME)
    while instruction := read_instruction():
        entry = {"instruction": instruction, "input": ""}
        try:
            for piece in stream_answer(model, tokenizer, entry):
                print(printable(piece), end="", flush=True)
        except (ValueError, FloatingPointError) as error:
            # the next instruction may be a better one
            say(f"there is no answer: {error}")
        print()


def read_instruction():
    """A line of standard input, without blanks around it; "" when the input ends."""
    while True:
        try:
            return input("\n> ").strip()
        except UnicodeDecodeError:
            say("that was not UTF-8 text; type the instruction again")
        except (EOFError, RuntimeError):  # RuntimeError: there is no standard input
            return ""


def main():
    """Read the command line and chat."""
    parser = argparse.ArgumentParser(
        prog="python -m support.apps.chat", description="Talk with the assistant."
    )
    with clean_exit(ValueError, FetchError, OSError):
        parser.parse_args()
        try:
            model, tokenizer = load_assistant(ASSISTANT, pick_device())
        except FileNotFoundError:
            sys.exit(f"no assistant has been trained yet: run `{COMMAND}` first")
        chat(model, tokenizer)


if __name__ == "__main__":
    main()
