"""GPUs that this machine has, whether the installed build of llama.cpp can use them or not."""

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_DRM = Path("/sys/class/drm")
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}

# vendor -> how ggml's devices for it begin, and what a build for it is made with
_BACKENDS = {"NVIDIA": ("CUDA",), "AMD": ("ROCm", "HIP"), "Intel": ("SYCL",), "Apple": ("MTL", "Metal")}
_ARGUMENTS = {
    "NVIDIA": "-DGGML_CUDA=on",
    "AMD": "-DGGML_HIP=on",
    "Intel": "-DGGML_SYCL=on -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
    "Apple": "-DGGML_METAL=on",
}
_NEEDS = {
    "NVIDIA": "the CUDA toolkit",
    "AMD": "ROCm",
    "Intel": "Intel's oneAPI toolkit",
    "Apple": "Xcode's command line tools",
}


@dataclass(frozen=True, slots=True)
class SeenGpu:
    """A GPU that the system tells of."""

    vendor: str
    name: str

    @property
    def cmake_arguments(self) -> str:
        """What llama.cpp has to be built with to use it."""
        return _ARGUMENTS[self.vendor]

    @property
    def needs(self) -> str:
        """What has to be installed before llama.cpp can be built for it."""
        return _NEEDS[self.vendor]

    def is_among(self, devices: list[str]) -> bool:
        """Tell whether one of ggml's devices, by its name, is of its kind."""
        return any(device.startswith((*_BACKENDS[self.vendor], "Vulkan")) for device in devices)


def seen() -> list[SeenGpu]:
    """Return the GPUs that the system tells of, whether a program could use them or not."""
    if sys.platform == "darwin":
        return [SeenGpu("Apple", "Apple GPU")] if platform.machine() == "arm64" else []
    found = [SeenGpu("NVIDIA", _model(folder)) for folder in sorted(_NVIDIA.glob("*"))]
    for card in sorted(_DRM.glob("card[0-9]*")):
        vendor = _VENDORS.get(_text(card / "device" / "vendor"))
        if vendor is None or "-" in card.name or (vendor == "NVIDIA" and found):
            continue
        name = _text(card / "device" / "product_name") or f"{vendor} GPU {_text(card / 'device' / 'device')}".strip()
        found.append(SeenGpu(vendor, name))
    return found


def _model(folder: Path) -> str:
    match = re.search(r"^Model:\s*(\S.*?)\s*$", _text(folder / "information"), re.MULTILINE)
    return match[1] if match else "NVIDIA GPU"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
