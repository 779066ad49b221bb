"""How torchrun is started so that nobody but its own processes can reach it.

Its usual rendezvous, and the store that its workers then share, listen on every address of the machine without a
password. Here both are files in a folder of this user's, and gloo and NCCL talk over the loopback interface, so a
training listens on 127.0.0.1 only. All of it is for processes of one machine.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

# Where the workers find the file by which they meet (`loop/ranks.py`).
MEETING_VARIABLE = "SO8T_MEETING"
LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0" if sys.platform == "darwin" else ""


@dataclass(frozen=True)
class Launched:
    """What stands before the module's name after `python -m`, and what the environment gets."""

    module: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def launcher(processes: int) -> Iterator[Launched]:
    """torchrun for so many processes, for the time of the block; nothing for one. Workers inherit standard input."""
    if processes == 1:
        yield Launched()
        return
    # Readable by this user only; a file of an earlier attempt would still hold that one's members.
    with TemporaryDirectory(prefix="so8t-", ignore_cleanup_errors=True) as folder:
        module = ["torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"]
        module += ["--rdzv-backend=c10d", "--rdzv-conf=store_type=file", f"--rdzv-endpoint={Path(folder) / 'agents'}"]
        yield Launched([*module, "-m"], _environment(Path(folder) / "workers"))


def _environment(meeting: Path) -> dict[str, str]:
    loopback = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK} if LOOPBACK else {}
    chosen = {name: os.environ.get(name, value) for name, value in loopback.items()}
    # torchrun would open a TCP store for its workers beside the rendezvous.
    return {**chosen, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", MEETING_VARIABLE: str(meeting)}
