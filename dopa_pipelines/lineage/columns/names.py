"""Names as PostgreSQL spells them: folding, truncation, what an unnamed column is called, and which functions do what."""

from __future__ import annotations

import string

MAX_BYTES = 63
"""Bytes of an identifier (NAMEDATALEN - 1); a Thai character has three."""

_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})

RESERVED_VALUES = frozenset(
    {
        "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user",
        "localtime", "localtimestamp", "session_user", "system_user", "user", "default",
    }
)  # fmt: skip
"""Words that are never a column, unless quoted."""

AGGREGATES = frozenset(
    {
        "any_value", "array_agg", "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop",
        "covar_samp", "every", "json_agg", "json_agg_strict", "json_arrayagg", "json_object_agg", "json_object_agg_strict",
        "json_object_agg_unique", "json_object_agg_unique_strict", "json_objectagg", "jsonb_agg", "jsonb_agg_strict",
        "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "max", "min",
        "mode", "percentile_cont", "percentile_disc", "range_agg", "range_intersect_agg", "regr_avgx", "regr_avgy", "regr_count",
        "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "stddev", "stddev_pop", "stddev_samp",
        "string_agg", "sum", "var_pop", "var_samp", "variance", "xmlagg",
    }
)  # fmt: skip

ONE_WAY = frozenset(
    {
        "count", "crc32", "crc32c", "crypt", "digest", "hash_record", "hash_record_extended", "hashbpchar", "hashchar",
        "hashdate", "hashfloat4", "hashfloat8", "hashint2", "hashint4", "hashint8", "hashint8extended", "hashtext",
        "hashtextextended", "hash_numeric", "hmac", "jsonb_hash", "md5", "regr_count", "sha224", "sha256", "sha384", "sha512",
        "timestamp_hash", "uuid_hash",
    }
)  # fmt: skip
"""Functions whose result does not give their argument back: what goes through them is masked."""

RECORDS: dict[str, tuple[str, ...]] = {
    "json_each": ("key", "value"),
    "json_each_text": ("key", "value"),
    "jsonb_each": ("key", "value"),
    "jsonb_each_text": ("key", "value"),
    "each": ("key", "value"),
    "pg_input_error_info": ("message", "detail", "hint", "sql_error_code"),
    "aclexplode": ("grantor", "grantee", "privilege_type", "is_grantable"),
    "ts_debug": ("alias", "description", "token", "dictionaries", "dictionary", "lexemes"),
    "ts_parse": ("tokid", "token"),
    "ts_stat": ("word", "ndoc", "nentry"),
    "ts_token_type": ("tokid", "alias", "description"),
}
"""Functions that give rows of known fields."""

NAMED_RESULT = {
    "json_array_elements": "value",
    "json_array_elements_text": "value",
    "jsonb_array_elements": "value",
    "jsonb_array_elements_text": "value",
}
"""Functions of one column that has a name of its own, whatever the alias is."""

SETS = frozenset(
    {
        *RECORDS, *NAMED_RESULT, "generate_series", "generate_subscripts", "json_object_keys", "json_populate_recordset",
        "json_to_recordset", "jsonb_object_keys", "jsonb_path_query", "jsonb_path_query_tz", "jsonb_populate_recordset",
        "jsonb_to_recordset", "regexp_matches", "regexp_split_to_table", "string_to_table", "unnest",
    }
)  # fmt: skip
"""Functions that give several rows."""

FIELDS_BY_ALIAS = frozenset({"json_to_record", "json_to_recordset", "jsonb_to_record", "jsonb_to_recordset", "dblink"})
"""Functions whose fields only the alias can name: ``as x(a int, b text)``."""

FIELDS_BY_TYPE = frozenset(
    {"json_populate_record", "json_populate_recordset", "jsonb_populate_record", "jsonb_populate_recordset", "populate_record"}
)
"""Functions that give rows of the type of their first argument."""

SCALARS_IN_FROM = frozenset(
    {
        "current_date", "current_database", "current_schema", "current_setting", "now", "age", "array_agg", "coalesce", "concat",
        "concat_ws", "date_trunc", "extract", "greatest", "least", "left", "length", "lower", "upper", "regexp_match",
        "regexp_replace", "regexp_split_to_array", "replace", "right", "round", "split_part", "string_to_array", "substring",
        "to_char", "to_date", "to_json", "to_jsonb", "to_timestamp", "trim", "version", "jsonb_build_object", "json_build_object",
        "jsonb_build_array", "json_build_array", "make_date", "md5", "random", "clock_timestamp", "jsonb_extract_path",
        "jsonb_extract_path_text", "json_extract_path", "json_extract_path_text",
    }
)  # fmt: skip
"""Built-in functions of one value that people also write in FROM."""


SYNTAX_WORDS = frozenset(
    {
        "absent", "at", "bernoulli", "both", "breadth", "by", "columns", "cross", "current", "cycle", "day", "depth", "document",
        "empty", "error", "escape", "exclude", "first", "following", "for", "from", "group", "groups", "hour", "ignore", "in",
        "key", "keys", "last", "lateral", "leading", "level", "local", "locked", "materialized", "method", "minute", "month",
        "name", "natural", "nested", "next", "no", "normalized", "nowait", "nulls", "object", "of", "on", "only", "ordinality",
        "others", "over", "partition", "passing", "path", "placing", "preceding", "quotes", "range", "recursive", "ref",
        "repeatable", "respect", "row", "rows", "scalar", "search", "second", "set", "share", "similar", "skip", "some",
        "symmetric", "system", "temporary", "text", "ties", "time", "to", "trailing", "type", "unbounded", "unique", "update",
        "using", "value", "values", "view", "when", "window", "with", "within", "without", "wrapper", "xml", "year", "zone",
    }
)  # fmt: skip
"""Words that are syntax at some places and may be columns at others."""


def folded(name: str, quoted: bool) -> str:
    """An identifier as the catalog has it: ASCII letters in lower case unless quoted, cut off at 63 bytes."""
    return truncated(name if quoted else name.translate(_FOLD))


def truncated(name: str) -> str:
    """At most 63 bytes of UTF-8, whole characters only."""
    if len(name) * 4 <= MAX_BYTES or len(encoded := name.encode()) <= MAX_BYTES:
        return name
    return encoded[:MAX_BYTES].decode("utf-8", "ignore")


TYPE_NAMES = {
    "bigint": "int8", "boolean": "bool", "char": "bpchar", "character": "bpchar", "character varying": "varchar",
    "decimal": "numeric", "dec": "numeric", "double": "float8", "double precision": "float8", "float": "float8", "int": "int4",
    "integer": "int4", "real": "float4", "smallint": "int2", "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp", "time with time zone": "timetz", "time without time zone": "time",
    "bit varying": "varbit",
}  # fmt: skip
"""What the grammar makes of the standard's type names: an unnamed cast of a constant is called by these."""
