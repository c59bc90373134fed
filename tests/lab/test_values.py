"""What the heart decides on and hands on is a value: nobody changes it on the way, and it holds nothing else."""

from __future__ import annotations

import importlib
from types import ModuleType

import msgspec
import pytest

MODULES = ("delegator.provisioning.handshake", "delegator.provisioning.judgement", "delegator.provisioning.certifying",
           "delegator.policy",
           "delegator.routing", "delegator.store.claims")


def values_of(module: ModuleType) -> list[type]:
    return [one for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, msgspec.Struct) and one.__module__ == module.__name__]


@pytest.mark.parametrize("name", MODULES)
def test_a_value_is_frozen_and_has_its_fields_alone(name: str) -> None:
    found = values_of(importlib.import_module(name))
    assert found
    for one in found:
        assert (one.__struct_config__.frozen, one.__struct_config__.dict) == (True, False), one


@pytest.mark.parametrize("name", MODULES)
def test_each_class_without_methods_of_its_making_is_such_a_value(name: str) -> None:
    """A class that neither is an exception, an enumeration, a structure or a protocol nor makes itself is a value."""
    module = importlib.import_module(name)
    plain = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == name
             and one.__bases__ == (object,) and "__init__" not in vars(one)]
    assert plain == []
