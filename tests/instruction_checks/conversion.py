"""An independent check of the "unit conversion" entries."""

import re
from fractions import Fraction as F

TABLE = """
length: millimeter 1/1000, centimeter 1/100, meter 1, kilometer 1000,
  inch 0.0254, foot 0.3048, yard 0.9144, mile 1609.344
mass: milligram 1/1000, gram 1, kilogram 1000, tonne 1000000
weight: ounce 1, pound 16
time: second 1, minute 60, hour 3600, day 86400, week 604800
calendar: month 1, year 12, decade 120, century 1200
volume: milliliter 1, deciliter 100, liter 1000
kitchen: teaspoon 1, tablespoon 3, fluid_ounce 6, cup 48, pint 96, quart 192,
  gallon 768
area: square_centimeter 1/10000, square_meter 1, hectare 10000,
  square_kilometer 1000000
land: square_foot 1, square_yard 9
data: bit 1/8, byte 1, kilobyte 1000, megabyte 1000000, gigabyte 1000000000,
  terabyte 1000000000000
speed: meter_per_second 1, kilometer_per_hour 1000/3600, kilometer_per_minute 1000/60
count: egg 1, sock 1, pencil 1, orange 1, pair 2, dozen 12, gross 144
years: score_year 20, year 1
temperature: degree_celsius 1, degree_fahrenheit 1
"""
PLURALS = {"inches": "inch", "feet": "foot", "centuries": "century"}
SHORT = {"kg": "kilogram", "cm": "centimeter", "km": "kilometer"}
NUMBERS = {"a": F(1), "a quarter of an": F(1, 4), "half a": F(1, 2), "three": F(3)}
AMOUNT = r"(-?\d[\d,]*(?:\.\d+)?|a quarter of an|half a|three|a)"


def read_units():
    """Returns {unit: {dimension: how many base units one of it is}}."""
    units = {}
    for line in re.sub(r",\s+", ", ", TABLE).split("\n"):
        dimension, _, names = line.partition(": ")
        for name, factor in re.findall(r"(\w+) ([\d./]+)", names):
            factor = F(*map(F, factor.split("/")))
            units.setdefault(name.replace("_", " "), {})[dimension] = factor
    return units


UNITS = read_units()


def singular(text):
    """Lower case, with the units spelled out and in the singular."""
    text = re.sub(r"\b(kg|cm|km)\b", lambda m: SHORT[m[1]], text.lower())
    text = re.sub(r"\w+", lambda m: PLURALS.get(m[0], m[0]), text)
    return re.sub(r"(?<=[a-z][a-rtv-z])s\b", "", text)


def amounts(text):
    """Returns every (number, unit) in the text, in order."""
    names = "|".join(sorted(UNITS, key=len, reverse=True))
    found = re.findall(rf"(?<![\w.]){AMOUNT} ({names})\b", singular(text))
    return [(NUMBERS.get(n) or F(n.replace(",", "")), unit) for n, unit in found]


def convert(number, source, target):
    """Returns `number` of the unit `source` in the unit `target`."""
    if source == "degree celsius" and target == "degree fahrenheit":
        return number * 9 / 5 + 32
    if source == "degree fahrenheit" and target == "degree celsius":
        return (number - 32) * 5 / 9
    for dimension, factor in UNITS[source].items():
        if dimension in UNITS[target]:
            return number * factor / UNITS[target][dimension]
    raise AssertionError(f"no way from {source} to {target}")


def target_named(text, unit):
    """Does the prompt ask for this unit? ("on the Celsius scale" counts)"""
    short = {"gram": r"\bg\b"}.get(unit, "$^")
    word = unit.removeprefix("degree ")
    return bool(re.search(rf"\b{word}\b|{short}", singular(text)))


def check_conversion(entry):
    """Raises AssertionError unless the output is the amount in the prompt."""
    prompt = (entry["instruction"] + "\n" + entry["input"]).strip()
    output = entry["output"]
    given, answer = amounts(prompt), amounts(output)
    assert len(given) == 1, f"one amount expected, not {given}: {prompt!r}"
    assert len(answer) == 1, f"no amount and unit in the output {output!r}"
    (number, source), (result, target) = given[0], answer[0]
    assert target_named(prompt, target), f"{target} is not asked for: {prompt!r}"
    assert not re.search(r"\d{4}", output), f"a comma is missing: {output!r}"
    assert source != target, f"nothing to convert: {prompt!r}"
    right = convert(number, source, target)
    assert result == right, f"{prompt!r}: {output!r}, but it is {float(right)} {target}"
