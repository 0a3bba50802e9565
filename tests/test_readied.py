"""A readied model writes nearly as the one it was made from, with smaller weights."""

import pytest
import torch

from ch04.gpt import GPTModel
from ch05.decoding import generate
from ch05.readied import CLASSES, logit_error, ready_for_decoding
from ch05.small_layers import HalfHead, HalfLinear, LinearPart, SmallEmbedding
from ch07.lora import replace_linear_with_lora
from tests.conftest import TINY
from tests.test_preflight import ARCHITECTURES

IDS = [5, 17, 2, 99, 0, 41, 41, 8]


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    """A seeded tiny model, in float32 on the CPU."""
    build, cfg = ARCHITECTURES[request.param]
    torch.manual_seed(123)
    return build(cfg).eval()


@pytest.fixture(autouse=True)
def float16_without_fbgemm(monkeypatch):
    """Let "no FBGEMM" be what "float16" is where PyTorch lacks that library."""
    monkeypatch.setitem(CLASSES, "no FBGEMM", (HalfLinear, HalfHead))


@pytest.mark.parametrize(
    ("weights", "limit"), [("float16", 0.02), ("no FBGEMM", 0.02), ("int8", 0.3)]
)
def test_logits_are_near(model, weights, limit):
    readied = ready_for_decoding(model, weights)
    assert 0 < logit_error(model, readied, IDS) < limit


@pytest.mark.parametrize("weights", ["float16", "no FBGEMM", "int8"])
def test_whole_texts_and_single_tokens_give_the_same(model, weights):
    readied = ready_for_decoding(model, weights)
    ids, settings = torch.tensor([IDS, IDS[::-1]]), (4, TINY["context_length"])
    cached = generate(readied, ids, *settings)
    assert torch.equal(cached, generate(readied, ids, *settings, use_cache=False))


@pytest.mark.parametrize("weights", ["float16", "no FBGEMM"])
def test_float16_writes_the_same_text(model, weights):
    ids, settings = torch.tensor([IDS[:4]]), (8, TINY["context_length"])
    readied = ready_for_decoding(model, weights)
    expected = generate(model, ids, *settings)
    assert torch.equal(generate(readied, ids, *settings), expected)


def size_in_bytes(model):
    """What a model's tensors take, those that are shared counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def test_weights_are_half_as_large(model):
    readied = ready_for_decoding(model, "no FBGEMM")
    assert size_in_bytes(readied) < 0.65 * size_in_bytes(model)


def test_the_model_stays_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.tensor([IDS]))
    readied = ready_for_decoding(model.train())
    assert model.training and not readied.training
    with torch.no_grad():
        for tensor in [*readied.parameters(), *readied.buffers()]:
            tensor.zero_()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert torch.equal(model.eval()(torch.tensor([IDS])), logits)
    assert all(p.requires_grad for p in model.parameters())


def test_a_tied_embedding_is_held_once(model):
    model.out_head.weight = model.tok_emb.weight
    readied = ready_for_decoding(model, "no FBGEMM")
    assert readied.tok_emb.weight.data_ptr() == readied.out_head.table.data_ptr()
    assert logit_error(model, readied, IDS) < 0.02


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_a_tied_model_is_readied_too(model, weights):
    model.out_head.weight = model.tok_emb.weight
    readied = ready_for_decoding(model, weights)
    torch.testing.assert_close(
        readied.tok_emb(torch.arange(101)), model.tok_emb.weight, atol=0.02, rtol=0
    )


def test_layers_of_one_input_are_joined(model):
    readied = ready_for_decoding(model, "int8")
    parts = [m for m in readied.modules() if isinstance(m, LinearPart)]
    per_block = 3 if isinstance(model, GPTModel) else 5  # q, k, v; gate and up
    assert len(parts) == per_block * len(model.trf_blocks)
    assert len({id(part.joined) for part in parts}) == len(parts) // per_block * (
        1 if isinstance(model, GPTModel) else 2
    )
    assert isinstance(readied.tok_emb, SmallEmbedding)


def test_a_model_with_lora(model):
    torch.manual_seed(123)
    replace_linear_with_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    assert logit_error(model, ready_for_decoding(model), IDS) < 0.02


def test_error_by_hand(monkeypatch):
    """Logits 0, 2, 4 have a deviation of 2; one of them is off by 0.5."""

    class Next:
        def __init__(self, logits, batch_size, capacity):
            assert (batch_size, capacity) == (1, 3)
            self.logits = logits

        def __call__(self, rows):
            return self.logits[len(rows[0])]

    monkeypatch.setattr("ch05.readied.CachedLogits", Next)
    right = {n: torch.tensor([[0.0, 2.0, 4.0]]) for n in (1, 2, 3)}
    found = right | {2: torch.tensor([[0.1, 2.0, 3.5]])}
    assert logit_error(right, found, [7, 7, 7]) == pytest.approx(0.25)


def test_unknown_weights_are_refused(model):
    with pytest.raises(ValueError, match="'int4'; it must be one of .*float16.*int8"):
        ready_for_decoding(model, "int4")


def test_what_is_readied_is_not_readied_again(model):
    with pytest.raises(ValueError, match="readied already"):
        ready_for_decoding(ready_for_decoding(model))


def test_other_dtypes_are_refused(model):
    with pytest.raises(ValueError, match=r"torch.bfloat16 on cpu; .*model.float\(\)"):
        ready_for_decoding(model.bfloat16())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 70_000.0])
def test_weights_that_float16_cannot_hold_are_refused(model, value):
    with torch.no_grad():
        model.out_head.weight[3, 3] = value
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        ready_for_decoding(model)


def test_a_readied_model_is_not_trained_or_moved(model):
    readied = ready_for_decoding(model)
    with pytest.raises(ValueError, match="cannot be trained"):
        readied.train()
    with pytest.raises(ValueError, match="stays on the CPU"):
        readied.to("meta")
