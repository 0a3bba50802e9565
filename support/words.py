"""Words of any script, cut as English ones are (a support module: used, not taught)."""

import unicodedata

import regex  # unlike re, it counts the vowel signs of Hindi among a word's letters

WIDE = regex.compile(r"[\uff01-\uffee]+")  # letters and digits as wide as Chinese ones
# a letter, with its signs, of a script that puts no blanks between words
ALONE = regex.compile(
    r"(?=\p{L})[\p{Han}\p{Hiragana}\p{Katakana}ー"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
)
# \x1c to \x1f are blanks to Python, and not to regex
WORD_OR_MARK = regex.compile(r"\w+|[^\w\s\x1c-\x1f]")


def fold_text(text):
    """A text in small letters, in the one form of those with several: É, E´ -> é

    An accent may be a character of its own, and letters and digits may be full-width.
    A capital I is that of two letters in Turkish, with a dot and without: all are i.
    """
    text = unicodedata.normalize("NFC", text)
    text = WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = regex.sub("[iı]\u0307*", "i", text.casefold())
    return unicodedata.normalize("NFC", text)


def separate(text):
    """A folded text with blanks between its words: Chinese by character, and so on."""
    return ALONE.sub(r" \g<0> ", fold_text(text))


def cut_words(text):
    """The words and the marks of a text, in order: "It's 5!" -> it ' s 5 !"""
    return WORD_OR_MARK.findall(separate(text))
