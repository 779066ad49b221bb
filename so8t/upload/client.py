"""The Hub's client with a token and with limits of time, and what the Hub's listing of a file must say."""

import hashlib
import os

import httpx2
from huggingface_hub import HfApi, constants, get_token, set_client_factory
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import default_client_factory

from so8t.errors import DamagedArtifact, ResourceError
from so8t.upload.repository import Entry

# The client waits for ever by default. The Hub takes its time to hash a large file that has come whole.
TIMEOUT = httpx2.Timeout(connect=30.0, read=300.0, write=120.0, pool=None)


def open_client() -> HfApi:
    """The client of HF_ENDPOINT, or of the Hub; ResourceError without a token or where the client is told to be offline."""
    if constants.is_offline_mode():
        raise ResourceError("HF_HUB_OFFLINE is set", "leave to use the network", "unset HF_HUB_OFFLINE")
    token = require_token()
    disable_progress_bars()
    set_client_factory(bounded_client)
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)


def bounded_client() -> httpx2.Client:
    """As the library makes it, but a server that falls silent is a lost connection."""
    client: httpx2.Client = default_client_factory()
    client.timeout = TIMEOUT
    return client


def require_token() -> str:
    """The token of HF_TOKEN or of `hf auth login`; ResourceError where there is none. It is never logged or stored."""
    token: str | None = get_token()
    if not token:
        raise ResourceError(
            "no Hugging Face token", "HF_TOKEN in the environment, or a login", "run `hf auth login`, or set HF_TOKEN"
        )
    return token


def demand_hash(entry: Entry, found: str) -> None:
    """DamagedArtifact where a file is no longer what its manifest says."""
    if found != entry.sha256:
        raise DamagedArtifact(f"{entry.source} changed while it was published")


def matches(remote: RepoFile | None, entry: Entry) -> bool:
    """Whether the Hub's file has our bytes: sha256 of a large object, git blob id of a regular file."""
    if remote is None or remote.size != entry.size_bytes:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == entry.sha256)
    return bool(remote.blob_id == git_blob_id(entry))


def git_blob_id(entry: Entry) -> str:
    """sha1 over git's header and the file's bytes; only small files are regular ones on the Hub."""
    data = entry.source.read_bytes()
    demand_hash(entry, hashlib.sha256(data).hexdigest())
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
