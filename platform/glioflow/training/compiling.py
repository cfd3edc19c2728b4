"""Whether a training goes through torch.compile."""

import os
import shutil

from glioflow.errors import UserError
from glioflow.training.settings import TrainingSettings

# Steps from which `compile: auto` compiles: it took 44 s and made steps of 256 px a sixth faster on an H200.
COMPILE_FROM = 20_000


def compiles(settings: TrainingSettings, *, on_gpu: bool, num_steps: int) -> bool:
    """Return whether a training of so many steps is compiled.

    Raises:
        UserError: If that was asked for and there is no compiler.
    """
    name = os.environ.get("CXX", "g++")  # as TorchInductor looks for it
    has_compiler = shutil.which(name) is not None
    if settings.compile == "auto":
        return on_gpu and num_steps >= COMPILE_FROM and has_compiler
    if settings.compile and not has_compiler:
        raise UserError("training.compile needs a C++ compiler ($CXX, else g++); install one, or set it to false", name)
    return settings.compile
