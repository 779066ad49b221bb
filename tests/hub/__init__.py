"""A small server that speaks the Hugging Face Hub's HTTP interface, for tests and for trying things by hand."""

from tests.hub.server import HubServer, Request
from tests.hub.store import READ_TOKEN, WRITE_TOKEN

__all__ = ["READ_TOKEN", "WRITE_TOKEN", "HubServer", "Request"]
