"""Try a tagger with its datastore in the browser.

    python -m pip install .[demo]
    python -m knn_ner.demo --model_path S/model --datastore_path P

The page shows the entities of a sentence by the tagger alone and by the mix, and the stored sentences that decided,
with sliders for k, temperature and knn_weight. With `--allow_edit`, a visitor can add a corrected sentence to the
datastore. The page loads nothing from other machines and sends nothing to them.
"""

import argparse
import logging
import os
from dataclasses import dataclass
from typing import Any

from knn_ner.settings import SeededRunSettings, TaggerSettings, TunedIndexSettings, VoteFlags
from knn_ner.utils.arguments import flag
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

logger = logging.getLogger("knn_ner.demo")

LOCAL = ("127.0.0.1", "localhost", "::1")


def port_number(text: str) -> int:
    """An argparse type: a port number."""
    value = int(text)
    if not 0 < value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{value} found, a number from 1 to 65535 expected")
    return value


@dataclass(frozen=True, kw_only=True)
class DemoSettings(TaggerSettings, VoteFlags, TunedIndexSettings, SeededRunSettings):
    """The settings of `python -m knn_ner.demo`; those of the vote are where the sliders start."""

    allow_edit: bool = flag(False)
    """let visitors add sentences to the datastore"""
    host: str = flag("127.0.0.1")
    """address to listen on; 0.0.0.0: all networks of this machine"""
    port: int = flag(7860, parse=port_number)
    """port to listen on"""


def parse_arguments(argv: list[str] | None = None) -> DemoSettings:
    """Read the command line of `python -m knn_ner.demo`."""
    about = "Try a tagger with its datastore in the browser."
    return read_command(DemoSettings, argv, about, "python -m knn_ner.demo")


def open_app(settings: DemoSettings) -> tuple[Any, str]:
    """Load the tagger and serve the page from a thread.

    Returns:
        The Gradio app and its address.

    Raises:
        UserError: if Gradio is not installed, the tagger or the datastore cannot be loaded, or the port is taken.
    """
    # Gradio reads it when it is imported, and again when an app is made.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Gradio sends a request to its own server, which must not go through a proxy.
    known = [os.environ["NO_PROXY"]] if os.environ.get("NO_PROXY") else []
    os.environ["NO_PROXY"] = ",".join([*known, *LOCAL[:2]])
    try:
        from knn_ner.demo.app import build, serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("gradio is not installed; run `python -m pip install .[demo]`") from None
    from knn_ner.demo.backend import Backend
    from knn_ner.tagging.knn_tagger import KnnTagger

    tagger = KnnTagger.from_settings(
        settings.model_path, settings.datastore_path, settings, settings, settings
    )
    app = build(Backend(tagger), settings.allow_edit)
    return app, serve(app, settings.host, settings.port)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    app, address = open_app(settings)
    if settings.host not in LOCAL:
        who = "add sentences to the datastore" if settings.allow_edit else "use the tagger"
        logger.info(f"--host {settings.host}: everyone who reaches this machine can {who}")
    logger.info(f"{address} (Ctrl-C ends it)")
    app.block_thread()


if __name__ == "__main__":
    run_main(main)
