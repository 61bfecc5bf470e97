"""What the overlay shows: patches with the chosen one's content are the most like it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.inference.web.likeness import likeness, overlay, shown_picture
from sailvit.inference.web.page import as_messages, last_picture
from tiny_parts import PATCH, SIDE, Parts


@pytest.mark.parametrize("tower", ["vit", "dinov2"])
def test_the_patch_at_the_point_is_the_one_that_is_compared(parts: Parts, tower: str):
    bundle = parts.build(tower=tower)
    image = np.full((2 * SIDE, 4 * SIDE, 3), 40, dtype=np.uint8)
    # The third column of patches of the second row, in an image that is not square.
    image[2 * PATCH : 4 * PATCH, 8 * PATCH : 12 * PATCH] = (250, 10, 60)
    found = likeness(bundle.mllm.tower, bundle.layout, image, (0.6, 0.3))
    assert found.shape == (SIDE // PATCH, SIDE // PATCH)
    assert found[1, 2] == pytest.approx(1.0)
    assert np.unravel_index(found.argmax(), found.shape) == (1, 2)
    # Seen from a plain patch, the one with another content is the least like it.
    plain = likeness(bundle.mllm.tower, bundle.layout, image, (0.99, 1.0))
    assert plain[3, 3] == pytest.approx(1.0)
    assert np.unravel_index(plain.argmin(), plain.shape) == (1, 2)


def test_the_overlay_is_as_large_as_the_picture_and_frames_the_patch():
    image = np.zeros((30, 60, 3), dtype=np.uint8)
    found = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    shown = overlay(image, found, (0.5, 0.5))
    assert shown.size == shown_picture(image).size == (360, 180)
    assert shown.getpixel((shown.width // 2, shown.height // 2)) == (255, 255, 255)
    dark, bright = shown.getpixel((5, 5)), shown.getpixel((355, 175))
    assert sum(bright) > sum(dark)
    large = shown_picture(np.zeros((4000, 2000, 3), dtype=np.uint8))
    assert large.size == (384, 768)
    flat = overlay(image, np.ones((4, 4), dtype=np.float32), (0, 0))
    assert isinstance(flat, Image.Image)


def test_a_dialogue_of_gradio_is_one_message_per_turn_with_pictures_first(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/up")
    history = [
        {"role": "user", "content": [{"type": "file", "file": {"path": "/up/a.png"}}]},
        {"role": "user", "content": [{"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {
            "role": "user",
            "content": {"text": "and?", "files": ["/up/b.png", {"path": "/up/c.png"}]},
        },
    ]
    messages = as_messages(history)
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == [
        {"type": "image", "image": "/up/a.png"},
        {"type": "text", "text": "what?"},
    ]
    assert [piece.get("image") for piece in messages[2]["content"]] == [
        "/up/b.png",
        "/up/c.png",
        None,
    ]
    assert last_picture(messages) == "/up/c.png"
    assert last_picture(as_messages([{"role": "user", "content": "what?"}])) is None


@pytest.mark.parametrize("path", ["/etc/passwd", "/up/../etc/passwd", "a.png"])
def test_only_uploaded_pictures_are_read(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/up")
    with pytest.raises(DataError, match="not uploaded here"):
        as_messages([{"role": "user", "content": {"text": "what?", "files": [path]}}])
