"""Faults as types: raised for real where this machine can, by their type and text where it cannot (a GPU)."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import httpx2
import pytest
import torch

from so8t import child, errors
from so8t.attempt import log_error
from so8t.faults import POLICIES, Fault, _counted_kills, _group_files, causes, classify, classify_exit, oom_kills

ROOT = Path(__file__).parent.parent


def raised(action) -> BaseException:
    try:
        action()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def chained(outer: BaseException, inner: BaseException) -> BaseException:
    def act():
        try:
            raise inner
        except type(inner) as error:
            raise outer from error

    return raised(act)


def full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


@pytest.fixture(scope="module")
def site():
    """Answers /<status> with that status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.strip("/")))
            if self.path == "/429":
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("client", [httpx, httpx2])
@pytest.mark.parametrize(
    ("status", "fault"),
    [(401, Fault.AUTHENTICATION), (403, Fault.AUTHENTICATION), (429, Fault.RATE_LIMIT), (408, Fault.NETWORK),
     (500, Fault.NETWORK), (503, Fault.NETWORK), (404, Fault.UNKNOWN)],
)  # fmt: skip
def test_a_servers_answer(client, status, fault, site):
    error = raised(lambda: client.get(f"{site}/{status}", trust_env=False).raise_for_status())
    assert classify(error) is fault
    assert classify(chained(RuntimeError("a part of the upload failed"), error)) is fault


@pytest.mark.parametrize("client", [httpx, httpx2])
def test_a_server_that_is_not_there(client):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert classify(raised(lambda: client.get(address, trust_env=False))) is Fault.NETWORK
    assert classify(raised(lambda: socket.getaddrinfo("nobody.invalid", 80))) is Fault.NETWORK


def test_a_package_that_is_missing():
    error = raised(lambda: __import__("so8t_has_no_such_package"))
    assert classify(error) is Fault.MISSING_PACKAGE
    assert classify(chained(errors.InputError("no crawler"), error)) is Fault.MISSING_PACKAGE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full():
    error = raised(full_disk)
    assert classify(error) is Fault.DISK_FULL
    assert classify(chained(errors.ResourceError("no room"), error)) is Fault.DISK_FULL


def test_memory_that_a_cpu_has_not():
    assert classify(raised(lambda: torch.empty(1 << 60))) is Fault.HOST_MEMORY
    assert classify(raised(lambda: bytearray(1 << 62))) is Fault.HOST_MEMORY
    assert classify(OSError(errno.ENOMEM, "Cannot allocate memory")) is Fault.HOST_MEMORY


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), Fault.GPU_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 11.76 GiB total)"), Fault.GPU_MEMORY),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), Fault.GPU_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), Fault.GPU_MEMORY),
        (torch.AcceleratorError("CUDA error: out of memory"), Fault.GPU_MEMORY),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), Fault.GPU_LOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.GPU_LOST),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Fault.GPU_LOST),
        (RuntimeError("CUDA error: device-side assert triggered"), Fault.GPU_LOST),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Fault.UNKNOWN),
        (errors.NotFinite("loss is nan"), Fault.NOT_FINITE),
        (errors.DamagedArtifact("train: weights differ"), Fault.DAMAGED),
        (errors.GateFailed("top-1 below its floor"), Fault.GATE),
        (errors.ConfigError("no key of that name"), Fault.BAD_INPUT),
        (errors.Interrupted("stopped"), Fault.STOPPED),
        (KeyboardInterrupt(), Fault.STOPPED),
        (FileNotFoundError(errno.ENOENT, "no such file"), Fault.UNKNOWN),
        (ValueError("out of memory, says a text that no allocator wrote"), Fault.UNKNOWN),
    ],
)
def test_an_error_by_its_type(error, fault):
    assert classify(error) is fault


def test_what_is_hidden_says_nothing_and_a_circle_ends():
    def hidden():
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("unrelated") from None

    assert classify(raised(hidden)) is Fault.UNKNOWN
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert len(list(causes(first))) == 2


CRASHES = {
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": Fault.KILLED,
    "import os; os.abort()": Fault.CRASH,
    "import ctypes; ctypes.string_at(0)": Fault.CRASH,
    "import sys; sys.exit(7)": Fault.UNKNOWN,
    "import sys; sys.exit(143)": Fault.STOPPED,
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": Fault.KILLED,
    "import os, signal; os.kill(os.getpid(), signal.SIGHUP)": Fault.KILLED,
}


@pytest.mark.parametrize(("code", "fault"), CRASHES.items(), ids=[f.value for f in CRASHES.values()])
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_process_that_could_tell_nothing(code, fault):
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL)
    assert classify_exit(done.returncode) is fault


def test_what_the_kernel_killed_for_memory(tmp_path):
    counted = tmp_path / "vmstat"
    counted.write_text("nr_free_pages 1\noom_kill 3\noom_kill_x 9\n", encoding="ascii")
    none = tmp_path / "none"
    assert oom_kills(counted, none) == 3
    assert oom_kills(none, none) == 0
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpu,memory:/a\n0::/b/c\n1:pids:/d\n", encoding="ascii")
    root = Path("/sys/fs/cgroup")
    assert _group_files(groups) == [root / "memory/a/memory.oom_control", root / "b/c/memory.events"]
    counted.write_text("low 0\nhigh 2\noom 1\noom_kill 1\noom_group_kill 0\n", encoding="ascii")
    assert _counted_kills(counted) == 1
    assert classify_exit(-signal.SIGTERM, scarce=True) is Fault.HOST_MEMORY
    assert classify_exit(-signal.SIGTERM) is Fault.KILLED
    assert classify_exit(-signal.SIGKILL if os.name != "nt" else 137, oom_kills=1) is Fault.HOST_MEMORY
    assert classify_exit(137, oom_kills=0) is Fault.KILLED


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (0xC0000017, Fault.HOST_MEMORY),
        (0xC0000005, Fault.CRASH),
        (0xC000013A, Fault.STOPPED),
        (-1073741819, Fault.CRASH),
    ],
)
def test_how_windows_ends_a_process(status, fault):
    assert classify_exit(status) is fault


@pytest.mark.parametrize("error", [raised(lambda: bytearray(1 << 62)), errors.NotFinite("loss is nan")], ids=type)
def test_it_crosses_the_process_boundary(error, tmp_path):
    from so8t.step import Ref

    files = {"error": tmp_path / "error.json", "log": tmp_path / "log"}
    child.write_error(files["error"], error)
    told = child._error(Ref("train"), 1, Fault.UNKNOWN, files)
    assert classify(told) is classify(error)


@pytest.mark.parametrize("unasked", [None, Fault.HOST_MEMORY, Fault.CRASH])
@pytest.mark.parametrize("said", [True, False])
def test_a_stop_that_nobody_asked_for_is_none(unasked, said, tmp_path):
    from so8t.step import Ref

    files = {"error": tmp_path / "error.json", "log": tmp_path / "log"}
    files["log"].write_text("the last line", encoding="utf-8")
    if said:
        child.write_error(files["error"], errors.Interrupted("stopped by SIGTERM", exit_code=143))
    told = child._error(Ref("train"), 143, Fault.STOPPED, files, unasked)
    assert classify(told) is (unasked or Fault.STOPPED)
    assert isinstance(told, errors.StepFailed if unasked else errors.Interrupted)


def test_who_did_not_answer_and_how_long_it_wants_crosses_too(site, tmp_path):
    from so8t.faults import evidence
    from so8t.step import Ref

    files = {"error": tmp_path / "error.json", "log": tmp_path / "log"}
    error = raised(lambda: httpx2.get(f"{site}/429", trust_env=False).raise_for_status())
    child.write_error(files["error"], chained(errors.StepFailed("the upload"), error))
    assert evidence(child._error(Ref("upload"), 1, Fault.UNKNOWN, files)) == {"endpoint": site, "wait_s": 7.0}
    full = errors.ResourceError("the disk is full")
    full.place = "/data/x"
    child.write_error(files["error"], full)
    assert evidence(child._error(Ref("upload"), 1, Fault.UNKNOWN, files)) == {"place": "/data/x"}


def test_an_address_without_its_secrets():
    from so8t.faults import origin, without_password

    assert origin("https://me:hush@hub.example/api?token=x") == "https://hub.example"
    assert origin("http://me:hush@[::1]:8080/y") == "http://[::1]:8080"
    assert without_password("for url 'http://me:hush@host/x'") == "for url 'http://host/x'"


def test_every_extra_that_is_named_is_one():
    from so8t.faults import EXTRAS, missing_package

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [extra for extra in set(EXTRAS.values()) if f"\n{extra} = [" not in text] == []
    assert missing_package(raised(lambda: __import__("so8t_has_no.such_package"))) == ("so8t_has_no", "")
    # As it arrives from a child: only its words.
    assert missing_package(errors.StepFailed("train: No module named 'lm_eval.tasks'")) == ("lm_eval.tasks", "lm-eval")


def test_the_attempts_errors_name_it(tmp_path):
    log_error(tmp_path, chained(errors.StepFailed("collect"), httpx.ConnectError("refused")))
    [line] = (tmp_path / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["fault"] == "network"


def test_each_fault_has_a_policy_and_a_line_in_the_troubleshooting_table():
    assert set(POLICIES) == set(Fault)
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [fault for fault in Fault if f"| `{fault}` |" not in text] == []
