import pytest

from so8t.config import load_config, parse_yaml
from so8t.errors import ConfigError

MINIMAL = "base: {kind: demo}\ncollect:\n  sources:\n    - {kind: demo, name: digits, set: digits}\n"


@pytest.fixture
def config_file(tmp_path):
    def write(text=MINIMAL):
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        (".5", 0.5),
        ("1e5x", "1e5x"),
        ("12", 12),
        ("1.5", 1.5),
        ("2026-01-02", None),
    ],
)
def test_yaml_floats(text, value):
    found = parse_yaml(text)
    if value is not None:
        assert found == value
        assert type(found) is type(value)


def test_unknown_key_names_the_nearest(config_file):
    with pytest.raises(ConfigError, match=r"machine\.wrkers: unknown key; did you mean 'workers'"):
        load_config(config_file(), ["machine.wrkers=3"])


def test_unknown_section_names_the_nearest(config_file):
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        load_config(config_file(MINIMAL + "trian: {}\n"))


def test_all_faults_at_once(config_file):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(), ["machine.workers=zero", "machine.home_=1"])
    assert "2 fault(s)" in str(caught.value)


def test_wrong_type_says_what_was_found(config_file):
    with pytest.raises(ConfigError, match="found 'many'"):
        load_config(config_file(), ["machine.workers=many"])


def test_a_wait_for_a_retry_must_not_look_like_a_hang(config_file):
    with pytest.raises(ConfigError, match=r"monitor\.stall_minutes = 3 the run would be ended"):
        load_config(config_file(), ["monitor.stall_minutes=3"])
    load_config(config_file(), ["monitor.stall_minutes=3", "recovery.retry_delay_s=10"])
    load_config(config_file(), ["monitor.stall_minutes=3", "monitor.recover=false"])


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no config file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just text"])
def test_not_a_mapping(config_file, text):
    with pytest.raises(ConfigError):
        load_config(config_file(text))


def test_cp932_file_is_refused_clearly(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes("# 設定\n".encode("cp932"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)


def test_bom_is_accepted(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(path).base.kind == "demo"


def test_override_keeps_siblings_and_indexes_lists(config_file):
    config = load_config(config_file(), ["collect.sources.0.seed=7", "machine.workers=1"])
    source = config.collect.sources[0]
    assert (source.name, source.seed, config.machine.workers) == ("digits", 7, 1)


@pytest.mark.parametrize("override", ["nonsense", "=1", "a..b=1", "collect.sources.9.seed=1", "base.kind.deep=1"])
def test_bad_override(config_file, override):
    with pytest.raises(ConfigError):
        load_config(config_file(), [override])


def test_home_precedence(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("SO8T_HOME", str(tmp_path / "env"))
    assert load_config(config_file()).home() == tmp_path / "env"
    assert load_config(config_file(), [f"machine.home={tmp_path / 'yaml'}"]).home() == tmp_path / "yaml"
    assert (
        load_config(config_file(), [f"machine.home={tmp_path / 'yaml'}"], tmp_path / "flag").home() == tmp_path / "flag"
    )


def test_a_relative_path_is_meant_from_the_files_folder(config_file, tmp_path, monkeypatch):
    """A worker that starts at logon stands elsewhere."""
    text = (
        MINIMAL
        + "    - {kind: files, name: mine, paths: [rows/a.jsonl, /b.jsonl], licence: mit}\nmachine: {home: here}\n"
    )
    path = config_file(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    seen = [load_config(path.relative_to(tmp_path), ["preprocess.benchmark_prompts=[{path: own.jsonl}]"])]
    monkeypatch.chdir(tmp_path / "elsewhere")
    seen.append(load_config(path, ["preprocess.benchmark_prompts=[{path: own.jsonl}]"]))
    assert seen[0] == seen[1]
    assert seen[0].collect.sources[1].paths == (tmp_path / "rows" / "a.jsonl", (tmp_path / "/b.jsonl"))
    assert seen[0].preprocess.benchmark_prompts[0].path == tmp_path / "own.jsonl"
    assert seen[0].home() == tmp_path / "here"
    assert (
        load_config(path, (), home=(tmp_path / "elsewhere").relative_to(tmp_path)).home()
        == tmp_path / "elsewhere/elsewhere"
    )
