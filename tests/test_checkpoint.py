"""A saved model comes back to the bit, and a damaged one is refused."""

import os

import pytest
import torch

from ch05.checkpoint import load_model, save_model, sha256_file


@pytest.fixture
def saved(tmp_path, tiny_model, tiny_config):
    """The path of the saved tiny model."""
    path = tmp_path / "checkpoints" / "tiny.safetensors"
    save_model(path, tiny_model, tiny_config)
    return path


def test_a_model_comes_back_to_the_bit(saved, tiny_model, tiny_config, token_ids):
    model, cfg = load_model(saved)
    assert cfg == tiny_config
    assert not model.training
    assert torch.equal(model(token_ids), tiny_model(token_ids))


def test_it_loads_onto_each_device(saved, device):
    model, _ = load_model(saved, device)
    assert next(model.parameters()).device.type == device.type


def test_a_flipped_bit_is_seen(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="tiny.safetensors is damaged"):
        load_model(saved)


def test_a_truncated_file_is_seen(saved):
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        load_model(saved)


def test_a_failed_save_leaves_the_old_model(
    saved, tiny_model, tiny_config, token_ids, monkeypatch
):
    expected = tiny_model(token_ids)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(saved, tiny_model, tiny_config)
    assert sorted(saved.parent.iterdir()) == [saved, sha256_file(saved)]
    assert torch.equal(load_model(saved)[0](token_ids), expected)
