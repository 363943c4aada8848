"""A question that can be read alone, and one that points elsewhere or goes round in circles."""

import pytest

from synth.candidate import Pair
from synth.standalone import points_elsewhere, repeats, standalone


@pytest.mark.parametrize(
    ("question", "answer", "detail"),
    [
        ("What does the curve in Fig. 12 show?", "a sphere", "points at 'Fig. 1'"),
        ("How does the geometry of this problem change?", "it doubles", "points at 'this problem'"),
        ("What is the pH scale?", "It is used as shown in [link].", "points at '[link]'"),
        ("What is defined above?", "a field", "points at 'defined above'"),
        ("如图所示的细胞是什么？", "神经元", "points at '如图'"),
        ("本文中提到的酶是什么？", "淀粉酶", "points at '本文'"),
        ("What is a lock what is a lock what is a lock?", "a mutex", "the question repeats itself"),
    ],
)
def test_what_points_elsewhere_or_repeats_itself_is_rejected(question, answer, detail):
    language = "en" if question.isascii() else "zh"
    check = standalone(Pair(question, answer, language=language))
    assert (check.passed, check.score, check.detail) == (False, 0.0, detail)


@pytest.mark.parametrize(
    "question",
    [
        "Which enzyme copies DNA?",
        "What is the difference between a mutex and a semaphore in the C standard library?",
        "How many sections does an insect's body have?",
        "In which figure of speech is one thing called another?",
        "Where does the image of an object in a plane mirror stand?",
        "Which device images tissue, and what is the problem of induction?",
        "例如表面张力和上表面的温度,这表明了什么？",
        "日本文化与基本文献有什么关系？",
        "该表达式与样本图像有什么关系？",
    ],
)
def test_a_question_that_stands_alone_passes(question):
    assert standalone(Pair(question, "polymerase")).passed


def test_hand_cases():
    assert points_elsewhere("See Table 3 for more.") == "Table 3"
    assert points_elsewhere("A table has four legs.") == ""
    assert repeats("a b c d e a b c d e")
    assert not repeats("a b c d e a b c d")
    assert repeats("电子围绕原子核运动电子围绕原子核运动", 8)
