"""The page about an evaluation: scores, probes, affinity, and predictions to look through."""
