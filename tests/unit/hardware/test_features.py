"""What a build of llama.cpp uses of a processor, and which GPUs there are, by made-up words and folders."""

from pathlib import Path

import pytest

from owm.hardware import gpus
from owm.hardware.features import Features, features
from owm.hardware.gpus import SeenGpu, seen

INTEL = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | LLAMAFILE = 1 | OPENMP = 1 | "
FLAGS = ["fpu", "pni", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2", "avx512f", "avx512_vnni"]


def test_what_the_processor_has_and_the_build_does_not_use_is_missing() -> None:
    found = features(INTEL, FLAGS)
    assert found.used == ("SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "LLAMAFILE", "OPENMP")
    assert found.missing == ("BMI2", "AVX512", "AVX512_VNNI")


def test_arm_is_compared_in_its_own_words() -> None:
    found = features("CPU : NEON = 1 | DOTPROD = 1 | SVE_CNT = 16 | ", ["asimd", "asimddp", "i8mm", "sve"])
    assert found == Features(("NEON", "DOTPROD", "SVE_CNT"), ("MATMUL_INT8", "SVE"))


def test_what_other_devices_say_is_not_the_processors() -> None:
    found = features("CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : AVX = 1 | AVX2 = 1 | ", ["avx", "avx2"])
    assert found == Features(("AVX", "AVX2"), ())
    found = features("CPU : AVX = 1 | CUDA : ARCHS = 900 | ", ["avx", "fma"])
    assert found == Features(("AVX",), ("FMA",))


def test_what_is_said_to_be_off_is_not_used() -> None:
    assert features("CPU : AVX = 1 | AVX2 = 0 | ", ["avx", "avx2"]) == Features(("AVX",), ("AVX2",))


def test_nothing_is_missing_where_nobody_tells_of_the_processor() -> None:
    assert features(INTEL, []).missing == ()
    assert features("", []) == Features((), ())


def test_the_real_build_says_what_it_uses() -> None:
    from owm.hardware.machine import cpu_flags
    from owm.native import llama

    found = features(llama.system_info(), cpu_flags())
    assert found.used
    assert not set(found.used) & set(found.missing)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpus, "_NVIDIA", tmp_path / "nvidia")
    monkeypatch.setattr(gpus, "_DRM", tmp_path / "drm")
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def card(system: Path, name: str, vendor: str, **files: str) -> None:
    folder = system / "drm" / name / "device"
    folder.mkdir(parents=True)
    for file, text in {"vendor": vendor, "device": "0x1234", **files}.items():
        (folder / file).write_text(f"{text}\n")


def test_without_folders_there_is_no_gpu(system: Path) -> None:
    assert seen() == []


def test_gpus_are_named_as_the_system_names_them(system: Path) -> None:
    folder = system / "nvidia" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 3\n")
    card(system, "card0", "0x10de")  # the same one again
    card(system, "card1", "0x1002", product_name="Instinct MI300X")
    card(system, "card2", "0x8086")
    card(system, "card3", "0x1af4")  # a virtual screen
    (system / "drm" / "card1-DP-1").mkdir()
    assert seen() == [
        SeenGpu("NVIDIA", "NVIDIA H100"),
        SeenGpu("AMD", "Instinct MI300X"),
        SeenGpu("Intel", "Intel GPU 0x1234"),
    ]


@pytest.mark.parametrize(
    ("vendor", "device", "is_used"),
    [("NVIDIA", "CUDA0", True), ("NVIDIA", "Vulkan0", True), ("NVIDIA", "ROCm0", False), ("AMD", "ROCm0", True),
     ("Intel", "SYCL0", True), ("Intel", "CUDA0", False), ("Apple", "MTL0", True)],
)  # fmt: skip
def test_a_gpu_is_used_where_ggml_has_a_device_of_its_kind(vendor: str, device: str, is_used: bool) -> None:
    assert SeenGpu(vendor, "it").is_among([device]) is is_used
    assert not SeenGpu(vendor, "it").is_among([])


def test_each_kind_of_gpu_has_what_it_is_built_with() -> None:
    assert {
        vendor: SeenGpu(vendor, "").cmake_arguments.split()[0] for vendor in ("NVIDIA", "AMD", "Intel", "Apple")
    } == {
        "NVIDIA": "-DGGML_CUDA=on",
        "AMD": "-DGGML_HIP=on",
        "Intel": "-DGGML_SYCL=on",
        "Apple": "-DGGML_METAL=on",
    }
