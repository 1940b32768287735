"""``python -m minidl``: distil a student on real digits, look at a training step, time the matrix product.

python -m minidl [distill]   train a teacher, a plain student and a distilled one; one table
python -m minidl explain     every number of one training step of a tiny net
python -m minidl matmul      minidl.matmul beside NumPy's
python -m minidl info        versions, processor, threads, folders
python -m minidl warmup      compile ahead, so that the first training need not
"""

from __future__ import annotations

import argparse
import sys

from . import commands
from .distillation import main_job


def main(arguments: list[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "distill")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"minidl {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "minidl", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="{distill,explain,matmul,info,warmup}"
    )

    def command(name, run, help):
        defaults = argparse.ArgumentDefaultsHelpFormatter
        added = subparsers.add_parser(name, help=help, formatter_class=defaults)
        added.set_defaults(run=run)
        return added

    main_job.add_options(command("distill", main_job.run, "the main job (default)"))

    add = command("explain", commands.run_explain, "one training step, every number").add_argument
    add("--temperature", type=float, default=None, help="distil from a teacher at this temperature")
    add("--learning-rate", type=float, default=0.1)

    add = command("matmul", commands.run_matmul, "time the matrix product").add_argument
    add("sizes", nargs="*", type=commands.product_shape, metavar="MxKxN", help="default: a few")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--threads", type=int, default=None, help="default: all processors")

    command("info", commands.run_info, "versions, processor, threads, folders")

    add = command("warmup", commands.run_warmup, "compile ahead").add_argument
    add("--dtype", choices=("float32", "float64"), default="float32")
    return parser


if __name__ == "__main__":
    sys.exit(main())
