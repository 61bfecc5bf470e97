"""A multimodal checkpoint read tensor by tensor, and its parts planned from names and configs."""
