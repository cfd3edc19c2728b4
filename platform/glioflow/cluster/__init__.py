"""Ray: the connection, and what every process gets before it imports the libraries."""

from glioflow.cluster.connection import (
    connect,
    disconnect,
    ending,
    is_connected,
    is_elsewhere,
    joins,
    nodes_still_to_come,
    of_this_machine,
    or_list_nodes,
    own_group,
    release_group,
    resources,
    share_of_node,
    slots,
)
from glioflow.cluster.draining import node_ends
from glioflow.cluster.environment import DEFAULTS, in_ray_job, process_environment, silence
from glioflow.cluster.interrupts import announcing_interrupts, interrupt_on_sigterm, restoring_interrupts
from glioflow.cluster.memory import memory_shortage
from glioflow.cluster.tasks import map_cases, map_parallel

__all__ = [
    "DEFAULTS",
    "announcing_interrupts",
    "connect",
    "disconnect",
    "ending",
    "in_ray_job",
    "is_connected",
    "interrupt_on_sigterm",
    "is_elsewhere",
    "joins",
    "map_cases",
    "map_parallel",
    "memory_shortage",
    "node_ends",
    "nodes_still_to_come",
    "of_this_machine",
    "or_list_nodes",
    "own_group",
    "process_environment",
    "release_group",
    "resources",
    "restoring_interrupts",
    "share_of_node",
    "silence",
    "slots",
]
