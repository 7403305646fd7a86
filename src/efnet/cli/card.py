"""`efnet card` and `efnet push`: the model card of a run, and its publication on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options
from efnet.cli.options import check_file_writable

if TYPE_CHECKING:
    from efnet.studies.model_card import Terms


def _add_card_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="run folder or checkpoint folder")
    add_options(
        parser,
        report=([], "reports of efnet evaluate --json, with or without --corrupt, for the figures"),
        licence="of the weights, by the hub's identifier: mit, apache-2.0, cc-by-nc-4.0, other, ...",
        licence_name="of a licence that --licence other stands for",
        licence_link="address or file of that licence",
        data_licence="of the training data, in words",
    )


def _terms(args: Namespace) -> Terms:
    from efnet.studies.model_card import Terms

    return Terms(args.licence, args.licence_name, args.licence_link, args.data_licence)


class Card:
    """`efnet card`."""

    DESCRIPTION = (
        "Write the model card of a run: figures with intervals, protocol, data and initial weights with "
        "their licences, limits, and how to use it."
    )

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        _add_card_arguments(parser)
        add_options(
            parser,
            name="title, or the repository owner/name (default: the network's name)",
            out="file to write (default: print the card)",
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Write the card; return 0."""
        from efnet.core.files import write_text
        from efnet.studies.model_card import Published, write_card

        check_file_writable("--out", args.out)
        card = write_card(Published.read(args.run, args.report), _terms(args), args.name)
        if args.out is None:
            print(card, end="")
        else:
            write_text(args.out, card)
            print(f"wrote {args.out}")
        return 0


class Push:
    """`efnet push`."""

    DESCRIPTION = (
        "Publish a run's best checkpoint with its model card on the Hugging Face hub. The licences of "
        "weights and data have to be stated."
    )

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        _add_card_arguments(parser)
        parser.add_argument("repository", type=str, help="owner/name on the hub")
        add_options(
            parser,
            private=(False, "make the repository private, if it does not exist"),
            message="of the commit",
            dry_run=(False, "print what would be published, and send nothing"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Publish; return 0."""
        from efnet.studies.model_card import Published, check_repository, push, stage, write_card

        terms = _terms(args)
        terms.require()
        check_repository(args.repository)
        published = Published.read(args.run, args.report)
        if not args.dry_run:
            address = push(published, terms, args.repository, private=args.private, message=args.message)
            print(f"published {args.repository}: {address}")
            return 0
        card = write_card(published, terms, args.repository)
        with tempfile.TemporaryDirectory() as folder:
            files = stage(published, card, Path(folder))
            sizes = ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in files)
        print(card, end="")
        print(f"dry run, nothing was sent: {args.repository} would get {sizes}")
        return 0
