"""The demo's style sheet. Gradio puts the class `dark` on the page as the browser prefers."""

FONTS = ["system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Consolas", "Noto Sans Mono", "monospace"]

# Background and text of the entity types: on light pages, on dark ones. Contrast is above 7 to 1.
TYPE_COLOURS = [
    ("#cfe3ff", "#0b2f66", "#173a6b", "#d6e7ff"),
    ("#ffe0b8", "#5c3100", "#5a3a0c", "#ffe6c4"),
    ("#cdeed3", "#0d4020", "#174a2a", "#d3f5da"),
    ("#f7d0e4", "#641238", "#5f1d40", "#ffdcec"),
    ("#e2d6fb", "#3a1a75", "#432a78", "#e9dfff"),
    ("#c9eef0", "#07424a", "#0f4850", "#cef4f6"),
    ("#f4e6a4", "#4a3a00", "#4d4006", "#faefb9"),
    ("#f9d3cc", "#6b1a0c", "#642418", "#ffddd6"),
]

CSS = (
    "\n".join(
        f".knn-type-{number} {{ --knn-back: {back}; --knn-ink: {ink}; }}\n"
        f".dark .knn-type-{number} {{ --knn-back: {dark_back}; --knn-ink: {dark_ink}; }}"
        for number, (back, ink, dark_back, dark_ink) in enumerate(TYPE_COLOURS)
    )
    + """
.gradio-container .html-container { padding: 0; }
.gradio-container h1 { margin: 0; font-size: 1.6rem; }
.knn-outside { --knn-back: var(--background-fill-secondary); --knn-ink: var(--body-text-color-subdued); }
.gradio-container mark { background: var(--knn-back); color: var(--knn-ink); border-radius: 4px;
    padding: 1px 5px; font-weight: 600; margin: 0 1px; box-decoration-break: clone;
    -webkit-box-decoration-break: clone; }
.gradio-container mark b { font-size: 0.68em; font-weight: 700; letter-spacing: 0.03em; margin-left: 0.5em;
    vertical-align: 0.1em; }
.gradio-container mark.knn-differs { outline: 2px solid var(--knn-ink); outline-offset: -2px; }
.knn-label { background: var(--knn-back); color: var(--knn-ink); border-radius: 4px; padding: 1px 5px;
    font-size: 0.85em; font-family: var(--font-mono); white-space: nowrap; }
.knn-note, .knn-sides small { color: var(--body-text-color-subdued); font-size: 0.9rem; font-weight: 400; }
.knn-sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
.knn-side { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px 16px;
    background: var(--block-background-fill); }
.knn-side h3 { margin: 0 0 8px; font-size: 1rem; display: flex; justify-content: space-between; }
.gradio-container p.knn-text { margin: 0; font-size: 1.1rem; line-height: 2.1; white-space: pre-wrap;
    overflow-wrap: anywhere; }
.knn-message { border-radius: 6px; padding: 8px 12px; margin: 0; overflow-wrap: anywhere; }
.knn-error { background: #fde4e1; color: #7a1208; }
.dark .knn-error { background: #56190f; color: #ffe0da; }
.knn-done { background: #d9f2df; color: #0d4020; }
.dark .knn-done { background: #174a2a; color: #d3f5da; }
.knn-entity { border: 1px solid var(--border-color-primary); border-radius: 8px; margin-bottom: 12px;
    background: var(--block-background-fill); }
.knn-entity summary { cursor: pointer; padding: 10px 16px; display: flex; flex-wrap: wrap; gap: 6px 12px;
    align-items: baseline; }
.knn-found { font-size: 0.9rem; }
.knn-by-knn, .knn-by-base { font-weight: 600; }
.knn-word { padding: 0 16px 14px; overflow-x: auto; }
.gradio-container .knn-word p { margin: 6px 0; display: flex; flex-wrap: wrap; gap: 4px 16px;
    align-items: baseline; font-size: 0.9rem; }
.gradio-container .knn-word table { width: 100%; border-collapse: collapse; font-size: 0.9rem; margin: 0;
    border: 0; }
.gradio-container .knn-word tr { border: 0; background: none; }
.gradio-container .knn-word th { font-weight: 500; font-size: 0.8rem; text-align: left; vertical-align: bottom;
    color: var(--body-text-color-subdued); border: 0; padding: 2px 14px 2px 0; background: none; }
.gradio-container .knn-word td { border: 0; border-top: 1px solid var(--border-color-primary);
    padding: 5px 14px 5px 0; background: none; vertical-align: baseline; color: var(--body-text-color);
    font-variant-numeric: tabular-nums; white-space: nowrap; }
.gradio-container .knn-word td:last-child { white-space: normal; width: 99%; padding-right: 0;
    min-width: 9em; }
.knn-share { display: inline-block; width: 56px; height: 8px; border-radius: 4px; margin-right: 8px;
    background: var(--border-color-primary); overflow: hidden; }
.knn-share i { display: block; height: 100%; background: var(--color-accent); }
.knn-form { display: flex; flex-wrap: wrap; gap: 10px 8px; }
.knn-form label { display: flex; flex-direction: column; gap: 4px; align-items: flex-start; }
.knn-form label span { padding-left: 4px; }
.knn-form select { appearance: auto; font-family: var(--font-mono); font-size: 0.8rem; padding: 4px 6px;
    border-radius: 6px; min-width: 72px; border: 1px solid var(--border-color-primary);
    color: var(--body-text-color-subdued); background: var(--input-background-fill); }
.knn-form select[data-entity] { color: var(--body-text-color); font-weight: 600;
    border-color: var(--color-accent); }
@media (max-width: 600px) {
    .knn-share { display: none; }
}
"""
)
