"""Do the tests notice when a lesson module is changed in one place?

`python -m tests.mutants` takes 400 of the mutants that Cosmic Ray makes of the lesson
modules, runs the tests of its module for each until one fails, and prints the share of
those that were killed, and what survived: tests/mutants_survivors.md says why it may.
Two copies of the course are changed, not the course, and they have no downloads.
Interrupted, the same command goes on; when a module or a test changes it begins anew.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from attrs import evolve
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import WorkerOutcome
from tqdm import tqdm

from support.paths import ROOT
from tests.notebooks.test_notebooks_match_modules import MODULES

FOLDER = ROOT / ".mutants"
SURVIVORS = ROOT / "tests" / "mutants_survivors.md"
NUM_COPIES = 2
KNOWN_SECONDS = {}  # that the tests of a module take, as far as they were measured
MORE_TESTS = {  # files with tests of modules that have a file of their own as well
    "decoding": "kv_cache",
    "dropout": "attention baselines classifier evaluation finetuning gpt training",
    "other_devices": "baselines classifier decoding gpt kv_cache lora training",
    "seeds": "bucketing classifier evaluation instructions spam",
    "spam": "splits",
    "tokenizer": "bpe",
}


def digest(*texts):
    """A hash of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def session_path(num_mutants):
    """Where the results lie for modules and tests as they are now."""
    paths = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]
    state = digest(*(path.read_text(encoding="utf-8") for path in paths))
    return FOLDER / f"{num_mutants}-{state[:16]}.db"


def rank(item):
    """A seeded rank that depends on nothing but the change and the line it is in."""
    (mutation,) = item.mutations
    lines = (ROOT / mutation.module_path).read_text(encoding="utf-8").splitlines()
    line, column = mutation.start_pos
    place = str(mutation.module_path), lines[line - 1].strip(), str(column)
    return digest("123", mutation.operator_name, *place), mutation.occurrence


def draw(path, num_mutants):
    """Write a session of so many mutants, without results."""
    drawn = path.with_suffix(".drawn")
    drawn.unlink(missing_ok=True)
    with use_db(drawn) as session:
        init([module.relative_to(ROOT) for module in MODULES], session, {})
        items = sorted(session.work_items, key=rank)
        session.clear()
        session.add_work_items(items[:num_mutants])
    drawn.rename(path)


def copy_course(number):
    """A fresh copy of the course, without what is not committed."""
    copy = FOLDER / f"copy-{number}"
    shutil.rmtree(copy, ignore_errors=True)
    skip = shutil.ignore_patterns(
        ".*", "__pycache__", "checkpoints", "models", "downloads"
    )
    return shutil.copytree(ROOT, copy, ignore=skip)


def test_in(copy, stem, mutations, seconds):
    """The result of a module's tests in a copy; who takes more seconds is killed."""
    more = [name for name, stems in MORE_TESTS.items() if stem in stems.split()]
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    files = [copy / f"tests/lessons/test_{name}.py" for name in [stem, *more]]
    words += [str(file) for file in files if file.is_file()]
    script = f"cd {shlex.quote(str(copy))} && exec {shlex.join(words)}"
    result = mutate_and_test(mutations, shlex.join(["sh", "-c", script]), seconds)
    if result.worker_outcome != WorkerOutcome.NORMAL:
        raise RuntimeError(f"{mutations} cannot be tried: {result.output}")
    return result


def usual_seconds(copy, stem):
    """How long the tests of a module take; RuntimeError if they fail as it is."""
    if stem in KNOWN_SECONDS:
        return KNOWN_SECONDS[stem]
    start = time.perf_counter()
    result = test_in(copy, stem, [], seconds=1200)
    if result.is_killed:
        raise RuntimeError(f"without a mutant, tests fail:\n{result.output[-3000:]}")
    KNOWN_SECONDS[stem] = time.perf_counter() - start
    return KNOWN_SECONDS[stem]


def try_out(item, free):
    """A mutant's result, in one of the copies that are free."""
    copy, (mutation,) = free.get(), item.mutations
    try:
        stem = mutation.module_path.stem
        there = evolve(mutation, module_path=copy / mutation.module_path)
        return test_in(copy, stem, [there], 60 + 5 * usual_seconds(copy, stem))
    finally:
        free.put(copy)


def work(session):
    """Try out the mutants of a session that have no result."""
    free = SimpleQueue()
    for number in range(NUM_COPIES):
        free.put(copy_course(number))
    items = sorted(session.pending_work_items, key=rank)
    pool = ThreadPoolExecutor(NUM_COPIES)
    tests = {pool.submit(try_out, item, free): item.job_id for item in items}
    try:
        for done in tqdm(as_completed(tests), "mutants", len(tests), unit="mutant"):
            session.set_result(tests[done], done.result())
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the tests that run


def change_of(item, result):
    """What a mutant changes, as tests/mutants_survivors.md has it."""
    lines = result.diff.splitlines()[3:]  # behind the names of the files
    old, new = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign))
        for sign in "-+"
    )
    return f"{item.mutations[0].module_path}: `{old}` becomes `{new}`"


def report(results):
    """Print what survived and the share that was killed, and return that."""
    listed = SURVIVORS.read_text(encoding="utf-8")
    alive = sorted(change_of(*each) for each in results if not each[1].is_killed)
    for change in alive:
        print(f"survived{'' if change in listed else ', NOT LISTED'}: {change}")
    share = 1 - len(alive) / len(results)
    print(f"{share:.1%} of {len(results)} mutants were killed")
    return share


def main():
    """Try out what is left to try, and report; an exit code of 1 if under 90% died."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=400, help="how many (400)")
    num_mutants = parser.parse_args().mutants
    os.environ |= {"OMP_NUM_THREADS": "1", "LLMS_DOWNLOADS": str(FOLDER / "downloads")}
    FOLDER.mkdir(exist_ok=True)
    path = session_path(num_mutants)
    if not path.exists():
        draw(path, num_mutants)
    with use_db(path) as session:
        work(session)
        sys.exit(report(session.completed_work_items) < 0.9)


if __name__ == "__main__":
    main()
