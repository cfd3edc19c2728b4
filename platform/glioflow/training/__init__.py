"""The training loop: plain PyTorch that tells `report(epoch, metrics, checkpoint)`; knows neither Ray nor MLflow."""
