"""Starting the endpoint and the web page."""

from collections.abc import Sequence

from glioflow.api.inputs import check_number
from glioflow.progress import Say, print_progress
from glioflow.serving.page_server import DEFAULT_ENDPOINT, page_forever
from glioflow.serving.server import serve_forever
from glioflow.serving.settings import ServeSettings, Trial, check_names, digest_of


def serve(
    name: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
    replicas: int = 1,
    gpus: float = 0,
    shadow: float = 0,
    canary: float = 0,
    say: Say = print_progress,
) -> None:
    """Serve the champion with Ray Serve until Ctrl-C, and switch to each new champion.

    Args:
        name: Name of the registered model; None takes the only one with a champion.
        host: Address to listen on; 0.0.0.0 is every address of this machine.
        port: Port to listen on.
        token: Bearer token that callers must send; None takes GLIOFLOW_SERVE_TOKEN; without one, no token is needed.
        allow_hosts: Host names that callers may use, besides loopback names and addresses.
        replicas: Number of predictors.
        gpus: GPUs of each predictor; a fraction shares a GPU.
        shadow: Fraction of the studies, in [0, 1], that the challenger answers as well, without showing its answers.
        canary: Fraction of the studies, in [0, 1], that the challenger answers in place of the champion.
        say: Called with each line of progress.

    Raises:
        UserError: If there is no champion, the port is taken, the token is empty, a name is none, or the machine has
            too few CPUs or GPUs for the predictors.
        RunFailed: If the endpoint does not come up.
    """
    check_number("port", port, 1, 65535)
    check_number("replicas", replicas, 1)
    check_number("gpus", gpus, 0)
    for share_name, share in (("shadow", shadow), ("canary", canary)):
        check_number(share_name, share, 0, 1)
    digest = digest_of(token)
    guarded = digest is None and host in ("127.0.0.1", "localhost", "::1")
    settings = ServeSettings(
        replicas=replicas,
        max_replicas=replicas,
        gpus=gpus,
        token_sha256=digest,
        hosts=check_names(allow_hosts) if allow_hosts or guarded else None,
        trial=Trial(shadow=shadow, canary=canary),
    )
    serve_forever(name, host=host, port=port, say=say, settings=settings)


def serve_page(
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    endpoint: str = DEFAULT_ENDPOINT,
    allow_hosts: Sequence[str] = (),
    say: Say = print_progress,
) -> None:
    """Serve the web page, which sends studies to an endpoint, until Ctrl-C.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        endpoint: URL of the endpoint.
        allow_hosts: Host names that people may use, besides loopback names and addresses.
        say: Called with the page's address.

    Raises:
        UserError: If the port is taken, or `endpoint` is not a URL.
    """
    check_number("port", port, 1, 65535)
    page_forever(host=host, port=port, endpoint=endpoint, say=say, allowed=check_names(allow_hosts))
