"""Replacements of characters in the form that the library `tokenizers` reads: SentencePiece's precompiled map.

It is a trie over the UTF-8 bytes of what is replaced, as a double array: a node's children are at the node's base XOR
their byte, each with that byte as its label. A node where a key ends has a child at byte 0, which stores where in a
second part, texts that end with a byte 0, the replacement begins.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

_VALUE = 1 << 31
_KEY_ENDS = 1 << 8
# Offsets below it are stored as they are.
_MAX_OFFSET = 1 << 21


def precompiled_map(replacements: Mapping[str, str]) -> str:
    """Return the map from each key to its replacement, in base64; keys and replacements contain no character 0."""
    texts, begins = bytearray(), {}
    for key, text in sorted(replacements.items()):
        begins[key.encode()] = len(texts)
        texts += text.encode() + b"\0"
    units = _double_array(begins)
    content = struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(texts)
    return base64.b64encode(content).decode("ascii")


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """Return the units of the double array of `values`."""
    root = _trie(values)
    units, free_from = {0: 0}, 1
    waiting = [(0, root)]
    while waiting:
        position, node = waiting.pop()
        labels = sorted(node)
        # Base 0 is left out: an offset of 0 would make a node its own child.
        base = free_from
        while any((base ^ label) in units for label in labels) or not 0 < base ^ position < _MAX_OFFSET:
            base += 1
        units[position] |= (base ^ position) << 10 | (_KEY_ENDS if 0 in node else 0)
        for label in labels:
            child = node[label]
            units[base ^ label] = _VALUE | child if label == 0 else label
            if label:
                waiting.append((base ^ label, child))
        while free_from in units:
            free_from += 1
    return [units.get(position, 0) for position in range((max(units) | 255) + 1)]


def _trie(values: Mapping[bytes, int]) -> dict[int, Any]:
    """Return nested dictionaries by byte; byte 0 has the value of the key that ends there."""
    root: dict[int, Any] = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    return root
