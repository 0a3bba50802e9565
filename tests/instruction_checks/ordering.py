"""An independent check of the "ordering" entries."""

import calendar
import re
from fractions import Fraction as F

DOWN = (
    r"largest|longest|latest|greatest|highest|oldest|tallest|heaviest|hottest"
    r"|biggest|widest|descending|reverse|z to a|goes down|last|most letters"
)
UP = (
    r"smallest|shortest|earliest|least|lowest|\blow\b|cheapest|youngest|coldest"
    r"|fastest|increas|ascending"
)
ALPHABET = r"alphabet|dictionary|a to z|z to a"
LENGTH = r"letters|(shortest|longest)( of these)? words?\b|by (their )?length"
SERIES = r"\bnext\b|pattern|series|follow|sequence|\bmissing|\bgap\b"
TOKEN = r"\d+:\d\d|\d+/\d+|(?<![\d.])-?\$?\d+(?:\.\d+)?"
COUNT = ["zero", "one", "two", "three", "four", "five"]
COUNT += ["six", "seven", "eight", "nine", "ten"]
PERIODS = ["second", "minute", "hour", "day", "week", "month", "year"]
NAMED = {
    name.lower(): F(i)
    for names in (
        calendar.day_name,
        calendar.month_name,
        PERIODS,
        ["hundred", "thousand", "million"],
    )
    for i, name in enumerate(names)
    if name
}


def value(item):
    """The number, clock time (in minutes) or place of a name in NAMED, or None."""
    found = re.search(TOKEN, item)
    if not found:
        return NAMED.get(item.lower())
    token = found[0].replace("$", "")
    if ":" in token:
        hours, minutes = token.split(":")
        return F(60 * int(hours) + int(minutes))
    return F(token)


def split_list(text):
    """The items of "a drum, a violin and a flute", without the articles."""
    parts = re.split(r",? (?:and|or) |, ", text.strip(" .?"))
    return [re.sub(r"^(an?|the) ", "", part, flags=re.I) for part in parts]


def listed(entry):
    """The items to be ordered, as they stand in the prompt."""
    if entry["input"]:
        return split_list(entry["input"])
    text = entry["instruction"]
    if value(entry["output"]) is not None and re.search(r"\d", text):
        return re.findall(TOKEN, text)
    before, _, after = text.partition(": ")
    if after:
        after = re.split(r"\. | - ", after)[0]
        return split_list(after if "," in after else before)
    article = r"(?:an? |the )?"
    few = re.search(
        rf"{article}\w+(, {article}\w+)*,? (and|or) {article}"
        r"(old man|\w+)",
        text,
    )
    return split_list(few[0]) if few else []


def falling(text):
    """True where the first word of direction in the text is one of DOWN."""
    found = re.search(f"(?P<down>{DOWN})|(?P<up>{UP})", text.lower())
    return bool(found and found["down"])


def series_terms(text):
    """The terms of a series of numbers, of letters or of number words."""
    for kind in (r"-?\d+", r"\b[A-Z]\b(?=,|$)", r"\b(?:" + "|".join(COUNT) + r")\b"):
        terms = re.findall(kind, text)
        if len(terms) >= 3:
            return terms
    return []


def rank(term):
    """The number that a term of a series stands for."""
    if term in COUNT:
        return F(COUNT.index(term))
    if term.isalpha():
        assert len(term) == 1, f"{term!r} is no term of a series"
        return F(ord(term))
    return F(term)


def check_series(text, answer):
    """Checks a series with equal steps or equal ratios; False if it is none."""
    body = re.sub(r"\?(?=,)|__", answer, text)
    terms = series_terms(body)
    if not terms or not re.search(SERIES, text.lower()):
        return False
    terms += [answer] if body == text else []
    numbers = [rank(term) for term in terms]
    pairs = list(zip(numbers, numbers[1:]))
    steps, ratios = {b - a for a, b in pairs}, {b / a for a, b in pairs if a}
    assert 1 in (len(steps), len(ratios)), f"{terms} is no regular series: {text!r}"
    return True


def check_items(entry):
    """Checks that a list answer holds the items of the prompt, each once."""
    items, answer = listed(entry), entry["output"].split(", ")
    text = entry["instruction"].lower()
    if len(answer) == 1 or "three best" in text:
        return
    if "odd numbers" in text:
        items = [item for item in items if value(item) % 2]
    same = sorted(map(str.lower, items)) == sorted(map(str.lower, answer))
    assert same, f"other items than in {items}: {answer}"


def sort_key(text, items):
    """The key by which the items are sorted, or None if it takes knowledge."""
    if re.search(ALPHABET, text):
        return str.lower
    if re.search(LENGTH, text):
        return len
    return None if None in map(value, items) or not items else value


def check_ordering(entry):
    """True: verified. False: a matter of knowledge. AssertionError: wrong."""
    text, answer = entry["instruction"].lower(), entry["output"].split(", ")
    may_be_series = not entry["input"] and len(answer) == 1
    if may_be_series and check_series(entry["instruction"], entry["output"]):
        return True
    check_items(entry)
    items = listed(entry)
    key = sort_key(text, items)
    if key is None:
        return False
    if "odd numbers" in text:
        items = [item for item in items if value(item) % 2]
    right = sorted(items, key=key, reverse=falling(text))
    keys = [key(item) for item in items]
    assert len(set(keys)) == len(keys), f"a tie: {items}"
    if len(answer) == 1:
        place = re.search(r"\b(second|third|middle)\b", text)
        index = {"second": 1, "third": 2, "middle": len(right) // 2}
        picked = right[index[place[0]] if place else 0]
        right = [re.sub(r" \d+:\d\d$", "", picked)]  # "bank 8:45": the bank
    wanted = [item.lower() for item in right[: len(answer)]]
    assert [a.lower() for a in answer] == wanted, f"{answer} should be {wanted}"
    return True
