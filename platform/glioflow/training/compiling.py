"""Decision whether to train with torch.compile, and why."""

import os
import shutil

from glioflow.errors import UserError
from glioflow.training.settings import TrainingSettings

# Number of steps from which `compile: auto` compiles: it took 44 s and sped up 256 px steps by a sixth on an H200.
COMPILE_FROM = 20_000


def compiles(settings: TrainingSettings, *, on_gpu: bool, num_steps: int) -> tuple[bool, str]:
    """Return whether to compile for this number of steps, and why.

    Raises:
        UserError: If compilation was requested and there is no compiler.
    """
    name = os.environ.get("CXX", "g++")  # the same lookup as in TorchInductor
    has_compiler = shutil.which(name) is not None
    if settings.compile == "auto":
        if not on_gpu:
            return False, "no GPU"
        if num_steps < COMPILE_FROM:
            return False, f"{num_steps} steps are fewer than {COMPILE_FROM}"
        return has_compiler, f"{num_steps} steps" if has_compiler else f"no C++ compiler {name}"
    if settings.compile and not has_compiler:
        raise UserError("training.compile needs a C++ compiler ($CXX, else g++); install one, or set it to false", name)
    return settings.compile, "asked for"
