"""Numbers of bytes as text."""

from bitsure.base.byte_sizes import binary_size, decimal_size


def test_memory_is_in_the_binary_unit_that_fits():
    sizes = [binary_size(size) for size in (0, 1000, 1024, 300 * 2**20, 2**30 - 1, 1.5 * 2**30, 128.5 * 2**30, 2**51)]
    assert sizes == ["0 bytes", "1000 bytes", "1 KiB", "300 MiB", "1.0 GiB", "1.5 GiB", "128.5 GiB", "2,097,152.0 GiB"]


def test_sizes_of_files_have_three_digits():
    sizes = [decimal_size(size) for size in (None, 12, 1234, 999_400, 999_600, 2.5e6, 13e9, 999.6e9, 1.62e12, 1.62e15)]
    assert sizes == ["–", "12 bytes", "1.23 kB", "999 kB", "1 MB", "2.5 MB", "13 GB", "1 TB", "1.62 TB", "1,620 TB"]
