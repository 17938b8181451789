"""Options of a search: how much of a compressed index it looks at, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_integrations.errors import InvalidInputError


@dataclass(frozen=True)
class SearchOptions:
    """Share of a compressed index that a search looks at.

    Parameters
    ----------
    n_probe
        Centroids per query token, whose passages become candidates; ``None`` chooses by the index's size.
    n_candidates
        Candidates to keep by their centroids alone, of which the best by nearly their MaxSim are scored exactly;
        ``None`` chooses by the index's size and `k`.
    exact
        Score every passage.
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
    """Return the device to search on: the CUDA device that an encoder names, else the CPU."""
    device = str(getattr(encoder, "device", "cpu"))
    return device if device.startswith("cuda") else "cpu"
