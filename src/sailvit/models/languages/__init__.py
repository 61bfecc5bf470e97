"""Languages: heads, decoding, and text models of multimodal checkpoints."""
