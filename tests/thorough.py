"""How many examples a property is tried on: all that it names in `make test-all`, and fewer in `make test`, which has ten minutes for everything."""

from __future__ import annotations

import os
from typing import Final

#: Is it `make test-all` that runs us?
THOROUGH: Final = os.environ.get("TEST_THOROUGHLY") == "1"
#: The share of them that `make test` tries.
USUAL_SHARE: Final = 0.4


def examples(all_of_them: int) -> int:
    """``all_of_them``, or the usual share."""
    return all_of_them if THOROUGH else round(all_of_them * USUAL_SHARE)
