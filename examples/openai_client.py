"""Ask a model that `sailvit serve` serves, with OpenAI's own client."""

import base64
import sys
from pathlib import Path

from openai import OpenAI


def main(image, question="What is shown?", url="http://127.0.0.1:8000/v1", key="none"):
    client = OpenAI(base_url=url, api_key=key)
    model = client.models.list().data[0].id
    kind = Path(image).suffix.lstrip(".").replace("jpg", "jpeg")
    content = base64.b64encode(Path(image).read_bytes()).decode()
    pieces = [
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{content}"}},
        {"type": "text", "text": question},
    ]
    messages = [{"role": "user", "content": pieces}]
    answer = ""
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        piece = chunk.choices[0].delta.content or ""
        print(piece, end="", flush=True)
        answer += piece
    print()
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:])
