"""How candidates lie in pages: bytes a candidate by form, page size, compression level and dictionary.

Run: ``python benchmarks/page_forms.py``. The candidates are those of ``ingest.py``; what is counted is the compressed
page with its ids, and nothing around it. The first stages train the dictionary and are not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from statistics import median

import msgspec
import zstandard
from support.catalogue import make_bodies

from xray.stage_types.base import Columns
from xray_server.candidate_rows import from_columns
from xray_server.packing import pack, unpack
from xray_server.pages import PAGE_SIZE, CandidatePage, paginate
from xray_server.stores.frames import Opened, page_parts
from xray_server.tables import plain

STAGES = {20: 3000, 5000: 20}
TRAINING_BYTES, TRAINING_PAGES = 128 * 1024, 10
DICTIONARY_BYTES = 32 * 1024

Form = Callable[[Columns], tuple[bytes, bytes]]
"""What is compressed, and what is kept beside it as it is."""


def rows_form(columns: Columns) -> tuple[bytes, bytes]:
    """A list of values for each column, candidates as the dicts that they are, as msgpack."""
    values = {name: plain(column) for name, column in columns.values.items()}
    return msgspec.msgpack.encode([columns.candidate_id, values]), b""


def packed_form(columns: Columns) -> tuple[bytes, bytes]:
    """What the store keeps."""
    (page,) = paginate("", "", 0, columns) if len(columns) <= PAGE_SIZE else (longer(columns),)
    return page_parts(page)


def longer(columns: Columns) -> CandidatePage:
    """A page of more candidates than the stores put into one."""
    ids = columns.candidate_id
    return CandidatePage("", "", 0, 0, range(len(ids)), ids, (), packed=pack(ids, columns.values))


def stages(size: int) -> list[Columns]:
    found = []
    for body in make_bodies(size, STAGES[size]).bodies:
        for event in msgspec.msgpack.decode(body)["events"]:
            columns = event.get("columns")
            found += [from_columns(columns, "", None)] if columns else []
    return found


def pages(found: Sequence[Columns], page_size: int) -> Iterator[Columns]:
    for columns in found:
        for start in range(0, len(columns), page_size):
            yield columns.slice(start, start + page_size)


def measure(found: Sequence[Columns], form: Form, page_size: int, level: int, *, dictionary: bool) -> tuple[float, ...]:
    """Bytes a candidate, and microseconds a candidate to make, to compress and to open (packed form only)."""
    parts = list(pages(found, page_size))
    begin = time.perf_counter()
    made = [form(part) for part in parts]
    plain_pages, beside = [data for data, _ in made], [digits for _, digits in made]
    made_us = (time.perf_counter() - begin) * 1e6 / sum(map(len, parts))
    skipped, size = 0, 0
    while size < TRAINING_BYTES or skipped < TRAINING_PAGES:
        size += len(plain_pages[skipped])
        skipped += 1
    data = None
    if dictionary:
        data = zstandard.train_dictionary(DICTIONARY_BYTES, list(plain_pages[:skipped]), level=level)
        data.precompute_compress(level=level)
        compressor = zstandard.ZstdCompressor(level=level, dict_data=data)
    else:
        compressor = zstandard.ZstdCompressor(level=level)
    count = sum(map(len, parts[skipped:]))
    begin = time.perf_counter()
    compressed = [compressor.compress(page) for page in plain_pages[skipped:]]
    compress_us = (time.perf_counter() - begin) * 1e6 / count
    opened_us = 0.0
    if form is packed_form:
        decompressor = zstandard.ZstdDecompressor(dict_data=data) if data else zstandard.ZstdDecompressor()
        times = []
        for page, digits, part in list(zip(compressed, beside[skipped:], parts[skipped:], strict=True))[:200]:
            begin = time.perf_counter()
            opened = Opened(page + digits, len(part), decompressor.decompress)
            unpack(opened.packed, opened.ids)
            times.append((time.perf_counter() - begin) * 1e6 / len(part))
        opened_us = median(times)
    return sum(map(len, (*compressed, *beside[skipped:]))) / count, made_us, compress_us, opened_us


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    packages = ", ".join(f"{package} {version(package)}" for package in ("msgspec", "zstandard"))
    print(f"{packages}, zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}.\n")
    print("| candidates a stage | form | page | level | dictionary | bytes | pack µs | compress µs | open µs |")
    print("| ---: | :--- | ---: | ---: | :--- | ---: | ---: | ---: | ---: |")
    for size, found in ((size, stages(size)) for size in STAGES):
        tried: list[tuple[Form, int, int, bool]] = [(rows_form, 256, 3, False), (rows_form, 256, 3, True)]
        tried += [(packed_form, 256, level, dictionary) for dictionary in (False, True) for level in (1, 3, 6, 9)]
        if size > 256:
            tried += [(packed_form, page_size, 3, True) for page_size in (32, 64, 128, 512, 1024)]
        for form, page_size, level, dictionary in tried:
            figures = measure(found, form, page_size, level, dictionary=dictionary)
            name = "dicts, msgpack" if form is rows_form else "packed"
            shown = " | ".join(f"{figure:.2f}" for figure in figures)
            print(
                f"| {size:,} | {name} | {min(page_size, size)} | {level} | {'yes' if dictionary else 'no'} | {shown} |"
            )


if __name__ == "__main__":
    main()
