"""Finds every call in a source file that writes, moves or makes a file by other means than so8t/durable.py."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MODE = re.compile(r"[rwax][bt+]{0,2}([:|](gz|bz2|xz)?)?")
# Names that write a file whatever they are called on, save on `durable`.
_WRITERS = {
    "write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "link", "symlink", "rename", "renames",
    "truncate", "mkstemp", "mkdtemp", "NamedTemporaryFile", "copy2", "copyfile", "copyfileobj", "copytree",
    "copymode", "move", "make_archive", "unpack_archive", "savez", "savez_compressed", "savetxt", "tofile",
    "save_file", "save_pretrained", "save_model", "save_to_disk", "save_vocabulary", "write_table", "ParquetWriter",
    "write_parquet", "to_parquet", "to_csv", "to_json", "to_excel", "to_sql", "to_pickle", "to_feather", "to_hdf",
    "write_dataset", "savefig", "imsave", "imwrite", "SampleWriter", "SummaryWriter", "GGUFWriter",
    "llama_model_quantize", "ZipFile", "RotatingFileHandler", "TimedRotatingFileHandler", "FileHandler", "FileLock",
    "urlretrieve", "hf_hub_download", "snapshot_download", "mknod", "mkfifo", "mkdir", "makedirs",
}  # fmt: skip
# Names that mean other things too: they write only as methods of these, or as these modules' functions.
_OF_MODULE = {
    "save": frozenset({"np", "numpy", "torch", "image", "picture"}),
    "copy": frozenset({"shutil"}),
    "connect": frozenset({"sqlite3"}),
    "dump": frozenset({"json", "pickle", "marshal", "joblib"}),
}
# These write only with a mode that says so; memmap writes unless told not to.
_WITH_MODE = frozenset({"open", "fdopen", "memmap"})
# These write only into a stream that they are given: their second argument.
_WITH_STREAM = frozenset({"safe_dump", "dump_all", "safe_dump_all"})


@dataclass(frozen=True)
class Write:
    """One call that writes: the function or method that it stands in, what it calls, and its line."""

    where: str
    call: str
    line: int


def writes(source: str) -> list[Write]:
    """All of them, in the order of the text."""
    return list(_inside(ast.parse(source), ""))


def _inside(node: ast.AST, where: str) -> Iterator[Write]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and (call := _writing(child)):
            yield Write(where, call, child.lineno)
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _inside(child, f"{where}.{child.name}".lstrip(".") if named else where)


def _writing(call: ast.Call) -> str:
    """What the call is named if it writes, else ""."""
    if isinstance(call.func, ast.Name):
        owner, name = "", call.func.id
    elif isinstance(call.func, ast.Attribute):
        owner, name = ast.unparse(call.func.value), call.func.attr
    else:
        return ""
    if owner == "durable":
        return ""
    if name in _WRITERS or owner in _OF_MODULE.get(name, ()):
        return name
    if name == "open" and owner == "os":
        return name if _creates(call) else ""
    if name in _WITH_MODE and _is_mode(call, default="r+" if name == "memmap" else "r"):
        return name
    if name in _WITH_STREAM and (len(call.args) > 1 or any(keyword.arg == "stream" for keyword in call.keywords)):
        return name
    if name == "replace" and (owner == "os" or (len(call.args) == 1 and not call.keywords)):
        return "replace"  # of a string it has two arguments, of a date it has keywords
    return ""


def _is_mode(call: ast.Call, default: str) -> bool:
    """Whether an argument is, or may be, a mode that writes."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [n.value for a in given for n in ast.walk(a) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    modes = [text for text in texts if _MODE.fullmatch(text)] or [default]
    computed = any(k.arg == "mode" and not isinstance(k.value, ast.Constant | ast.IfExp) for k in call.keywords)
    return computed or any(set(mode) & set("wax+") for mode in modes)


def _creates(call: ast.Call) -> bool:
    flags = {n.attr for a in call.args for n in ast.walk(a) if isinstance(n, ast.Attribute)}
    return flags != {"O_RDONLY"}
