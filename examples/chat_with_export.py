"""Talk about a picture with an exported model; only transformers is needed, not sailvit.

sailvit export runs/mine --to hf --out my-model
python examples/chat_with_export.py my-model photo.jpg "What is shown?" "Where is it?"

The export's own few files of code run (`trust_remote_code`), so give it only a folder that you or somebody you trust
made. Without questions they are read from the terminal; an empty line ends.
"""

import argparse

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


def typed():
    """Questions from the terminal, until an empty line."""
    while question := input("> ").strip():
        yield question


def main(folder, image, questions=(), tokens=64):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype="auto", trust_remote_code=True
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    messages, answers = [], []
    for question in questions or typed():
        content = [{"type": "text", "text": question}]
        if not messages:  # The picture comes with the first question and stays in the history.
            content.insert(0, {"type": "image", "image": Image.open(image).convert("RGB")})
        messages.append({"role": "user", "content": content})
        inputs = processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        made = model.generate(**inputs, max_new_tokens=tokens)[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.decode(made, skip_special_tokens=True).strip())
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answers[-1]}]})
        print(answers[-1])
    return answers


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", help="what `sailvit export --to hf` wrote")
    options.add_argument("image", help="the picture to talk about")
    options.add_argument("questions", nargs="*", help="asked one after the other, with the history")
    options.add_argument("--tokens", type=int, default=64, help="the most tokens of an answer")
    main(**vars(options.parse_args()))
