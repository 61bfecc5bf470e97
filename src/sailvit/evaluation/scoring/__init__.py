"""Scorers that give VLMEvalKit's score for every answer, its quirks included."""
