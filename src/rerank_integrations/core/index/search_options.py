"""How far a search of a compressed index looks, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_integrations.errors import InvalidInputError


@dataclass(frozen=True)
class Effort:
    """How far a search looks; ``None`` for what the index and `k` ask for.

    Parameters
    ----------
    n_probe
        Centroids a query token, of whose passages candidates are made.
    n_candidates
        Candidates, best by their centroids alone, of which the best by nearly their MaxSim are scored exactly.
    exact
        Compute it of all.
    """

    n_probe: int | None = None
    n_candidates: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.exact, bool):
            raise InvalidInputError(f"exact is {self.exact!r}; expected True or False")
        for name, value in (("n_probe", self.n_probe), ("n_candidates", self.n_candidates)):
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidInputError(f"{name} is {value!r}; expected an integer of at least 1, or None")


def search_device(encoder: object) -> str:
    """Return where to search: the CUDA device of an encoder that says so, else the CPU."""
    device = str(getattr(encoder, "device", "cpu"))
    return device if device.startswith("cuda") else "cpu"
