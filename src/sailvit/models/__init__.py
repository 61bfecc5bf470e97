"""Tower, connector and language, composed without changing any of them."""
