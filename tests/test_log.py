"""The response log: what is asked once is never asked again, whatever happens to the process."""

import json

import pytest

from mixer.errors import SourceError
from synth.log import ResponseLog, repair
from synth.request import Request, Response

ASKED = Request(({"role": "user", "content": "Who purrs?"},), "vote.en@1", None, {"temperature": 0.7}, 0)


def answer(request, text, model="m"):
    return Response(text, "stop", request.key(model), 5, 2)


def test_an_answer_is_found_under_what_was_asked(tmp_path):
    with ResponseLog(tmp_path, "m", "w0") as log:
        assert ASKED not in log
        log.add(ASKED, answer(ASKED, "Cats."))
        assert log.find(ASKED).text == "Cats."
    again = ResponseLog(tmp_path, "m")
    assert again.find(ASKED) == answer(ASKED, "Cats.")


def test_all_that_can_change_an_answer_is_part_of_its_address():
    others = [
        Request(({"role": "user", "content": "Who barks?"},), "vote.en@1", None, {"temperature": 0.7}, 0),
        Request(({"role": "system", "content": "Who purrs?"},), "vote.en@1", None, {"temperature": 0.7}, 0),
        Request(ASKED.messages, "vote.en@1", {"type": "object"}, {"temperature": 0.7}, 0),
        Request(ASKED.messages, "vote.en@1", None, {"temperature": 0.8}, 0),
        Request(ASKED.messages, "vote.en@1", None, {"temperature": 0.7, "top_p": 0.9}, 0),
        Request(ASKED.messages, "vote.en@1", None, {"temperature": 0.7}, 1),
    ]
    keys = {ASKED.key("m"), ASKED.key("another model"), *(other.key("m") for other in others)}
    assert len(keys) == 2 + len(others)


def test_the_first_answer_stays(tmp_path):
    with ResponseLog(tmp_path, "m", "w0") as log:
        log.add(ASKED, answer(ASKED, "Cats."))
        log.add(ASKED, answer(ASKED, "Dogs."))
    assert ResponseLog(tmp_path, "m").find(ASKED).text == "Cats."
    assert len((tmp_path / "w0.jsonl").read_text().splitlines()) == 1


def test_answers_of_another_model_are_not_ours(tmp_path):
    with ResponseLog(tmp_path, "m", "w0") as log:
        log.add(ASKED, answer(ASKED, "Cats."))
    assert len(ResponseLog(tmp_path, "n")) == 0


@pytest.mark.parametrize("cut", range(1, 200, 23))
def test_a_line_cut_short_by_a_kill_is_removed_and_asked_again(tmp_path, cut):
    other = Request(ASKED.messages, "vote.en@1", None, {"temperature": 0.7}, 1)
    with ResponseLog(tmp_path, "m", "w0") as log:
        log.add(ASKED, answer(ASKED, "Cats."))
        log.add(other, answer(other, "Lions."))
    path = tmp_path / "w0.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with ResponseLog(tmp_path, "m", "w0") as log:
        assert log.find(ASKED).text == "Cats."
        assert other not in log
        log.add(other, answer(other, "Tigers."))
    again = ResponseLog(tmp_path, "m")
    assert [again.find(ASKED).text, again.find(other).text] == ["Cats.", "Tigers."]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    with ResponseLog(tmp_path, "m", "w0") as log:
        log.add(ASKED, answer(ASKED, "Cats."))
    path = tmp_path / "w0.jsonl"
    path.write_text('{"key": 1}\n' + path.read_text())
    with pytest.raises(SourceError, match=r"w0\.jsonl:1: got a damaged line"):
        ResponseLog(tmp_path, "m")


def test_several_writers_are_read_as_one(tmp_path):
    other = Request(ASKED.messages, "vote.en@1", None, {"temperature": 0.7}, 1)
    with ResponseLog(tmp_path, "m", "w0") as first, ResponseLog(tmp_path, "m", "w1") as second:
        first.add(ASKED, answer(ASKED, "Cats."))
        second.add(other, answer(other, "Lions."))
    log = ResponseLog(tmp_path, "m")
    assert len(log) == 2
    assert sorted(record["text"] for record in log.records()) == ["Cats.", "Lions."]


def test_repair_leaves_whole_files_alone_and_empties_a_file_without_a_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n{}\n")
    repair(path)
    assert path.read_bytes() == b"{}\n{}\n"
    path.write_bytes(b"x" * 200_000)
    repair(path)
    assert path.read_bytes() == b""


def test_a_refusal_holds_for_the_settings_that_it_was_refused_under_alone(tmp_path):
    refused = Response("too long", "refused", ASKED.key("m"))
    with ResponseLog(tmp_path, "m", "w0", served="512 tokens") as log:
        log.add(ASKED, refused)
    assert ASKED in ResponseLog(tmp_path, "m", served="512 tokens")
    assert ASKED not in ResponseLog(tmp_path, "m", served="4096 tokens")
    with ResponseLog(tmp_path, "m", "w0", served="4096 tokens") as log:
        log.add(ASKED, Response("Cats.", "stop", ASKED.key("m")))
    assert ResponseLog(tmp_path, "m", served="4096 tokens").find(ASKED).text == "Cats."
