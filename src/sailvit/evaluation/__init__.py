"""Scores, predictions and feature measures of a trained model."""
