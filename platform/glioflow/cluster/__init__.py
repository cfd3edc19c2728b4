"""Ray: the connection, and what every process gets before it imports the libraries."""

from glioflow.cluster.connection import (
    VARIABLES,
    connect,
    disconnect,
    ending,
    in_ray_job,
    is_connected,
    map_parallel,
    own_group,
    release_group,
    resources,
    silence,
    slots,
)

__all__ = [
    "VARIABLES",
    "connect",
    "disconnect",
    "ending",
    "in_ray_job",
    "is_connected",
    "map_parallel",
    "own_group",
    "release_group",
    "resources",
    "silence",
    "slots",
]
