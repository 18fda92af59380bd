"""The blocks of a vector, and payloads that contain some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kspark.errors import IncompatibleDeltaError, ProtocolError
from kspark.weights.comparing import compare_rows
from kspark.weights.spec import TRAINABLE, Weight, WeightSpec

PACKED = np.dtype("uint8")
"""The dtype of payloads, which distinguishes them from vectors."""

LEAST_ROWS = 4096
"""Minimum rows of a large table. Kernels of dense layers have fewer, and change as a whole."""

LEAST_BYTES = 1 << 16
"""Minimum bytes of all blocks. Smaller blocks are sent faster than they are compared."""

BITMAP_ALIGNMENT = 8
"""Bytes to which the bitmap is padded, so that the values after it are aligned."""


@dataclass(frozen=True)
class Table:
    """Consecutive blocks of the same size.

    Attributes:
        start: Integer, position of the first block in the vector.
        rows: Integer, number of blocks.
        width: Integer, elements per block.
    """

    start: int
    rows: int
    width: int

    @property
    def stop(self) -> int:
        """Position after the last block."""
        return self.start + self.rows * self.width

    def of(self, vector: np.ndarray) -> np.ndarray:
        """Return the blocks as rows, a view of a vector."""
        return vector[self.start : self.stop].reshape(self.rows, self.width)


@dataclass(frozen=True)
class Layout:
    """The positions of a vector's blocks. Create it with `Layout.of`.

    Attributes:
        size: Integer, elements of the vector.
        dtype: Dtype of the vector.
        tables: Tuple of `Table`, in the order of the vector.
    """

    size: int
    dtype: np.dtype
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, spec: WeightSpec, start: int = 0, stop: int | None = None) -> Layout | None:
        """Create the layout of a model's vector, or of a part of it.

        Args:
            spec: `WeightSpec`.
            start: Integer, beginning of the part. Defaults to `0`.
            stop: Integer, end of the part, which must not divide the state. Defaults to `None`,
                the end of the vector.

        Returns:
            A `Layout`, or `None` if the blocks are too small to be worth comparing.
        """
        stop = spec.size if stop is None else stop
        found = [
            table_of(spec.weights[i], part.start - start)
            for i, part in spec.parts
            if start <= part.start < part.stop <= stop
        ]
        tables = tuple(table for table in found if table is not None)
        elements = sum(table.stop - table.start for table in tables)
        if not elements or elements * spec.dtype.itemsize < LEAST_BYTES:
            return None
        return cls(stop - start, spec.dtype, tables)

    @property
    def nbytes(self) -> int:
        """Bytes of the vector."""
        return self.size * self.dtype.itemsize

    @property
    def sizes(self) -> Sequence[int]:
        """Possible payload sizes in bytes, all smaller than the vector."""
        return range(self._bitmap_bytes, self.nbytes)

    @cached_property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return sum(table.rows for table in self.tables)

    @cached_property
    def _bitmap_bytes(self) -> int:
        whole = -(-self.num_blocks // 8)
        return whole + -whole % BITMAP_ALIGNMENT

    @cached_property
    def _gaps(self) -> tuple[slice, ...]:
        """The dense parts, before each table and after the last one."""
        starts = [0, *(table.stop for table in self.tables)]
        stops = [*(table.start for table in self.tables), self.size]
        return tuple(slice(*ends) for ends in zip(starts, stops, strict=True))

    @cached_property
    def _dense(self) -> int:
        return sum(gap.stop - gap.start for gap in self._gaps)

    # -- which blocks changed ---------------------------------------------------------------

    def changed(self, vector: np.ndarray, base: np.ndarray | None = None) -> np.ndarray:
        """Find the blocks of a vector that differ from those of another one in any bit.

        If nearly all rows of a table differ, all of them may be reported.

        Args:
            vector: Vector of `size` elements.
            base: Vector to compare with. Defaults to `None`, zeros.

        Returns:
            Boolean array of `num_blocks` elements.

        Raises:
            IncompatibleDeltaError: If a vector has another size or dtype.
        """
        bits = self._bits(vector)
        others = None if base is None else self._bits(base)
        changed = np.empty(self.num_blocks, bool)
        for table, place in self._places():
            rows = None if others is None else table.of(others)
            compare_rows(table.of(bits), rows, changed[place])
        return changed

    def payload_size(self, changed: np.ndarray) -> int:
        """Return the bytes of a payload with the blocks that are true in `changed`."""
        elements = self._dense
        for table, place in self._places():
            elements += int(np.count_nonzero(changed[place])) * table.width
        return self._bitmap_bytes + elements * self.dtype.itemsize

    def _places(self) -> Iterator[tuple[Table, slice]]:
        """Yield each table with the slice of its blocks among all blocks."""
        start = 0
        for table in self.tables:
            yield table, slice(start, start + table.rows)
            start += table.rows

    def _bits(self, vector: np.ndarray) -> np.ndarray:
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise IncompatibleDeltaError(
                f"Shape {vector.shape} and dtype {vector.dtype} do not match "
                f"shape ({self.size},) and dtype {self.dtype}."
            )
        return np.ascontiguousarray(vector).view(f"u{self.dtype.itemsize}")

    # -- vectors without some of their blocks ------------------------------------------------

    def encode(self, vector: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Encode the dense parts and some blocks as a payload.

        Args:
            vector: Vector of `size` elements.
            changed: Boolean array of `num_blocks` elements, the blocks to include.

        Returns:
            A new uint8 array.
        """
        payload = np.empty(self.payload_size(changed), PACKED)
        bits = np.packbits(changed, bitorder="little")
        payload[: bits.size] = bits
        payload[bits.size : self._bitmap_bytes] = 0
        for values, place, rows in self._parts(payload, vector, changed):
            if rows is None:
                values[:] = place
            else:
                np.take(place, rows, axis=0, out=values, mode="clip")  # Needs no buffer.
        return payload

    def decode(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Write the parts of a payload into a vector, and leave its other blocks unchanged.

        Args:
            payload: Contiguous uint8 array, which is not trusted.
            out: Vector of `size` elements.

        Raises:
            ProtocolError: If the payload does not fit this layout. Nothing is written then.
        """
        self._write(payload, self.read(payload), out)

    def pack(self, vector: np.ndarray) -> np.ndarray:
        """Encode a vector without its zero blocks, or return it if that is not smaller."""
        changed = self.changed(vector)
        if self.payload_size(changed) >= self.nbytes:
            return vector
        return self.encode(vector, changed)

    def unpack(self, payload: np.ndarray, out: np.ndarray) -> None:
        """Decode a payload of `pack`, with zeros in omitted blocks. Arguments as for `decode`."""
        changed = self.read(payload)
        out[:] = 0
        self._write(payload, changed, out)

    def read(self, payload: np.ndarray) -> np.ndarray:
        """Return which blocks a payload contains, as a boolean array.

        Raises:
            ProtocolError: If the payload does not fit this layout.
        """
        count, head = self.num_blocks, self._bitmap_bytes
        if payload.dtype != PACKED or payload.ndim != 1 or payload.size < head:
            raise ProtocolError(
                f"Got a payload of {payload.nbytes} bytes, expected {head} or more."
            )
        bits = np.unpackbits(payload[:head], bitorder="little")
        if bits[count:].any():
            raise ProtocolError(f"Got bits for more than {count} blocks.")
        changed = bits[:count].view(bool)
        if payload.size != (wanted := self.payload_size(changed)):
            raise ProtocolError(f"Got a payload of {payload.size} bytes, expected {wanted}.")
        return changed

    def _write(self, payload: np.ndarray, changed: np.ndarray, out: np.ndarray) -> None:
        for values, place, rows in self._parts(payload, out, changed):
            place[slice(None) if rows is None else rows] = values

    def _parts(
        self, payload: np.ndarray, vector: np.ndarray, changed: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Yield views of a payload's values and of their places, with the rows for a table."""
        values, start = payload[self._bitmap_bytes :].view(self.dtype), 0
        for gap, (table, place) in zip(self._gaps, self._places(), strict=False):
            stop = start + gap.stop - gap.start
            yield values[start:stop], vector[gap], None
            rows = np.flatnonzero(changed[place])
            start, stop = stop, stop + rows.size * table.width
            yield values[start:stop].reshape(-1, table.width), table.of(vector), rows
            start = stop
        yield values[start:], vector[self._gaps[-1]], None


def table_of(weight: Weight, start: int) -> Table | None:
    """Return the blocks of a variable, or `None` if it is dense."""
    if weight.role != TRAINABLE:
        return Table(start, 1, weight.size)
    if len(weight.shape) < 2 or weight.shape[0] < LEAST_ROWS:
        return None
    return Table(start, weight.shape[0], weight.size // weight.shape[0])
