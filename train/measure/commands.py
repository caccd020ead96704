"""`python -m train evaluate`, `audit`, `agreement`, `leakage`, `probe` and `familiar`."""

import argparse
from pathlib import Path

from train.data.commands import open_data
from train.options import (
    DATA_HELP,
    RUNS_HELP,
    TASK_HELP,
    add_data,
    default_data,
    known_task,
)

WRITE_HELP = "keep it in results/; without, exit code 1 when it is not what is kept there"


def add(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="what the stored weights answer on val and test; exit code 1 when it is "
        "not what results/ holds",
    )  # fmt: skip
    which = evaluate.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", type=known_task, help=TASK_HELP)
    which.add_argument("--all", action="store_true", help="every task that has weights and data")
    evaluate.add_argument("--data", default=default_data(), help=DATA_HELP)
    evaluate.add_argument("--write", action="store_true", help=WRITE_HELP)
    evaluate.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)
    evaluate.set_defaults(run=_run_evaluate)

    audit = commands.add_parser("audit", help="ask what the stored weights know without the lungs")
    add_data(audit)
    audit.add_argument("--write", action="store_true", help=WRITE_HELP)
    audit.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)
    audit.set_defaults(run=_run_audit)

    looks = commands.add_parser("agreement", help="compare students' heatmaps with their teachers'")
    add_data(looks)
    looks.add_argument("--images", type=int, default=100, help="of the test split (default: 100)")
    looks.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)
    looks.add_argument("--write", action="store_true", help=WRITE_HELP)
    looks.set_defaults(run=_run_agreement)

    dice = commands.add_parser("dice", help="how well the stored lung finder finds lungs")
    add_data(dice)
    dice.add_argument("--others-task", type=known_task, help="task whose images show no lungs")
    dice.add_argument("--others", help="their data folder")
    dice.add_argument("--write", action="store_true", help=WRITE_HELP)
    dice.set_defaults(run=_run_dice)

    leakage = commands.add_parser(
        "leakage", help="measure what a split by image gains cheap classifiers"
    )
    add_data(leakage)
    leakage.add_argument("--write", action="store_true", help=WRITE_HELP)
    leakage.set_defaults(run=_run_leakage)

    probe = commands.add_parser("probe", help="fit a linear probe on a frozen ImageNet network")
    add_data(probe)
    probe.add_argument("--write", action="store_true", help=WRITE_HELP)
    probe.add_argument(
        "--guide", type=Path, help="safetensors of MobileNetV2 (default: timm's, from the Hub)"
    )
    probe.set_defaults(run=_run_probe)

    familiar = commands.add_parser(
        "familiar", help="fit and measure the check that a picture is of the task's kind"
    )
    add_data(familiar)
    familiar.add_argument(
        "--write", action="store_true",
        help="store it in kdmodels/familiar/, of a task of yours beside its weights",
    )  # fmt: skip
    familiar.set_defaults(run=_run_familiar)


def _run_evaluate(args: argparse.Namespace) -> int:
    from train.measure.evaluate import evaluate_all, evaluate_task

    data, evaluate = (args.data, evaluate_all) if args.all else (open_data(args), evaluate_task)
    return 1 if evaluate(data, args.write, args.runs) else 0


def _run_audit(args: argparse.Namespace) -> int:
    from train.measure.audit import audit_task

    return 1 if audit_task(open_data(args), args.write, args.runs) else 0


def _run_agreement(args: argparse.Namespace) -> int:
    from train.measure.agreement import agreement_task

    return 1 if agreement_task(open_data(args), args.images, args.runs, args.write) else 0


def _run_dice(args: argparse.Namespace) -> int:
    from train.data.open import open_manifest
    from train.measure.lungs import lungs_task

    others = ()
    if args.others_task:
        others = open_manifest(args.others_task, args.others or args.data).split("test")
    return 1 if lungs_task(open_data(args), others, args.write) else 0


def _run_leakage(args: argparse.Namespace) -> int:
    from train.measure.leakage import leakage_task

    return 1 if leakage_task(open_data(args), args.write) else 0


def _run_probe(args: argparse.Namespace) -> int:
    from train.measure.probe import probe_task

    return 1 if probe_task(open_data(args), args.guide, args.write) else 0


def _run_familiar(args: argparse.Namespace) -> None:
    from train.measure.familiar import familiar_task

    familiar_task(open_data(args), args.data, args.write)
