"""What a Ray cluster keeps for its processes by key, in the memory of its head, behind its token.

Ray has no public way to it but a function that it pickles for its workers, which environments of Serve cannot name.
"""

import sys

_NAMESPACE = b"glioflow"


def keep(key: str, value: bytes) -> None:
    """Keep a value with the connected cluster, in place of what it had under this key."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key.encode(), value, namespace=_NAMESPACE)


def kept(key: str) -> bytes | None:
    """Return what the connected cluster keeps under a key; None where it has nothing, or none is connected."""
    ray = sys.modules.get("ray")
    if ray is None or not getattr(ray, "is_initialized", bool)():
        return None
    from ray.experimental.internal_kv import _internal_kv_get

    value: bytes | None = _internal_kv_get(key.encode(), namespace=_NAMESPACE)
    return value
