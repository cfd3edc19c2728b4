"""A small client of the endpoint."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from glioflow.cluster.environment import own_names
from glioflow.errors import RunFailed, UserError
from glioflow.serving.settings import bearer

if TYPE_CHECKING:
    import requests

    from glioflow.bundle.answer import AnswerJson, ModelCard

_TRIES = 5
_LOST = 502  # a gateway ended with the request in it
_BACKOFF_S = 0.25  # before the third try; it doubles with each further one
_MAX_WAIT_S = 30  # the longest wait before a try, also where the endpoint's Retry-After asks for more


class EndpointBusy(RunFailed):
    """The endpoint is there, but too busy to answer."""


class Client:
    """An endpoint at a URL; after overload or a lost connection, a request is sent again.

    Args:
        url: URL of the endpoint, `http://...`.
        token: The endpoint's token, if it needs one.
        timeout_s: The longest wait for one answer.
        num_tries: How often a request is sent at most. A prediction changes nothing, so it may be sent again.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 300, num_tries: int = _TRIES) -> None:
        """Remember where the endpoint is; sends nothing yet."""
        self.url, self.timeout_s, self.num_tries = url.rstrip("/"), timeout_s, num_tries
        self.headers = {"Authorization": bearer(token)} if token else {}

    def predict(
        self,
        files: Sequence[Path],
        *,
        clinical: Mapping[str, Any] | None = None,
        channels: Mapping[str, str] | None = None,
        mask: str | None = None,
        overlay: bool = False,
    ) -> "AnswerJson":
        """Send one study's files and return the answer.

        Args:
            files: Files of one study.
            clinical: Clinical values by column name.
            channels: Series or file of a channel, if several would fit.
            mask: Encoding of the mask; None takes the endpoint's.
            overlay: Whether to request a picture.

        Raises:
            UserError: If the endpoint refuses the study.
            RunFailed: If it does not answer.
        """
        query = {**({"mask": mask} if mask else {}), **({"overlay": "true"} if overlay else {})}
        answer = self._request(
            "POST",
            "/v1/predict",
            files=[("files", (path.name, path.read_bytes())) for path in files],
            data={
                **({"clinical": json.dumps(dict(clinical))} if clinical else {}),
                **({"channel": [f"{name}={series}" for name, series in channels.items()]} if channels else {}),
            },
            params=query,
        )
        return cast("AnswerJson", answer)

    def model(self) -> "ModelCard":
        """Return the card of the served model; raises as `predict` does."""
        return cast("ModelCard", self._request("GET", "/v1/model"))

    def _request(self, method: str, route: str, **content: Any) -> dict[str, object]:
        import requests

        with self._session() as session:
            try:
                response = session.request(method, self.url + route, timeout=self.timeout_s, **content)
                if response.status_code == 200:
                    return dict(response.json())
            except ValueError as error:  # an invalid URL, or an answer that is not JSON
                raise UserError(
                    f"{self.url} is not the http:// URL of a GlioFlow endpoint ({error})", self.url
                ) from None
            except requests.ReadTimeout:
                rule = f"the endpoint at {self.url} is busy: no answer came within {self.timeout_s:g} s"
                raise EndpointBusy(rule) from None
            except requests.RequestException as error:
                rule = f"the endpoint at {self.url} does not answer ({type(error).__name__})"
                raise RunFailed(f"{rule}; start it with `glioflow serve`, or check its address") from None
        if response.status_code == 503:
            raise EndpointBusy(f"the endpoint at {self.url} does not answer (overloaded)")
        raise _refusal(response)

    def _session(self) -> "requests.Session":
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        class Retries(Retry):
            def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
                """Say whether to send again: once more only what ended a gateway, which it may do again."""
                if status_code == _LOST and any(each.status == _LOST for each in self.history):
                    return False
                return super().is_retry(method, status_code, has_retry_after)

        retries = Retries(
            total=self.num_tries - 1,
            allowed_methods=None,  # POST too
            status_forcelist=[_LOST, 503],
            raise_on_status=False,
            backoff_factor=_BACKOFF_S,
            backoff_max=_MAX_WAIT_S,
            retry_after_max=_MAX_WAIT_S,
        )
        session = requests.Session()
        # What is on this machine is never asked through a proxy that the environment names.
        session.trust_env = urlsplit(self.url).hostname not in own_names()
        session.headers.update(self.headers)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        return session


def _refusal(response: Any) -> Exception:
    try:
        error = UserError.from_record(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return RunFailed(f"the endpoint answered {response.status_code}")
    return error if response.status_code < 500 else RunFailed(str(error))
