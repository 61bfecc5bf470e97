"""Asking a multimodal model about records, over HTTP or in this process, with a cache."""
