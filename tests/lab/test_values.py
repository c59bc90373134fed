"""What the heart decides on and hands on is a value: nobody changes it on the way, and it holds nothing else."""

from __future__ import annotations

import dataclasses
import importlib
from types import ModuleType

import pytest

MODULES = ("delegator.handshake", "delegator.judgement", "delegator.enrolment", "delegator.policy",
           "delegator.routing", "delegator.store.claims")


def values_of(module: ModuleType) -> list[type]:
    return [one for one in vars(module).values()
            if isinstance(one, type) and dataclasses.is_dataclass(one) and one.__module__ == module.__name__]


@pytest.mark.parametrize("name", MODULES)
def test_a_value_is_frozen_and_has_its_fields_alone(name: str) -> None:
    found = values_of(importlib.import_module(name))
    assert found
    for one in found:
        frozen = vars(one)["__dataclass_params__"].frozen
        assert (frozen, "__slots__" in vars(one)) == (True, True), one


@pytest.mark.parametrize("name", MODULES)
def test_each_class_without_methods_of_its_making_is_such_a_value(name: str) -> None:
    """A class that neither is an exception, an enumeration, a structure or a protocol nor makes itself is a value."""
    module = importlib.import_module(name)
    plain = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == name
             and one.__bases__ == (object,) and not dataclasses.is_dataclass(one) and "__init__" not in vars(one)]
    assert plain == []
