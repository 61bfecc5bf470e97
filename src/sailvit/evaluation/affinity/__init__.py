"""How near a tower lies to a language, and how far one checkpoint of a tower to another."""
