"""`so8t adapter export|import`: adapters to Hugging Face's PEFT and from there."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", required=True)
    out = actions.add_parser("export", help="write an adapter folder as one that PEFT loads (OFT or LoRA)")
    out.add_argument("source", type=Path, help="an adapter folder, such as a train artifact's adapter/")
    out.add_argument("out", type=Path, help="the folder to write")
    out.add_argument("--base", type=Path, help="the base's folder; OFT needs it for the rows of added tokens")
    out.add_argument("--base-name", default="", metavar="ID", help="what PEFT's config calls the base, such as an id on the Hub")  # fmt: skip
    back = actions.add_parser("import", help="write PEFT's OFT (blocks of 8) or LoRA adapter as an adapter folder")
    back.add_argument("source", type=Path, help="a folder that PEFT's save_pretrained wrote")
    back.add_argument("out", type=Path, help="the folder to write")
    back.add_argument("--base", type=Path, help="the base's folder; needed where whole embeddings were saved")
    back.add_argument("--tolerance", type=float, metavar="X", help="how far from rotations a Neumann series may be (default: 1e-5)")  # fmt: skip


def main(options: argparse.Namespace) -> int:
    """Exit 2 for an adapter that the other side cannot express."""
    if options.action == "export":
        from so8t.so8.peft import export_peft

        config = export_peft(options.source, options.out, options.base, options.base_name)
        sys.stdout.write(f"{options.out}: {config['peft_type']} on {len(config['target_modules'])} linears\n")
        return 0
    from so8t.so8.peft import TOLERANCE
    from so8t.so8.peft_import import import_peft

    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    saved = import_peft(options.source, options.out, options.base, tolerance)
    sys.stdout.write(f"{options.out}: {len(saved.state)} tensors, {len(saved.token_ids)} rows of tokens\n")
    return 0
