"""A small client of the endpoint."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from glioflow.errors import RunFailed, UserError

if TYPE_CHECKING:
    from glioflow.bundle.answer import AnswerJson, ModelCard

_TRIES = 5
_WAIT_S = 0.5
_MOST_S = 30.0  # that an endpoint may let a caller wait before the next try


class Client:
    """An endpoint at a URL; overload and lost connections are tried again."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 300, num_tries: int = _TRIES) -> None:
        """Remember where the endpoint is."""
        self.url, self.timeout_s, self.num_tries = url.rstrip("/"), timeout_s, num_tries
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def predict(
        self,
        files: Sequence[Path],
        *,
        clinical: Mapping[str, Any] | None = None,
        mask: str | None = None,
        overlay: bool = False,
    ) -> "AnswerJson":
        """Send one study's files and return the answer.

        Raises:
            UserError: If the endpoint refuses the study.
            RunFailed: If it does not answer.
        """
        contents = [(path.name, path.read_bytes()) for path in files]
        form = {"clinical": json.dumps(dict(clinical))} if clinical else None

        def send() -> Any:
            import requests

            parts = [("files", (name, io.BytesIO(content))) for name, content in contents]
            query = {**({"mask": mask} if mask else {}), **({"overlay": "true"} if overlay else {})}
            return requests.post(
                f"{self.url}/v1/predict",
                files=parts,
                data=form,
                params=query,
                headers=self.headers,
                timeout=self.timeout_s,
            )

        return cast("AnswerJson", self._ask(send))

    def model(self) -> "ModelCard":
        """Return the card of what is served."""

        def send() -> Any:
            import requests

            return requests.get(f"{self.url}/v1/model", headers=self.headers, timeout=self.timeout_s)

        return cast("ModelCard", self._ask(send))

    def _ask(self, send: Any) -> dict[str, Any]:
        import requests

        reason, told_s = "", 0.0
        for attempt in range(self.num_tries):
            if attempt:
                time.sleep(max(told_s, _WAIT_S * 2 ** (attempt - 1)))
            try:
                response = send()
                if response.status_code == 200:
                    return dict(response.json())
            except ValueError as error:  # an impossible URL, or an answer that is no JSON
                raise UserError("an endpoint is the http:// URL of a GlioFlow server", f"{self.url}: {error}") from None
            except requests.RequestException as error:
                reason = type(error).__name__
            else:
                if response.status_code != 503:
                    raise _refusal(response)
                reason, told_s = "overloaded", _seconds(response.headers.get("Retry-After", ""))
        raise RunFailed(f"the endpoint at {self.url} does not answer ({reason})")


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _MOST_S) if retry_after.isdecimal() else 0.0


def _refusal(response: Any) -> Exception:
    try:
        said = response.json()["error"]
        error = UserError(said["rule"], said["value"], said["choices"])
    except (ValueError, KeyError, TypeError):
        return RunFailed(f"the endpoint answered {response.status_code}")
    return error if response.status_code < 500 else RunFailed(str(error))
