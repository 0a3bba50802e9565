"""What test files share: this machine's devices, a tiny GPT, the instructions."""

import os
import shutil
import signal

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch07.instructions import DATA, download_and_load_file
from support.device.device import available_devices
from support.download.fetch import downloads_folder
from support.weights.checkpoint import sha256_of_model
from support.weights.local import train_small
from support.weights.smollm2 import GGUF
from tests import forced_way, low_precision
from tests.notebooks import running as notebooks
from tests.notebooks.running import copy_course, execute, label
from tests.ollama import stand_in

# Tiny models gain nothing from more threads, and wait for each of them where the cores
# have other work; the processes that tests start compute so too.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
# Without it, tests would compute in whatever ways are fastest on the machine at hand.
os.environ["LLMS_PLAIN"] = "1"
# Started in the background of a script, this process would ignore Ctrl-C, and so would
# the processes that tests start to see what Ctrl-C does to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Properties are tried on the same examples each run, on slow machines too; to look for
# new ones: `python -m pytest --hypothesis-profile=default tests/test_tokenizer.py`.
settings.register_profile("course", derandomize=True, deadline=None)
settings.load_profile("course")
TINY = GPT_CONFIG_124M | {
    "vocab_size": 101,
    "context_length": 12,
    "emb_dim": 16,
    "n_heads": 4,
    "n_layers": 2,
}


@pytest.fixture(autouse=True)
def checked_path(tmp_path_factory, monkeypatch):
    """No file is known to have passed a check; what a test checks is forgotten."""
    path = tmp_path_factory.mktemp("models") / "checked_files.json"
    monkeypatch.setattr("support.download.checked_files.CHECKED", path)
    return path


@pytest.fixture(autouse=True, scope="session")
def nothing_at_home(tmp_path_factory):
    """What IPython and datasets would keep in the home folder is temporary."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "HF_DATASETS_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


def pytest_addoption(parser):
    """`--low-precision` is a CPU with AMX; with `--way NAME`, NAME is fast."""
    words = "compute with fewer digits where PyTorch's float32 precision allows it"
    parser.addoption("--low-precision", action="store_true", help=words)
    words = "choose this way to compute wherever it is one of several, and exact"
    parser.addoption("--way", help=words)


def pytest_configure(config):
    if way := config.getoption("way"):
        forced_way.force(way)
    if config.getoption("low_precision"):
        low_precision.plant_for_good()
        notebooks.KERNEL_ARGUMENTS += low_precision.KERNEL_ARGUMENTS


@pytest.fixture(params=available_devices())
def device(request):
    """Each device that is here: a test that asks for it runs once on each."""
    return torch.device(request.param)


@pytest.fixture
def verdict_file():
    """The book's text, which is not in the repository."""
    path = downloads_folder() / "the-verdict.txt"
    if not path.is_file():
        pytest.skip("needs downloads/the-verdict.txt: load_text fetches it")
    return path


@pytest.fixture(scope="session")
def gguf_path():
    """SmolLM2's file, which is not in the repository."""
    path = downloads_folder() / "smollm2" / GGUF
    if not path.is_file():
        pytest.skip(
            f"needs downloads/smollm2/{GGUF}: "
            "`python -m support.weights get smollm2-135M` fetches it"
        )
    return path


@pytest.fixture
def tiny_config():
    """The config of a GPT that computes in milliseconds."""
    return dict(TINY)


@pytest.fixture
def tiny_model(tiny_config):
    """A seeded tiny GPT in evaluation mode, on the CPU."""
    torch.manual_seed(123)
    return GPTModel(tiny_config).eval()


@pytest.fixture
def token_ids():
    """Two rows of ten seeded token ids of the tiny vocabulary."""
    generator = torch.Generator().manual_seed(123)
    return torch.randint(TINY["vocab_size"], (2, 10), generator=generator)


@pytest.fixture(scope="session")
def tokenizer():
    """GPT-2's."""
    return get_tokenizer("gpt2")


@pytest.fixture(scope="session")
def entries():
    """The course's own instructions."""
    return download_and_load_file(DATA)


@pytest.fixture
def ollama():
    """A judge, with the lists `replies` and `asked`, and its address `url`."""
    with stand_in() as server:
        yield server


@pytest.fixture
def usual_precision():
    """The precision of matrix products is put back after training has set it."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def one_thread():
    """Tiny models gain nothing from more, and on a busy machine they wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the course in which notebooks run; what they write stays in it."""
    folder = tmp_path_factory.mktemp("course")
    copy_course(folder)
    return folder


@pytest.fixture(scope="session")
def local_model(tmp_path_factory):
    """A folder with the model that `load_pretrained` falls back to.

    Training it takes a minute: one of the processes that run tests does it for all.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "local.lock"):
        if not (shared / "local").is_dir():
            train_small(shared / "local" / "local.safetensors")
    return shared / "local"


@pytest.fixture
def run_notebook(course, monkeypatch, tmp_path, request):
    """A function that executes a notebook's copy without a network.

    run_notebook(path, parameters, downloads): without downloads there are none, and
    the local model stands in for what is pretrained. Nothing is left of an earlier run.
    """
    monkeypatch.setenv("LLMS_OFFLINE", "1")

    def run(path, parameters=None, downloads=None):
        monkeypatch.setenv("LLMS_DOWNLOADS", str(downloads or tmp_path))
        if not downloads and "load_pretrained(" in path.read_text(encoding="utf-8"):
            local = request.getfixturevalue("local_model")
            shutil.copytree(local, course / "models", copy_function=os.link)
        return execute(course / label(path), parameters, with_answers=True).notebook

    yield run
    shutil.rmtree(course / "models", ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Run the notebooks first: they take longest, and should not be what is left."""
    items.sort(key=lambda item: "run_notebook" not in item.fixturenames)


def count_hashing(monkeypatch):
    """A list that grows when the content of a saved model is hashed."""
    hashed = []

    def sha256(*content):
        hashed.append(content)
        return sha256_of_model(*content)

    monkeypatch.setattr("support.weights.checkpoint.sha256_of_model", sha256)
    return hashed
