"""Chat in the browser, and a look at what a tower finds alike."""
