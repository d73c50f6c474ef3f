"""Errors of the network become advice; programming errors stay what they are."""

from __future__ import annotations

import errno
from contextlib import nullcontext

import datasets
import pytest
import requests
from huggingface_hub import errors

from bitsure.base.errors import NotHere, UserError
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.failures import explained, is_data_set_error, is_hub_error, retry_after
from bitsure.hub.offline import is_offline, offline
from bitsure.hub.retries import retry_while_busy
from tests.builders.marks import library

PROGRAMMING_ERRORS = [
    KeyError("column"),
    TypeError("two arguments"),
    AttributeError("sha"),
    ValueError("invalid literal for int()"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    OSError("a library's own"),
    RuntimeError("Task error: Internal error: assertion failed"),
    RuntimeError("shapes of a matrix product differ"),
]


@pytest.mark.parametrize("error", PROGRAMMING_ERRORS)
def test_a_programming_error_is_not_dressed_as_advice(error):
    with pytest.raises(type(error)) as raised, explained("model org/tiny", "models/org/tiny", is_expected=is_data_set_error):
        raise error
    assert raised.value is error


def test_a_programming_error_passes_through_data_sets_of_hub_and_mirror(tmp_path, monkeypatch):
    (tmp_path / "datasets" / "org" / "set").mkdir(parents=True)

    def broken(path, **kwargs):
        raise KeyError("column")

    monkeypatch.setattr("datasets.load_dataset", broken)
    with data_sets_from(str(tmp_path)):
        for repo in ("org/set", "org/other"):
            with pytest.raises(KeyError, match="column"):
                datasets.load_dataset(repo)


def test_an_error_of_the_network_says_what_to_do_and_whether_the_hub_was_asked():
    with pytest.raises(UserError, match=r"model org/tiny is not available: .* no route\nWays out: .*DIR/models/org/tiny"):  # noqa: SIM117
        with explained("model org/tiny", "models/org/tiny"):
            raise ConnectionError("no route")
    with pytest.raises(NotHere, match=r"the hub is not asked \(HF_HUB_OFFLINE\)"), offline():  # noqa: SIM117
        with explained("model org/tiny", "models/org/tiny"):
            raise ConnectionError("no route")


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        requests.ReadTimeout(),
        errors.HTTPError("refused"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Consistency check failed: file should be of size 5 but has size 3"),
        RuntimeError("Task error: File reconstruction error: IO Error: No space left on device (os error 28)"),
    ],
)
def test_the_network_and_the_disk_are_told_by_type_or_number(error):
    assert is_hub_error(error)


def test_the_network_is_back_after_a_block_without_it(served):
    import datasets.config

    with offline():
        assert is_offline()
    assert not is_offline() and not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("wait, seconds", [("3", 3), ("-5", 2), ("nan", 2), ("Wed, 21 Oct 2026 07:28:00 GMT", 2)])
def test_a_wait_that_is_no_time_is_the_usual_one(wait, seconds):
    response = requests.Response()
    response.headers["Retry-After"] = wait
    assert retry_after(requests.HTTPError(response=response), default=2) == seconds


def test_only_a_busy_hub_is_asked_again():
    calls = []

    def broken() -> None:
        calls.append(1)
        raise KeyError("column")

    with pytest.raises(KeyError):
        retry_while_busy(broken)
    assert len(calls) == 1


def test_a_configuration_that_the_hub_lacks_is_named_without_advice_on_the_network(monkeypatch):
    def refuse(path, *args, **kwargs):
        raise ValueError("BuilderConfig 'b' not found. Available: ['a']")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(UserError) as raised, data_sets_from(None):
        datasets.load_dataset("org/set", "b")
    assert str(raised.value) == (
        "data set org/set, configuration b is not available: the data set has no such configuration or split. "
        "BuilderConfig 'b' not found. Available: ['a']"
    )
    with pytest.raises(NotHere) as away, offline(), data_sets_from(None):
        datasets.load_dataset("org/set", "b")
    assert away.value.wanted == "data set org/set, configuration b"


def test_a_large_file_that_the_storage_does_not_deliver_is_advice_on_the_network(tmp_path, monkeypatch):
    hf_xet = library("hf_xet")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    session = hf_xet.XetSession()
    with pytest.raises(UserError, match=r"the hub's client says RuntimeError: .*\nWays out"):  # noqa: SIM117
        with explained("model org/tiny", "models/org/tiny"):
            with session.new_file_download_group(
                endpoint="http://127.0.0.1:1", token="t", token_expiry_unix_secs=2**40
            ) as group:
                group.start_download_file(hf_xet.XetFileInfo("0" * 64, 100), str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("IO Error: No space left on device (os error 28)", "the disk is full"),
        (
            "CAS Client Error: Request error: HTTP status client error (429 Too Many Requests), domain: no-url",
            "too many requests",
        ),
    ],
)
def test_an_error_of_a_large_file_is_told_from_others_by_its_words(message, reason):
    with pytest.raises(UserError, match=reason), explained("model org/tiny", "models/org/tiny"):
        raise RuntimeError(f"Task error: File reconstruction error: {message}")


@pytest.mark.parametrize("where", ["", "/hub/models--org--tiny", "/datasets/x.lock"])
def test_a_cache_that_cannot_be_used_is_named_with_the_variable_that_sets_it(monkeypatch, tmp_path, where):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    error = NotADirectoryError(errno.ENOTDIR, "Not a directory", f"{tmp_path}{where}")
    with pytest.raises(UserError) as raised, offline(), explained("data set json", "datasets/json"):
        raise error
    assert not isinstance(raised.value, NotHere)  # no file is missing
    assert f"cache {tmp_path} cannot be used: Not a directory" in str(raised.value) and "HF_HOME" in str(raised.value)


def test_a_folder_in_the_place_of_the_cache_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "data.jsonl").write_text('{"q": 1}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file" / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / "hf" / "datasets")
    with pytest.raises(UserError, match=r"data set json cannot be read: the hub's cache .* HF_HOME"), data_sets_from(None):
        datasets.load_dataset("json", data_files=str(tmp_path / "data.jsonl"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.jsonl", "there is no file at .*none.jsonl"), ("bad.jsonl", r".*bad\.jsonl: ArrowInvalid: JSON parse error")],
)
@pytest.mark.parametrize("without_network", [False, True])
def test_a_file_of_this_machine_is_named_without_advice_on_the_network(monkeypatch, tmp_path, name, reason, without_network):
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "bad.jsonl").write_text("no json {")
    with (
        pytest.raises(UserError, match=rf"^data set json cannot be read: {reason}.* data_files in the task's YAML; [^\n]*$"),
        offline() if without_network else nullcontext(),
        data_sets_from(None, str(tmp_path)),
    ):
        datasets.load_dataset("json", data_files={"test": name})
