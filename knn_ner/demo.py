"""Try a tagger with its datastore in the browser.

    python -m pip install -r requirements-demo.txt
    python -m knn_ner.demo --model_path S/model --datastore_path P

Type a sentence: entities of the tagger alone and of the mix, the stored sentences that decided, and sliders
for k, temperature and knn_weight. With `--allow_edit` a corrected sentence can be added to the datastore.
Nothing is fetched from elsewhere, and nothing sent.
"""

import argparse
import os
from typing import Any

from knn_ner.cli import Parser, add_run_arguments, run_main, say
from knn_ner.errors import UserError
from knn_ner.search_arguments import add_retrieval_arguments, tagger_for

LOCAL = ("127.0.0.1", "localhost", "::1")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.demo`."""
    parser = Parser(
        "Try a tagger with its datastore in the browser.",
        prog="python -m knn_ner.demo",
    )
    add_retrieval_arguments(parser, similarity=None)
    vote = parser.add_argument_group("where the sliders start (if not given: as tuned)")
    vote.add_argument("--k", "--topk", type=int, help="neighbours; -1: every stored token votes")
    vote.add_argument(
        "--temperature", "--link_temperature", type=float, help="T of exp(similarity / T)"
    )
    vote.add_argument(
        "--knn_weight", "--link_ratio", type=float, help="of the neighbours' vote, from 0 to 1"
    )
    parser.add_argument(
        "--allow_edit", action="store_true", help="let visitors add sentences to the datastore"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: every network"
    )
    parser.add_argument("--port", type=port_number, default=7860, help="port to listen on")
    add_run_arguments(parser)
    return parser.parse_args(argv)


def port_number(text: str) -> int:
    """An argparse type: a port."""
    value = int(text)
    if not 0 < value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{value} found, a number from 1 to 65535 expected")
    return value


def open_app(settings: argparse.Namespace) -> tuple[Any, str]:
    """Load the tagger and serve the page from a thread; returns the Gradio app and its address.

    Raises `UserError` when Gradio is missing, something cannot be loaded, or the port is taken.
    """
    # Gradio reads it when it is imported, and again when an app is made.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # It asks its own server whether it answers: not by way of a proxy.
    known = [os.environ["NO_PROXY"]] if os.environ.get("NO_PROXY") else []
    os.environ["NO_PROXY"] = ",".join([*known, *LOCAL[:2]])
    try:
        from knn_ner.demonstration.app import build, serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(
            "gradio is not installed; run `python -m pip install -r requirements-demo.txt`"
        ) from None
    from knn_ner.demonstration.page import Page

    tagger = tagger_for(settings)
    app = build(Page(tagger), settings.allow_edit)
    return app, serve(app, settings.host, settings.port)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    app, address = open_app(settings)
    if settings.host not in LOCAL:
        who = "add sentences to the datastore" if settings.allow_edit else "use the tagger"
        say(f"--host {settings.host}: whoever reaches this machine can {who}")
    say(f"{address} (Ctrl-C ends it)")
    app.block_thread()


if __name__ == "__main__":
    run_main(main)
