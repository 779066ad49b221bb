"""Autostart: registers `so8t up` with the platform's own scheduler, for the next logon."""

from deployments.autostart.command import inspect, remove, retire

__all__ = ["inspect", "remove", "retire"]
