"""Tables as text and as HTML."""

from __future__ import annotations

from kspark.job.tables import html_table, text_table


def test_columns_are_aligned_on_the_right():
    rows = [("1", "long"), ("22", "")]
    assert text_table(("a", "bcd"), rows) == " a   bcd\n 1  long\n22"


def test_html_has_a_caption_a_header_and_a_row_per_row():
    assert html_table("title", ("a", "b"), [("1", "2")]) == (
        "<table><caption>title</caption><thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
    )


def test_texts_are_escaped():
    html = html_table("<b>", ("<i>",), [("<script>",)])
    assert "&lt;b&gt;" in html and "&lt;i&gt;" in html and "&lt;script&gt;" in html
