"""Checks the answers of the spelling entries: python check_spelling.py"""

import re

QUOTED = re.compile(r"(?<!\w)([\"'])([A-Za-z_]+)\1(?!\w)")
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}
VOWELS = "aeiou"


def edit_distance(a, b):
    """Number of letters to insert, delete or change to get from a to b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            change = previous[j - 1] + (x != y)
            row.append(min(previous[j] + 1, row[-1] + 1, change))
    return row[-1]


def quoted_words(text):
    return [match[2] for match in QUOTED.finditer(text)]


def subject(entry):
    """The word the entry is about: a one-word input or the first quoted word."""
    if re.fullmatch(r"\w+", entry["input"]):
        return entry["input"]
    found = quoted_words(entry["instruction"])
    return found[0] if found else ""


def kind_of(entry):
    """The kind of task that the prompt asks for, or 'unknown'."""
    text = entry["instruction"].lower()
    rules = [
        ("gap", r"\w*[a-z]_[a-z]"),
        ("reverse", r"backward|right to left|revers|last letter first"),
        ("vowels", r"number of vowels"),
        (
            "count",
            r"how many letters|count the letters|number of letters"
            r"|in letters|per letter",
        ),
        ("plural", r"\bplural"),
        ("ing", r"-ing\b"),
        ("past", r"past tense|simple past"),
        ("compound", r"compound|\bjoin\b|glue"),
        ("silent", r"silent letter"),
        ("other", r"abbreviat|contraction|short form|\bspell the number"),
        (
            "position",
            r"(first|second|third|fourth|last|final) letter"
            r"|stands third|what letter does .* begin",
        ),
    ]
    for kind, pattern in rules:
        if re.search(pattern, text):
            return kind
    if len(quoted_words(entry["instruction"] + " " + entry["input"])) > 1:
        return "choice"
    words = re.findall(r"\w+", entry["input"])
    return "correction" if len(words) > 1 or subject(entry) else "unknown"


def check_gap(entry, answer):
    gap = next(w for w in quoted_words(entry["instruction"]) if "_" in w)
    assert re.fullmatch(gap.replace("_", "[a-z]"), answer), (
        f"{answer!r} does not fit {gap!r}"
    )


def check_reverse(entry, answer):
    word = subject(entry)
    assert answer == word.lower()[::-1], f"{answer!r} is not {word!r} reversed"


def check_count(entry, answer):
    word = subject(entry)
    assert answer == str(len(word)), f"{word!r} has {len(word)} letters"


def check_vowels(entry, answer):
    word = subject(entry)
    number = sum(letter in VOWELS for letter in word)
    assert answer == str(number), f"{word!r} has {number} vowels"


def check_position(entry, answer):
    word, text = subject(entry).lower(), entry["instruction"].lower()
    if re.search(r"\b(last|final) letter", text):
        expected = word[-1]
    else:
        named = [n for name, n in ORDINALS.items() if name in text]
        expected = word[(named or [1])[0] - 1]
    assert answer == expected, f"the letter of {word!r} is {expected!r}"


def check_compound(entry, answer):
    parts = quoted_words(entry["instruction"])
    if entry["input"]:
        parts = entry["input"].split(" + ")
    assert answer == "".join(parts), f"{answer!r} is not {parts} joined"


def check_choice(entry, answer):
    """Only that the answer was offered: which one is right needs a dictionary."""
    offered = quoted_words(entry["instruction"] + " " + entry["input"])
    assert answer in offered, f"{answer!r} is none of {offered}"
    return False


def doubles(verb):
    """True where a short verb doubles its last letter: stop, swim, cut."""
    return re.fullmatch(r"[^aeiou]+[aeiou][^aeiouwxy]", verb) is not None


def add_ending(verb, ending):
    if verb.endswith("e"):
        return verb[:-1] + ending
    return verb + (verb[-1] if doubles(verb) else "") + ending


def check_ing(entry, answer):
    expected = add_ending(subject(entry), "ing")
    assert answer == expected, f"{answer!r} should be {expected!r}"


def check_past(entry, answer):
    verb = subject(entry)
    if not answer.endswith("ed"):
        return False  # an irregular verb: no rule to check it by
    expected = add_ending(verb, "ed")
    if re.search(r"[^aeiou]y$", verb):
        expected = verb[:-1] + "ied"
    assert answer == expected, f"{answer!r} should be {expected!r}"
    return True


def check_plural(entry, answer):
    noun = subject(entry)
    if not answer.endswith("s"):
        return False  # an irregular noun
    if re.search(r"(s|x|z|ch|sh)$", noun):
        expected = noun + "es"
    elif re.search(r"[^aeiou]y$", noun):
        expected = noun[:-1] + "ies"
    elif re.search(r"(lf|fe)$", noun):
        expected = re.sub(r"fe?$", "ves", noun)
    else:
        expected = noun + "s"
    assert answer == expected, f"{answer!r} should be {expected!r}"
    return True


def check_silent(entry, answer):
    word = subject(entry)
    assert answer in word, f"{word!r} has no letter {answer!r}"
    return False


def check_correction(entry, answer):
    """The answer is new and at most 2 letters from a word of the prompt."""
    words = re.findall(r"[A-Za-z]+", entry["input"]) or [subject(entry)]
    words = [word.lower() for word in words]
    assert answer.lower() not in words, f"{answer!r} is the misspelling itself"
    nearest = min(words, key=lambda word: edit_distance(word, answer.lower()))
    distance = edit_distance(nearest, answer.lower())
    assert distance <= 2, f"{answer!r} is {distance} letters from {nearest!r}"


CHECKS = {
    "gap": check_gap,
    "reverse": check_reverse,
    "count": check_count,
    "vowels": check_vowels,
    "position": check_position,
    "silent": check_silent,
    "compound": check_compound,
    "choice": check_choice,
    "ing": check_ing,
    "past": check_past,
    "plural": check_plural,
    "correction": check_correction,
}


def check_spelling(entry):
    """True: verified; False: a program cannot tell; AssertionError: wrong."""
    check = CHECKS.get(kind_of(entry))
    if check is None:
        return False
    return check(entry, entry["output"]) is not False
