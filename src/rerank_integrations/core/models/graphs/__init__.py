"""Encoders as graphs for ONNX Runtime and OpenVINO: converted once, stored, and run in place of torch."""

from rerank_integrations.core.models.graphs.conversion import Features
from rerank_integrations.core.models.graphs.serving import serve_as_graph

__all__ = ["Features", "serve_as_graph"]
