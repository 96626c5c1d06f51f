"""The address of a reward that somebody else gives: what it may be, and how it is shown. Without the HTTP client."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from common.mistake import Wrong, show
from common.redaction import redacted_text


def refuse_no_address(url: Any) -> None:
    """Hold an address to what can be asked.

    Raises:
        Wrong: it is no text, or no http or https address of a host.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        fits = False
    if not fits:
        raise Wrong(f"the url {redacted_text(show(url))}", "http://HOST:PORT/PATH or https://…", "correct the url")


def shown_address(url: str) -> str:
    """The address for messages: without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
