import sqlite3

from so8t.benchmark.store import Cost, SampleStore


def test_stored_values_come_back_and_nothing_lies_beside_the_file(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({"a": ([-0.1, -2.5], Cost(12, 0, 0.5)), "b": ([], Cost(8, 3, 0.25, 2.0))})
    with SampleStore(path) as store:
        assert store.get("a") == [-0.1, -2.5]
        assert store.get("b") == []
        assert store.get("c") is None
        assert (len(store), store.cost()) == (2, Cost(20, 3, 0.75, 2.0))
    assert [p.name for p in tmp_path.iterdir()] == ["samples.sqlite"]


def test_a_changed_value_is_no_hit(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({"a": ([-0.125], Cost())})
    connection = sqlite3.connect(path)
    connection.execute("UPDATE samples SET value = '[-0.5]'")
    connection.commit()
    connection.close()
    with SampleStore(path) as store:
        assert store.get("a") is None


def test_a_damaged_file_is_begun_anew(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({str(i): ([float(i)] * 50, Cost()) for i in range(200)})
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    path.write_bytes(data)
    with SampleStore(path) as store:
        assert store.was_damaged
        assert len(store) == 0
        store.put({"a": ([1.0], Cost())})
        assert store.get("a") == [1.0]


def test_a_file_that_is_no_database_is_begun_anew(tmp_path):
    (tmp_path / "samples.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    with SampleStore(tmp_path / "samples.sqlite") as store:
        assert store.was_damaged
