import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import Frame
from secagg.service.errors import StreamError
from secagg.service.records import MESSAGE_BYTES, RecordReader, RecordType, encode_record


@given(
    records=st.lists(st.tuples(st.sampled_from(RecordType), st.binary(max_size=200)), max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_records_survive_any_cutting_into_messages(
    records: list[tuple[RecordType, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(b"".join(encode_record(kind, content)) for kind, content in records)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    reader, got, at = RecordReader(200), [], 0
    for end in ends:
        got += [(record.type, bytes(record.content)) for record in reader.feed(stream[at:end])]
        at = end
    assert got == records


def test_messages_are_at_most_a_mebibyte() -> None:
    frame = Frame(bytes(3 * MESSAGE_BYTES + 5), b"tail")
    messages = list(encode_record(RecordType.FRAME, frame))
    assert max(map(len, messages)) == MESSAGE_BYTES
    assert sum(map(len, messages)) == frame.size + 9


def test_a_length_bomb_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(StreamError, match="at most 100 bytes, announces 101"):
        list(RecordReader(100).feed(bytes([RecordType.FRAME]) + (101).to_bytes(8, "big")))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(StreamError, match=r"type must be in 1\.\.11, is 12"):
        list(RecordReader(10).feed(bytes([12]) + bytes(8)))


@given(st.binary(max_size=300))
def test_any_bytes_make_records_or_a_stream_error(data: bytes) -> None:
    try:
        records = list(RecordReader(64).feed(data))
    except StreamError:
        return
    assert sum(9 + len(record.content) for record in records) <= len(data)
