"""Errors of the network become advice; programming errors stay what they are."""

from __future__ import annotations

import datasets
import pytest

from bitsure.base.errors import NotHere, UserError
from bitsure.hub.data_sets import data_sets_from
from bitsure.hub.failures import data_set_errors, explained
from bitsure.hub.offline import is_offline, offline
from bitsure.hub.retries import retry_while_busy


@pytest.mark.parametrize("error", [KeyError("column"), TypeError("two arguments"), AttributeError("sha")])
def test_a_programming_error_is_not_dressed_as_advice(error):
    with pytest.raises(type(error)) as raised, explained("model org/tiny", "models/org/tiny", errors=data_set_errors):
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


def test_the_network_is_back_after_a_block_without_it(served):
    import datasets.config

    with offline():
        assert is_offline()
    assert not is_offline() and not datasets.config.HF_HUB_OFFLINE


def test_only_a_busy_hub_is_asked_again():
    calls = []

    def broken() -> None:
        calls.append(1)
        raise KeyError("column")

    with pytest.raises(KeyError):
        retry_while_busy(broken)
    assert len(calls) == 1
