"""The Ray Serve graph around `prediction`, its inputs, answers and limits."""
