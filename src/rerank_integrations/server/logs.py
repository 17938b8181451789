"""Log records as JSON, one object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

from rerank_integrations.core import telemetry

# The fields of a record that the service adds, by the argument `extra` of the logging functions.
_FIELDS = ("request_id", "method", "route", "tool", "status", "ms", "error")


class JsonFormatter(logging.Formatter):
    """Formatter of records as JSON in ASCII: no text of a client can end a line or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        # A handler formats on the thread and in the context of the call that logs.
        line.update(telemetry.trace_ids())
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json(level: int = logging.INFO) -> None:
    """Write the records of the service, of uvicorn and all warnings to the standard error stream, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    for name in ("rerank_integrations.server", "uvicorn"):
        logging.getLogger(name).setLevel(level)
