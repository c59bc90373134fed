"""What an operator is told where a device, or an identifier, is somebody's: whose, and by which road it moves."""

from __future__ import annotations

import pytest

from .conftest import Console
