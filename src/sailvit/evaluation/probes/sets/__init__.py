"""What probes are run on: labelled images, label maps, plain images and captions, as files."""
