"""What a run looks at beside its losses, and where its curves go."""
