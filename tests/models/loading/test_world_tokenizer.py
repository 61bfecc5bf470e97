import pytest
from transformers import AutoTokenizer

from sailvit.models.loading.world_tokenizer import (
    ASSISTANT,
    END,
    IMAGE,
    PAD,
    UNKNOWN,
    USER,
    build_tokenizer,
)
from sailvit.synthetic.world.source import WorldSource
from sailvit.synthetic.world.tasks import TASKS
from sailvit.synthetic.world.vocabulary import vocabulary

TURNS = [
    {"role": "user", "content": f"{IMAGE}{IMAGE}\nwhat is written ?"},
    {"role": "assistant", "content": "4 7"},
]


@pytest.fixture(scope="module", params=["built", "reloaded"])
def tokenizer(request, tmp_path_factory):
    built = build_tokenizer()
    if request.param == "built":
        return built
    folder = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_no_word_of_any_record_is_unknown_and_decoding_gives_the_words_back(tokenizer, split):
    source = WorldSource(split, dict.fromkeys(TASKS, 1.0), 2000)
    texts = [
        turn.text.replace("<image>", "")
        for position in range(2000)
        for turn in source[position].turns
    ]
    for text, tokens in zip(texts, tokenizer(texts).input_ids, strict=True):
        assert tokenizer.unk_token_id not in tokens
        assert tokenizer.decode(tokens) == " ".join(text.split())


def test_special_tokens_have_one_id_each_and_are_skipped_on_request(tokenizer):
    specials = [PAD, UNKNOWN, USER, ASSISTANT, END, IMAGE]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in specials]
    assert ids == list(range(len(specials)))
    assert len(tokenizer) == len(specials) + len(vocabulary())
    assert (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token) == (PAD, UNKNOWN, END)
    assert (
        tokenizer.decode(tokenizer(f"{USER}{IMAGE}{END}yes").input_ids, skip_special_tokens=True)
        == "yes"
    )


def test_the_chat_template_marks_who_speaks_and_where_turns_end(tokenizer):
    text = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert text == f"{USER}{IMAGE}{IMAGE}\nwhat is written ?{END}{ASSISTANT}4 7{END}"
    prompt = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert prompt.endswith(ASSISTANT)


def test_a_word_outside_the_world_is_marked_unknown(tokenizer):
    assert tokenizer("red elephant").input_ids == [
        tokenizer.convert_tokens_to_ids("red"),
        tokenizer.unk_token_id,
    ]
