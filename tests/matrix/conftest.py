"""The checks are in modules of rows, and shall say what they saw."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite(*(f"tests.matrix.{path.stem}" for path in Path(__file__).parent.glob("[!_ct]*.py")))
