"""GGUF files of the hub's repositories: downloaded, out of a mirror, as the model and as a quantized checkpoint."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.hub.fetching import fetch_file
from bitsure.hub.repositories import LocalFiles, WantedModel
from bitsure.hub.repository_files import dataset_file, find_file
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.libraries import prequantized
from bitsure.quantize.libraries.prequantized import Prequantized
from tests.builders.gguf_files import write_llama
from tests.builders.marks import library, needs_transformers_5

pytestmark = needs_transformers_5
FILE, REPO = "tiny-F16.gguf", WantedModel("org/tiny-GGUF")


@pytest.fixture
def folder(tiny_llama, tmp_path):
    """What is in the repository: a file, and no config.json."""
    library("libgguf")
    (tmp_path / "repository").mkdir()
    write_llama(tmp_path / "repository" / FILE, *load_model(tiny_llama, "float32"))
    return tmp_path / "repository"


def test_a_file_is_downloaded_once_and_put_into_a_mirror_once(served, folder, tmp_path):
    served.add("org/tiny-GGUF", folder)
    first = find_file(REPO, FILE, None)
    assert first.path.read_bytes() == (folder / FILE).read_bytes() and len(first.commit or "") == 40
    served.asked.clear()
    assert find_file(REPO, FILE, None) == first and served.asked == []
    fetched = fetch_file(REPO, FILE, tmp_path / "mirror")
    assert fetched == LocalFiles(tmp_path / "mirror" / "models" / "org" / "tiny-GGUF" / FILE, first.commit)
    served.asked.clear()
    assert fetch_file(REPO, FILE, tmp_path / "mirror") == find_file(REPO, FILE, str(tmp_path / "mirror")) == fetched
    assert served.asked == []
    with pytest.raises(UserError, match=r"none\.gguf of model org/tiny-GGUF at revision main is not avail"):
        find_file(REPO, "none.gguf", None)
    with pytest.raises(UserError, match=rf"has no config\.json.* add model\.file={FILE}"):
        locate_model(ModelSettings(repo="org/tiny-GGUF"), None)


def test_a_name_that_no_repository_can_have_is_refused(served):
    with pytest.raises(UserError, match=r"model /org at revision main is not available: this is no name of a repository"):
        find_file(WantedModel("/org"), FILE, None)
    with pytest.raises(UserError, match=r"data set a/b/c is not available: this is no name of a repository"):
        dataset_file("a/b/c", "text.parquet", None)
    assert served.asked == []


def test_a_file_of_a_mirror_is_the_model_and_a_quantized_checkpoint(folder, tiny_llama, tmp_path):
    mirror = tmp_path / "mirror"
    (mirror / "models" / "org").mkdir(parents=True)
    folder.rename(mirror / "models" / "org" / "tiny-GGUF")
    store = Store(tmp_path / "store")
    source = locate_model(ModelSettings(repo="org/tiny-GGUF", file=FILE), str(mirror), store)
    by_path = locate_model(ModelSettings(path=str(mirror / "models" / "org" / "tiny-GGUF" / FILE)), None, store)
    assert source.name == FILE and source.fingerprint == by_path.fingerprint and source.revision is None
    with pytest.raises(UserError, match=rf"To read {FILE}, add model\.file=FILE\.gguf"):
        locate_model(ModelSettings(repo="org/tiny-GGUF"), str(mirror), store)
    quant = Prequantized(repo="org/tiny-GGUF", file=FILE)
    checkpoint = prequantized.locate(quant, str(mirror), store)
    assert quant.is_gguf and quant.name == FILE and checkpoint is not None
    assert checkpoint.path == mirror / "models" / "org" / "tiny-GGUF" / FILE


def test_a_file_without_a_repository_is_refused():
    with pytest.raises(UserError, match=r"model\.file=x\.gguf: the name of a GGUF file in the repository model\.repo"):
        ModelSettings(path="somewhere", file="x.gguf")
    with pytest.raises(UserError, match=r"quant\.file=x\.bin: the name of a GGUF file in the repository quant\.repo"):
        Prequantized(repo="org/name", file="x.bin")
