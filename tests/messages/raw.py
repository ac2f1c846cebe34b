"""The wire format by hand, right and wrong."""


def number(value: int, padding: int = 0) -> bytes:
    """Varint with `padding` bytes more than it needs."""
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    groups += [0] * padding
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def field(tag_number: int, content: int | bytes, padding: int = 0) -> bytes:
    """One field; `padding` makes its value, or the length of its bytes, longer than it needs to be."""
    if isinstance(content, int):
        return number(tag_number << 3) + number(content, padding)
    return number(tag_number << 3 | 2) + number(len(content), padding) + content


def fields_of(data: bytes) -> list[tuple[int, int | bytes]]:
    """Field numbers and contents of a right encoding."""
    out: list[tuple[int, int | bytes]] = []
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = read()
        size = read()
        if tag & 7 == 0:
            out.append((tag >> 3, size))
        else:
            out.append((tag >> 3, data[at : at + size]))
            at += size
    return out


def joined(fields: list[tuple[int, int | bytes]]) -> bytes:
    return b"".join(field(tag_number, content) for tag_number, content in fields)
