"""The protocol's server around the tools of one service."""

from __future__ import annotations

from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

import rerank_integrations
from rerank_integrations.mcp.tools import Tools
from rerank_integrations.server.service import Service


def protocol_server(service: Service, about: str | None = None) -> Server[Any]:
    """Return the server that lists and calls the tools of `service`; `about` says what its indexes contain."""
    tools = Tools(service, about)

    async def list_tools(context: ServerRequestContext[Any], page: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools.definitions)

    async def call_tool(context: ServerRequestContext[Any], call: CallToolRequestParams) -> CallToolResult:
        return await tools.call(call.name, call.arguments or {}, context.request)

    return Server(
        "rerank-integrations",
        title="rerank_integrations",
        version=rerank_integrations.__version__,
        instructions=_instructions(service, about),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _instructions(service: Service, about: str | None) -> str:
    sentences = []
    if service.indexes:
        noun = "index" if len(service.indexes) == 1 else "indexes"
        sentences.append(f"Passages of the {noun} {', '.join(service.indexes)} are found with search.")
    if about:
        sentences.append(f"What is stored: {about}")
    sentences.append("Texts from elsewhere are ordered by relevance with rerank.")
    return " ".join(sentences)
