"""The HTTP service: reranking, search and storage for clients in any language.

Importing this loads neither FastAPI nor torch; `create_app` loads FastAPI, and the warm-up or the first request loads
the models.
"""

from rerank_integrations.errors import MissingExtraError

try:
    import pydantic_settings as _pydantic_settings  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "pydantic_settings":
        raise
    raise MissingExtraError("server", "rerank_integrations.server") from _error

from rerank_integrations.server.app import create_app
from rerank_integrations.server.bi_encoder import BiEncoder, TextEncoder
from rerank_integrations.server.running import serve
from rerank_integrations.server.settings import ServerSettings

__all__ = ["BiEncoder", "ServerSettings", "TextEncoder", "create_app", "serve"]
