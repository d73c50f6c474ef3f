"""Addresses of servers: what is none, and what would be secret."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings
from bitsure.config.server_settings import ServerAddress, ServerSettings
from tests.builders.sweep_commands import compose_errors


@pytest.mark.parametrize(
    "url", ["http://me:sk-1@host/v1", "https://sk-1@host/v1", "http://host/v1?key=sk-1", "http://host/v1#sk-1"]
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(UserError, match="environment variable BITSURE_SERVER_KEY") as error:
        ServerAddress("model", url, None)
    assert "sk-1" not in str(error.value)


@pytest.mark.parametrize("url", ["host:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1/v1", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match="an address such as http://host:8000/v1 is needed"):
        ServerAddress("quant", url, None)


def test_a_name_needs_an_address():
    with pytest.raises(UserError, match=r"Add model\.url="):
        ModelSettings(path=".", served_name="tiny")


@pytest.mark.parametrize("given", [{"concurrency": 0}, {"prompts": 0}, {"timeout": 0.0}, {"tolerance": -1.0}])
def test_values_that_cannot_be_are_refused(given):
    with pytest.raises(UserError, match=f"server.{next(iter(given))}="):
        ServerSettings(**given)


def test_the_option_served_needs_an_address(tmp_path):
    [error] = compose_errors("model=served", f"model.path={tmp_path}", "quant=none", f"hydra.sweep.dir={tmp_path}")
    assert "model.url=: an address such as http://host:8000/v1 is needed" in error
