"""JSON lines: one object a line. What was fetched from an API or a database is kept in this form, too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from dopa_pipelines.sources.batch import ROW, Batch
from dopa_pipelines.sources.lines import Block, LineTooLongError, read_blocks
from dopa_pipelines.sources.reader import Reader
from dopa_pipelines.sources.records import Records, parse_objects, refuse_utf16


class JsonLinesReader(Reader):
    def read(self) -> Iterator[Batch]:
        refuse_utf16(self)
        records = Records(self)
        try:
            for block in read_blocks(self.path, "utf-8"):
                yield self._batch(block, records)
        except LineTooLongError as error:
            raise self.refuse(f"{error}; is it a file of JSON lines?") from error
        records.finish()

    def _batch(self, block: Block, records: Records) -> Batch:
        data = block.data
        if block.encoding != "utf-8" and not data.isascii():
            try:
                data = data.decode(block.encoding).encode()
            except UnicodeDecodeError:
                return self._batch(block.only_text(), records)
        found = parse_objects(data.split(b"\n")[:-1])
        objects = [record for record in found if record is not None]
        flawed, kept = block.flawed, None
        if len(objects) < len(found):
            none = np.array([record is None for record in found])
            places = np.flatnonzero(none)
            blank = block.blank(places)
            self.layout_rows += len(blank)
            flawed = block.without(np.setdiff1d(places, blank), "undecodable").flawed
            kept = np.flatnonzero(~none)
        numbers = block.numbers if kept is None else block.numbers[kept]
        columns = records.columns(objects)
        batch = Batch(pl.Series(ROW, numbers, dtype=pl.Int64), columns, block.originals(kept), flawed)
        return batch.flaw(records.strangers(objects, columns), "ragged_line")
