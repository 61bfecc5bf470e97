"""A chat template for messages with images, which writes the prompts of training.

The tokenizer's own template is kept as it is; what comes before it turns messages of pieces
into the texts that training made of them, with one placeholder per image, and what comes after
it cuts the text where an answer begins.
"""

from __future__ import annotations

import json
from datetime import date

from sailvit.core.layout import VisualLayout
from sailvit.data.processing.chat_template import Template
from sailvit.data.processing.text import FastTokenizer

_END = "zq-answer-qz"
"""Stands for the answer that is still to be generated."""

# As `data.rows.pieces` joins the pieces of a message: images at its start get a line each.
_JOIN = """\
{%- set mark = @MARK@ -%}
{%- set made = namespace(turns=[], text='') -%}
{%- for message in messages -%}
{%- set made.text = '' -%}
{%- if message.content is string -%}
{%- set made.text = message.content -%}
{%- else -%}
{%- for piece in message.content or [] -%}
{%- set shown = piece.type in ('image', 'image_url', 'input_image') -%}
{%- set said = '' if shown else piece.text -%}
{%- if made.text.endswith(mark) and not made.text.replace(mark, '').strip()
    and (shown or (said and said.lstrip() == said)) -%}
{%- set made.text = made.text + '\\n' -%}
{%- endif -%}
{%- set made.text = made.text + (mark if shown else said) -%}
{%- endfor -%}
{%- endif -%}
{%- set made.text = made.text.strip() -%}
@LINES@
{%- set made.turns = made.turns + [dict(message, content=@CONTENT@)] -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{%- set made.text = @END@ -%}
{%- set made.turns = made.turns + [dict(role='assistant', content=@CONTENT@)] -%}
{%- endif -%}
{%- set messages, answering, add_generation_prompt = made.turns, add_generation_prompt, false -%}
{%- set written -%}{{ '' }}"""

# As `TextEncoder` parts an image from what follows it: not at the end of a turn.
_LINES = """\
{%- set parts = made.text.split(mark) -%}
{%- set made.text = parts[0] -%}
{%- for part in parts[1:] -%}
{%- set bare = part.startswith('\\n') or (loop.last and not part) -%}
{%- set made.text = made.text + mark + ('' if bare else '\\n') + part -%}
{%- endfor -%}"""

_CUT = """{{ '' }}{%- endset -%}
{{ written.split(@END@)[0].rstrip(' ') if answering else written }}"""

_PLAIN = """\
{{ @BOS@ }}
{%- for message in messages -%}
{{ {'system': '', 'user': 'USER: ', 'assistant': 'ASSISTANT: '}[message.role] }}
{{- message.content }}{{ @EOS@ if message.role == 'assistant' else '' }}
{{- '' if loop.last else '\\n' }}
{%- endfor -%}"""


def export_template(
    tokenizer: FastTokenizer, layout: VisualLayout, day: date, *, wrapped: bool = False
) -> str:
    """A Jinja chat template whose prompts are training's, with one placeholder per image.

    With `wrapped` it writes the tokens around images too, for processors that do not. The date
    of dated templates is that of training.
    """
    # Bound to the day of training: a template that asks for today's date would give other prompts.
    template = Template(tokenizer, day)
    # Some templates read pieces alone and others texts alone.
    content = "[{'type': 'text', 'text': made.text}]" if template.pieces else "made.text"
    mark = layout.placeholder.join((layout.wrap if wrapped else None) or ("", ""))
    source = template.source or _plain(tokenizer, opens=template.opens)
    values = {
        "@MARK@": _text(mark),
        "@LINES@": _LINES if layout.newline else "",
        "@CONTENT@": content,
        "@END@": _text(_END),
    }
    before, after = _JOIN, _CUT
    for name, value in values.items():
        before, after = before.replace(name, value), after.replace(name, value)
    # Jinja drops one line break at a template's end, which would stand inside now.
    return before + source.removesuffix("\n") + after


def _plain(tokenizer: FastTokenizer, *, opens: bool) -> str:
    """The format of tokenizers without a template."""
    begin = tokenizer.bos_token if opens else ""
    return _PLAIN.replace("@BOS@", _text(begin)).replace("@EOS@", _text(tokenizer.eos_token))


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
