"""Texts of all scripts are cut, compared and scored as English ones are."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ch06.splits import near_duplicate_groups, words_of
from ch07.evaluation import normalize, repetition, rouge_l
from ch07.instructions import split_entries
from support.words import cut_words, fold_text, separate

# the same sentence in scripts with blanks: seven words, and a full stop
SENTENCES = {
    "English": "The black cat sleeps under my bed.",
    "French": "Été déjà passé, où allez vous donc?",
    "Russian": "Моя чёрная кошка спит под нашей кроватью.",
    "Greek": "Η μαύρη γάτα κοιμάται κάτω από κρεβάτι.",
    "Hindi": "मेरी काली बिल्ली बिस्तर के नीचे सोती।",
    "Arabic": "القِطَّةُ السوداء تنام الآن تحت سريري الكبير؟",
    "Persian": "گربهٔ سیاه من زیر تخت می\u200cخوابد امشب.",
    "Hebrew": "החתול השחור שלי ישן מתחת למיטה שלי2.",
    "Turkish": "İki siyah kedim ışıkta yatağın altında uyuyor.",
    "Vietnamese": "Con mèo đen ngủ dưới giường tôi.",
    "Korean": "내 검은 고양이가 침대 밑에서 잠을 잔다.",
    "Tamil": "என் கருப்புப் பூனை படுக்கையின் கீழ் தூங்குகிறது இன்று.",
    "full-width": "Ｔｈｅ ｃａｔ ｓｌｅｅｐｓ ａｔ １２ ｏｒ ３４.",
}
# by character: seven of them, and a full stop
BY_CHARACTER = {
    "Chinese": ("黑猫睡在我床下。", 7),
    "Japanese": ("猫はベッドで寝る。", 8),
    "Thai": ("แมวดำนอนบนเตียง", 14),
    "half-width": ("ﾊﾞｽﾃﾞ行ｸ", 5),
}
FORMS = ("NFC", "NFD")
both = pytest.mark.parametrize("form", FORMS)
spaced = pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
unspaced = pytest.mark.parametrize(
    ("text", "number"), BY_CHARACTER.values(), ids=BY_CHARACTER
)
# of alphabets whose capital letters are unlike the small ones, accents apart and not
LETTERS = st.text(
    st.sampled_from("aéßiıİIçñøžжёйςσΐήא का\u0301\u0307１Ａ '.-"), max_size=20
)


def words(text):
    """The pieces of a text that are no marks."""
    return [piece for piece in cut_words(text) if piece[0].isalnum()]


@spaced
@both
def test_blanks_and_marks_part_words_and_vowel_signs_do_not(text, form):
    found = words(unicodedata.normalize(form, text))
    assert len(found) == len(text.split()) == 7
    assert found == words(text)


@unspaced
@both
def test_without_blanks_each_character_is_a_word(text, number, form):
    found = words(unicodedata.normalize(form, text))
    assert found == words(text) and len(found) == number


@given(st.text(st.characters(max_codepoint=127)))
def test_english_is_cut_as_before(text):
    expected = re.findall(r"\w+|[^\w\s]", text.lower())
    assert cut_words(text) == expected
    assert fold_text(text) == text.lower() == separate(text)
    assert words_of(text) == {re.sub(r"\d", "0", word) for word in expected}


@given(LETTERS)
def test_capitals_and_accents_apart_are_the_same_letters(text):
    found = fold_text(text)
    for form in FORMS:
        other = unicodedata.normalize(form, text)
        assert fold_text(other) == fold_text(other.upper()) == found
    assert fold_text(found) == found


@given(st.integers(0, 10**6), st.sampled_from("0٠०๐০۰"))
def test_a_number_is_the_same_in_the_digits_of_any_script(number, zero):
    digits = {ord(str(n)): chr(ord(zero) + n) for n in range(10)}
    other = str(number).translate(digits)
    assert fold_text(other) == str(number)
    assert normalize(f"{other}.") == normalize(str(number))
    assert rouge_l(f"{number} कलम", f"{other} कलम") == 1


@given(st.text(st.characters()))
def test_any_text_is_cut_and_no_letter_is_lost(text):
    assert "".join(cut_words(text)) == "".join(separate(text).split())


@given(*2 * [st.text(st.characters(max_codepoint=127))])
def test_english_scores_are_those_of_rouge_score(reference, text):
    expected = RougeScorer(["rougeL"]).score(reference, text)["rougeL"].fmeasure
    if normalize(reference) != normalize(text):
        assert rouge_l(reference, text) == expected


def test_letters_in_common_are_no_words_in_common():
    assert rouge_l("été, déjà", "t d j") == 0
    assert rouge_l("кошка", "собака") == 0


@spaced
@both
def test_scores_of_other_scripts(text, form):
    """Of seven words one is left out: all of the answer's are right, 6 of 7 are in."""
    other = unicodedata.normalize(form, text)
    assert rouge_l(text, other) == rouge_l(other, text.upper()) == 1
    assert rouge_l(text, other.rpartition(" ")[0]) == pytest.approx(12 / 13)
    assert normalize(f' "{other}" ') == normalize(text) == normalize(text[:-1])
    assert repetition(" ".join([text] * 3)) == pytest.approx(1 - 7 / 19)
    assert repetition(text) == 0


@unspaced
@both
def test_scores_of_texts_without_blanks(text, number, form):
    other = unicodedata.normalize(form, text)
    assert rouge_l(text, other + other) == pytest.approx(2 * number / (3 * number))
    assert normalize(other) == normalize(text)
    assert repetition(other) == repetition(text)
    assert repetition(other * 4) > 0.6


@spaced
def test_near_copies_of_other_scripts(text):
    """Of nine pieces eight are in both; digits, forms and capitals are alike."""
    start, _, last = text.rpartition(" ")
    copies = [
        f"{text} 12",
        f"{unicodedata.normalize('NFD', text)} 98",
        f"{text.upper()} ４５",
        f"{start} zzz{last[-1]} 12",
    ]
    assert len(set(near_duplicate_groups([*copies, "a b c"], 0.7))) == 2
    assert len(set(near_duplicate_groups([*copies, "a b c"], 0.9))) == 3


@unspaced
def test_near_copies_without_blanks(text, number):
    assert len(set(near_duplicate_groups([text, f"{text}x", "人"], 0.8))) == 2


@pytest.mark.parametrize("digit", [*"1３٣३۳"])
def test_digits_of_all_scripts_are_alike(digit):
    assert words_of(f"a {digit}b{digit}") == {"a", "0b0"}


@pytest.mark.parametrize("letters", ["éèàùâêîôûç", "абвгдёжзий", "कगचजटडतदपब"])
def test_questions_of_other_scripts_stay_together(letters):
    """Of 100 pairs with three of five words in common, none is split."""
    names = [f"{first}{second}ि" for first in letters for second in letters]
    data = []
    for name in names:
        question = f"{name} {name}{name} {name}y?"
        again = unicodedata.normalize("NFD", question).upper().replace("?", "!")
        data += [
            {"instruction": text, "input": "", "n": name} for text in (question, again)
        ]
    for part in split_entries(data):
        found = [entry["n"] for entry in part]
        assert all(found.count(name) == 2 for name in found)
