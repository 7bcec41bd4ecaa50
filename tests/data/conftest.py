"""Shared by the tests of data: errors of bad files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fewmark.core.errors import InputError


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Check that a call raises an InputError of one line with these words."""

    def check(call: Callable[[], object], *words: str) -> None:
        with pytest.raises(InputError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, f"{word!r} not in {message!r}"

    return check
