from __future__ import annotations

import pytest

from tests.helm_program import helm


@pytest.fixture(scope="session")
def real_helm() -> None:
    try:
        helm()
    except OSError as error:
        pytest.skip(f"needs helm: {error}")
