"""The type of values in a JSON file or an answer."""

from collections.abc import Mapping, Sequence

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
JsonObject = dict[str, Json]
