"""The loss covers answers and their end of turn, exactly, whatever the habits of a chat template."""

from __future__ import annotations

import numpy as np
import pytest
from chat_templates import PUBLISHED, chat_tokenizer
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.processing.text import TextEncoder

TALK = (
    Turn("system", "be brief"),
    Turn("user", "what?"),
    Turn("assistant", "red one"),
    Turn("user", "and\n\nnow?"),
    Turn("assistant", "blue\n two."),
)
ENDS = {
    "alpaca": ("", ""),
    "deepseek": ("</s>", "</s>"),
    "gemma": ("<end_of_turn>", "<end_of_turn>"),
    "generation": ("<|im_end|>", "<|im_end|>"),
    "glm_4": ("<|user|>", ""),
    "last_only": ("", "\n</s>"),
    "llama_2": (" </s>", " </s>"),
    "llama_3": ("<|eot_id|>", "<|eot_id|>"),
    "mistral_3": ("</s>", "</s>"),
    "phi_3": ("<|end|>", "<|end|>"),
    "phi_4": ("<|im_end|>", "<|im_end|>"),
    "pieces": ("</s>", "</s>"),
    "qwen_2": ("<|im_end|>", "<|im_end|>"),
    "qwen_3": ("<|im_end|>", "<|im_end|>"),
    "smollm_2": ("<|im_end|>", "<|im_end|>"),
    "vicuna": ("</s>", "</s>"),
    "zephyr": ("</s>", "</s>"),
}
SPACED = {"llama_2", "mistral_3", "vicuna", "pieces", "last_only"}
"""Templates with a blank before an answer, which its first token takes in."""
REMARKS = {
    "alpaca": "no token that ends an answer, so no stop will be learnt",
    "glm_4": "no token that ends an answer, unless another turn follows it",
    "last_only": "only where the conversation ends",
}


def encoder_for(template: object, **settings) -> TextEncoder:
    tokenizer = chat_tokenizer(template)
    return TextEncoder(tokenizer, layout_for(tokenizer, **settings))


def messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def test_every_published_template_is_tried():
    assert PUBLISHED.keys() == ENDS.keys()


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("turns", [TALK, TALK[1:], TALK[1:3]], ids=["system", "two", "one"])
def test_loss_is_on_answers_and_ends_of_turn(name, turns):
    tokenizer = chat_tokenizer(PUBLISHED[name])
    encoder = TextEncoder(tokenizer, layout_for(tokenizer))
    if name == "gemma" and turns is TALK:
        with pytest.raises(DataError, match="System role not supported"):
            encoder.encode(Record("r", turns), [])
        return
    made = encoder.encode(Record("r", turns), [])
    inside, last = ENDS[name]
    blank = " " if name in SPACED else ""
    answers = [turn.text for turn in turns if turn.role == "assistant"]
    expected = "".join(
        f"{blank}{text}{last if text is answers[-1] else inside}" for text in answers
    )
    assert tokenizer.decode(made.labels[made.labels >= 0]) == expected
    if name != "pieces":
        text = tokenizer.apply_chat_template(messages(turns), tokenize=False)
        assert tokenizer.decode(made.tokens) == text


@pytest.mark.parametrize("said", ["<think>\nhm\n</think>\n\nred", "<think>hm</think>red"])
def test_thinking_is_learnt_from_its_mark_on_however_it_is_spaced(said):
    turns = (Turn("user", "what?"), Turn("assistant", said))
    text, (span,) = encoder_for(PUBLISHED["qwen_3"]).render(Record("r", turns))
    assert text[: span[0]].endswith("<|im_start|>assistant\n")
    assert text[slice(*span)] == "<think>\nhm\n</think>\n\nred<|im_end|>"


def test_thinking_that_the_template_drops_from_the_last_answer_is_refused():
    encoder = encoder_for(PUBLISHED["deepseek"])
    thought = Turn("assistant", "<think>\nhm\n</think>\n\nred")
    with pytest.raises(DataError, match="leaves out a part of the last answer") as refused:
        encoder.render(Record("r", (Turn("user", "what?"), thought)))
    assert refused.value.kind == "template"
    earlier = (Turn("user", "what?"), thought, Turn("user", "and now?"), Turn("assistant", "blue"))
    text, spans = encoder.render(Record("r", earlier))
    assert [text[slice(*span)].strip() for span in spans] == ["red</s>", "blue</s>"]


@pytest.mark.parametrize("name", ENDS)
def test_only_answers_with_thinking_are_asked_otherwise_than_trained(name):
    encoder, asked = encoder_for(PUBLISHED[name]), Turn("user", "what?")
    assert encoder.only_asked(Record("r", (asked, Turn("assistant", "red")))) == ""
    assert encoder.only_asked(Record("r", (asked,))) == ""
    if name != "deepseek":
        thought = Record("r", (asked, Turn("assistant", "<think>\nhm\n</think>\n\nred")))
        assert encoder.only_asked(thought) == ("<think>\n\n</think>" if name == "qwen_3" else "")


def test_loss_is_where_generation_marks_put_it():
    tokenizer = chat_tokenizer(PUBLISHED["generation"])
    made = TextEncoder(tokenizer, layout_for(tokenizer)).encode(Record("r", TALK), [])
    marked = tokenizer.apply_chat_template(
        messages(TALK), return_assistant_tokens_mask=True, return_dict=True
    )
    learnt = np.append(False, made.labels >= 0)[:-1]
    assert made.tokens.tolist() == marked["input_ids"]
    assert learnt.astype(int).tolist() == marked["assistant_masks"]


@pytest.mark.parametrize("name", ENDS)
def test_a_template_without_a_stop_says_so(name):
    remarks = [text for text in encoder_for(PUBLISHED[name]).remarks() if "date" not in text]
    if name in REMARKS:
        assert len(remarks) == 1
        assert REMARKS[name] in remarks[0]
    else:
        assert remarks == []


def test_a_template_that_wants_pieces_is_given_pieces():
    text, _ = encoder_for(PUBLISHED["pieces"]).render(Record("r", TALK[1:3]))
    assert text == "USER: what? ASSISTANT: red one</s>"


def test_an_image_in_a_system_text_that_is_moved_is_refused():
    moved = (Turn("system", "see <image>"), *TALK[1:])
    with pytest.raises(DataError, match="moves the system text"):
        encoder_for(PUBLISHED["mistral_3"]).render(Record("r", moved, (b"",)))
    pictures = (TALK[0], Turn("user", "<image> and <image>"), *TALK[2:])
    text, spans = encoder_for(PUBLISHED["mistral_3"]).render(Record("r", pictures, (b"", b"")))
    assert [text[slice(*span)] for span in spans] == [" red one</s>", " blue\n two.</s>"]


@pytest.mark.parametrize(
    "change", ["replace('\\n', ' ')", "lower", "title", "escape", "truncate(40)", "wordwrap(20)"]
)
def test_a_template_that_changes_texts_is_refused(change):
    source = "{% for m in messages %}{{ m.role }}: {{ m.content | CHANGE }}</s>{% endfor %}"
    encoder = encoder_for(source.replace("CHANGE", change))
    with pytest.raises(DataError, match="changes texts"):
        encoder.encode(Record("r", TALK[1:3]), [])


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content + 1 }}",
        "{{ messages[9].content }}",
        "{{ m.content[0].missing.text }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_refuses_the_record(body):
    encoder = encoder_for("{% for m in messages %}" + body + "{% endfor %}")
    with pytest.raises(DataError, match="chat template"):
        encoder.encode(Record("r", TALK[1:3]), [])


def test_of_several_templates_the_default_is_used(tmp_path):
    several = {"default": PUBLISHED["llama_3"], "tool_use": PUBLISHED["qwen_2"], "rag": "{{ 1 }}"}
    tokenizer = chat_tokenizer(several)
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert loaded.chat_template == several
    made = TextEncoder(loaded, layout_for(loaded)).encode(Record("r", TALK), [])
    assert made.tokens.tolist() == tokenizer.apply_chat_template(
        messages(TALK), tokenize=True, return_dict=False
    )


def test_several_templates_without_a_default_are_refused_by_their_names():
    with pytest.raises(DataError, match=r"several chat templates \(rag, tool_use\)"):
        encoder_for({"tool_use": "{{ 1 }}", "rag": "{{ 2 }}"})


@pytest.mark.parametrize("name", ["pieces", "vicuna"])
def test_the_placeholder_may_be_spelt_as_the_mark(name):
    tokenizer = chat_tokenizer(PUBLISHED[name])
    image = tokenizer.convert_tokens_to_ids("<image>")
    layout = layout_for(tokenizer, placeholder="<image>", placeholder_id=image)
    encoder = TextEncoder(tokenizer, layout)
    asked = (Turn("user", "<image>\nwhat? <image>"), Turn("assistant", "red"))
    made = encoder.encode(Record("r", asked, (b"", b"")), [1, 2])
    assert [end - start for start, end in made.runs] == [2, 4]
    assert (made.tokens == image).sum() == 6
    assert tokenizer.decode(made.labels[made.labels >= 0]) == " red</s>"
    with pytest.raises(DataError, match="2 <image> marks for 1 images"):
        encoder.encode(Record("r", asked, (b"",)), [1])
