"""What a study's cells say: differences with intervals over seeds, and whether claims hold."""
