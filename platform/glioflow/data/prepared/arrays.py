"""Arrays on disk: written as .npy files, and mapped without keeping a file open."""

import ctypes
import io
import mmap
import os
import weakref
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value
_as_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_as_memory.restype = ctypes.py_object
_as_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_READ_ONLY = 0x100  # PyBUF_READ


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an .npy file through Python, since NumPy's own error on a full disk has no errno."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())


def map_array(path: Path) -> NDArray[Any]:
    """Return the array in an .npy file, mapped and read-only, for as long as it or a view of it exists.

    `numpy.load(mmap_mode="r")` keeps a descriptor for every array, and a process may have 1024 under usual limits.
    (Python 3.13's `mmap` avoids this with `trackfd=False`.)

    Raises:
        OSError: If the file cannot be read or mapped.
        ValueError: If it is not a complete .npy file.
    """
    with path.open("rb") as file:
        shape, fortran, dtype = _read_header(file)
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
        if size < offset + dtype.itemsize * int(np.prod(shape, dtype=object)) or dtype.hasobject:
            raise ValueError(f"{path} is cut short")
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    memory = _as_memory(address, size, _READ_ONLY)
    order: Literal["C", "F"] = "F" if fortran else "C"
    mapped: NDArray[Any] = np.ndarray.__new__(np.memmap, shape, dtype, memory, offset, order=order)
    # Views keep this array and its mapping alive. At exit the kernel unmaps, when no thread reads any more.
    weakref.finalize(mapped, _libc.munmap, address, size).atexit = False
    return np.asarray(mapped)  # indexing a memmap costs more than copying a slice


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"an .npy file of version {version}")
    return read[version](file)
