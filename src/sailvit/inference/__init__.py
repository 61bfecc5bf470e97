"""Asking a trained model: prompts from chat messages, generation, streaming, and serving."""
