"""The embedded warehouse as outside clients see it: unmodified clickhouse-connect, and plain HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import httpx
import lz4.frame
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from pipeline.local.warehouse import BODY_BYTES_MAX
from pipeline.settings import Settings

ROWS = 40_000
"""Above two of clickhouse-connect's 16,384-row blocks: each is a compressed frame of its own."""
ROWS_SUM = ROWS * (ROWS - 1) // 2


def connect(engine: Settings, **more: object) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=engine.warehouse_port, autogenerate_session_id=False, **more
    )


@pytest.fixture
def client(engine: Settings) -> Iterator[Client]:
    with connect(engine) as found:
        yield found


@pytest.fixture
def http(engine: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{engine.warehouse_port}", timeout=60) as found:
        yield found


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    name = f"t_{secrets.token_hex(4)}"
    client.command(
        f"CREATE TABLE {name} (n UInt64, s String) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    yield name
    client.command(f"DROP TABLE {name}")


def counted(client: Client, table: str) -> tuple[int, int]:
    (row,) = client.query(f"SELECT count(), sum(n) FROM {table}").result_rows
    return int(row[0]), int(row[1])


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
@pytest.mark.parametrize("how", ["rows", "columns", "arrow"])
def test_all_rows_of_a_large_insert_arrive(engine: Settings, table: str, how: str, compress: str | bool) -> None:
    numbers, texts = list(range(ROWS)), [f"text {n}" for n in range(ROWS)]
    with connect(engine, compress=compress) as client:
        if how == "rows":
            client.insert(table, [list(row) for row in zip(numbers, texts, strict=True)], column_names=["n", "s"])
        elif how == "columns":
            client.insert(table, [numbers, texts], column_names=["n", "s"], column_oriented=True)
        else:
            client.insert_arrow(table, pa.table({"n": pa.array(numbers, pa.uint64()), "s": texts}))
        assert counted(client, table) == (ROWS, ROWS_SUM)
        assert client.query(f"SELECT n, s FROM {table} ORDER BY n").result_rows == list(
            zip(numbers, texts, strict=True)
        )


def test_native_blocks_go_in_and_out(client: Client, table: str) -> None:
    native = client.raw_query(f"SELECT number AS n, toString(number) AS s FROM numbers({ROWS})", fmt="Native")
    client.raw_insert(table, ["n", "s"], native, fmt="Native")
    assert counted(client, table) == (ROWS, ROWS_SUM)


def test_the_async_client_works_as_the_sync_one(engine: Settings, table: str) -> None:
    async def work() -> list[tuple[object, ...]]:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=engine.warehouse_port, autogenerate_session_id=False
        )
        async with client:
            await client.insert(table, [[n, str(n)] for n in range(ROWS)], column_names=["n", "s"])
            answers = await asyncio.gather(*(client.query(f"SELECT count() + {n} FROM {table}") for n in range(8)))
            return [answer.result_rows[0] for answer in answers]

    assert asyncio.run(work()) == [(ROWS + n,) for n in range(8)]


@pytest.mark.parametrize(
    "value", ["plain", "it's", 'say "so"', "back\\slash", "two\nlines", "tab\there", "{n:String}", "ключ ☃", ""]
)
def test_a_text_parameter_comes_through_as_it_is(client: Client, value: str) -> None:
    assert client.query("SELECT {given:String}", parameters={"given": value}).result_rows == [(value,)]


def test_typed_parameters_are_bound(client: Client) -> None:
    found = client.query("SELECT {n:UInt8} + 1, {a:Array(UInt8)}", parameters={"n": 41, "a": [1, 2]})
    assert found.result_rows == [(42, [1, 2])]


def test_a_setting_holds_for_its_request_only(client: Client) -> None:
    asked = "SELECT value FROM system.settings WHERE name = 'max_block_size'"
    before = client.command(asked)
    assert client.command(asked, settings={"max_block_size": 1234}) == 1234
    assert client.command(asked) == before


def test_a_database_holds_for_its_request_only(http: httpx.Client) -> None:
    assert http.post("/", params={"database": "system"}, content="SELECT currentDatabase()").text == "system\n"
    assert http.post("/", content="SELECT currentDatabase()").text == "default\n"


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELECT * FROM no_such_table", 60, 404),
        ("SELEC 1", 62, 400),
        ("SELECT no_such_column", 47, 404),
        ("SELECT * FROM no_such_database.t", 81, 404),
        ("SELECT no_such_function()", 46, 404),
        ("CREATE TABLE k (n Int8) ENGINE = Kafka SETTINGS kafka_broker_list = 'x'", 48, 501),
        ("SELECT {missing:UInt8}", 456, 500),
    ],
)
def test_an_error_has_the_servers_code_and_status(http: httpx.Client, sql: str, code: int, status: int) -> None:
    answer = http.post("/", content=sql)
    assert (answer.headers["x-clickhouse-exception-code"], answer.status_code) == (str(code), status)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")


def test_an_error_reaches_a_client_with_its_code(client: Client) -> None:
    with pytest.raises(DatabaseError, match=r"(?i)code: 60"):
        client.query("SELECT * FROM no_such_table")


def test_the_query_in_the_url_takes_the_body_as_its_data(http: httpx.Client, client: Client, table: str) -> None:
    lines = "".join(json.dumps({"n": n, "s": "x"}) + "\n" for n in range(100))
    answer = http.post("/", params={"query": f"INSERT INTO {table} FORMAT JSONEachRow"}, content=lines)
    assert answer.status_code == 200, answer.text
    assert counted(client, table) == (100, 4950)


def test_the_data_may_follow_the_query_in_the_body(http: httpx.Client, client: Client, table: str) -> None:
    http.post("/", content=f'INSERT INTO {table} FORMAT JSONEachRow\n{{"n": 7, "s": "x"}}\n').raise_for_status()
    http.post("/", content=f"INSERT INTO {table} VALUES (8, 'FORMAT CSV'), (9, 'x')").raise_for_status()
    http.post("/", content=f"INSERT INTO {table} SELECT 10, 'FORMAT CSV'").raise_for_status()
    assert counted(client, table) == (4, 34)


@pytest.mark.parametrize(
    "text",
    ["SELECT 1 FORMAT CSV", "INSERT INTO x FORMAT Native", "FORMAT TabSeparated", "; DROP TABLE t; --", "VALUES"],
)
@pytest.mark.parametrize("where", ["url", "body"])
def test_data_that_looks_like_sql_is_data(
    http: httpx.Client, client: Client, table: str, text: str, where: str
) -> None:
    sql, line = f"INSERT INTO {table} FORMAT JSONEachRow", json.dumps({"n": 1, "s": text})
    answer = (
        http.post("/", params={"query": sql}, content=line)
        if where == "url"
        else http.post("/", content=f"{sql}\n{line}")
    )
    assert answer.status_code == 200, answer.text
    assert client.query(f"SELECT s FROM {table}").result_rows == [(text,)]


def test_the_format_of_an_answer_is_the_querys_or_the_default(http: httpx.Client) -> None:
    assert http.post("/", content="SELECT 1 AS a FORMAT JSONEachRow").json() == {"a": 1}
    assert http.post("/?default_format=CSV", content="SELECT 'x', 1").text == '"x",1\n'
    answer = http.post("/", content="SELECT 'FORMAT CSV' AS a")
    assert answer.text == "FORMAT CSV\n"
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("zstd", zstandard.compress),
        ("lz4", lz4.frame.compress),
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    ],
)
def test_a_compressed_body_is_unpacked(http: httpx.Client, encoding: str, pack) -> None:  # type: ignore[no-untyped-def]
    answer = http.post("/", content=pack(b"SELECT 40 + 2"), headers={"content-encoding": encoding})
    assert answer.text == "42\n"
    broken = http.post("/", content=pack(b"SELECT 40 + 2")[:-5], headers={"content-encoding": encoding})
    assert broken.status_code == 400
    assert broken.headers["x-clickhouse-exception-code"] == "271"


def test_an_answer_is_packed_where_the_client_wants_it(http: httpx.Client) -> None:
    answer = http.post(
        "/?enable_http_compression=1", content="SELECT * FROM numbers(5000)", headers={"accept-encoding": "gzip"}
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.splitlines() == [str(n) for n in range(5000)]


def test_get_reads_and_never_writes(http: httpx.Client, client: Client, table: str) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    for sql in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}", f"TRUNCATE TABLE {table}"):
        answer = http.get("/", params={"query": sql})
        assert answer.headers["x-clickhouse-exception-code"] == "164", answer.text
    assert counted(client, table) == (0, 0)


def test_get_stays_readonly_whatever_it_asks_for(http: httpx.Client, client: Client, table: str) -> None:
    http.get("/", params={"query": f"INSERT INTO {table} VALUES (1, 'x')", "readonly": "0"})
    http.get("/", params={"query": f"INSERT INTO {table} SELECT 1, 'x' SETTINGS readonly = 0"})
    assert counted(client, table) == (0, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:8123"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/ping", "/?query=SELECT+1"])
def test_browsers_and_foreign_hosts_are_refused(http: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert http.post(path, content="SELECT 1", headers=headers).status_code == 403


def test_ping_and_an_empty_query_say_ok(http: httpx.Client) -> None:
    assert http.get("/ping").text == http.get("/").text == "Ok.\n"


def test_a_body_above_the_limit_is_refused(http: httpx.Client) -> None:
    bomb = zstandard.compress(bytes(BODY_BYTES_MAX + 1))
    answer = http.post("/?query=INSERT", content=bomb, headers={"content-encoding": "zstd"})
    assert answer.headers["x-clickhouse-exception-code"] == "241"
    assert http.get("/ping").text == "Ok.\n"


def test_one_request_is_one_statement(http: httpx.Client) -> None:
    assert http.post("/", content="SELECT 1;").text == "1\n"
    answer = http.post("/", content="SELECT 1; SELECT 2")
    assert answer.headers["x-clickhouse-exception-code"] == "62"


def test_sixteen_clients_at_once_each_get_their_own_answer(engine: Settings, client: Client, table: str) -> None:
    def work(number: int) -> list[int]:
        with connect(engine) as own:
            own.insert(table, [[number * 100 + n, "x"] for n in range(100)], column_names=["n", "s"])
            asked = "SELECT {n:UInt8}, getSetting('max_block_size')"
            rows = [own.query(asked, parameters={"n": number}, settings={"max_block_size": 1000 + number})] * 3
            return [value for row in rows for value in row.result_rows[0]]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(work, range(16)))
    assert answers == [[number, 1000 + number] * 3 for number in range(16)]
    assert counted(client, table) == (1600, 1600 * 1599 // 2)


def test_the_same_token_stores_a_block_once(client: Client, table: str) -> None:
    rows = pa.table({"n": pa.array([1, 2], pa.uint64()), "s": ["a", "b"]})
    for _ in range(3):
        client.insert_arrow(table, rows, settings={"insert_deduplication_token": "one", "async_insert": 0})
    assert counted(client, table) == (2, 3)
