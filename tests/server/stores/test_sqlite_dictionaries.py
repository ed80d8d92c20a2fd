"""Values that were compressed with many dictionaries, and with none."""

from __future__ import annotations

import random

import zstandard

from xray_server.stores.sqlite.dictionaries import MAX_IN_USE, Decompressor


def test_a_value_without_a_dictionary_is_read_however_many_dictionaries_are_in_use():
    """A reader forgets the dictionaries that it used first, and never how to do without one."""
    drawn = random.Random(3)
    samples = [drawn.randbytes(200) * 3 for _ in range(64)]
    trained = {number: zstandard.train_dictionary(1024, samples, dict_id=number) for number in range(1, MAX_IN_USE + 9)}
    data = {number: dictionary.as_bytes() for number, dictionary in trained.items()}
    reader = Decompressor(data.get)
    plain = zstandard.ZstdCompressor().compress(b"as it is")
    for number, dictionary in trained.items():
        value = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"value %d" % number)
        assert reader.decompress(value) == b"value %d" % number
        assert reader.decompress(plain) == b"as it is"
