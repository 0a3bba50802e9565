"""Damages of files, as broken disks and broken downloads do them."""


def flip_a_bit(path, place=-1):
    """Change one bit of a file; its size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path, length):
    """Leave the first `length` bytes of a file, as a broken download does."""
    path.write_bytes(path.read_bytes()[:length])
