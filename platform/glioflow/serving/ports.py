"""Ports of this machine to listen on."""

import socket

from glioflow.errors import UserError, option


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise `UserError` if the port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            rule = f"port {port} of {host} cannot be listened on ({error.strerror})"
            raise UserError(rule, hint=f"give another with {option('port')}, or end what listens there") from None
