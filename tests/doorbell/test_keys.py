"""The table of keys is complete, and every per-index key keeps to its index's slot."""

from __future__ import annotations

import inspect
import re

from upwell.doorbell import keys


def key_functions() -> dict[str, str]:
    """Each function that builds a key of an index, by name, with what it builds for ``a1``."""
    found = {
        name: function("a1", *(f"{{{part}}}" for part in list(inspect.signature(function).parameters)[1:]))
        for name, function in inspect.getmembers(keys, inspect.isfunction)
        if name.endswith("_key")
    }
    assert found
    return found


def test_every_key_is_in_the_table() -> None:
    table = inspect.getdoc(keys) or ""
    for key in [*key_functions().values(), keys.COMMITTED_CHANNEL, *keys.PERMANENT]:
        assert key.replace("{a1}", "{index}") in table, key


def test_the_table_has_no_key_that_nothing_builds() -> None:
    table = set(re.findall(r"^ *(upwell:\S+)", inspect.getdoc(keys) or "", re.MULTILINE))
    built = {key.replace("{a1}", "{index}") for key in key_functions().values()} | {keys.COMMITTED_CHANNEL}
    assert table == built


def test_an_index_keeps_to_one_slot_and_keys_differ() -> None:
    built = list(key_functions().values())
    assert all(key.startswith("upwell:{a1}:") for key in built)
    assert len(set(built)) == len(built)
    assert keys.compaction_job_id("a1", 2, "t") == "compact:a1:2:t"
    assert keys.drain_job_id("a1", "g") == "drain:a1:g"
