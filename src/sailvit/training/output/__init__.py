"""What a run leaves behind: parts, manifest, journal, quarantine, loggers."""
