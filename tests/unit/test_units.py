"""Numbers as people read and write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.units import format_bytes, format_count, format_rate, format_seconds, parse_bytes

KIB, MIB, GIB, TIB = (1024**i for i in range(1, 5))


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10_239, "10.0 KiB"),
        (102_340, "99.9 KiB"),
        (102_399, "100 KiB"),
        (1_023_487, "999 KiB"),
        (1_023_999, "0.98 MiB"),
        (98_362_432, "93.8 MiB"),
        (4_370_000_000, "4.07 GiB"),
        (999 * GIB, "999 GiB"),
        (5000 * TIB, "5000 TiB"),
    ],
)
def test_sizes_have_three_digits(n_bytes: int, text: str) -> None:
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("17", 17),
        ("17b", 17),
        ("1k", KIB),
        ("1K", KIB),
        ("1KB", 1000),
        ("1kib", KIB),
        ("500M", 500 * MIB),
        ("1.5 GiB", 3 * GIB // 2),
        ("4.2GB", 4_200_000_000),
        (" 2T ", 2 * TIB),
        ("2tb", 2 * 1000**4),
        ("0.1KB", 100),
        ("123456789012345678", 123456789012345678),
    ],
)
def test_sizes_are_read_in_both_kinds_of_units(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1", "1..5G", "1.G", ".5G", "1e3", "1 2", "5 apples", "1GiBs", "nan", "inf", "9" * 400, "٣M", "1_000"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size: "):
        parse_bytes(text)


@given(st.integers(0, 10**17))
def test_a_written_size_reads_back_within_its_digits(n_bytes: int) -> None:
    text = format_bytes(n_bytes)
    assert abs(parse_bytes(text) - n_bytes) <= n_bytes * 0.0052
    number = text.split()[0]
    assert len(number.replace(".", "").lstrip("0")) <= 3 or text.endswith("TiB")


@given(st.integers(0, 10**17), st.sampled_from(["", "B", "k", "KB", "MiB", "g", "GiB", "TB"]))
def test_a_plain_number_of_units_is_exact(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * parse_bytes(f"1{unit}")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00K"),
        (134_515_008, "135M"),
        (999_499_999, "999M"),
        (999_999_999, "1.00B"),
        (1_235_814_432, "1.24B"),
        (9_995_000_000, "10.0B"),
        (20_914_757_184, "20.9B"),
        (99_960_000_000, "100B"),
        (1_026_000_000_000, "1.03T"),
    ],
)
def test_counts_have_three_digits(n: int, text: str) -> None:
    assert format_count(n) == text


@given(st.integers(0, 10**14))
def test_a_written_count_is_near(n: int) -> None:
    text = format_count(n)
    factor = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}.get(text[-1], 1)
    assert abs(float(text.rstrip("KMBT")) * factor - n) <= n * 0.0051


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0854, "85 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (4.21, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (200_000, "55 h 33 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rates() -> None:
    assert [format_rate(rate) for rate in (0, 151.34, 0.05, 12317.6)] == [
        "0.0 t/s",
        "151.3 t/s",
        "0.1 t/s",
        "12,318 t/s",
    ]
