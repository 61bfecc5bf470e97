"""Files of predictions: written, read and scored as the kit's."""

import pytest

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.files import read_predictions, set_name, write_jsonl, write_xlsx
from sailvit.evaluation.suites.scored import file_cost, score_file

ROWS = [
    {"index": "1", "question": "q", "answer": "['14']", "A": "1"},
    {"index": "x", "question": "=q", "answer": "plain", "A": ""},
]
ANSWERS = ["None", "=1+1 \x01\r\n"]


@pytest.mark.parametrize(("ending", "write"), [("xlsx", write_xlsx), ("jsonl", write_jsonl)])
def test_what_is_written_is_read_back_as_the_kit_reads_it(tmp_path, ending, write):
    path = tmp_path / f"model_Mine.{ending}"
    write(path, ROWS, ANSWERS)
    rows, answers = read_predictions(path)
    assert [row["question"] for row in rows] == ["q", "=q"]
    assert [row["index"] for row in rows] == ["1", "x"]
    assert [str(answer) for answer in answers] == ["nan", "=1+1 _x0001__x000D_\n"]


def test_tables_parted_by_tabs_are_read(tmp_path):
    path = tmp_path / "model_Mine.tsv"
    path.write_text("index\tquestion\tanswer\tprediction\n1\tq\tred\t007\n2\tq\tblue\t8\n")
    rows, answers = read_predictions(path)
    assert answers == [7, 8]
    assert rows[1]["answer"] == "blue"


def test_a_file_is_scored_by_the_set_in_its_name(tmp_path):
    path = tmp_path / "my_model_DocVQA_VAL.jsonl"
    write_jsonl(path, ROWS, ["14", "plane"])
    scored = score_file(path, Rules())
    assert (scored.questions.name, scored.questions.kind) == ("DocVQA_VAL", "anls")
    assert scored.score.score == pytest.approx(80)
    assert set_name(tmp_path / "a_MMBench_DEV_EN_V11.xlsx") == "MMBench_DEV_EN_V11"


def test_answers_may_come_from_the_table_of_the_set(tmp_path):
    path = tmp_path / "m_Mine.jsonl"
    write_jsonl(path, [{"index": "x"}], ["plain"])
    scored = score_file(path, Rules(), answers=ROWS, kind="exact")
    assert scored.score.score == 100
    write_jsonl(path, [{"index": "z"}], ["plain"])
    with pytest.raises(DataError, match="'z'"):
        score_file(path, Rules(), answers=ROWS)


def test_what_a_judge_would_be_asked_is_counted(tmp_path):
    path = tmp_path / "m_MMVet.jsonl"
    rows = [{"index": str(n), "question": "q", "answer": "a", "category": "rec"} for n in range(3)]
    write_jsonl(path, rows, ["x", "y", "z"])
    cost = file_cost(path, Rules())
    assert cost.requests == 3
    assert cost.characters > 300
    assert score_file(path, Rules()).score.score is None


def test_files_without_predictions_are_refused(tmp_path):
    path = tmp_path / "m_Mine.jsonl"
    path.write_text('{"index": "1"}\n')
    with pytest.raises(DataError, match="`prediction`"):
        read_predictions(path)
    with pytest.raises(DataError, match=r"\.xlsx, \.tsv"):
        read_predictions(tmp_path / "a.csv")
    path = tmp_path / "m_Mine.xlsx"
    path.write_text("no workbook")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)


def test_a_part_of_a_set_is_told(tmp_path):
    path = tmp_path / "m_Mine.jsonl"
    write_jsonl(path, [{"index": "x"}], ["plain"])
    made = score_file(path, Rules(), answers=ROWS, kind="exact").score
    assert made.notes == ("1 of the set's 2 questions",)


def test_spreadsheets_keep_the_columns_that_servers_ask_for(tmp_path):
    path = tmp_path / "m_MMBench_DEV_EN_V11.xlsx"
    rows = [{"index": "1", "question": "q", "A": "x", "B": "y", "C": "", "answer": "A"}]
    write_xlsx(path, rows, ["A"])
    read, _ = read_predictions(path)
    assert list(read[0]) == ["index", "question", "A", "B", "C", "answer"]


HEADER = "index\tquestion\tA\tB\tanswer\tprediction\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ufeff" + HEADER + "0\tq\tred\tblue\tA\tA\n", "A"),
        ((HEADER + "0\tq\tred\tblue\tA\tA\n").replace("\n", "\r\n"), "A"),
        (HEADER + '0\tq\tred\tblue\tA\t"A\tof ""two""\nlines"\n', 'A\tof "two"\nlines'),
    ],
    ids=["byte order", "windows", "tabs"],
)
def test_tables_of_spreadsheet_programs_are_read(tmp_path, text, said):
    path = tmp_path / "m_Mine.tsv"
    path.write_bytes(text.encode())
    rows, predictions = read_predictions(path)
    assert rows == [{"index": "0", "question": "q", "A": "red", "B": "blue", "answer": "A"}]
    assert predictions == [said]


@pytest.mark.parametrize("line", ["0\tq\tred\tblue\tA", "0\tq\tred\tblue\tA\tA\tmore"])
def test_lines_with_other_cells_than_columns_are_named(tmp_path, line):
    path = tmp_path / "m_Mine.tsv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(DataError, match=r"line 2 has [57] cells, expected 6"):
        read_predictions(path)
