"""From records to tensors: text to tokens, images to tiles, samples to a batch."""
