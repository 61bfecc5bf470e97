"""The page: a dialogue with pictures, and the patches that the tower finds alike."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError, RunError, SailvitError
from sailvit.data.processing.images import load_image
from sailvit.inference.model import RunModel
from sailvit.inference.web.likeness import likeness, overlay, shown_picture

_MOST = "20mb"
"""Largest file that is taken."""
_FONT = ["system-ui", "sans-serif"]
"""Fonts of the reader's machine: gradio's own come from another host."""
_CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
"""
_HINT = (
    "Choose a point of the picture: the brighter a patch, the more the tower's features there are"
    " like those at the point."
)


def refuse_without_gradio() -> None:
    """RunError if the extra is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise RunError("the page needs gradio, which is not installed; pip install 'sailvit[web]'")


def launch_options(port: int) -> dict[str, Any]:
    """How the page is served: to this machine alone, with nothing from other hosts."""
    import gradio as gr

    return {
        "server_name": "127.0.0.1",
        "server_port": port,
        "share": False,
        "quiet": True,
        "footer_links": [],
        "max_file_size": _MOST,
        "ssr_mode": False,
        "theme": gr.themes.Default(font=_FONT, font_mono=["ui-monospace", "monospace"]),
        "css": _CSS,
    }


def make_page(
    model: RunModel,
    *,
    name: str = "sailvit",
    system: str | None = None,
    max_new_tokens: int = 256,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The page of a model, as a gradio application."""
    import gradio as gr

    before = [] if system is None else [{"role": "system", "content": system}]

    def answer(said: Mapping[str, Any], history: Sequence[Any]) -> Iterator[Any]:
        """The answer so far, and the picture that it is about."""
        text = ""
        try:
            messages = [*before, *as_messages([*history, {"role": "user", "content": said}])]
            seen = _new_picture(messages) if said["files"] else (gr.skip(), gr.skip())
            for piece in model.stream(messages, max_new_tokens=max_new_tokens, **(options or {})):
                text += piece
                yield text, *seen
                # The picture goes to the page once, with the first piece.
                seen = gr.skip(), gr.skip()
            yield text or "(an empty answer)", *seen
        except SailvitError as error:
            raise gr.Error(str(error)) from error

    def pointed(picture: str | None, event: gr.SelectData) -> Any:
        """The picture with the patches alike to that at the point."""
        if picture is None:
            raise gr.Error("send a picture first")
        return look(model, picture, event.index)

    # gradio knows by the annotation what to pass, and cannot resolve the text of a name here.
    pointed.__annotations__["event"] = gr.SelectData
    return _laid_out(name, answer, pointed)


def _laid_out(name: str, answer: Callable[..., Any], pointed: Callable[..., Any]) -> Any:
    """The page: the dialogue, and beside it, or below it on a phone, the picture."""
    import gradio as gr

    with gr.Blocks(title=name, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"## {name}")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                picture = gr.State(None)
                shown = gr.Image(
                    label="What looks alike",
                    type="pil",
                    interactive=False,
                    render=False,
                    buttons=["fullscreen"],
                )
                _dialogue(answer, [picture, shown])
            with gr.Column(scale=2, min_width=320):
                shown.render()
                gr.Markdown(_HINT)
        shown.select(pointed, [picture], shown, api_visibility="private")
    return page


def _dialogue(answer: Callable[..., Any], outputs: Sequence[Any]) -> None:
    import gradio as gr

    placeholder = "Send a picture and ask about it."
    gr.ChatInterface(
        answer,
        multimodal=True,
        chatbot=gr.Chatbot(height=480, label="Dialogue", placeholder=placeholder, buttons=["copy"]),
        textbox=gr.MultimodalTextbox(
            file_types=["image"], file_count="multiple", placeholder="Ask", sources=["upload"]
        ),
        additional_outputs=list(outputs),
        analytics_enabled=False,
        api_visibility="private",
    )


def _new_picture(messages: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The path of the last picture, and it as it is shown."""
    picture = last_picture(messages)
    return picture, None if picture is None else shown_picture(load_image(Path(picture)))


def look(model: RunModel, picture: str, point: Sequence[int]) -> Any:
    """The picture with the patches alike to that at a point, in pixels of the shown picture."""
    image = load_image(Path(picture))
    width, height = shown_picture(image).size
    place = (point[0] / width, point[1] / height)
    return overlay(image, likeness(model.tower, model.bundle.layout, image, place), place)


def as_messages(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A dialogue of gradio's as chat messages; what one side says in several entries is one
    message.
    """
    messages: list[dict[str, Any]] = []
    for entry in history:
        pieces = list(_pieces(entry["content"]))
        if messages and messages[-1]["role"] == entry["role"]:
            messages[-1]["content"] += pieces
        else:
            messages.append({"role": entry["role"], "content": pieces})
    for message in messages:
        # Pictures first, as in training.
        message["content"].sort(key=lambda piece: piece["type"] == "text")
    return messages


def _pieces(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list | tuple):
        for part in content:
            yield from _pieces(part)
    elif "files" in content:
        yield from ({"type": "image", "image": _path(file)} for file in content["files"])
        yield {"type": "text", "text": content.get("text") or ""}
    elif content.get("type") == "text":
        yield {"type": "text", "text": content["text"]}
    else:
        yield {"type": "image", "image": _path(content.get("file", content))}


def _path(file: Any) -> str:
    """The path of an uploaded file; what a page sends could name any other file."""
    path = Path(str(file["path"] if isinstance(file, Mapping) else file)).resolve()
    if not path.is_relative_to(uploads()):
        raise DataError("found a picture that was not uploaded here; send it again", kind="path")
    return str(path)


def uploads() -> Path:
    """The folder to which gradio uploads files."""
    given = os.environ.get("GRADIO_TEMP_DIR")
    return (Path(given) if given else Path(tempfile.gettempdir()) / "gradio").resolve()


def last_picture(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The path of the last picture of a dialogue; None without any."""
    pieces = [piece for message in messages for piece in message["content"]]
    pictures = [piece["image"] for piece in pieces if isinstance(piece, dict) and "image" in piece]
    return pictures[-1] if pictures else None
