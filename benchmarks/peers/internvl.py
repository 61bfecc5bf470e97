"""Where transformers' InternVL keeps our parts."""

PARTS = {
    "tower": "vision_tower",
    "connector": "multi_modal_projector",
    "language": "language_model",
}
"""Below its `model`; the head, unless it is tied to the language's embeddings, lies beside that."""
