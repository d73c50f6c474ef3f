from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from bitsure import quantize
from bitsure.errors import UserError
from bitsure.quantizers import Bnb, Hqq
from tests.quantize.plans import plan


@pytest.mark.parametrize(("quant", "library"), [(Bnb("nf4"), "bitsandbytes"), (Hqq(4, 64), "hqq")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(tiny_model, calib_file, monkeypatch, quant, library):
    def version(name: str) -> str:
        if name == library:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(quantize, "version", version)
    with pytest.raises(UserError, match=rf"quant={quant.name} needs {library}.*pip install -e '\.\[{library}\]'"):
        _ = plan(tiny_model, quant, calib_file).made_from
