"""A model behind OpenAI's chat API: requests checked, batched, answered, streamed."""
