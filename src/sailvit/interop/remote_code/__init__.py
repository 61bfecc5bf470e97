"""Code that goes out with `hf` exports: it runs on stock transformers, without sailvit."""
