"""sailvit: refine any pretrained ViT in stages against a small LLM, keep the ViT, plug it into multimodal LLMs."""

__version__ = "0.1.0"
