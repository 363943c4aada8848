"""From bytes to text: encodings, bounds on work, and what of a page is kept."""

import contextlib
import tarfile
import time

import orjson
import pytest
import zstandard

from mixer.extract import Rejected, decode, extract
from mixer.types import Page

LIMITS = {"max_bytes": 8_000_000, "max_elements": 100_000}
ENGINES = ("trafilatura", "resiliparse")
PROSE = "A sentence that is long enough to be taken for the main text of a page, as it goes on and on. "


def page(body: str | bytes, markup: str = "html", **metadata) -> Page:
    return Page("p", body, markup, metadata=metadata)


def text_of(body: str | bytes, engine: str = "trafilatura", markup: str = "html", **metadata) -> str:
    return extract(page(body, markup, **metadata), engine=engine, **LIMITS)


def whole(body: str, title: str = "T") -> str:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body><main>{body}</main></body></html>"


def rejection(body: str | bytes, markup: str = "html", **limits) -> str:
    with pytest.raises(Rejected) as caught:
        extract(page(body, markup), engine="trafilatura", **(LIMITS | limits))
    return str(caught.value)


def shared_rows(path) -> list[dict]:
    with zstandard.open(path, "rb") as file:
        return [orjson.loads(line) for line in file.read().splitlines()]


# Worked cases: decoding


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        (b"\xef\xbb\xbfna\xc3\xafve", "iso-8859-1", "naïve"),
        ("naïve".encode("utf-16"), None, "naïve"),
        ("naïve".encode("utf-32"), None, "naïve"),
        ("<html>naïve".encode("utf-16-le"), None, "<html>naïve"),
        ("<html>naïve".encode("utf-16-be"), None, "<html>naïve"),
        (b"na\xefve", "iso-8859-1", "naïve"),
        (b'<meta charset="windows-1251">\xcc\xe8\xf0', None, '<meta charset="windows-1251">Мир'),
        (
            '<?xml version="1.0" encoding="gb2312"?>你好'.encode("gbk"),
            None,
            '<?xml version="1.0" encoding="gb2312"?>你好',
        ),
        ("naïve".encode(), "iso-8859-1", "naïve"),
        ("名前".encode("shift_jis"), "Shift_JIS", "名前"),
        ("日本".encode("iso-2022-jp"), "iso-2022-jp", "日本"),
        (b'<meta charset="utf-16">plain', None, '<meta charset="utf-16">plain'),
        (b"a\0b", None, "ab"),
        (b"", "utf-8", ""),
    ],
)
def test_case_1_bytes_are_decoded_as_their_author_meant(content, charset, expected):
    assert decode(content, charset) == expected


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "punycode", "hex", "no such", "idna", "\0", ""])
def test_a_charset_that_only_python_knows_is_not_used(charset):
    assert decode(b"\\ud800 +2AA- ok", charset) == "\\ud800 +2AA- ok"


def test_decoding_never_raises_and_always_gives_text_that_can_be_written():
    for seed in range(256):
        noise = bytes((seed * 7 + place * place * 31) % 256 for place in range(400))
        for charset in (None, "gbk", "big5", "euc-jp", "iso-2022-jp", "utf-16", "utf-7"):
            decode(noise, charset).encode()


def test_real_files_in_old_encodings_show_their_script(shared):
    expected = {
        "GB2312/2.blog.westca.com.xml": "百度在美国",
        "KOI8-R/intertat.ru.xml": "Татарстан",
        "SHIFT_JIS/_chromium_Shift-JIS_with_no_encoding_specified.html": "衆院議",
        "UTF-16/bom-utf-16-le.srt": "About",
        "UTF-16BE/plane1-utf-16be.html": "<!DOCTYPE HTML",
        "UTF-16LE/plane1-utf-16le.html": "<!DOCTYPE HTML",
        "windows-1252/_ude_2.txt": "Stipan Arkadiewitsch",
    }
    seen = set()
    with (
        zstandard.open(shared / "hostile" / "encodings.tar.zst", "rb") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        for member in tar:
            text = decode(tar.extractfile(member).read(), None)
            assert expected[member.name] in text
            assert "\ufffd" not in text
            seen.add(member.name)
    assert seen == set(expected)


# Worked cases: what is kept


@pytest.mark.parametrize("engine", ENGINES)
def test_case_2_the_main_text_is_kept_and_the_rest_goes(engine):
    body = f"<h1>Title</h1><p>{PROSE * 5}</p><p>{PROSE * 4}</p>"
    html = f"<html><body><nav><ul><li><a href=/>Home</a></ul></nav><main>{body}</main><footer>Imprint</footer></body>"
    text = text_of(html, engine)
    assert text.count(PROSE.strip()) == 9
    assert "Title" in text
    assert "Home" not in text
    assert "Imprint" not in text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ('<math alttext="{\\displaystyle E=mc^{2}}"><mi>E</mi></math>', "\\(E=mc^{2}\\)"),
        ("<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>", "\\(\\frac{1}{2}\\)"),
        (
            "<span class=katex><span class=katex-mathml><math><semantics><mi>x</mi>"
            '<annotation encoding="application/x-tex">x_1</annotation></semantics></math></span>'
            '<span class=katex-html aria-hidden="true">x1</span></span>',
            "\\(x_1\\)",
        ),
        (
            "<mjx-container><mjx-math aria-hidden=true>𝜅</mjx-math><mjx-assistive-mml><math data-latex='\\kappa'>"
            "<mi>κ</mi></math></mjx-assistive-mml></mjx-container>",
            "\\(\\kappa\\)",
        ),
        ('<script type="math/tex">a^b</script>', "\\(a^b\\)"),
        ("<span style='display: none'><math><mi>x</mi></math></span>", ""),
    ],
)
def test_case_3_formulas_are_kept_as_tex(engine, formula, expected):
    text = text_of(whole(f"<p>{PROSE * 4}</p><p>{PROSE} where {formula} holds.</p><p>{PROSE * 4}</p>"), engine)
    assert expected in text
    assert "where" in text


@pytest.mark.parametrize("engine", ENGINES)
def test_case_4_powers_captions_and_bare_text_are_kept(engine):
    body = f"""<p>{PROSE * 4}</p><p>{PROSE} It weighs 10<sup>−5</sup> g.<sup><a href=#r>7</a></sup></p>
    <div class="para">{PROSE} bare text</div>
    <figure><img src=a.png><figcaption class="caption">Fig. 1 <b>the caption</b></figcaption></figure>
    <h2>Heading<a class="headerlink" href="#h">¶</a></h2><p>{PROSE * 4}</p>"""
    text = text_of(whole(body), engine)
    for expected in ("10^−5 g", "bare text", "Fig. 1 the caption", "Heading"):
        assert expected in text
    assert "¶" not in text


@pytest.mark.parametrize("engine", ENGINES)
def test_case_5_a_fragment_keeps_all_its_text(engine):
    fragment = "<div><p>Short question?</p></div>\n<div><ul><li>one<li>two</ul><pre>code</pre></div>"
    text = text_of(fragment, engine)
    for expected in ("Short question?", "one", "two", "code"):
        assert expected in text
    assert text_of("just words", engine) == "just words"


def test_text_is_returned_as_it_is():
    assert text_of("  a <b> & c \n\n", markup="text") == "  a <b> & c \n\n"
    assert text_of("Ça".encode("latin-1"), markup="text") == "Ça"


def test_the_charset_of_the_http_header_is_used():
    assert text_of("<p>Мир".encode("koi8-r"), charset="koi8-r") == "Мир"


# Bounds


@pytest.mark.parametrize("body", ["", " \n", "<html><body></body></html>", "<html><script>x</script></html>", b"\0\0"])
def test_a_page_without_text_says_so(body):
    assert rejection(body) == "no text found"


def test_a_page_beyond_a_bound_says_which():
    assert rejection("x" * 1_200_000, max_bytes=1_000_000) == "too large: 1.2 MB"
    assert rejection("é" * 600_000, max_bytes=1_000_000) == "too large: 1.2 MB"
    assert rejection(b"x" * 1_200_000, max_bytes=1_000_000) == "too large: 1.2 MB"
    assert rejection("<p>x" * 101, max_elements=100) == "too many elements"
    assert rejection("<p " + " ".join(f"a{n}=1" for n in range(3000)) + ">x") == "too many attributes"
    assert rejection(("<div>" * 200 + "x" + "</div>" * 200) * 30, max_elements=6_100) == "too deeply nested"


@pytest.mark.parametrize("tag", ["div", "span", "ul><li", "blockquote", "table><tr><td", "math><mrow", "b"])
def test_a_nesting_bomb_is_rejected_at_once(tag):
    start = time.process_time()
    assert rejection(f"<{tag}>" * 100_000) in ("too deeply nested", "too many elements")
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "hidden",
    [
        "<!-- <p z=' -->",
        "<script></b> <p z='</script>",
        "<title><p z='</title>",
        "<! <p z='>",
        '</p z="<b y=\' " >',
    ],
)
def test_no_comment_script_or_quote_hides_attributes_from_the_bound(hidden):
    many = " ".join(f"a{n}=1" for n in range(3000))
    assert rejection(f"<html><body>{hidden}<p {many} x='>") == "too many attributes"


def test_attributes_are_counted_in_linear_time():
    for unit in ("<p a='<p b=\"", "<p ", "<script></", "<p a=", "<!--", "< /"):
        start = time.process_time()
        with contextlib.suppress(Rejected):
            text_of(unit * (2_000_000 // len(unit)))
        assert time.process_time() - start < 4


def test_json_inside_a_page_costs_nothing():
    """trafilatura's search for mark-up in it takes minutes for 100 kB of this."""
    bomb = '{"articleBody": "<a ' + "=" * 1_000_000 + '"}'
    start = time.process_time()
    assert text_of(whole(f'<script type="application/ld+json">{bomb}</script><p>Short.</p>')) == "Short."
    assert time.process_time() - start < 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_deep_page_gives_the_same_text_however_deep_the_caller_is(engine):
    html = whole("<div>" * 120 + f"<p>{PROSE * 5}" + "<blockquote>quoted words " * 100)

    def called_from(depth: int) -> str:
        return text_of(html, engine) if depth == 0 else called_from(depth - 1)

    assert called_from(0) == called_from(500)


@pytest.mark.parametrize("body", [b"<xml", b"<article>", b"<a></b>", b"text", b"\xff\xfe", b"<!DOCTYPE a ["])
def test_bad_xml_says_so(body):
    assert rejection(body, "jats").startswith("bad xml: ")


# Real pages


def test_outputs_do_not_depend_on_earlier_pages(shared):
    pages = [row["html"] for row in shared_rows(shared / "science_html" / "geosci-em.jsonl.zst")[:12]]
    pages += [row["html"] for row in shared_rows(shared / "science_html" / "discrete-math.jsonl.zst")[80:86]]
    first = [text_of(html) for html in pages]
    assert [text_of(html) for html in reversed(pages)] == first[::-1]
    assert [text_of(html) for html in pages] == first
    assert len(set(first)) > 10


def words(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def f1(found: str, gold: str) -> float:
    got, wanted = words(found), words(gold)
    common = sum(min(count, wanted.get(word, 0)) for word, count in got.items())
    return 2 * common / (sum(got.values()) + sum(wanted.values()))


def readability_cases(shared) -> list[tuple[str, str]]:
    files = {}
    with (
        zstandard.open(shared / "extraction" / "readability-open.tar.zst", "rb") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        for member in tar:
            if member.isreg():
                files[member.name] = tar.extractfile(member).read()
    gold = {name.rpartition("/")[0]: text_of(data) for name, data in files.items() if name.endswith("/expected.html")}
    return [(files[f"{case}/source.html"], text) for case, text in gold.items() if len(text) > 2000]


@pytest.mark.parametrize(("engine", "least"), [("trafilatura", 0.93), ("resiliparse", 0.90)])
def test_the_words_of_real_pages_are_those_that_readability_keeps(shared, engine, least):
    cases = readability_cases(shared)
    scores = [f1(text_of(source, engine), gold) for source, gold in cases]
    assert len(scores) == 10
    assert sum(scores) / len(scores) >= least


def test_formulas_of_real_pages_are_kept(shared):
    counts = {}
    for name in ("oi-wiki-zh", "wikipedia-science", "introqm"):
        rows = shared_rows(shared / "science_html" / f"{name}.jsonl.zst")
        rows.sort(key=lambda row: -row["html"].count("<math") - row["html"].count("\\("))
        html = next(row["html"] for row in rows if len(row["html"]) < 400_000)
        text = text_of(html)
        counts[name] = text.count("\\(") + text.count("\\[")
    assert min(counts.values()) >= 15, counts


def test_every_hostile_page_gives_text_or_a_reason(shared):
    outcomes = {"text": 0, "rejected": 0}
    for name in ("html5lib-tests", "jsoup-html", "encodings"):
        with (
            zstandard.open(shared / "hostile" / f"{name}.tar.zst", "rb") as file,
            tarfile.open(fileobj=file, mode="r|") as tar,
        ):
            for member in tar:
                content = tar.extractfile(member).read()
                for markup in ("html", "jats", "markdown", "text"):
                    for engine in ENGINES:
                        outcomes[outcome(content, markup, engine)] += 1
    assert min(outcomes.values()) > 20


def outcome(content: bytes, markup: str, engine: str) -> str:
    try:
        text_of(content, engine, markup).encode()
    except Rejected:
        return "rejected"
    return "text"
