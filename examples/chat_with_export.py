"""Talk about a picture with an exported model; only transformers is needed, not sailvit.

sailvit export runs/mine --to hf --out my-model
python examples/chat_with_export.py my-model photo.jpg "What is shown?" "Where is it?" --out dialogue.png

The export's own few files of code run (`trust_remote_code`), so give it only a folder that you or somebody you trust
made. Without questions they are read from the terminal; an empty line ends.
"""

import argparse
import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoModelForImageTextToText, AutoProcessor


def typed():
    """Questions from the terminal, until an empty line."""
    while question := input("> ").strip():
        yield question


def draw(image, dialogue, out):
    """Write the picture, with questions and answers beside it, to a file."""
    font, side, gap = ImageFont.load_default(18), 320, 24
    shown = Image.open(image).convert("RGB")
    scale = side / max(shown.size)
    # Pixels of small pictures stay squares, so that they are seen as the tower sees them.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = shown.resize([max(1, round(length * scale)) for length in shown.size], how)
    lines = []
    for question, answer in dialogue:
        lines += [(line, "#555555") for line in textwrap.wrap(question, 44)]
        lines += [(line, "#000000") for line in textwrap.wrap(answer, 44)] + [("", "#000000")]
    sheet = Image.new("RGB", (side + 480, max(side, 26 * len(lines)) + 2 * gap), "white")
    sheet.paste(shown, (gap, gap))
    pen = ImageDraw.Draw(sheet)
    for row, (line, colour) in enumerate(lines):
        pen.text((side + 2 * gap, gap + 26 * row), line, colour, font)
    sheet.save(out)


def main(folder, image, questions=(), tokens=64, out=None):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype="auto", trust_remote_code=True
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    messages, answers, dialogue = [], [], []
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
        dialogue.append((question, answers[-1]))
        print(answers[-1])
    if out:
        draw(image, dialogue, out)
    return answers


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", help="what `sailvit export --to hf` wrote")
    options.add_argument("image", help="the picture to talk about")
    options.add_argument("questions", nargs="*", help="asked one after the other, with the history")
    options.add_argument("--tokens", type=int, default=64, help="the most tokens of an answer")
    options.add_argument("--out", help="a file for the picture with the dialogue beside it")
    main(**vars(options.parse_args()))
