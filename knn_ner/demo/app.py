"""The page itself, in Gradio: components, what happens on a click, and how it is served."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from knn_ner.demo import rendering
from knn_ner.demo.page import HINT, Page
from knn_ner.demo.style import CSS, FONTS, MONO_FONTS
from knn_ner.utils.errors import UserError

# The chosen tags are in the browser alone: they replace the second input of an event.
COLLECT = """(words, tags, ...rest) => [
    words, Array.from(document.querySelectorAll("#knn-form select"), field => field.value), ...rest
]"""
LARGEST_K = 1024


def build(page: Page, allow_edit: bool) -> gr.Blocks:
    """The app. Without `allow_edit` it has no form and no endpoint that adds."""
    # One visitor at a time: the processor is the bottleneck, and additions must not meet.
    one = {"concurrency_limit": 1, "concurrency_id": "tagger"}
    private: dict[str, Any] = one | {"api_visibility": "private", "show_progress": "hidden"}
    with gr.Blocks(title="kNN-NER", analytics_enabled=False) as app:
        about = gr.HTML(_about(page), elem_id="knn-about")
        with gr.Row(equal_height=True):
            text = gr.Textbox(
                label="Text",
                placeholder="Type a sentence, press Enter",
                max_lines=8,
                scale=5,
                min_width=320,
                elem_id="knn-input",
            )
            button = gr.Button(
                "Find entities", variant="primary", scale=1, min_width=140, elem_id="knn-tag"
            )
        with gr.Row():
            k, every, temperature, weight = _sliders(page)
        problem = gr.HTML(elem_id="knn-problem")
        sides = gr.HTML(HINT, elem_id="knn-sides")
        shown = gr.State("")
        words = gr.JSON(visible=False)
        tags = gr.JSON(visible=False)
        settings = [k, every, temperature, weight]
        if allow_edit:
            further = gr.State([])
            with gr.Accordion("Correct this sentence and add it to the datastore", open=False):
                form = gr.HTML(elem_id="knn-form")
                with gr.Row(equal_height=True):
                    add = gr.Button("Add to the datastore", variant="primary", elem_id="knn-add")
                    kind = gr.Textbox(
                        placeholder="Another entity type",
                        show_label=False,
                        container=False,
                        elem_id="knn-type",
                    )
                    add_type = gr.Button("Offer this type", elem_id="knn-add-type")
                told = gr.HTML(elem_id="knn-told")
        gr.HTML("<h2>The stored sentences that decided</h2>")
        neighbours = gr.HTML(elem_id="knn-neighbours")

        def tag(text: str, k: int, every: bool, temperature: float, weight: float) -> tuple:
            answer = page.answer(text, -1 if every else k, temperature, weight)
            problem = rendering.message(answer.error and f"error: {answer.error}", "error")
            return problem, answer.sides, answer.neighbours, answer.words, answer.tags, text

        def mix_anew(text: str, *settings: Any) -> tuple:
            if None in settings:
                return gr.skip(), gr.skip(), gr.skip()
            return tag(text, *settings)[:3] if text else ("", HINT, "")

        tagged = [problem, sides, neighbours, words, tags, shown]
        found = gr.on(
            [button.click, text.submit],
            tag,
            [text, *settings],
            tagged,
            api_name="tag",
            show_progress="hidden",
            **one,
        )
        gr.on(
            [k.change, every.change, temperature.change, weight.change],
            mix_anew,
            [shown, *settings],
            tagged[:3],
            trigger_mode="always_last",
            **private,
        )
        every.change(
            lambda every: gr.update(interactive=not every), every, k, queue=False, **private
        )
        if not allow_edit:
            return app

        def fill_form(words: Sequence[str], tags: Sequence[str], further: Sequence[str]) -> tuple:
            return rendering.form(words, tags, page.labels(further)) if words else "", ""

        def offer_type(
            words: Sequence[str], tags: Sequence[str], kind: str, further: list[str]
        ) -> tuple:
            try:
                further = [*further, page.check_type(kind)]
            except UserError as error:
                return gr.skip(), further, kind, rendering.message(f"error: {error}", "error")
            return fill_form(words, tags, further)[0], further, "", ""

        def add_sentence(words: Sequence[str], tags: Sequence[str]) -> tuple:
            try:
                done = page.add(words or [], tags or [])
            except UserError as error:
                return rendering.message(f"error: {error}", "error"), gr.skip()
            return rendering.message(done, "done"), _about(page)

        found.then(fill_form, [words, tags, further], [form, told], queue=False, **private)
        offered = [form, further, kind, told]
        gr.on(
            [add_type.click, kind.submit],
            offer_type,
            [words, tags, kind, further],
            offered,
            js=COLLECT,
            **private,
        )
        add.click(
            add_sentence, [words, tags], [told, about], js=COLLECT, api_name="add", **one
        ).then(mix_anew, [shown, *settings], tagged[:3], **private)
    return app


def serve(app: gr.Blocks, host: str, port: int) -> str:
    """Serve the app from a thread of its own; returns its address.

    Raises `UserError` when the port is taken or the host is not this machine's.
    """
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=theme(),
            css=CSS,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{host}:{port}: cannot be served ({error}); choose another --host or --port"
        ) from None
    return address


def theme() -> gr.themes.Base:
    """Fonts of the system alone, so that nothing is fetched."""
    base = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="lg",
        font=FONTS,
        font_mono=MONO_FONTS,
    )
    # The theme's own are hard to see.
    return base.set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
    )


def _sliders(page: Page) -> tuple[gr.Slider, gr.Checkbox, gr.Slider, gr.Slider]:
    start = page.tagger.settings
    largest = max(min(LARGEST_K, page.tagger.store.entries), start.k)
    with gr.Column(min_width=220):
        k = gr.Slider(
            1,
            largest,
            value=start.k if start.k > 0 else min(64, largest),
            step=1,
            label="k",
            info="Nearest stored tokens that vote.",
            interactive=start.k > 0,
            elem_id="knn-k",
        )
        every = gr.Checkbox(start.k == -1, label="every stored token votes", elem_id="knn-every")
    with gr.Column(min_width=220):
        temperature = gr.Slider(
            0.001,
            max(1.0, 5 * start.temperature),
            value=start.temperature,
            step=0.001,
            label="temperature",
            info="The lower, the more the nearest count.",
            elem_id="knn-temperature",
        )
    with gr.Column(min_width=220):
        weight = gr.Slider(
            0.0,
            1.0,
            value=start.knn_weight,
            step=0.01,
            label="knn_weight",
            info="Share of the neighbours' vote in the mix.",
            elem_id="knn-weight",
        )
    for slider in (k, temperature, weight):
        # Empty while a visitor types another number, which Gradio would fail on; the page judges it.
        slider.preprocess = lambda payload: payload
    return k, every, temperature, weight


def _about(page: Page) -> str:
    return f'<h1>kNN-NER</h1><p class="knn-note">{page.about()}</p>'
