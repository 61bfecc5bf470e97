"""From files to packs: formats, images, text, packing and order."""
