"""Whether anybody logs on after a power cut: the machine's own settings, read without rights and without passwords."""

import sys

from deployments.autostart.linux import lingering, user_name
from deployments.autostart.manager import AutostartFailed, call
from so8t.preflight.finding import Finding

WANTED = "a logon without anybody there, after a power cut"
BIOS = "(that the machine switches on by itself is its BIOS's: restore on AC power loss; it cannot be read)"
WINLOGON = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon"


def check_logon() -> Finding:
    """By platform."""
    if sys.platform == "win32":
        return of_winlogon(_winlogon("AutoAdminLogon"), _winlogon("DefaultUserName"))
    if sys.platform == "darwin":
        return _macos()
    return of_linger(lingering(user_name()))


def of_linger(state: str) -> Finding:
    """From loginctl's word: on, off, or unknown."""
    if state == "on":
        return Finding("logon", "ok", f"lingering is on: the unit starts with the machine {BIOS}")
    if state == "off":
        do = f"loginctl enable-linger {user_name()} {BIOS}"
        return Finding("logon", "warn", "lingering is off: the unit waits until you log in", WANTED, do)
    return Finding("logon", "not looked at", "loginctl tells nothing of lingering here")


def of_winlogon(automatic: str | None, user: str | None) -> Finding:
    """From two values of the registry; that of the password is never read."""
    if automatic == "1" and user:
        return Finding("logon", "ok", f"automatic, as {user} {BIOS}")
    do = f"Sysinternals Autologon keeps the password encrypted; a sign-in with Windows Hello only must be off {BIOS}"
    return Finding(
        "logon", "warn", "automatic logon is off: after a power cut nothing starts until you sign in", WANTED, do
    )


def _winlogon(name: str) -> str | None:
    if sys.platform != "win32":
        return None
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, WINLOGON) as opened:
            return str(winreg.QueryValueEx(opened, name)[0])
    except OSError:
        return None


def _macos() -> Finding:
    try:
        done = call(["defaults", "read", "/Library/Preferences/com.apple.loginwindow", "autoLoginUser"])
    except AutostartFailed as error:
        return Finding("logon", "not looked at", str(error))
    if done.code == 0 and done.out.strip():
        return Finding("logon", "ok", f"automatic, as {done.out.decode('utf-8', 'replace').strip()} {BIOS}")
    do = f"System Settings, Users & Groups: log in automatically (FileVault must be off) {BIOS}"
    return Finding("logon", "warn", "automatic login is off", WANTED, do)
