import os

import pytest

from deployments.autostart.linux import user_name

pwd = pytest.importorskip("pwd")  # not on Windows


def test_a_user_without_a_name_is_called_by_the_number(monkeypatch):
    def unknown(number: int) -> None:
        raise KeyError(number)

    assert user_name() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert user_name() == str(os.getuid())
