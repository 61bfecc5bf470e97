"""Asking a multimodal model about records: over HTTP or on this machine, remembered, in order."""
