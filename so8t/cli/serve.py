"""`so8t serve --model FILE.gguf`: the model behind /think and an OpenAI-compatible endpoint, on this machine."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

EPILOG = """\
  curl http://127.0.0.1:4280/think -H 'Content-Type: application/json' -d '{"prompt": "Hello"}'
The thinking never leaves; only the text of <final> does. With SO8T_SERVE_KEY set, clients send it as
`Authorization: Bearer KEY`. SIGINT and SIGTERM stop it. docs/operations.md has more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: the fields of Files and Serve."""
    from so8t.serve.config import Files, Serve

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    for name, field in Files.model_fields.items():
        parser.add_argument(
            f"--{name}", metavar="PATH", type=Path, required=field.is_required(), help=field.description,
        )  # fmt: skip
    parser.add_argument("--gpu", action="store_true", help="put the model's layers on the GPU")
    parser.add_argument("--home", type=Path, metavar="DIR", help="default: $SO8T_HOME, else ~/.so8t")
    for name, field in Serve.model_fields.items():
        flag, told = f"--{name.replace('_', '-')}", f"{field.description}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", help=told)
        elif isinstance(field.default, tuple):
            parser.add_argument(flag, action="append", metavar="NAME", help=told)
        else:
            parser.add_argument(flag, metavar="X", help=f"{told} (default: {field.default})")


def main(options: argparse.Namespace) -> int:
    """Exit 0 after a signal that stopped it, 2 for a file, host or option that cannot be."""
    from so8t.cli import raise_on_signals
    from so8t.config import HOME_VARIABLE
    from so8t.serve.config import Files, Serve

    raise_on_signals()
    given = {name: value for name, value in vars(options).items() if value is not None}
    files, config = _read(Files, given), _read(Serve, given)
    from so8t.serve.server import serve

    home = options.home or Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".so8t")
    serve(files, config, home.expanduser().absolute(), options.gpu)
    return 0


def _read(kind: "type[BaseModel]", given: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError

    from so8t.errors import ConfigError

    try:
        return kind.model_validate({name: given[name] for name in kind.model_fields if name in given})
    except ValidationError as error:
        faults = [
            f"--{str(fault['loc'][0]).replace('_', '-')} {fault['input']}: {fault['msg']}" for fault in error.errors()
        ]
        raise ConfigError("\n".join(faults), "values as `so8t serve --help` describes them") from None
