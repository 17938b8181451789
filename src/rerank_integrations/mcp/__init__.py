"""Tools for agents over the Model Context Protocol (MCP): search, rerank and store, on stdio or HTTP.

Importing this loads the protocol's SDK, but neither FastAPI nor torch.
"""

from rerank_integrations.errors import MissingExtraError

try:
    import mcp as _mcp  # noqa: F401
    import pydantic_settings as _pydantic_settings  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name not in ("mcp", "pydantic_settings"):
        raise
    raise MissingExtraError("mcp", "rerank_integrations.mcp") from _error

from rerank_integrations.mcp.http import create_mcp_app
from rerank_integrations.mcp.stdio import serve_stdio

__all__ = ["create_mcp_app", "serve_stdio"]
