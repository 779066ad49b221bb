import sqlite3

from so8t.benchmark.store import SampleStore


def test_stored_values_come_back_and_nothing_lies_beside_the_file(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({"a": [-0.1, -2.5], "b": []}, 1.0)
    with SampleStore(path) as store:
        assert store.get("a") == [-0.1, -2.5]
        assert store.get("b") == []
        assert store.get("c") is None
        assert (len(store), store.seconds()) == (2, 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.sqlite"]


def test_a_changed_value_is_no_hit(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({"a": [-0.125]}, 1.0)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE samples SET value = '[-0.5]'")
    connection.commit()
    connection.close()
    with SampleStore(path) as store:
        assert store.get("a") is None


def test_a_damaged_file_is_begun_anew(tmp_path):
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        store.put({str(i): [float(i)] * 50 for i in range(200)}, 1.0)
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    path.write_bytes(data)
    with SampleStore(path) as store:
        assert store.was_damaged
        assert len(store) == 0
        store.put({"a": [1.0]}, 0.0)
        assert store.get("a") == [1.0]


def test_a_file_that_is_no_database_is_begun_anew(tmp_path):
    (tmp_path / "samples.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    with SampleStore(tmp_path / "samples.sqlite") as store:
        assert store.was_damaged
