"""`python -m train store` and `publish`: into weights/, and from there onto the Hub."""

import argparse
import logging
from pathlib import Path

from kdmodels.models.checkpoints import Index
from kdmodels.models.codecs import ENCODERS
from train.data.commands import open_data
from train.options import add_data


def add(commands: argparse._SubParsersAction) -> None:
    store = commands.add_parser("store", help="store a run's best weights in weights/")
    add_data(store)
    which = store.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", dest="folder", type=Path, help="run folder")
    which.add_argument("--lungs", type=Path, help="run folder of the lung finder")
    which.add_argument("--file", type=Path, help="stored already, to be stored as --storage says")
    store.add_argument("--storage", choices=ENCODERS, help="default: int6 teachers, int8 students")
    store.set_defaults(run=_run_store)

    publish = commands.add_parser("publish", help="put the stored weights on the Hugging Face Hub")
    publish.add_argument("--repo", required=True, help="owner/name; made if it is not there")
    publish.add_argument("--private", action="store_true", help="for you and your group alone")
    publish.add_argument("--licence", help="the Hub's id of one, such as cc-by-4.0")
    publish.add_argument(
        "--dry-run", type=Path, metavar="DIR", help="write all that would go up into a new folder"
    )
    publish.set_defaults(run=_run_publish)


def _run_store(args: argparse.Namespace) -> None:
    from train.release.store import StoreError, store_again, store_run
    from train.release.store_lungs import store_lungs

    if args.lungs:
        store_lungs(args.lungs, open_data(args))
    elif args.folder:
        store_run(args.folder, open_data(args), args.storage)
    elif args.storage:
        store_again(args.file, open_data(args), args.storage)
    else:
        raise StoreError(f"Name the storage type that {args.file} is to have with --storage.")


def _run_publish(args: argparse.Namespace) -> None:
    from train.release.publish import publish
    from train.release.space import pin_space
    from train.tables.write import all_numbers, docs_folder

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log each request
    index = Index.read()
    publish(
        index, all_numbers(index), args.repo, args.private, args.licence, args.dry_run,
        figures=docs_folder() / "figures",
    )  # fmt: skip
    if not args.dry_run:
        pin_space(Index.read())
