"""The Gradio app: its components, its events, and its server."""

from typing import Any

import gradio as gr

from knn_ner.demo.backend import HINT, PARTS, Backend, check_type
from knn_ner.html.renderer import render
from knn_ner.utils.errors import UserError

# The tags that a visitor chooses are only in the browser: this replaces the second input of an event by them.
READ_CHOSEN_TAGS = """(words, tags, ...rest) => [
    words, Array.from(document.querySelectorAll("#knn-form select"), field => field.value), ...rest
]"""
LARGEST_K = 1024


def build(backend: Backend, allow_edit: bool) -> gr.Blocks:
    """The app; without `allow_edit` it has neither a form nor an endpoint that adds sentences."""
    # One visitor at a time: the processor is the bottleneck, and additions must not overlap.
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "tagger"}
    one["show_progress"] = "hidden"
    private = one | {"api_visibility": "private"}

    def tag(text: str, k: int, every: bool, temperature: float, weight: float) -> tuple:
        try:
            answer = backend.answer(text, -1 if every else k, temperature, weight)
        except UserError as error:
            return _error(error), HINT, "", [], [], text
        return "", answer.sides, answer.neighbours, answer.words, answer.tags, text

    def tag_again(text: str, *settings: Any) -> tuple:
        if None in settings:
            return gr.skip(), gr.skip(), gr.skip()
        return tag(text, *settings)[:3] if text else ("", HINT, "")

    def fill_form(words: list, tags: list, further: list[str]) -> tuple:
        return PARTS.form(words, tags, backend.labels(further)) if words else "", ""

    def offer_type(words: list, tags: list, entity_type: str, further: list[str]) -> tuple:
        try:
            further = [*further, check_type(entity_type)]
        except UserError as error:
            return gr.skip(), further, entity_type, _error(error)
        return fill_form(words, tags, further)[0], further, "", ""

    def add_sentence(words: list | None, tags: list | None) -> tuple:
        try:
            added = backend.add(words or [], tags or [])
        except UserError as error:
            return _error(error), gr.skip()
        return PARTS.message(added, "done"), PARTS.heading(backend.about())

    with gr.Blocks(title="kNN-NER", analytics_enabled=False) as app:
        about = _html("knn-about", PARTS.heading(backend.about()))
        with gr.Row(equal_height=True):
            hint = "Type a sentence, press Enter"
            text = gr.Textbox(
                label="Text", placeholder=hint, scale=5, min_width=320, elem_id="knn-input"
            )
            button = gr.Button("Find entities", variant="primary", min_width=140, elem_id="knn-tag")
        with gr.Row():
            settings = k, every, *_ = _sliders(backend)
        problem = _html("knn-problem")
        sides = _html("knn-sides", HINT)
        shown_text = gr.State("")
        words, tags = gr.JSON(visible=False), gr.JSON(visible=False)
        if allow_edit:
            further = gr.State([])
            with gr.Accordion("Correct this sentence and add it to the datastore", open=False):
                form = _html("knn-form")
                with gr.Row(equal_height=True):
                    add = gr.Button("Add to the datastore", variant="primary", elem_id="knn-add")
                    hint = "Another entity type"
                    entity_type = gr.Textbox(
                        placeholder=hint, show_label=False, container=False, elem_id="knn-type"
                    )
                    add_type = gr.Button("Offer this type", elem_id="knn-add-type")
                told = _html("knn-told")
        _html("knn-heading", "<h2>The stored sentences that decided</h2>")
        neighbours = _html("knn-neighbours")

        answer = [problem, sides, neighbours, words, tags, shown_text]
        asked, again = [button.click, text.submit], [shown_text, *settings]
        tagged = gr.on(asked, tag, [text, *settings], answer, api_name="tag", **one)
        changes = [setting.change for setting in settings]
        gr.on(changes, tag_again, again, answer[:3], trigger_mode="always_last", **private)
        every.change(lambda on: gr.update(interactive=not on), every, k, queue=False, **private)
        if allow_edit:
            tagged.then(fill_form, [words, tags, further], [form, told], queue=False, **private)
            offered = [add_type.click, entity_type.submit]
            chosen, shown = [words, tags, entity_type, further], [form, further, entity_type, told]
            gr.on(offered, offer_type, chosen, shown, js=READ_CHOSEN_TAGS, **private)
            one |= {"js": READ_CHOSEN_TAGS, "api_name": "add"}
            added = add.click(add_sentence, [words, tags], [told, about], **one)
            added.then(tag_again, again, answer[:3], **private)
    return app


def serve(app: gr.Blocks, host: str, port: int) -> str:
    """Serve the app from a thread of its own.

    Returns:
        Its address.

    Raises:
        UserError: if the port is taken, or the host is not an address of this machine.
    """
    # Only fonts of the system, so that nothing is loaded from other machines.
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"]}
    fonts["font_mono"] = ["ui-monospace", "monospace"]
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", **fonts)
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
            theme=theme,
            head=render("demo/head.html"),
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{host}:{port}: cannot be served ({error}); choose another --host or --port"
        ) from None
    return address


def _error(error: UserError) -> str:
    return PARTS.message(f"error: {error}", "error")


def _html(elem_id: str, value: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, elem_classes=["knn", "demo"], apply_default_css=False)


def _sliders(backend: Backend) -> tuple[gr.Slider, gr.Checkbox, gr.Slider, gr.Slider]:
    start = backend.settings
    largest = max(min(LARGEST_K, backend.store.entries), start.k)
    first_k = start.k if start.k > 0 else min(64, largest)
    longest = max(1.0, 5 * start.temperature)
    with gr.Column(min_width=220):
        info = "Nearest stored tokens that vote."
        k = _slider("k", info, 1, largest, 1, first_k, interactive=start.k > 0)
        every = gr.Checkbox(start.k == -1, label="every stored token votes", elem_id="knn-every")
    with gr.Column(min_width=220):
        info = "The lower, the more the nearest count."
        temperature = _slider("temperature", info, 0.001, longest, 0.001, start.temperature)
    with gr.Column(min_width=220):
        info = "Share of the neighbours' vote in the mix."
        weight = _slider("knn_weight", info, 0.0, 1.0, 0.01, start.knn_weight)
    return k, every, temperature, weight


def _slider(label: str, info: str, *limits: float, interactive: bool = True) -> gr.Slider:
    low, high, step, value = limits
    elem_id = f"knn-{label.removeprefix('knn_')}"
    slider: Any = gr.Slider(low, high, value, step=step, label=label, info=info, elem_id=elem_id)
    slider.interactive = interactive
    # Gradio fails on an empty field, while a visitor types another number; the backend reports it.
    slider.preprocess = lambda payload: payload
    return slider
