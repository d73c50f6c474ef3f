"""Import what a setting names by its dotted path, such as `my_quantizer.Mine`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bitsure.base.errors import UserError, did_you_mean


def import_named(dotted: str, setting: str) -> Any:
    """Return the object that a dotted name stands for.

    Args:
        dotted: Module and name, such as `my_quantizer.Mine`.
        setting: The setting that has this value, for messages.

    Raises:
        UserError: If there is no such module, or it has no such name. What the module itself raises passes through.
    """
    module_name, _, name = dotted.rpartition(".")
    if not module_name:
        raise UserError(f"{setting}={dotted}: needs a module and a name in it, such as my_module.{dotted or 'MyClass'}.")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and something that it imports does not
        raise UserError(
            f"{setting}={dotted}: Python finds no module {error.name}. Put its file into the --config-dir or beside that "
            f"folder, install it, or add its folder to the environment variable PYTHONPATH."
        ) from error
    if not hasattr(module, name):
        near = did_you_mean(name, [key for key in vars(module) if not key.startswith("_")])
        raise UserError(f"{setting}={dotted}: {module.__name__} has no {name}.{near}")
    return getattr(module, name)
