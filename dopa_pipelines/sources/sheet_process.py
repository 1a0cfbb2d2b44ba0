"""One sheet of a workbook as an Arrow stream on the standard output: run as a program of its own, by path.

calamine allocates the whole rectangle of used cells and may panic, overflow its stack or spin on a file made to harm. Here that
ends this process and nothing else. It imports nothing of the project, since it starts for every workbook.

Arguments: the workbook; the sheet (empty: the first); ``tiny`` if numbers below a billionth are in it. What is wrong is one line
of JSON on the standard error: ``{"error": ...}``. The schema's metadata ``places`` holds where in the sheet each column stands,
from 0.
"""

from __future__ import annotations

import json
import resource
import sys
from decimal import Decimal
from typing import Any, NoReturn

MEMORY_BYTES = 6 << 30
CPU_SECONDS = 900
ROWS = 50_000
MAX_SPECIAL_CELLS = 5_000_000

ERRORS = {
    "Div0": "#DIV/0!", "NA": "#N/A", "Name": "#NAME?", "Null": "#NULL!", "Num": "#NUM!", "Ref": "#REF!", "Value": "#VALUE!",
    "GettingData": "#GETTING_DATA",
}  # fmt: skip

# fastexcel writes numbers by way of whole billionths. A text with more than 15 digits, or with nine after the point, may have
# lost something there: 1234567890.12 becomes 1234567890.119999886.
_INEXACT = r"^-?(?:\d+\.\d{9,}|" + "|".join(rf"\d{{{16 - places},}}\.\d{{{places},}}" for places in range(1, 9)) + ")$"
_TINY = rf"{_INEXACT}|^-?0$|^-?\d+\.\d+$"


def main(path: str, sheet: str, tiny: bool) -> None:
    # pyarrow is asked for nothing that needs numpy, whose import takes longer than all the rest.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    import fastexcel
    import pyarrow as pa

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _be_first_to_go()
    try:
        # As bytes: of a path, the name would decide what the file is.
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib would be an import more
            book = fastexcel.read_excel(file.read())
        names = book.sheet_names
        name = _named(sheet, names) if sheet else (names[0] if names else None)
        if name is None:
            _fail("sheet", sheets=names)
        # skip_rows=0: by default leading empty rows are dropped and the row numbers would no longer be Excel's.
        options: dict[str, Any] = {"header_row": None, "skip_rows": 0, "schema_sample_rows": 1}
        loaded = book.load_sheet(name, dtypes="string", **options)
        batch, wrong = loaded.to_arrow_with_errors()
        places = [column.absolute_index for column in loaded.available_columns()]
        columns = list(batch.columns)
        if inexact := _inexact(columns, tiny):
            del loaded, batch
            wanted: Any = {place: "float" if at in inexact else "string" for at, place in enumerate(places)}
            exact = book.load_sheet(name, dtypes=wanted, **options).to_arrow()
            for at, rows in inexact.items():
                columns[at] = _replaced(columns[at], rows, map(_text, exact.column(at).take(pa.array(rows)).to_pylist()))
            del exact
        if wrong is not None:
            _put_errors(columns, wrong.errors)
    except fastexcel.FastExcelError as error:
        text = str(error)
        _fail("password" if "assword" in text else "broken", reason=text.split("\n")[0][:200])
    except MemoryError:
        _fail("memory")
    schema = pa.schema([pa.field(str(at), pa.string()) for at in range(len(columns))], {"places": json.dumps(places)})
    try:
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
            stream.write_table(pa.Table.from_arrays(columns, schema=schema), ROWS)
    except OSError:
        sys.exit(1)  # nobody reads any more


def _be_first_to_go() -> None:
    """Where memory runs out, the system should end this process and not the database's."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    except OSError:
        pass  # not Linux, or not allowed


def _fail(error: str, **facts: Any) -> NoReturn:
    sys.stderr.write("\n" + json.dumps({"error": error, **facts}) + "\n")
    sys.exit(1)


def _named(sheet: str, names: list[str]) -> str | None:
    if sheet in names:
        return sheet
    alike = [name for name in names if name.strip().casefold() == sheet.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def _inexact(columns: list[Any], tiny: bool) -> dict[int, list[int]]:
    """Rows whose text may not be the number's, by column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pattern = _TINY if tiny else _INEXACT
    found: dict[int, list[int]] = {}
    for at, column in enumerate(columns):
        if not tiny and not pc.any(pc.match_substring(column, ".")).as_py():
            continue
        matched = pc.match_substring_regex(column, pattern)
        if pc.any(matched).as_py():
            found[at] = pc.indices_nonzero(matched).cast(pa.int64()).to_pylist()
    return found


def _text(number: float | None) -> str | None:
    """A number with the 15 digits that Excel keeps and shows, without an exponent."""
    if number is None:
        return None
    text = f"{number:.15g}"
    return f"{Decimal(text):f}" if "e" in text else text


def _replaced(column: Any, rows: list[int], texts: Any) -> Any:
    """The column with ``texts`` (None: as it was) in these rows, which are in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    new = pa.array(texts, pa.string())
    marks = bytearray(len(column))
    for row, known in zip(rows, new.is_valid().to_pylist(), strict=True):
        marks[row] = known
    mask = pa.array(map(bool, marks), pa.bool_())
    return pc.replace_with_mask(column, mask, new.drop_null())


def _put_errors(columns: list[Any], wrong: list[Any]) -> None:
    """Cells that fastexcel leaves out, since they hold an error or no date that there is, as text."""
    if len(wrong) > MAX_SPECIAL_CELLS:
        _fail("memory")
    cells: dict[int, dict[int, str]] = {}
    for cell in wrong:
        row, column = cell.position
        kind = cell.detail.rpartition("'Error(")[2].removesuffix(")'")
        cells.setdefault(column, {})[row] = ERRORS.get(kind, "#ERROR: " + cell.detail.partition(" got ")[2].strip("'"))
    for column, texts in cells.items():
        rows = sorted(texts)
        columns[column] = _replaced(columns[column], rows, [texts[row] for row in rows])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["tiny"])
