"""Every store keeps values and tables, and says what is wrong when it cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_redis import OwnRedis

from servegraph.errors import SettingsError
from servegraph.serving.seldon.state_store import StateStore, StateStoreError, open_store, state_key


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "redis":
        redis: OwnRedis = request.getfixturevalue("redis")
        opened = open_store(redis.uri)
        yield opened
        opened.close()
    else:
        yield open_store("memory://" if request.param == "memory" else f"file://{tmp_path}/a/b")


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = OwnRedis(folder, free_port)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("key", ["persistence_a_b_c:state", "../up/and/away", "ü" * 300])
def test_store_returns_the_value_that_was_written_last(store: StateStore, key: str) -> None:
    assert store.read(key) is None
    store.write(key, b"one")
    store.write(key, b"\x00two\xff")
    assert store.read(key) == b"\x00two\xff"
    assert store.read(f"{key}.") is None


def test_store_changes_only_the_fields_named(store: StateStore) -> None:
    assert store.read_table("t") == {}
    assert store.update("t", lambda table: {"a": b"1", "b": b"2"}) == {"a": b"1", "b": b"2"}
    assert store.update("t", lambda table: {"b": table["b"] + b"3"}) == {"a": b"1", "b": b"23"}
    assert store.update("t", lambda table: {}) == store.read_table("t") == {"a": b"1", "b": b"23"}


def test_store_lets_nobody_write_in_between(store: StateStore) -> None:
    def add() -> None:
        for _ in range(25):
            store.update("t", lambda table: {"n": str(int(table.get("n", b"0")) + 1).encode()})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_table("t") == {"n": b"100"}


def test_memory_stores_of_one_name_share_what_they_keep() -> None:
    open_store("memory://shared-by-two").write("k", b"v")
    assert open_store("memory://shared-by-two").read("k") == b"v"
    open_store("memory://").write("k", b"v")
    assert open_store("memory://").read("k") is None


def test_file_store_that_cannot_write_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateStoreError, match="Not a directory"):
        open_store(f"file://{tmp_path}/file/folder").write("k", b"v")


def test_file_store_keeps_files_to_its_user(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/s").write("k", b"v")
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "s").iterdir()} == {"0o600"}


def test_file_store_does_not_touch_a_table_that_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "k.table"
    path.write_text("[1]")
    with pytest.raises(StateStoreError, match="is not a table"):
        open_store(f"file://{tmp_path}").update("k", lambda table: {"a": b"1"})
    assert path.read_text() == "[1]"


def test_redis_store_does_not_touch_what_is_of_another_type(redis: OwnRedis) -> None:
    store = open_store(redis.uri)
    store.update("hash", lambda table: {"a": b"1"})
    store.write("string", b"v")
    with pytest.raises(StateStoreError, match="'hash' holds a hash, not a string: it is not overwritten"):
        store.write("hash", b"v")
    with pytest.raises(StateStoreError, match="'hash' holds something else"):
        store.read("hash")
    with pytest.raises(StateStoreError, match="'string' holds something else"):
        store.update("string", lambda table: {"a": b"1"})
    assert (store.read("string"), store.read_table("hash")) == (b"v", {"a": b"1"})
    store.close()


def test_redis_store_goes_on_after_a_restart(redis: OwnRedis) -> None:
    store = open_store(redis.uri)
    store.write("k", b"v")
    redis.kill()
    with pytest.raises(StateStoreError, match=f"127.0.0.1:{redis.port}"):
        store.read("k")
    redis.start()
    assert store.read("k") == b"v"
    assert store.update("t", lambda table: {"a": b"1"}) == {"a": b"1"}
    store.close()


def test_redis_store_does_not_show_its_password(free_port: int) -> None:
    with pytest.raises(StateStoreError) as caught:
        open_store(f"redis://:hunter2@127.0.0.1:{free_port}/0").read("k")
    assert "hunter2" not in str(caught.value)
    assert "***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("uri", ["rediss:/x", "ftp://host", "", "redis://host:port/0", "file://elsewhere/x"])
def test_store_with_a_wrong_address_says_so(uri: str) -> None:
    with pytest.raises(SettingsError):
        open_store(uri)


def test_store_with_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'redis'"):
        open_store("redi://host")


def test_state_key_is_that_of_the_old_runtime() -> None:
    assert state_key("dep", "pred", "unit") == "persistence_dep_pred_unit"
    assert state_key() == "persistence_0_0_0"
