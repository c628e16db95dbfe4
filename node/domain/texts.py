"""Text from outside, made safe to show and to keep."""


def shown(text: str, instead: str = "?") -> str:
    """Return text in which no character can fool a terminal: control, direction, format."""
    return "".join(c if c.isprintable() else instead for c in text)


def encodable(text: str) -> str:
    """Return text that SQLite and protobuf take: names of other encodings have bytes shown."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
