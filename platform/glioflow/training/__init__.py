"""The training loop: plain PyTorch that calls `report(epoch, metrics, checkpoint)`, without Ray or MLflow."""
