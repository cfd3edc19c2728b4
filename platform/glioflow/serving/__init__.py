"""The Ray Serve graph for predictions: inputs, answers and limits."""
