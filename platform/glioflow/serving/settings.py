"""Limits of the endpoint."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What one request may cost.

    Attributes:
        upload_bytes: Of all files together, as they were sent.
        unpacked_bytes: Of the contents of all zips together.
        files: Their number, after unpacking.
        queued: Requests waiting before new ones are turned away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    upload_bytes: int = Field(default=256 * 2**20, gt=0)
    unpacked_bytes: int = Field(default=1024 * 2**20, gt=0)
    files: int = Field(default=2000, gt=0)
    queued: int = Field(default=32, gt=0)
