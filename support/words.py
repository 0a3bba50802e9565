"""Split texts of any script into words."""

import unicodedata

import regex  # unlike re, it counts the vowel signs of Hindi among a word's letters

DIGIT = regex.compile(r"[^\P{Nd}0-9]")  # of other scripts than ours
FULL_WIDTH = regex.compile(r"[\uff01-\uffee]+")  # as wide as Chinese characters
# a letter, with its signs, of a script that is written without spaces
UNSPACED = regex.compile(
    r"(?=\p{L})[\p{Han}\p{Hiragana}\p{Katakana}ー"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
)
# Python counts \x1c to \x1f as white space, and regex does not
WORD_OR_MARK = regex.compile(r"\w+|[^\w\s\x1c-\x1f]")


def fold_text(text):
    """Return a text in lower case and in one Unicode form, so that equal words match.

    For example, an accent may be a character of its own, and letters may be full-width.
    Turkish has an i with and without a dot: both become i. Digits of all scripts become
    0 to 9.
    """
    text = unicodedata.normalize("NFC", text)
    text = FULL_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = DIGIT.sub(lambda found: str(unicodedata.decimal(found[0], found[0])), text)
    text = regex.sub("[iı]\u0307*", "i", text.casefold())
    return unicodedata.normalize("NFC", text)


def separate(text):
    """Fold a text, and put spaces around each character of unspaced scripts."""
    return UNSPACED.sub(r" \g<0> ", fold_text(text))


def cut_words(text):
    """Split a text into words and punctuation marks: "It's 5!" -> it ' s 5 !"""
    return WORD_OR_MARK.findall(separate(text))
