"""A small share of the attacks of ``python -m endurance`` finds no error."""

from __future__ import annotations

import os

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="Windows has neither SIGKILL nor fork")]

SHARES = {"kills": 12, "damages": 60, "opens": 50, "forks": 10, "closes": 5}


@pytest.mark.parametrize("attack", SHARES)
def test_an_attack_finds_nothing(attack: str) -> None:
    from endurance.__main__ import ATTACKS, NEVER

    run, _, _ = ATTACKS[attack]
    counts = run(SHARES[attack], 2)
    assert counts["all"] >= SHARES[attack]
    assert {key: count for key, count in counts.items() if f"_{key}".endswith(NEVER) and count} == {}
