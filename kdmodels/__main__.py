"""`python -m kdmodels <command>`: what can be done with the stored models without the page."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from kdmodels import benchmark
from kdmodels.engines import EngineError
from kdmodels.models import CheckpointError


def _above_zero(kind: type, name: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"must be above 0 and below a million, not {text}")
        return value

    parse.__name__ = name  # argparse says: invalid <name> value
    return parse


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    about = "measure each stored model on each engine on the CPU, and compare teacher and student"
    parser = commands.add_parser("benchmark", help=about, description=about)
    count, number = _above_zero(int, "whole number"), _above_zero(float, "number")
    parser.add_argument("--task", action="append", help="id of a task (default: all)")
    parser.add_argument(
        "--model", action="append", help="model, or file without suffix (default: all stored)"
    )
    parser.add_argument(
        "--engines", choices=benchmark.CHOICES, nargs="+", help="default: all that suit the machine"
    )
    parser.add_argument("--threads", type=count, help="CPU threads (default: physical cores)")
    parser.add_argument("--batch", type=count, default=32, help="images at once (default 32)")
    parser.add_argument(
        "--seconds", type=number, default=1.0, help="least time of a measurement (default 1)"
    )
    parser.add_argument("--rounds", type=count, default=2, help="of all measurements (default 2)")
    parser.add_argument("--csv", type=Path, help="write the measured values of all rounds there")
    parser.set_defaults(run=benchmark.run)


def build_parser() -> argparse.ArgumentParser:
    """The command line. Every option's help says its unit and default."""
    parser = argparse.ArgumentParser(prog="python -m kdmodels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_benchmark(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 for success, 1 where a part failed, 2 for what cannot be done."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args)
    except (CheckpointError, EngineError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
