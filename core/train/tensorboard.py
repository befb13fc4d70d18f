"""TensorBoard event files, written without TensorBoard: importing it takes longer than a short trial's first steps.

A file is a sequence of TFRecords: length (8 bytes), its masked CRC32C, the data, its masked CRC32C, little endian. The
data is a serialised `Event` of tensorflow/core/util/event.proto: wall_time = 1 (double), step = 2 (int64),
file_version = 3 (string), summary = 5, of which value = 1 has tag = 1 (string) and simple_value = 2 (float).
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO


class EventWriter:
    """Appends scalars to an event file in `folder`, which is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None

    def write(self, step: int, wall_time: float, scalars: Mapping[str, float]) -> None:
        """Append one event.

        Raises:
            OSError: the disk is full.
        """
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
            self._file = (self._folder / name).open("ab", buffering=0)
            self._file.write(_record(_double(1, wall_time) + _bytes(3, b"brain.Event:2")))
        values = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars.items()
        )
        self._file.write(
            _record(_double(1, wall_time) + _varint_field(2, step) + _bytes(5, values))
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            # 0x82F63B78 is the Castagnoli polynomial, bits reversed.
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_CRC_TABLE = _table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    # The rotation and the constant are TFRecord's mask.
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + _packed_float(value)


def _packed_float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data
