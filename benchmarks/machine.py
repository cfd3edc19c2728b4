"""What a measurement was run by and on, as the first lines of its report say it."""

import os
import sys
from datetime import date
from pathlib import Path


def first_lines(title: str, minutes: float, load: float) -> list[str]:
    """Return title, command, duration, machine and date; `load` is the load average from before it began."""
    import torch

    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    machine = f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores, no GPU"
    machine = machine.replace("no GPU", torch.cuda.get_device_name()) if torch.cuda.is_available() else machine
    return [
        f"# {title}, {date.today()}",
        "",
        f"`{command}`, {minutes:.0f} minutes. {machine}; torch {torch.__version__}; load average before it began "
        f"{load:.1f}. What is what: the program's first lines.",
        "",
    ]


def goal(text: str, found: str, *, reached: bool) -> str:
    """Return one row of a table of goals."""
    return f"| {text} | {found} | {'reached' if reached else '**not reached**'} |"
