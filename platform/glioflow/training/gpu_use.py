"""GPU use of training: the share of time without training work, memory, and utilization according to the driver."""

import time
from contextlib import suppress
from typing import Any

import torch


class GpuUse:
    """Measures one epoch without waiting for the device; on a CPU, only the wait for batches."""

    def __init__(self, device: torch.device) -> None:
        """Prepare to measure work on a device."""
        self.device = device
        self._events: list[tuple[Any, Any]] = []
        self._ended: Any = None
        self._waited = 0.0

    def begin_epoch(self) -> None:
        """Reset the measurements."""
        self._events, self._ended, self._waited = [], None, 0.0
        self._began = self._asked = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def batch_asked(self) -> None:
        """Note that the loop has launched a step and requests the next batch."""
        self._asked = time.perf_counter()
        if self.device.type == "cuda":
            self._ended = self._event()

    def batch_ready(self) -> None:
        """Note that the loop has a batch whose work is all launched."""
        self._waited += time.perf_counter() - self._asked
        if self._ended is not None:
            self._events.append((self._ended, self._event()))

    def end_epoch(self) -> dict[str, float]:
        """Return the metrics of the epoch; the device must have finished its work.

        Returns:
            `train/waiting_for_data`: percent of the time in which no training step ran because its batch was being
            made or copied. On a GPU also `train/gpu_memory_gb`: the largest amount that this process held.
        """
        seconds = max(time.perf_counter() - self._began, 1e-9)
        if self.device.type != "cuda":
            return {"train/waiting_for_data": 100 * self._waited / seconds}
        waited = sum(ended.elapsed_time(ready) for ended, ready in self._events) / 1000
        return {
            "train/waiting_for_data": min(100.0, 100 * waited / seconds),
            "train/gpu_memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9,
        }

    def busy(self) -> dict[str, float]:
        """Return `train/gpu_busy`: percent of the last fraction of a second, according to the driver, if available."""
        if self.device.type == "cuda":
            with suppress(Exception):  # needs NVIDIA's management library
                return {"train/gpu_busy": float(torch.cuda.utilization(self.device))}
        return {}

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
