"""Fixed texts with torch's outputs on them, stored beside a graph: a session must reproduce them to be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_integrations.core.models.graphs.sessions import Arrays, Floats, GraphSession

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer

Mask: TypeAlias = "npt.NDArray[np.bool_]"

QUERIES = (
    "what do bees eat",
    "how is a zip archive unpacked",
    "why does the sky look blue",
    "红楼梦的作者是谁",
)
PASSAGES = (
    "Honeybees live on nectar and pollen; in winter they eat the honey that they stored.",
    "The module reads and writes ZIP archives. extractall() unpacks all the files of an archive into a folder, by "
    "default the working directory; each name is checked first, since an archive may name a place outside that folder.",
    "Air scatters the short waves of sunlight more than the long ones, so from everywhere above comes blue.",
    "The red planet owes its colour to iron in its soil.",
    "《红楼梦》是清代作家曹雪芹创作的章回体长篇小说。",
    "An archive of letters, kept by the town since 1740, is open on weekdays.",
    "Wasps eat insects, fruit and whatever is sweet on a table in late summer, and unlike bees they store nothing.",
    "Closed on Mondays.",
)
# Batches of several lengths, so that some texts are padded. A graph is made with the first and checked on all.
TEXTS = (
    ["one text", "a text that is somewhat longer than the one before it", "and one more"],
    ["a text alone"],
    ["short", *["the same words again and again " * 8] * 4, "medium: " + "word " * 9],
    [QUERIES[0], *PASSAGES],
    [QUERIES[1], *PASSAGES],
)
# The input that marks the [MASK] tokens of an expanded query: their vectors count, though no token attends to them.
EXPANDED = "query_expansion_positions"

_FILENAME = "probes.safetensors"


@dataclass(frozen=True)
class Probe:
    """One batch of texts as inputs of the encoder, with torch's output.

    Parameters
    ----------
    inputs
        The encoder's inputs by name, int64, *Shape:* (texts, tokens).
    expected
        Torch's output in float32, *Shape:* (texts, 1) for scores, (texts, tokens, width) for token vectors.
    real
        The rows of the output that are used, *Shape:* that of the output without its last dimension.
    """

    inputs: Arrays
    expected: Floats
    real: Mask

    def outputs(self, session: GraphSession) -> Floats:
        """Return the output of `session` on the inputs, in the shape of `expected`."""
        return session.run({name: self.inputs[name] for name in session.inputs})


def compute_probes(transformer: Transformer, examples: Sequence[Mapping[str, torch.Tensor]]) -> list[Probe]:
    """Return the outputs of `transformer` in torch, in float32, for inputs from its own preprocessing."""
    import torch

    probes = []
    for example in examples:
        with torch.inference_mode():
            expected = transformer(dict(example))[transformer.module_output_name].numpy()
        inputs = {name: tensor.numpy() for name, tensor in example.items()}
        probes.append(Probe(inputs, expected, _real(inputs, expected)))
    return probes


def _real(inputs: Arrays, output: Floats) -> Mask:
    # Nothing uses the output at padding.
    if output.ndim != 3:
        return np.ones(output.shape[:1], bool)
    attended = inputs["attention_mask"].astype(bool)
    return attended | inputs[EXPANDED].astype(bool) if EXPANDED in inputs else attended


def save_probes(probes: Sequence[Probe], folder: Path) -> None:
    """Write the probes beside the graph in `folder`."""
    from safetensors.numpy import save_file

    tensors: dict[str, npt.NDArray[np.generic]] = {
        f"{number}.expected": probe.expected for number, probe in enumerate(probes)
    }
    tensors |= {f"{number}.real": probe.real for number, probe in enumerate(probes)}
    tensors |= {
        f"{number}.inputs.{name}": array for number, probe in enumerate(probes) for name, array in probe.inputs.items()
    }
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / _FILENAME)


def load_probes(folder: Path) -> list[Probe]:
    """Return the probes that `save_probes` wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / _FILENAME)
    probes = []
    for number in range(sum(name.endswith(".expected") for name in tensors)):
        start = f"{number}.inputs."
        inputs = {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
        probes.append(Probe(inputs, tensors[f"{number}.expected"], tensors[f"{number}.real"]))
    return probes


def relative_error(session: GraphSession, probes: Sequence[Probe]) -> float:
    """Return the error of `session` on the probes, relative to the spread of torch's own outputs.

    This is the root mean square of the differences, divided by the root mean square distance of torch's outputs from
    their mean. It is 0 for equal outputs, about 1.4 for outputs unrelated to torch's, and NaN if an output is NaN.
    """
    outputs = np.concatenate([probe.outputs(session)[probe.real] for probe in probes]).astype(np.float64)
    expected = np.concatenate([probe.expected[probe.real] for probe in probes]).astype(np.float64)
    spread = _root_mean_square(expected - expected.mean(axis=0))
    # A model whose outputs are nearly equal must not fail because of rounding errors.
    least = 1e-4 * float(np.abs(expected).max()) + 1e-12
    return _root_mean_square(outputs - expected) / max(spread, least)


def _root_mean_square(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
