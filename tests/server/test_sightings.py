"""The index over candidate ids by itself: what is packed is unpacked, merges lose nothing, and how small it is."""

from __future__ import annotations

import itertools
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.exceptions import StoreError
from xray_server.checksums import checksum_of, checksums_of
from xray_server.sightings import entries, segments
from xray_server.sightings.entries import (
    bounds_of,
    count_of_parts,
    cut,
    id_hash,
    packed_hashes,
    part_of,
    places_of,
    unpack,
    unpacked_hashes,
)
from xray_server.sightings.pages import PAGES_PER_BLOCK, Place, pack_places, unpack_places
from xray_server.sightings.segments import Built, Segment, build, merge, to_merge
from xray_server.sightings.tail import Listed, listed, needle, pack_tail, search_tail, unpack_tail

HASHES = st.integers(0, (1 << entries.HASH_BITS) - 1)
STARTS = st.one_of(st.none(), st.integers(-(2**40), 2**45))
UUIDS = st.uuids().map(str)


@st.composite
def places(draw):
    """Pages of one kind of store, with and without a start."""
    stages = draw(st.sampled_from((st.integers(0, 2**39), UUIDS, st.one_of(st.text(), UUIDS))))
    return draw(st.lists(st.builds(Place, stages, st.integers(0, 2**24 - 1), STARTS), max_size=80))


@given(places(), st.sampled_from((1, 9)))
def test_a_block_gives_back_its_pages(given_places, level):
    """All of them, or those that are asked for; compressed or not, as earlier versions wrote those of records."""
    packed = pack_places(given_places, level)
    is_compressed = packed.startswith(zstandard.FRAME_HEADER)
    plain = zstandard.decompress(packed) if is_compressed else packed
    assert len(packed) <= len(plain)
    some = list(range(0, len(given_places), 3))
    for form in (packed, plain, zstandard.compress(plain)):
        assert unpack_places(form) == given_places
        assert unpack_places(form, some) == [given_places[place] for place in some]


@given(
    places().flatmap(lambda them: st.tuples(*(st.tuples(st.just(one), st.sets(HASHES, max_size=20)) for one in them)))
)
def test_a_record_finds_what_is_in_it(pages):
    """Each page by each of its hashes, and by no other."""
    record = pack_tail([Listed(place, b"".join(map(needle, sorted(hashes)))) for place, hashes in pages])
    assert [(page.place, set(page.hashes)) for page in unpack_tail(record)] == list(pages)
    for known in {0, *(known for _, hashes in pages for known in hashes)}:
        assert search_tail(record, known) == [place for place, hashes in pages if known in hashes]


@given(st.lists(st.text(max_size=30), max_size=300))
def test_hashes_are_the_upper_bits_of_the_checksums(ids):
    """However many are taken at once, and in whatever order: each id has the hash that a look-up asks for."""
    assert unpacked_hashes(packed_hashes(checksums_of(ids))) == [id_hash(one) for one in ids]


def test_checksums_never_change():
    """Stores keep parts of them; ids that are no text to UTF-8 have one too."""
    assert list(checksums_of(["sku-1", "\u00e9", ""])) == [0x05BA54AF, 0x9179F648, 0x482CE1BC]
    assert list(checksums_of(["sku-1", "\ud800"])) == [0x05BA54AF, checksum_of("\ud800")]


@settings(max_examples=60)
@given(st.sets(st.tuples(HASHES, st.integers(0, entries.PLACES)), max_size=300), st.integers(1, 400))
def test_parts_give_back_their_entries(pairs, per_part):
    """Also where they are cut anywhere; each hash finds its places in its own part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "ENTRIES_PER_PART", per_part)
        every = sorted(known << entries.PLACE_BITS | place for known, place in pairs)
        parts = list(cut(every))
    assert [entry for part in parts for entry in unpack(part)] == every
    for known in {0, (1 << entries.HASH_BITS) - 1, *(known for known, _ in pairs)}:
        found = places_of(parts[part_of(known, len(parts))], known, len(parts))
        assert found == sorted(place for other, place in pairs if other == known)


@given(st.integers(1, 2000))
def test_parts_are_next_to_each_other(parts):
    """Every hash is in one part, within that part's bounds."""
    bounds = [bounds_of(part, parts) for part in range(parts)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 1 << entries.HASH_BITS + entries.PLACE_BITS
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    for part, (low, high) in enumerate(bounds):
        if low < high:
            assert part_of(low >> entries.PLACE_BITS, parts) == part_of((high - 1) >> entries.PLACE_BITS, parts) == part


def lookup(built: Built, known):
    """The pages of a segment that have a hash."""
    parts = built.segment.parts
    found = places_of(built.parts[part_of(known, parts)], known, parts)
    blocks = [unpack_places(block) for block in built.blocks]
    return {blocks[place // PAGES_PER_BLOCK][place % PAGES_PER_BLOCK] for place in found}


PAGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 3), st.lists(st.integers(0, 40), min_size=1, max_size=6)), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PAGES.filter(bool), min_size=1, max_size=5))
def test_a_merge_has_what_its_segments_had(batches):
    """Also where several segments name the same page; it says how many pages and entries it has."""
    expected: dict[int, set[tuple[int, int]]] = {}
    built = []
    for batch in batches:
        pages = []
        for stage, page, items in batch:
            ids = [f"item {item}" for item in items]
            pages.append(listed(Place(stage, page, 1000 + stage), checksums_of(ids)))
            for candidate_id in ids:
                expected.setdefault(id_hash(candidate_id), set()).add((stage, page))
        built.append(build(pages))
    merged = merge(built)
    for known in (id_hash(f"item {item}") for item in range(42)):
        assert {place.key for place in lookup(merged, known)} == expected.get(known, set())
        assert all(place.start == 1000 + place.stage for place in lookup(merged, known))
    assert merged.segment.entries == sum(map(len, expected.values()))
    assert merged.segment.pages == len(set().union(*expected.values()))
    assert merged.segment.blocks == len(merged.blocks)
    assert merged.segment.last_at == max(1000 + stage for batch in batches for stage, _, _ in batch)


def test_a_page_whose_start_is_disputed_has_none():
    """Who looks it up then asks the stage, instead of taking one of the two for it."""
    merged = merge([build([listed(Place(1, 0, start), checksums_of(["a"]))]) for start in (5, 9)])
    assert lookup(merged, id_hash("a")) == {Place(1, 0, None)}
    assert merged.segment.has_timeless


@pytest.mark.parametrize("pages_of_each", [4096, 4500, 16_000])
def test_segments_become_few_and_stay_bounded(pages_of_each):
    """With as many pages as there may be, however many, of any size; each entry is written a few times only."""
    entries_of_each = 20 * pages_of_each
    known: dict[int, Segment] = {}
    written = 0
    for number in range(2000):
        known[number * 10] = Segment(pages_of_each, entries_of_each, 1, number, False)
        written += entries_of_each
        while chosen := to_merge(known):
            merging = [known.pop(one) for one in chosen]
            pages, size = sum(one.pages for one in merging), sum(one.entries for one in merging)
            assert pages <= entries.MAX_PAGES
            assert size <= entries.MAX_ENTRIES
            written += size
            known[chosen[0]] = Segment(pages, size, count_of_parts(size), number, False)
        assert len(known) <= number * pages_of_each / (0.7 * entries.MAX_PAGES) + 2 * segments.FAN_OUT
    assert sum(one.pages for one in known.values()) == 2000 * pages_of_each
    assert written <= 3 * 2000 * entries_of_each


def test_an_entry_takes_less_than_three_bytes():
    """With pages included, for stages of twenty candidates."""
    draw = random.Random(3)
    pages = [
        listed(
            Place(number, 0, 1_800_000_000_000 + number * 37),
            checksums_of([f"item-{draw.randrange(10**7)}" for _ in range(20)]),
        )
        for number in range(4096)
    ]
    built = merge([build(pages[start : start + 1024]) for start in range(0, 4096, 1024)])
    size = sum(map(len, built.parts)) + sum(map(len, built.blocks))
    assert size / built.segment.entries < 3


def test_hashes_never_change():
    """What was written by one version is looked up by the next."""
    assert [id_hash(one) for one in ("", "a", "item 7", "caf\u00e9")] == [1182520, 690715, 515365, 699326]


@pytest.mark.parametrize("style", ["item-{:07d}", "{}", "B0{:08X}", "https://example.com/items/{}?page=1", "{:064b}"])
def test_hashes_of_alike_ids_are_spread(style):
    """Ids as people have them share a hash about as seldom as random ones, and fill all parts alike."""
    count = 1 << 16
    hashes = [id_hash(style.format(number)) for number in range(count)]
    # Of random hashes 511 pairs would be alike; linear as it is, the hash does better or somewhat worse.
    assert count - len(set(hashes)) < 4000
    sizes = [0] * 16
    for known in hashes:
        sizes[part_of(known, 16)] += 1
    assert max(sizes) < 2 * count / 16


def test_damage_is_said():
    """Bytes that were cut off are no answer."""
    ids = [[f"c{number} {each}" for each in range(9)] for number in range(99)]
    pages = [listed(Place(number, 0, number), checksums_of(some)) for number, some in enumerate(ids)]
    built = build(pages)
    for data in (built.parts[0][:20], built.parts[0][:-20]):
        with pytest.raises(StoreError):
            unpack(data)
    with pytest.raises(StoreError):
        unpack_places(built.blocks[0][:10])
    with pytest.raises(StoreError):
        list(unpack_tail(pack_tail(pages)[:-2]))
