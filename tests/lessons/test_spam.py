"""Messages are read whole or refused by line, and no copy lands on two sides."""

import hashlib
import io
import os
import re
import tracemalloc
import zipfile
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.grouping import many_texts
from ch02.tokenizer import get_tokenizer
from ch06 import spam, splits
from ch06.spam import (
    MEMBER,
    SAMPLE,
    SpamDataset,
    check_classes,
    create_balanced_dataset,
    download_and_unzip_spam_data,
    load_messages,
    random_split,
    read_messages,
    split_messages,
)
from ch06.splits import group_split, near_duplicate_groups, words_of
from support.download.fetch import FetchError, downloads_folder
from tests.server import closed_url, serving

CONTENT = "ham\tBack by six, I think\nspam\tWin £100 now\n".encode()
PAD = 50256


@pytest.fixture
def server(monkeypatch):
    """A server that misbehaves as told, and no pause before it is asked again."""
    monkeypatch.setattr("support.download.fetch.pause", lambda seconds: None)
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def known(monkeypatch):
    """A function that makes a zip and its member the ones that are known."""

    def know(body, content=CONTENT):
        monkeypatch.setattr(spam, "ZIP_SHA256", hashlib.sha256(body).hexdigest())
        monkeypatch.setattr(spam, "ZIP_SIZE", len(body))
        monkeypatch.setattr(spam, "MEMBER_SHA256", hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(spam, "MEMBER_SIZE", len(CONTENT))

    return know


@pytest.fixture
def paths(tmp_path):
    """The zip, the folder to unzip it to, and the file that is to come of it."""
    folder = tmp_path / "collection"
    return tmp_path / "sms.zip", folder, folder / "messages.tsv"


@pytest.fixture
def write(tmp_path):
    """A function that writes bytes or text to a file and returns its path."""

    def write_file(content):
        path = tmp_path / "messages.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture(scope="module")
def sample():
    """The course's own messages."""
    return read_messages(SAMPLE)


def read_collection():
    """The real collection, which is not in the repository."""
    path = downloads_folder() / MEMBER
    if not path.is_file():
        pytest.skip(f"needs downloads/{MEMBER}: load_messages fetches it")
    return read_messages(path)


@pytest.fixture(scope="module", params=["sample", "collection"])
def parts(request):
    """Training, validation, test and left-over messages, of both sources."""
    is_sample = request.param == "sample"
    return split_messages(read_messages(SAMPLE) if is_sample else read_collection())


def zip_of(**members):
    """The bytes of a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def table(num_ham, num_spam):
    """So many different messages of each label."""
    labels = ["ham"] * num_ham + ["spam"] * num_spam
    return pd.DataFrame(
        {"Label": labels, "Text": [f"text {i}" for i in range(num_ham + num_spam)]}
    )


# fetching


@pytest.mark.parametrize("as_list", [True, False])
def test_the_member_is_fetched_and_unzipped_once(server, known, paths, as_list):
    body = zip_of(readme=b"Hello", SMSSpamCollection=CONTENT)
    known(body)
    url = server.mirror("/sms.zip", body=body)
    for _ in range(2):
        download_and_unzip_spam_data([url] if as_list else url, *paths)
        assert paths[2].read_bytes() == CONTENT
        assert [*paths[1].iterdir()] == [paths[2]]
    assert server.paths == ["/sms.zip"]


def test_the_second_mirror_will_do(server, known, paths):
    body = zip_of(SMSSpamCollection=CONTENT)
    known(body)
    urls = server.mirror("/gone", status=404), server.mirror("/sms.zip", body=body)
    download_and_unzip_spam_data(urls, *paths)
    assert paths[2].read_bytes() == CONTENT


def test_another_zip_is_not_opened(server, known, paths):
    known(zip_of(SMSSpamCollection=CONTENT))
    other = zip_of(SMSSpamCollection=CONTENT[::-1])
    url = server.mirror("/sms.zip", body=other)
    with pytest.raises(FetchError, match="the wrong size or sha256|announces"):
        download_and_unzip_spam_data(url, *paths)
    assert not paths[0].exists() and not paths[1].exists()


def test_a_zip_without_the_member_leaves_nothing(server, known, paths):
    body = zip_of(readme=b"Hello")
    known(body)
    with pytest.raises(FetchError, match=f"is not the expected file: .*{MEMBER}"):
        download_and_unzip_spam_data(server.mirror("/sms.zip", body=body), *paths)
    assert not [*paths[1].iterdir()]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT[:-1], b""])
def test_another_member_is_refused_and_not_kept(server, known, paths, content):
    body = zip_of(SMSSpamCollection=content)
    known(body)
    with pytest.raises(FetchError, match="is not the expected file"):
        download_and_unzip_spam_data(server.mirror("/sms.zip", body=body), *paths)
    assert not [*paths[1].iterdir()]


def test_no_more_is_unpacked_than_the_member_has_bytes(server, known, paths):
    """Even where the whole of it would have the right sha256."""
    content = CONTENT + bytes(100_000)
    body = zip_of(SMSSpamCollection=content)
    known(body, content)
    with pytest.raises(FetchError, match="is not the expected file"):
        download_and_unzip_spam_data(server.mirror("/sms.zip", body=body), *paths)
    assert not [*paths[1].iterdir()]


def test_a_damaged_member_is_named_and_left_alone(server, known, paths):
    body = zip_of(SMSSpamCollection=CONTENT)
    known(body)
    paths[1].mkdir()
    paths[2].write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match="messages.tsv is damaged"):
        download_and_unzip_spam_data(server.mirror("/sms.zip", body=body), *paths)
    assert paths[2].read_bytes() == CONTENT[:-1] and not server.requests


@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_what_is_no_file_is_named_and_left_alone(server, known, paths, kind):
    body = zip_of(SMSSpamCollection=CONTENT)
    known(body)
    paths[1].mkdir()
    make = {"a folder": paths[2].mkdir, "a pipe": lambda: os.mkfifo(paths[2])}
    make.get(kind, lambda: paths[2].symlink_to("/dev/zero"))()
    with pytest.raises(ValueError, match=f"messages.tsv is {kind}, and a file is"):
        download_and_unzip_spam_data(server.mirror("/sms.zip", body=body), *paths)
    assert not server.requests


@pytest.mark.parametrize("unzipped", [True, False])
def test_a_folder_as_unzip_makes_it_will_do(
    server, known, monkeypatch, tmp_path, unzipped
):
    """`unzip -d downloads/SMSSpamCollection`, or an empty folder of that name."""
    body = zip_of(readme=b"Hello", SMSSpamCollection=CONTENT)
    known(body)
    (tmp_path / MEMBER).mkdir()
    if unzipped:
        (tmp_path / MEMBER / MEMBER).write_bytes(CONTENT)
    monkeypatch.setattr(spam, "URLS", [server.mirror("/sms.zip", body=body)])
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    assert len(load_messages()) == 2
    assert len(server.requests) == (not unzipped)


def test_the_collection_is_loaded(server, known, monkeypatch, tmp_path, capsys):
    body = zip_of(SMSSpamCollection=CONTENT)
    known(body)
    monkeypatch.setattr(spam, "URLS", [server.mirror("/sms.zip", body=body)])
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    for _ in range(2):
        df = load_messages()
        assert df["Text"].tolist() == ["Back by six, I think", "Win £100 now"]
        assert capsys.readouterr().out == f"2 messages from {MEMBER}\n"
    assert len(server.requests) == 1


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_the_collection_the_sample_stands_in(
    offline, monkeypatch, tmp_path, sample, capsys
):
    monkeypatch.setattr(spam, "URLS", [closed_url()])
    monkeypatch.setattr("support.download.fetch.pause", lambda seconds: None)
    monkeypatch.setenv("LLMS_OFFLINE", offline)
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path / "empty"))
    pd.testing.assert_frame_equal(load_messages(), sample)
    said = capsys.readouterr().out
    assert (
        "cannot be downloaded, so a small sample is used instead. The reason: " in said
    )
    reasons = {"0": "unreachable: Connection refused", "1": "LLMS_OFFLINE forbids"}
    assert reasons[offline] in said and said.count("\n") == 2
    assert f"404 messages from {SAMPLE.name}" in said


def test_a_damaged_collection_is_not_passed_over(known, monkeypatch, tmp_path):
    known(b"")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    (tmp_path / MEMBER).write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"{MEMBER} is damaged"):
        load_messages()


# reading


def test_messages_are_read_as_they_are(write):
    lines = ['ham\t  spaces,\ttab and "quotes" ', "spam\tNA", "ham\tnull £ \u2028 é"]
    df = read_messages(write("\n".join(lines)))
    assert [*df.columns] == ["Label", "Text"]
    assert df["Label"].tolist() == ["ham", "spam", "ham"]
    assert ["\t".join(row) for row in df.to_numpy()] == lines


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n"])
def test_line_ends_and_blank_lines_are_no_part_of_messages(write, end):
    newline = "\r\n" if "\r" in end else "\n"
    df = read_messages(write(f"{newline}ham\tone{newline * 2}spam\ttwo{end}"))
    assert df["Text"].tolist() == ["one", "two"]
    assert [*df.index] == [0, 1]


@pytest.mark.parametrize(
    "row",
    ["eggs\thello", "Ham\thello", "ham hello", "ham", "ham\t", "spam\t  ", "\thello"],
)
def test_a_broken_row_is_named_by_its_line(write, row):
    path = write(f"ham\tone\n\n{row}\nham\n")
    with pytest.raises(ValueError, match="messages.tsv, line 3: ") as caught:
        read_messages(path)
    assert repr(row) in str(caught.value)


def test_a_broken_row_is_named_but_not_in_full(write):
    with pytest.raises(ValueError) as caught:
        read_messages(write("x" * 10_000))
    assert len(str(caught.value).replace("x", "")) + 100 > len(str(caught.value))


BAD_FILES = {
    "latin-1": (
        "ham\tone\nham\tOnly £5\n".encode("latin-1"),
        ", line 2: the byte 0xa3",
    ),
    "UTF-16": ("ham\tOnly £5\n".encode("utf-16"), " is UTF-16 text; save it as UTF-8"),
    "no mark": (
        "ham\tOnly 5\n".encode("utf-16-le"),
        " is not text, or it is UTF-16 text",
    ),
    "folder": (None, " is a folder, and a file is expected there"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("reader", [read_messages, SpamDataset])
@pytest.mark.parametrize("name_of", [str, os.fsencode, lambda path: path])
def test_what_is_no_text_file_is_named(tmp_path, kind, reader, name_of):
    content, reason = BAD_FILES[kind]
    path = tmp_path / "messages.tsv"
    path.mkdir() if content is None else path.write_bytes(content)
    arguments = () if reader is read_messages else (get_tokenizer("gpt2"),)
    with pytest.raises(ValueError, match=f"messages.tsv{reason}") as caught:
        reader(name_of(path), *arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name_of", [str, os.fsencode, lambda path: path])
def test_files_of_all_systems_are_read(write, tokenizer, mark, end, name_of):
    rows = ["ham\tone £", "spam\ttwo", ""]
    found = read_messages(name_of(write(mark + end.join(rows))))
    assert found.to_numpy().tolist() == [["ham", "one £"], ["spam", "two"]]
    rows = ["Label,Text", "0,one £", '1,"two, three"', ""]
    dataset = SpamDataset(name_of(write(mark + end.join(rows))), tokenizer, None, None)
    found = [(tokenizer.decode(ids), label) for ids, label in rows_of(dataset)]
    assert found == [("one £", 0), ("two, three", 1)]


BAD_TABLES = {
    "": " is empty: expected messages in columns",
    " \n": " is empty: expected messages in columns",
    "Label,Text\n": " is empty: expected messages in columns",
    "Label;Text\n0;one\n": ", line 1: expected the columns .*, separated by commas",
    "label,message\n0,one\n": ", line 1: expected the columns .* found .'label', 'mess",
    "Label\n0\n": ", line 1: expected the columns",
    "Label,Text\n0,one\nham,two\n": ", line 3: expected .* labels 0 and 1, found 'ham'",
    'Label,Text\n0,"one\nand"\n2,two\n': ", line 4: .* labels 0 and 1, found '2'",
    "Label,Text\n,one\n": ", line 2: .* labels 0 and 1, found ''",
    "Label,Text\n0,one\n1,\n": ", line 3: the message is empty; remove it",
    "Label,Text\n0,one, two\n": ", line 2 has 3 fields and the first line 2",
    'Label,Text\n0,"one\n1,two\n': ", line 3 is not CSV text",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_another_table_is_named_by_its_line(write, tokenizer, content):
    with pytest.raises(ValueError, match=f"messages.tsv{BAD_TABLES[content]}"):
        SpamDataset(write(content), tokenizer)


def test_another_table_is_named_by_its_row(tokenizer):
    with pytest.raises(ValueError, match="the table: expected the columns"):
        SpamDataset(MESSAGES.rename(columns={"Text": "Message"}), tokenizer)
    for text in (None, float("nan"), ""):
        df = MESSAGES.assign(Text=["one", "two", text])
        with pytest.raises(ValueError, match="the table, row 2: the message is empty"):
            SpamDataset(df, tokenizer)


@pytest.mark.parametrize("content", ["", "\n", "\n\r\n\n"])
def test_a_file_without_messages_is_refused(write, content):
    with pytest.raises(ValueError, match="messages.tsv contains no messages"):
        read_messages(write(content))


# the sample


def test_the_sample_is_what_its_card_says(sample):
    """Its table: count, share, and mean, median, least and greatest length."""
    card = SAMPLE.with_name("DATA_CARD.md").read_text(encoding="utf-8")
    for name in ("ham", "spam", "all"):
        said = re.search(rf"\| {name} \|(.*)\|", card)[1].replace("%", "").split("|")
        rows = sample if name == "all" else sample[sample["Label"] == name]
        sizes = rows["Text"].str.len()
        found = [len(rows), 100 * len(rows) / len(sample), sizes.mean()]
        found += [sizes.median(), sizes.min(), sizes.max()]
        assert [*map(float, said)] == pytest.approx(found, abs=0.05)


def test_the_samples_copies_are_those_its_card_counts(sample):
    copies = sample[sample.duplicated()]
    assert copies["Label"].value_counts().to_dict() == {"spam": 2, "ham": 1}
    distinct = sample.drop_duplicates("Text")
    assert len(distinct) == 401
    texts, labels = distinct["Text"].tolist(), distinct["Label"].tolist()
    groups = [group for group in brute_force_groups(texts) if len(group) > 1]
    assert sorted(map(len, groups)) == [2] * 4 + [3] * 4
    assert all(len({labels[i] for i in group}) == 1 for group in groups)
    assert sum(labels[min(group)] == "ham" for group in groups) == 2


def test_the_samples_other_pairs_share_few_words(sample):
    texts = sample["Text"].drop_duplicates().tolist()
    groups = map(sorted, brute_force_groups(texts))
    near = {pair for group in groups for pair in combinations(group, 2)}
    words = [set(re.findall(r"\w+", re.sub(r"\d", "0", t.lower()))) for t in texts]
    others = set(combinations(range(len(texts)), 2)) - near
    assert max(jaccard(words[i], words[j]) for i, j in others) <= 0.34


def test_the_samples_plain_rules_are_as_good_as_its_card_says(sample):
    is_spam = sample["Label"] == "spam"
    two_digits = sample["Text"].str.count(r"\d") >= 2
    assert (two_digits == is_spam).mean() == pytest.approx(0.765, abs=5e-4)
    assert (~is_spam).mean() == pytest.approx(0.668, abs=5e-4)


def test_the_sample_is_plain_text():
    content = SAMPLE.read_bytes()
    assert b"\r" not in content and b'"' not in content
    assert content.endswith(b"\n") and content.count(b"\t") == content.count(b"\n")


# balancing and splitting at random


def test_all_spam_and_as_much_ham(sample):
    balanced = create_balanced_dataset(sample)
    assert balanced["Label"].value_counts().to_dict() == {"ham": 134, "spam": 134}
    assert balanced.index.is_unique
    pd.testing.assert_frame_equal(sample.loc[balanced.index], balanced)


def test_balancing_draws_the_same_ham_each_time(sample):
    np.random.seed(1)
    first = create_balanced_dataset(sample)
    np.random.seed(2)
    pd.testing.assert_frame_equal(create_balanced_dataset(sample), first)
    ham = first[first["Label"] == "ham"]
    assert not ham.index.equals(sample[sample["Label"] == "ham"].index[:134])


@pytest.mark.parametrize("counts", [(5, 0), (0, 5), (2, 3), (0, 0)])
def test_what_cannot_be_balanced(counts):
    with pytest.raises(ValueError, match=f"{counts[1]} spam and {counts[0]} ham"):
        create_balanced_dataset(table(*counts))


def test_as_much_ham_as_spam_is_balanced():
    assert len(create_balanced_dataset(table(3, 3))) == 6


def test_a_random_split_has_the_books_sizes():
    df = table(747, 747)
    parts = random_split(df, 0.7, 0.1)
    assert [len(part) for part in parts] == [1045, 149, 300]
    assert sorted(pd.concat(parts)["Text"]) == sorted(df["Text"])
    assert parts[0]["Text"].tolist() != df["Text"].tolist()[:1045]
    for part, again in zip(parts, random_split(df, 0.7, 0.1)):
        pd.testing.assert_frame_equal(part, again)


def test_a_random_split_takes_labels_that_are_numbers_already():
    """The book maps them before it splits."""
    df = create_balanced_dataset(table(9, 5))
    df["Label"] = df["Label"].map({"ham": 0, "spam": 1})
    train, validation, test = random_split(df, train_frac=0.7, validation_frac=0.1)
    assert [len(part) for part in (train, validation, test)] == [7, 1, 2]
    assert sorted(pd.concat([train, validation, test])["Label"]) == 5 * [0] + 5 * [1]


def test_a_random_split_takes_any_table():
    """Also of other columns, and into parts that are empty."""
    df = pd.DataFrame({"sentence": ["a", "b", "c", "d"]})
    assert [len(part) for part in random_split(df, 0.75, 0.25)] == [3, 1, 0]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("lone", [table(4, 0), table(0, 4)], ids=["ham", "spam"])
def test_a_part_without_one_class_is_named(place, lone):
    parts = [table(2, 2)] * 3
    check_classes(parts)
    parts[place] = lone
    name = ("training", "validation", "test")[place]
    with pytest.raises(ValueError, match=f"{name} part has 4 .* not of both classes"):
        check_classes(parts)


# near-duplicates


def jaccard(a, b):
    """The share of two sets that is in both; 0 for two empty ones."""
    return len(a & b) / max(1, len(a | b))


def brute_force_groups(texts, threshold=0.8):
    """The sets of places that pairs of near-duplicates join, every pair looked at."""
    words = [
        set(re.findall(r"\w+|[^\w\s]", re.sub(r"\d", "0", t).lower())) for t in texts
    ]
    parent = [*range(len(texts))]

    def root(i):
        return i if parent[i] == i else root(parent[i])

    least = Fraction(str(threshold))
    for i, j in combinations(range(len(texts)), 2):
        either = len(words[i] | words[j])
        if either and Fraction(len(words[i] & words[j]), either) >= least:
            parent[root(i)] = root(j)
    return as_sets([root(i) for i in range(len(texts))])


def as_sets(groups):
    """Numbers of groups as a set of sets of places."""
    members = {}
    for i, group in enumerate(groups):
        members.setdefault(group, set()).add(i)
    return {frozenset(places) for places in members.values()}


def test_words_by_hand():
    expected = {"call", "00", "!", "était", "it", "'", "s"}
    assert words_of("Call 12! CALL\tÉtait it's") == expected
    assert words_of(" \t ") == set()


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_groups_of_the_sample_equal_those_by_brute_force(sample, threshold):
    texts = sample["Text"].tolist()
    found = as_sets(near_duplicate_groups(texts, threshold))
    assert found == brute_force_groups(texts, threshold)
    assert 1 < len(found) < len(texts)


WORDS = st.lists(st.sampled_from([*"abcdef1!", "22"]), max_size=12)
THRESHOLDS = st.integers(10, 100).map(lambda percent: percent / 100)


@settings(max_examples=100)
@given(st.lists(WORDS.map(" ".join), max_size=12), THRESHOLDS)
@example(["a b c d", "a b c d e", "a b c d e f", "b c d e f"], 0.8)
@example(["", "a", "", " ", "!"], 0.8)
@example(["", " "], 0.8)
@example([], 0.8)
@example([" ".join("abcdefghijklmno"), " ".join("fghijklmnopqrst")], 0.5)
@example([" ".join("abcdefghijklmno"), " ".join("efghijklmnopqrst")], 0.55)
def test_groups_equal_those_by_brute_force(texts, threshold):
    """Also where just the threshold's share of words is in both, as 11 of 20 are."""
    found = near_duplicate_groups(texts, threshold)
    assert as_sets(found) == brute_force_groups(texts, threshold)
    assert found.tolist() == pd.factorize(found)[0].tolist()  # numbered as they come


@settings(max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.2, 0.4, 0.6, 0.8]),
    st.sampled_from([1, 100]),
)
def test_texts_of_many_blocks_are_grouped_alike(seed, threshold, num_cells):
    """Also if there are more texts than pairs that may be compared at a time."""
    texts = many_texts(60, num_words=40, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "NUM_CELLS", num_cells)
        found = near_duplicate_groups(texts, threshold)
    assert as_sets(found) == brute_force_groups(texts, threshold)


@pytest.mark.parametrize("threshold", [0.1, 0.6])
def test_memory_does_not_grow_with_the_number_of_pairs(threshold):
    """There are 18 million, most of which have a word in common."""
    texts = many_texts(6000)
    tracemalloc.start()
    try:
        near_duplicate_groups(texts, threshold)
        assert tracemalloc.get_traced_memory()[1] < 250e6
    finally:
        tracemalloc.stop()


def test_neighbours_of_neighbours_are_one_group():
    texts = ["a b c d", "x y", "a b c d e", "a b c d e f"]
    assert jaccard(words_of(texts[0]), words_of(texts[3])) < 0.8
    assert as_sets(near_duplicate_groups(texts)) == {
        frozenset({0, 2, 3}),
        frozenset({1}),
    }


def test_four_words_of_five_are_enough_and_three_of_four_are_not():
    assert len(set(near_duplicate_groups(["a b c d", "a b c d e"]))) == 1
    assert len(set(near_duplicate_groups(["a b c", "a b c d"]))) == 2


def test_messages_that_differ_in_digits_are_near_duplicates():
    texts = ["Call 80123 now, code 7", "call 99999 NOW, code 1", "call 999 now, code 1"]
    assert len(set(near_duplicate_groups(texts, threshold=1.0)[:2])) == 1
    assert len(set(near_duplicate_groups(texts, threshold=1.0))) == 2


# splitting by groups


def grouped_table(seed):
    """Six hundred messages, a third spam, in groups of one to five of one label."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(600), random.integers(1, 6, 600))[:600]
    labels = np.where(random.random(600) < 1 / 3, "spam", "ham")[groups]
    df = pd.DataFrame({"Label": labels, "Text": "text", "Group": groups})
    return df.sample(frac=1, random_state=seed)  # with an index out of order


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_two_sides(seed):
    df = grouped_table(seed)
    parts = group_split(df, seed)
    assert sorted(pd.concat(parts).index) == sorted(df.index)
    for one, other in combinations(parts, 2):
        assert not set(one["Group"]) & set(other["Group"])


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_their_sizes_and_their_share_of_spam(seed):
    df = grouped_table(seed)
    is_spam = df["Label"] == "spam"
    for part, share in zip(group_split(df, seed), (0.7, 0.1, 0.2)):
        assert len(part) == pytest.approx(share * len(df), abs=15)
        assert is_spam[part.index].mean() == pytest.approx(is_spam.mean(), abs=0.1)


def test_same_seed_same_parts():
    df = grouped_table(1)
    parts = group_split(df, seed=5)
    for part, again in zip(parts, group_split(df, seed=5)):
        pd.testing.assert_frame_equal(part, again)
    assert not parts[2].index.equals(group_split(df, seed=6)[2].index)


TABLES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=40
).map(lambda rows: pd.DataFrame(rows, columns=["Label", "Group"]))


@pytest.mark.filterwarnings("error")
@settings(max_examples=200)
@given(TABLES, st.sampled_from([(7, 1, 2), (17, 1, 2), (1, 1, 1), (8, 0, 2)]))
@example(pd.DataFrame({"Label": [], "Group": []}), (7, 1, 2))
@example(pd.DataFrame({"Label": ["a"] * 3, "Group": [1, 2, 3]}), (17, 1, 2))
@example(
    pd.DataFrame({"Label": ["a"] * 50, "Group": [0] * 40 + [*range(10)]}), (7, 1, 2)
)
@example(pd.DataFrame({"Label": list("aab") * 9, "Group": range(27)}), (17, 1, 2))
@example(pd.DataFrame({"Label": range(30), "Group": range(30)}), (17, 1, 2))
def test_small_tables_are_split_or_refused(df, shares):
    """Into whole groups, and no part is empty unless its share is zero."""
    if df["Group"].nunique() < 3:
        with pytest.raises(ValueError, match=f"^{len(df)} texts cannot be split"):
            group_split(df, shares=shares)
        return
    parts = group_split(df, shares=shares)
    assert sorted(pd.concat(parts).index) == [*df.index]
    assert [len(part) > 0 for part in parts] == [share > 0 for share in shares]
    for one, other in combinations(parts, 2):
        assert not {*one["Group"]} & {*other["Group"]}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_groups", [5, 12, 40])
def test_a_giant_group_is_trained_on(num_groups, seed):
    df = pd.DataFrame({"Label": "a", "Group": [0] * 60 + [*range(1, num_groups)]})
    train, validation, test = group_split(df, seed)
    assert (train["Group"] == 0).sum() == 60
    assert 1 <= len(validation) <= len(test) <= num_groups // 4 + 1


@pytest.mark.parametrize("num_groups", range(3, 25))
def test_few_groups_are_split_as_near_the_proportions_as_they_can_be(num_groups):
    df = pd.DataFrame({"Label": "a", "Group": range(num_groups)})
    for part, share in zip(group_split(df), (0.7, 0.1, 0.2)):
        assert abs(len(part) - share * num_groups) < max(2, 0.1 * num_groups)


def check_split(df):
    """Split messages, and look at what comes of it; or the sentence that refuses it."""
    try:
        parts = split_messages(df)
    except ValueError as error:
        return str(error)
    check_classes(parts[:3])
    assert set(parts[3]["Label"]) <= {0}
    assert len(pd.concat(parts)) <= df["Text"].nunique()
    return None


REFUSALS = re.compile(
    r"\d+ spam and \d+ ham messages cannot be balanced: .*"
    r"|\d+ texts cannot be split into three parts: .*"
    r"|the \w+ part has \d+ messages, but not of both classes: .*"
)


@pytest.mark.filterwarnings("error")
@settings(max_examples=100)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(1, 30))
@example(0, 0, 1)
@example(1, 0, 1)
@example(0, 1, 1)
@example(1, 1, 2)
@example(20, 0, 20)
@example(20, 20, 1)
def test_few_messages_are_split_or_refused(num_ham, num_spam, num_texts):
    """Of which many are equal, if there are few different texts."""
    texts = [f"{'ab'[i % 2]}{'x' * (i % num_texts)}" for i in range(num_ham + num_spam)]
    df = pd.DataFrame({"Label": ["ham"] * num_ham + ["spam"] * num_spam, "Text": texts})
    refusal = check_split(df)
    assert refusal is None or REFUSALS.fullmatch(refusal)


@pytest.mark.parametrize("number", [10, 15, 20, 40])
def test_ten_different_messages_of_each_label_are_enough(number):
    df = table(number, number).assign(
        Text=lambda df: ["x" * i for i in range(1, len(df) + 1)]
    )
    assert check_split(df) is None


def test_messages_with_other_labels_are_refused():
    for labels in (["ham", "spam", "eggs"], [0, 1, 0]):
        with pytest.raises(ValueError, match="a label other than `ham` and `spam`"):
            split_messages(MESSAGES.assign(Label=labels))


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_a_random_split_of_few_messages(number):
    parts = random_split(table(number, 0), 0.7, 0.1)
    assert len(pd.concat(parts)) == number


@pytest.mark.parametrize("fractions", [(-0.1, 0.5), (0.5, -0.1), (0.9, 0.2), (7, 1)])
def test_parts_that_are_no_parts_are_refused(fractions):
    with pytest.raises(ValueError, match="must be at least 0, and their sum at most 1"):
        random_split(table(5, 5), *fractions)


def test_a_class_that_is_one_group_cannot_be_split():
    spam_texts = [f"win now call {i} today you" for i in range(20)]
    ham = [f"{'h' * i}{'m' * j}" for i in range(1, 6) for j in range(1, 6)]
    df = pd.DataFrame({"Label": ["spam"] * 20 + ["ham"] * 25, "Text": spam_texts + ham})
    with pytest.raises(ValueError, match="part has .* not of both classes"):
        split_messages(df)


def near_pairs(texts, others):
    """Pairs of a text here and one there that are equal or near-duplicates."""
    words = [[(text, words_of(text)) for text in side] for side in (texts, others)]
    return [
        (a, b)
        for (a, some), (b, more) in product(*words)
        if a == b
        or (
            0.8 * max(len(some), len(more)) <= min(len(some), len(more))
            and jaccard(some, more) >= 0.8 - 1e-9
        )
    ]


def test_no_copy_and_no_near_copy_on_two_sides(parts):
    train, validation, test, _ = (part["Text"] for part in parts)
    for one, other in combinations((train, validation, test), 2):
        assert near_pairs(one, other) == []


def test_nothing_left_over_is_near_what_was_trained_on(parts):
    train, validation, _, left_over = (part["Text"] for part in parts)
    assert near_pairs(pd.concat([train, validation]), left_over) == []


def test_no_message_comes_twice(parts):
    assert pd.concat(parts)["Text"].is_unique


def test_parts_are_half_spam_and_the_rest_is_ham(parts):
    for part in parts:
        assert part["Label"].isin([0, 1]).all() and len(part)
    balanced = pd.concat(parts[:3])
    assert balanced["Label"].mean() == 0.5
    assert (parts[3]["Label"] == 0).all()
    for part, share in zip(parts, (0.7, 0.1, 0.2)):
        assert len(part) == pytest.approx(share * len(balanced), rel=0.1)
        assert part["Label"].mean() == pytest.approx(0.5, abs=0.05)


def test_labels_stay_with_their_messages(sample):
    label_of = dict(zip(sample["Text"], sample["Label"]))
    for part in split_messages(sample):
        names = part["Label"].map({0: "ham", 1: "spam"})
        assert names.tolist() == [label_of[text] for text in part["Text"]]


def test_only_near_copies_of_what_is_trained_on_are_dropped(sample):
    train, validation, test, left_over = split_messages(sample)
    kept = pd.concat([train, validation, test, left_over])["Text"]
    dropped = {*sample["Text"]} - {*kept}
    seen = pd.concat([train, validation])["Text"]
    assert {a for a, _ in near_pairs(dropped, seen)} == dropped != set()


def test_of_near_copies_only_those_of_test_messages_are_left_over():
    """Every ham message has three near-copies, of which balancing draws some."""
    ham = [f"{'w' * i} {'v' * i} {c * 3}" for i in range(1, 101) for c in "abcd"]
    spam = [f"s{'x' * i} t{'y' * i}" for i in range(100)]
    df = pd.DataFrame({"Label": ["ham"] * 400 + ["spam"] * 100, "Text": ham + spam})
    df["Text"] += " once upon a time there was one and no more"
    train, validation, test, left_over = (part["Text"] for part in split_messages(df))
    seen = pd.concat([train, validation])
    assert near_pairs(seen, left_over) == [] != near_pairs(test, left_over)
    dropped = set(df["Text"]) - {*seen, *test, *left_over}
    assert {a for a, _ in near_pairs(dropped, seen)} == dropped != set()


def test_splits_are_the_seeds(sample):
    parts = split_messages(sample, seed=1)
    for part, again in zip(parts, split_messages(sample, seed=1)):
        pd.testing.assert_frame_equal(part, again)
    others = split_messages(sample, seed=2)
    assert set(parts[2]["Text"]) != set(others[2]["Text"])
    drawn, others_drawn = (set(pd.concat(p[:3])["Text"]) for p in (parts, others))
    assert drawn != others_drawn


def test_splitting_leaves_the_messages_as_they_were(sample):
    before = sample.copy()
    split_messages(sample)
    pd.testing.assert_frame_equal(sample, before)


# datasets

MESSAGES = pd.DataFrame(
    {
        "Label": [0, 1, 0],
        "Text": ["Back by six", "Win a prize, text YES to 80123", "ok"],
    }
)


@pytest.fixture
def tokenizer():
    """GPT-2's."""
    return get_tokenizer("gpt2")


def csv_of(df):
    """A table as an open CSV file."""
    return io.StringIO(df.to_csv(index=False))


def rows_of(dataset):
    """All of a dataset as lists: (token ids, label)."""
    return [(ids.tolist(), label.item()) for ids, label in dataset]


def test_messages_are_padded_to_the_longest(tokenizer):
    dataset = SpamDataset(MESSAGES, tokenizer)
    encoded = [tokenizer.encode_ordinary(text) for text in MESSAGES["Text"]]
    longest = max(map(len, encoded))
    assert dataset.max_length == longest == len(encoded[1]) and len(dataset) == 3
    expected = [ids + [PAD] * (longest - len(ids)) for ids in encoded]
    assert [row[0] for row in rows_of(dataset)] == expected
    assert [row[1] for row in rows_of(dataset)] == [0, 1, 0]


def test_a_csv_file_and_a_table_give_the_same(tokenizer, tmp_path):
    MESSAGES.to_csv(tmp_path / "train.csv", index=None)
    path = str(tmp_path / "train.csv")
    found = SpamDataset(csv_file=path, max_length=None, tokenizer=tokenizer)
    assert found.max_length == found._longest_encoded_length()
    assert rows_of(found) == rows_of(SpamDataset(MESSAGES, tokenizer))


@pytest.mark.parametrize("max_length", [1, 4, 30])
def test_messages_are_cut_and_padded_to_max_length(tokenizer, max_length):
    dataset = SpamDataset(MESSAGES, tokenizer, max_length, pad_token_id=7)
    assert dataset.max_length == max_length
    for (ids, _), text in zip(rows_of(dataset), MESSAGES["Text"]):
        whole = tokenizer.encode_ordinary(text)[:max_length]
        assert ids == whole + [7] * (max_length - len(whole))


@pytest.mark.parametrize("max_length", [0, -1, 2.5, True, "4"])
def test_a_length_that_is_none_is_refused(tokenizer, max_length):
    with pytest.raises(ValueError, match="max_length is .*; it must be a whole number"):
        SpamDataset(MESSAGES, tokenizer, max_length)


@pytest.mark.parametrize("max_length", [None, 4])
def test_without_a_pad_token_nothing_is_padded(tokenizer, max_length):
    dataset = SpamDataset(MESSAGES, tokenizer, max_length, pad_token_id=None)
    for (ids, _), text in zip(rows_of(dataset), MESSAGES["Text"]):
        assert ids == tokenizer.encode_ordinary(text)[:max_length]


def test_a_loader_makes_batches_of_it(tokenizer):
    loader = torch.utils.data.DataLoader(SpamDataset(MESSAGES, tokenizer), batch_size=3)
    inputs, labels = next(iter(loader))
    assert inputs.shape[0] == 3 and inputs.dtype == torch.int64
    assert labels.tolist() == [0, 1, 0] and labels.dtype == torch.int64


@pytest.mark.parametrize("texts", [["null", "NA"], ["nan", "None"], ["-", "N/A"]])
def test_a_message_that_looks_like_a_gap_is_a_message(tokenizer, texts):
    found = SpamDataset(csv_of(MESSAGES[:2].assign(Text=texts)), tokenizer, None, None)
    assert [tokenizer.decode(ids) for ids, _ in rows_of(found)] == texts


@pytest.mark.parametrize("texts", [["0800", "12"], ["True", "False"], ["1e3", "2.50"]])
def test_messages_that_look_like_numbers_are_messages(tokenizer, texts):
    found = SpamDataset(csv_of(MESSAGES[:2].assign(Text=texts)), tokenizer, None, None)
    assert [tokenizer.decode(ids) for ids, _ in rows_of(found)] == texts


def test_the_name_of_a_special_token_is_text_in_a_message(tokenizer):
    df = MESSAGES[:1].assign(Text="<|endoftext|>")
    ((ids, _),) = rows_of(SpamDataset(df, tokenizer, pad_token_id=None))
    assert PAD not in ids and tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize("as_csv", [True, False])
@pytest.mark.parametrize(
    "labels", [["ham", "spam", "ham"], [0, 1, 2], [0, 1, None], [0, 0.5, 1]]
)
def test_other_labels_are_refused(tokenizer, labels, as_csv):
    df = MESSAGES.assign(Label=labels)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        SpamDataset(csv_of(df) if as_csv else df, tokenizer)


@pytest.mark.parametrize("as_csv", [True, False])
def test_a_table_without_messages_is_refused(tokenizer, as_csv):
    with pytest.raises(ValueError, match="expected messages"):
        SpamDataset(csv_of(MESSAGES[:0]) if as_csv else MESSAGES[:0], tokenizer)


@pytest.mark.parametrize("as_csv", [True, False])
def test_an_empty_message_is_refused(tokenizer, as_csv):
    df = MESSAGES.assign(Text=["one", "", "two"])
    with pytest.raises(ValueError, match="the message is empty; remove it"):
        SpamDataset(csv_of(df) if as_csv else df, tokenizer)


def test_a_dataset_of_a_split(tokenizer, sample):
    """The parts of a table keep its index, which counts messages of other parts too."""
    part = split_messages(sample)[1]
    dataset = SpamDataset(part, tokenizer, pad_token_id=None)
    found = [(tokenizer.decode(ids), label) for ids, label in rows_of(dataset)]
    assert found == [*zip(part["Text"], part["Label"])]
