"""A training step recorded once as a CUDA graph and replayed: one launch instead of hundreds."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from glioflow.errors import first_line

_log = logging.getLogger(__name__)

# Number of ordinary steps before recording, in which libraries choose and load their kernels.
WARM_UP = 3

Step = Callable[[Tensor, Tensor], Tensor]


class StepGraph:
    """Runs ordinary steps at first, then replays a recording, for batches of one shape.

    The recorded step must not wait for the device, and everything that changes between steps must be in tensors.
    """

    def __init__(self, step: Step) -> None:
        """Prepare to record `step`, which maps images and targets on a GPU to the loss."""
        self.step = step
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = ""  # the reason why no step could be recorded
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._loss: Tensor | None = None
        self._stream = torch.cuda.Stream()

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Run one step; return its loss, which the next step overwrites."""
        if self.failed or (self._inputs is not None and self._inputs[0].shape != images.shape):
            return self.step(images, targets)
        if self.graph is None:
            self.taken += 1
            if self.taken <= WARM_UP:
                return self._aside(images, targets)
            self._record(images, targets)
            if self.graph is None:
                return self.step(images, targets)
        assert self._inputs is not None
        assert self._loss is not None
        for kept, given in zip(self._inputs, (images, targets), strict=True):
            kept.copy_(given)
        self.graph.replay()
        return self._loss

    @property
    def state(self) -> str:
        """Return whether steps are replayed, and why."""
        if self.graph is not None:
            return "true: a step was recorded and is replayed"
        return f"false: {self.failed or f'a step is recorded after {WARM_UP} others'}"

    def _aside(self, images: Tensor, targets: Tensor) -> Tensor:
        """Run a step on a separate stream, which is required before recording."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self.step(images, targets)
        current.wait_stream(self._stream)
        return loss

    def _record(self, images: Tensor, targets: Tensor) -> None:
        inputs = images.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[images.device.index]
        random = generator.get_state()
        try:
            # Other threads send batches meanwhile, which is not part of the recording.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                loss = self.step(*inputs)
        except RuntimeError as error:
            self.failed = first_line(error) or type(error).__name__
            torch.cuda.synchronize()
            # After a failed recording the generator stays in recording mode, and the next dropout would fail.
            generator.graphsafe_set_state(torch.Generator(images.device).set_state(random))
            _log.warning("steps are not replayed as a CUDA graph: %s", self.failed)
            return
        self.graph, self._inputs, self._loss = graph, inputs, loss
