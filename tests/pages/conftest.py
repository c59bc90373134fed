"""What the pages' tests share: an empty folder for a reader, the folder after the operators' first start, and for the
integrators' clients the worlds of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..e2e.conftest import make_world, world
from .scene import Scene, scene

__all__ = ["make_world", "world"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Scene]:
    """An empty folder, with the project's own files beside it."""
    folder = tmp_path / "reader"
    folder.mkdir()
    with scene(folder) as made:
        yield made


@pytest.fixture(scope="session")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `bases.begin` keeps the folder after the first start."""
    return tmp_path_factory.mktemp("pages") / "first-start"
