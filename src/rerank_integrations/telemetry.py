"""OpenTelemetry spans of this package, off until `enable` is called.

Importing this loads no OpenTelemetry; `enable` does.
"""

from rerank_integrations.core.telemetry import disable, enable, is_enabled

__all__ = ["disable", "enable", "is_enabled"]
