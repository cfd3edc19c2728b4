"""Starting the page: Streamlit on loopback, quiet, without connections to outside."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from glioflow.errors import UserError
from glioflow.serving.settings import Limits

ENDPOINT = "GLIOFLOW_ENDPOINT"
DEFAULT_ENDPOINT = "http://127.0.0.1:8000"

_LOOK = {
    "theme.light": {
        "primaryColor": "#0b6e69",
        "backgroundColor": "#fbfbf9",
        "secondaryBackgroundColor": "#eef1ee",
        "textColor": "#1b2a2f",
        "borderColor": "#d9dfdc",
    },
    "theme.dark": {
        "primaryColor": "#1f8f85",
        "backgroundColor": "#10181b",
        "secondaryBackgroundColor": "#1a2529",
        "textColor": "#e3ebea",
        "borderColor": "#2c3a3f",
    },
    "theme": {"baseRadius": "8px", "baseFontSize": "15", "showWidgetBorder": "true"},
}


def options(*, host: str, port: int) -> list[str]:
    """Return Streamlit's options.

    An address must always be given: without one, Streamlit asks a server outside for this machine's own.
    """
    values = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": str(Limits().upload_bytes >> 20),
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "logger.level": "warning",
    }
    values |= {f"{section}.{key}": value for section, look in _LOOK.items() for key, value in look.items()}
    return [f"--{key}={value}" for key, value in values.items()]


def page_forever(*, host: str, port: int, endpoint: str, say: Callable[[str], None]) -> NoReturn:
    """Become the page, until Ctrl-C: Streamlit takes this process over, so that nothing of it can be left behind.

    Args:
        host: To listen on.
        port: To listen on.
        endpoint: URL of the endpoint it asks.
        say: Called with the page's address.

    Raises:
        UserError: If the port is taken, or `endpoint` is no URL.
    """
    from urllib.parse import urlsplit

    from glioflow.serving.ports import check_port

    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError("--endpoint must be a URL of `glioflow serve`", endpoint, hint=f"such as {DEFAULT_ENDPOINT}")
    check_port(host, port)
    say(f"page at http://{host}:{port}, asking {endpoint}; Ctrl-C ends it")
    script = str(Path(__file__).with_name("app.py"))
    command = [sys.executable, "-m", "streamlit", "run", script, *options(host=host, port=port)]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Streamlit says the same again, and advertises
    os.execve(command[0], command, {**os.environ, ENDPOINT: endpoint})
