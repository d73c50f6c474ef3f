"""Downloads through the real client from a hub on the loopback: what is fetched, from where, and what goes wrong."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.schema import ModelSettings
from bitsure.hub.repository_files import dataset_file
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model

TINY = ModelSettings(repo="org/tiny")


def fetched(path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_what_a_model_is_loaded_from_is_fetched_and_nothing_else(served, published, tiny_model):
    source = locate_model(TINY, None)
    assert source.revision == published.commit and source.fingerprint == f"org/tiny@{published.commit}"
    assert fetched(source.path) == fetched(tiny_model)
    loaded, given = (load_model(path, "float32")[0] for path in (source.path, tiny_model))
    assert torch.equal(loaded.lm_head.weight, given.lm_head.weight)


def test_a_model_in_the_cache_needs_no_hub(served, published, monkeypatch):
    first = locate_model(TINY, None)
    served.asked.clear()
    assert locate_model(TINY, None) == first and served.asked == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate_model(TINY, None) == first
    by_commit = ModelSettings(repo="org/tiny", revision=published.commit)
    assert locate_model(by_commit, None).fingerprint == first.fingerprint


def test_a_cache_that_is_not_whole_is_completed(served, published):
    first = locate_model(TINY, None)
    (first.path / "model.safetensors").unlink()
    assert "model.safetensors" in fetched(locate_model(TINY, None).path)


def test_repositories_without_safetensors_are_read_as_bin(served, tiny_model, tmp_path, caplog):
    folder = shutil.copytree(tiny_model, tmp_path / "old")
    model, _ = load_model(folder, "float32")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "tf_model.h5").write_bytes(b"not to be fetched")
    served.add("org/old", folder)
    source = locate_model(ModelSettings(repo="org/old"), None)
    assert fetched(source.path) == fetched(folder) - {"tf_model.h5"}
    caplog.set_level("INFO")
    assert torch.equal(load_model(source.path, "float32")[0].lm_head.weight, model.lm_head.weight)
    assert "read by torch's weights-only loader" in caplog.text


def test_a_broken_transfer_goes_on_where_it_broke(served, published, tiny_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**12)
    served.breaks = 3
    source = locate_model(TINY, None)
    size = (tiny_model / "model.safetensors").stat().st_size
    assert (source.path / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert len(served.ranges) == 3 and size <= served.sent["model.safetensors"] < size + 3 * 2**12
    assert not list((source.path.parents[1]).rglob("*.incomplete"))


def test_a_hub_that_asks_for_patience_gets_it(served, published, caplog):
    served.busy = 3
    assert locate_model(TINY, None).revision == published.commit
    assert "the hub answers 429" in caplog.text
    served.busy = 1000
    with pytest.raises(UserError, match=r"too many requests from here \(429\).*hf auth login"):
        locate_model(ModelSettings(repo="org/other"), None)


def test_a_misspelt_repository_has_near_names(served, published):
    with pytest.raises(UserError, match=r"no repository org/tinny.* Did you mean .*org/tiny\?"):
        locate_model(ModelSettings(repo="org/tinny"), None)
    with pytest.raises(UserError, match=r"no repository facebook/opt-125.* Did you mean .*facebook/opt-125m"):
        locate_model(ModelSettings(repo="facebook/opt-125"), None)


def test_a_revision_that_is_gone_is_said_with_those_there_are(served, published):
    published.branches = ("main", "step1000")
    with pytest.raises(UserError, match=r"no revision step100\. Did you mean step1000\? model\.revision=main"):
        locate_model(ModelSettings(repo="org/tiny", revision="step100"), None)


@pytest.mark.parametrize("token", [None, "hf_secretsecretsecret"])
def test_a_gated_model_says_how_to_get_access_and_never_a_token(served, published, token, monkeypatch, caplog):
    published.gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as error:
        locate_model(TINY, None)
    said = str(error.value) + caplog.text
    assert f"org/tiny is gated, and {'the token here has no access' if token else 'there is no token here'}" in said
    assert f"{served.url}/org/tiny" in said and "secret" not in said
    served.members = ("hf_member",)
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    assert locate_model(TINY, None).revision == published.commit and served.leaked == []


def test_a_full_disk_is_said_before_and_during_a_download(served, published, monkeypatch, tmp_path, tiny_model):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"its files need \d+ KiB, and the disk of .* has \d+ (KiB|bytes) left\. .* HF_HOME"):
        locate_model(TINY, None)
    assert served.sent == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    import huggingface_hub.file_download as client

    def full(url, temp_file, **kwargs):
        temp_file.write(b"the beginning")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(client, "http_get", full)
        with pytest.raises(UserError, match=r"the disk is full\. .* the same command continues from there"):
            locate_model(TINY, None)
    whole = locate_model(TINY, None)  # the half-written file is not taken for a whole one
    assert (whole.path / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()


def test_what_conf_says_of_a_model_is_checked_before_its_weights_are_fetched(served, published, caplog):
    said = {"family": "llama", "context": 2048, "full_dtype": "float16"}
    with pytest.raises(UserError, match="org/tiny is of the family 'opt', not 'llama'"):
        locate_model(ModelSettings(repo="org/tiny", **said), None)
    with pytest.raises(UserError, match=r"999,999,999,999,999 parameters in float32 are .* model\.device_map=auto"):
        locate_model(ModelSettings(repo="org/tiny", parameters=999_999_999_999_999, device="cpu"), None)
    assert served.sent == {}
    locate_model(ModelSettings(repo="org/tiny", **said | {"family": "opt"}), None)
    assert "says a context of 1024 tokens, model.context 2048" in caplog.text
    assert "says weights in float32, model.full_dtype float16" in caplog.text


def test_a_file_of_a_data_set_is_fetched_once(served, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "c.txt").write_text("text")
    served.add("org/text", tmp_path / "set", kind="datasets")
    assert dataset_file("org/text", "c.txt", None).read_text() == "text"
    served.asked.clear()
    assert dataset_file("org/text", "c.txt", None).read_text() == "text" and served.asked == []
    with pytest.raises(UserError, match=r"none\.txt of data set org/text is not avail.*\n.*DIR/datasets/org/text/none\.txt"):
        dataset_file("org/text", "none.txt", None)
