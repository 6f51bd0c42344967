"""What a request to the warehouse asks for, by the HTTP interface that ClickHouse documents."""

from __future__ import annotations

import pytest

from pipeline.local.protocol import ProtocolError, exception, statement


@pytest.mark.parametrize(
    ("sql", "body", "expected"),
    [
        ("INSERT INTO t FORMAT CSV", b"1,2", ("INSERT INTO t ", "CSV", b"1,2")),
        ("insert into t (a, format) format csv", b"1", ("insert into t (a, format) ", "csv", b"1")),
        ("", b"INSERT INTO t FORMAT CSV\n1,2", ("INSERT INTO t ", "CSV", b"1,2")),
        ("", b"INSERT INTO t FORMAT Values (1)", ("INSERT INTO t ", "Values", b"(1)")),
        ("", b"-- why\n/* and */ INSERT INTO t FORMAT CSV\n1", ("-- why\n/* and */ INSERT INTO t ", "CSV", b"1")),
        ("", b"INSERT INTO t FORMAT Native\n\xff\x00", ("INSERT INTO t ", "Native", b"\xff\x00")),
        ("INSERT INTO t FORMAT JSONEachRow", b'{"s": "ENGINE = Kafka"}', ("INSERT INTO t ", "JSONEachRow", b'{"s": "ENGINE = Kafka"}')),
    ],
)  # fmt: skip
def test_an_insert_is_split_into_its_head_its_format_and_its_data(
    sql: str, body: bytes, expected: tuple[str, str, bytes]
) -> None:
    found = statement("POST", {"query": sql} if sql else {}, "", body)
    assert (found.sql, found.insert_format, found.data) == expected
    assert not found.reads


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT 'x' FORMAT CSV",
        "INSERT INTO t VALUES ('a; b'), ('FORMAT CSV ')",
        "INSERT INTO t WITH 1 AS a SELECT a",
    ],
)
def test_an_insert_that_brings_no_formatted_data_goes_to_the_engine_whole(sql: str) -> None:
    found = statement("POST", {}, "", sql.encode())
    assert (found.sql, found.insert_format) == (sql, None)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 1;",
        "SELECT 1 ; ;\n",
        "SELECT ';'",
        "SELECT ';' ;",
        "SELECT 'it''s; \\'; ', `a;b`, \"c;d\" ",
        "SELECT 1 -- ; SELECT 2",
        "SELECT 1 /* ; */ + 1",
        "SELECT $x$ ; $x$",
        "SELECT 1; -- done; really",
    ],
)
def test_a_semicolon_that_starts_nothing_is_no_second_statement(sql: str) -> None:
    assert statement("POST", {}, "", sql.encode()).sql == sql


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT ';'; DROP TABLE t", "SELECT 1;SELECT 2;", "SELECT 1; /* x */ SELECT 2"]
)
def test_a_second_statement_is_a_syntax_error(sql: str) -> None:
    with pytest.raises(ProtocolError, match=r"Code: 62\."):
        statement("POST", {}, "", sql.encode())


@pytest.mark.parametrize("sql", ["CREATE TABLE k (n Int8) ENGINE=Kafka()", "-- x\nATTACH TABLE k ENGINE = kafka"])
def test_a_kafka_table_is_refused(sql: str) -> None:
    with pytest.raises(ProtocolError, match=r"Code: 48\."):
        statement("POST", {}, "", sql.encode())


def test_parameters_settings_and_the_interfaces_own_names_are_kept_apart() -> None:
    query = {"query": "SELECT 1", "database": "d", "param_a": "1", "max_threads": "2", "query_id": "q", "x y": "3"}
    under = statement("GET", query, "", b"").under
    assert (under.database, under.parameters, under.settings) == ("d", {"a": "1"}, {"max_threads": "2"})
    assert under.readonly


def test_a_form_brings_its_fields_as_the_url_does() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT {a:String}\r\n'
        b'--x\r\nContent-Disposition: form-data; name="param_a"\r\n\r\ntext\r\n--x--\r\n'
    )
    found = statement("POST", {"database": "d"}, "multipart/form-data; boundary=x", body)
    assert (found.sql, found.under.parameters, found.under.database) == ("SELECT {a:String}", {"a": "text"}, "d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Code: 60. DB::Exception: gone", (404, 60, "Code: 60. DB::Exception: gone")),
        ("Traceback Code: 62. DB::Exception: bad", (400, 62, "Code: 62. DB::Exception: bad")),
        ("something else", (500, 1002, "something else")),
    ],
)
def test_an_error_text_has_a_status_and_a_code(text: str, expected: tuple[int, int, str]) -> None:
    assert exception(text) == expected
