"""The multimodal model, its connector and blocks, and how processes share it."""
