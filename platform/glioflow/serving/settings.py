"""Settings of the endpoint: limits of a request, size of the deployments, share of a challenger."""

import hashlib
import os
import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from glioflow.data.case import MAX_FILES, MAX_SLICES
from glioflow.errors import UserError, option
from glioflow.memory import total_memory

APP = "glioflow"  # name of the Serve application
TOKEN = "GLIOFLOW_SERVE_TOKEN"
# Bytes per image value while a study is computed: as sent, prepared, as probabilities, and copies.
_BYTES_PER_VALUE = 24
_STUDIES = 4  # studies of the largest size that fit into memory


def values_in_memory() -> int:
    """Return how many image values may be computed at once, using half of this machine's memory."""
    return min(total_memory() // 2 // _BYTES_PER_VALUE, _STUDIES * 2**28)


class Limits(BaseModel):
    """Limits of one request.

    Attributes:
        upload_bytes: Most bytes of all files together, as they were sent.
        unpacked_bytes: Most bytes of the contents of all zips together, and of all volumes once decompressed.
        files: Most files, after unpacking.
        slices: Most slices of a study.
        values: Most values in a study's image, all slices and channels together; by default a quarter of what fits
            into this machine's memory, and at most 2^28.
        queued: Most requests that may wait; further ones are refused.
        timeout_s: Longest time to read a study, and then to answer it; a request that takes longer is refused as
            overload.
        body_s: Longest time in which a request must arrive.
        least_bytes_per_s: Slowest rate at which a request may arrive after its first ten seconds.
        pending_bytes: Most bytes of all requests that one proxy has received and not answered yet.
        passed_bytes: Most bytes of these requests that Serve may hold in memory at once, in the proxy and the gateways;
            the others wait on disk. A larger request passes alone; one below a megabyte passes always.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    upload_bytes: int = Field(default=256 * 2**20, gt=0)
    unpacked_bytes: int = Field(default=1024 * 2**20, gt=0)
    files: int = Field(default=MAX_FILES, gt=0)
    slices: int = Field(default=MAX_SLICES, gt=0)
    values: int = Field(default_factory=lambda: values_in_memory() // _STUDIES, gt=0)
    queued: int = Field(default=32, gt=0)
    timeout_s: float = Field(default=120, gt=0)
    body_s: float = Field(default=900, gt=0)
    least_bytes_per_s: int = Field(default=20_000, gt=0)
    pending_bytes: int = Field(default=1024 * 2**20, gt=0)
    passed_bytes: int = Field(default=128 * 2**20, gt=0)


class Trial(BaseModel):
    """The share of the live traffic that a challenger gets, and when it loses it.

    Attributes:
        shadow: Share of the studies that the challenger answers as well, without showing its answers.
        canary: Share of the studies that the challenger answers in place of the champion.
        window: Number of recent studies by which the challenger is judged.
        min_dice: If the mean Dice between the two models over the window falls below it, the canary ends.
        max_errors: Most failures of the challenger in the window; after more it gets no traffic.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    shadow: float = Field(default=0.0, ge=0, le=1)
    canary: float = Field(default=0.0, ge=0, le=1)
    window: int = Field(default=20, ge=1)
    min_dice: float = Field(default=0.5, ge=0, le=1)
    max_errors: int = Field(default=2, ge=0)


class ServeSettings(BaseModel):
    """Settings of the endpoint's deployments.

    Attributes:
        name: Name of the registered model; None takes the only one that has a champion.
        limits: Limits of a request.
        trial: Trial of a challenger (the version with the alias `challenger`).
        token_sha256: Digest of the bearer token that callers must show; None lets everybody in.
        hosts: Host names that callers may use besides addresses, `localhost` and names without a dot; `*` allows any.
            None allows every name, as older deployed configurations do; `glioflow serve` on loopback without a token
            sets (). This keeps other people's web pages from sending requests through a user's browser.
        replicas: Smallest number of predictors.
        max_replicas: Largest number of predictors; above `replicas` they scale with the traffic.
        gateways: Smallest number of gateways.
        max_gateways: Largest number of gateways; above `gateways` they scale with the traffic.
        cpus: CPUs of one predictor.
        gpus: GPUs of one predictor; a fraction shares a GPU.
        threads: Threads of one predictor's forward pass on the CPU; None divides the machine's cores among replicas.
        feedback_per_day: Most corrected masks accepted in 24 hours.
        watch_s: Seconds between two checks of the registry for a new champion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str | None = None
    limits: Limits = Limits()
    trial: Trial = Trial()
    token_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    hosts: tuple[str, ...] | None = None
    replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    gateways: int = Field(default=1, ge=1)
    max_gateways: int = Field(default=1, ge=1)
    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    feedback_per_day: int = Field(default=100, ge=0)
    watch_s: float = Field(default=3, gt=0)

    @property
    def values_in_gateway(self) -> int:
        """Most image values of all studies that one gateway holds at once; a larger study is held alone."""
        return _STUDIES * self.limits.values // self.max_gateways


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of `--allow-host` in lower case, as browsers send them.

    Raises:
        UserError: If one is not a host name, such as a URL, which no request could match.
    """
    known = tuple(name.lower().rstrip(".") for name in names)
    for given, name in zip(names, known, strict=True):
        if not re.fullmatch(r"\*|[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?", name):
            hint = "leave out scheme, port and path, and write it in ASCII (xn--...), or give * for any name"
            raise UserError(f"{option('allow_host')} must be the name of a host", repr(given), hint=hint)
    return known


def digest_of(token: str | None) -> str | None:
    """Return the digest of a token, by default of GLIOFLOW_SERVE_TOKEN; None if neither is set.

    Raises:
        UserError: If the token or a variable is set but empty, which must not open the endpoint to everyone.
    """
    token = own_token() if token is None else token.strip()
    if token is None and os.environ.get(f"{TOKEN}_FILE") == "":
        raise UserError(f"{TOKEN}_FILE must name a file, and is empty", hint="unset it to let everyone in")
    if token == "":
        raise UserError(f"the endpoint's token, {TOKEN}, must not be empty", hint="unset it to let everyone in")
    return hashlib.sha256(token.encode()).hexdigest() if token else None


def bearer(token: str) -> str:
    """Return the header `Authorization` for a token, encoded so that libraries send the token's UTF-8 bytes."""
    return f"Bearer {token.strip()}".encode().decode("latin-1")


def own_token() -> str | None:
    """Return the token in this process's environment, stripped of white space; None if not set."""
    token = os.environ.get(TOKEN)
    return None if token is None else token.strip()
