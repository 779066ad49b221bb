"""The errors that this project raises, and the exit code that each one means.

So8tError                  1  something failed; nothing committed is lost
+-- UserError              2  bad usage, config or input: the user can mend it
|   +-- ConfigError           a config file or an override
|   +-- InputError            a file or artifact that a step was given
|   +-- ResourceError         no room, no right to write, not enough memory
+-- StepFailed             1  a step ended without an artifact
|   +-- GateFailed            a step measured its own output and refuses it
|   +-- NotFinite             a loss, a gradient or a weight is NaN or infinite
|   +-- GivenUp               what may be done about a fault has been done
|   +-- InputLost             an input was damaged and is set aside; its own step makes it again
+-- DamagedArtifact        1  bytes on disk are not the bytes that were written
+-- Interrupted          130  a signal asked us to stop; the state was saved first
"""


class So8tError(Exception):
    """Root of the errors raised on purpose; its text is written for the user."""

    exit_code = 1
    # The kind of fault (`so8t.faults`), where it is known, or another process has told it.
    fault: str = ""
    # Of a fault of the network: whom it was that did not answer, and how long it wants to be left alone.
    endpoint: str = ""
    wait_s: float = 0.0
    # Of a full disk: the file or folder that it refused.
    place: str = ""


class UserError(So8tError):
    """Say what was found, what was wanted and what to do."""

    exit_code = 2

    def __init__(self, found: str, wanted: str = "", do: str = "") -> None:
        self.found, self.wanted, self.do = found, wanted, do
        lines = [found]
        if wanted:
            lines.append(f"  wanted: {wanted}")
        if do:
            lines.append(f"  do:     {do}")
        super().__init__("\n".join(lines))


class ConfigError(UserError):
    """A config file or an override is not what the schema wants."""


class InputError(UserError):
    """A file or artifact that a step was given cannot be used."""


class ResourceError(UserError):
    """The machine lacks room, memory or a right that the step needs."""


class StepFailed(So8tError):
    """A step ended without committing an artifact."""


class GateFailed(StepFailed):
    """A step measured what it made and refuses to pass it on."""


class NotFinite(StepFailed):
    """A loss, a gradient or a weight is NaN or infinite."""


class GivenUp(StepFailed):
    """Recovery has done what it may; another try would fail the same way."""

    def __init__(self, found: str, wanted: str = "", do: str = "", fault: str = "") -> None:
        lines = [found, *([f"  wanted: {wanted}"] if wanted else []), *([f"  do:     {do}"] if do else [])]
        super().__init__("\n".join(lines))
        self.fault = fault


class InputLost(StepFailed):
    """Inputs of a step were damaged and are set aside; whoever walks the steps makes them again."""

    fault = "damaged"


class DamagedArtifact(So8tError):
    """An artifact's bytes differ from its manifest."""


class Interrupted(So8tError):
    """A signal asked the process to stop."""

    exit_code = 130

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
