import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.bitmap import from_bitmap, to_bitmap


def test_bits_by_hand() -> None:
    assert to_bitmap({0, 3, 8, 9}, 10) == bytes([0b0000_1001, 0b0000_0011])
    assert from_bitmap(bytes([0b1000_0000, 0b0000_0001]), 9) == {7, 8}


@given(size=st.integers(0, 200), data=st.data())
def test_sets_come_back(size: int, data: st.DataObject) -> None:
    members = data.draw(st.frozensets(st.integers(0, size - 1))) if size else frozenset()
    bitmap = to_bitmap(members, size)
    assert len(bitmap) == -(-size // 8)
    assert from_bitmap(bitmap, size) == members
    assert to_bitmap(sorted(members, reverse=True), size) == bitmap


@given(size=st.integers(0, 60), bitmap=st.binary(max_size=9))
def test_a_bitmap_is_canonical_or_refused(size: int, bitmap: bytes) -> None:
    try:
        members = from_bitmap(bitmap, size)
    except ValueError:
        spare_or_size = len(bitmap) != -(-size // 8) or int.from_bytes(bitmap, "little") >> size
        assert spare_or_size
    else:
        assert to_bitmap(members, size) == bitmap


@pytest.mark.parametrize(("size", "length"), [(8, 0), (8, 2), (9, 1), (9, 3), (0, 1)])
def test_bitmaps_of_another_size_are_refused(size: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"bitmap over {size} clients has {length} bytes"):
        from_bitmap(bytes(length), size)


@pytest.mark.parametrize("spare", range(3, 8))
def test_spare_bits_are_refused(spare: int) -> None:
    with pytest.raises(ValueError, match="spare bits"):
        from_bitmap(bytes([0xFF, 1 << spare]), 11)


def test_members_outside_the_roster_are_refused() -> None:
    with pytest.raises(IndexError):
        to_bitmap({10}, 10)
