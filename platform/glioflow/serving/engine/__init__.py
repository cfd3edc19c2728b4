"""How a loaded version computes: batching, compiled networks, one study to one answer."""
