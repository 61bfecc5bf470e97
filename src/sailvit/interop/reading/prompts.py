"""Chat templates of released multimodal models that name a conversation format of their code."""

from __future__ import annotations

END = "<|im_end|>"
"""The token that ends a turn in all of them."""
_CHATML = (
    "{{% if messages[0]['role'] != 'system' %}}"
    "{{{{ '<|im_start|>system\\n{system}<|im_end|>{between}' }}}}{{% endif %}}"
    "{{% for message in messages %}}"
    "{{{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>{between}' }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
"""Turns between `<|im_start|>` and `<|im_end|>`, with a system turn of the model's own."""
_SHANGHAI = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL,"  # noqa: RUF001
    " 是一个有用无害的人工智能助手。"
)
_FORMATS = {
    "sailvl-chat": (
        "你是由抖音内容理解组开发的多模态大模型，"  # noqa: RUF001
        "英文名叫UniVL, 是一个有用无害的人工智能助手。",
        "",
    ),
    "internvl2_5": (
        "你是书生·万象，英文名是InternVL，"  # noqa: RUF001
        "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。",
        "\\n",
    ),
    "Hermes-2": (_SHANGHAI, ""),
    "internlm2-chat": (_SHANGHAI, ""),
}
"""By the name in a config: the system turn's text, and what stands between turns."""


def chat_template(name: str | None, system: str | None = None) -> str | None:
    """The template of a conversation format, with `system` in place of the format's own system
    text; None where the format is not known.
    """
    if name not in _FORMATS:
        return None
    usual, between = _FORMATS[name]
    # It stands in a Jinja string, in single quotes.
    text = (usual if system is None else system).replace("'", "\\'").replace("\n", "\\n")
    return _CHATML.format(system=text, between=between)
