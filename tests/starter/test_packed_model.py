"""Reading the packed file of multilingual-e5-small, against an independent writer; damaged files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packed_models import PIECES, REPLACEMENTS, PackedParts, packed_parts, write_packed_model

from rerank_integrations import CheckpointError
from rerank_integrations.starter.packed_model import PackedModel


def test_everything_that_was_written_is_read(tmp_path: Path) -> None:
    parts = write_packed_model(tmp_path / "model.bin")
    model = PackedModel(tmp_path / "model.bin")
    assert list(vars(model.shape).values()) == parts.shape
    assert model.epsilon == pytest.approx(1e-12)
    vocabulary = model.vocabulary
    assert (vocabulary.pieces, vocabulary.replacements) == (PIECES, REPLACEMENTS)
    np.testing.assert_allclose(vocabulary.scores, parts.scores, rtol=1e-6)
    assert (vocabulary.start, vocabulary.end, vocabulary.padding, vocabulary.unknown) == (0, 2, 1, 3)
    for name, values in parts.tensors.items():
        if values.ndim == 1:
            assert np.array_equal(model.vector(name, values.size), values)
        else:
            np.testing.assert_allclose(model.matrix(name, *values.shape), values, rtol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.02, 0.05, 0.06, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    content = packed_parts().content()
    path = tmp_path / "cut.bin"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.bin"):
        PackedModel(path)


def other_shape(index: int, value: int) -> Callable[[PackedParts], None]:
    def change(parts: PackedParts) -> None:
        parts.shape[index] = value

    return change


def set_field(name: str, value: object) -> Callable[[PackedParts], None]:
    return lambda parts: setattr(parts, name, value)


DAMAGE: dict[str, tuple[Callable[[PackedParts], None], str]] = {
    "version": (set_field("version", 2), "version is 2"),
    "block": (set_field("block", 64), "blocks have 64"),
    "epsilon": (set_field("epsilon", -1.0), "epsilon is -1"),
    "width": (other_shape(0, 0), "width is 0"),
    "width of no block": (other_shape(0, 50), "no multiples"),
    "heads": (other_shape(2, 5), "no multiples"),
    "vocabulary": (other_shape(4, 4), "pieces for a vocabulary of 4"),
    "huge": (other_shape(5, 2**30), "positions is"),
    "negative": (other_shape(1, -1), "layers is -1"),
    "marker": (set_field("markers", (0, 2, 1, 99)), "id 99"),
    "same pieces": (set_field("pieces", [*PIECES[:-2], "ab", "<mask>"]), "two pieces are the same"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_cannot_be_true_is_refused_by_name(tmp_path: Path, name: str) -> None:
    change, message = DAMAGE[name]
    parts = packed_parts()
    change(parts)
    path = tmp_path / "model.bin"
    path.write_bytes(parts.content())
    with pytest.raises(CheckpointError, match=message):
        PackedModel(path)


def test_a_tensor_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    write_packed_model(tmp_path / "model.bin")
    model = PackedModel(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=r"no tensor 'l9\.q\.w'"):
        model.matrix("l9.q.w", 64, 64)
    with pytest.raises(CheckpointError, match="4096 values and not 64 times 32"):
        model.matrix("l0.q.w", 64, 32)


def test_a_file_of_another_kind_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="begins with"):
        PackedModel(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        PackedModel(tmp_path / "nothing.bin")
