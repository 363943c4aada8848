"""Pages of one host are of one site, however its name is written."""

import pytest

from mixer.site import site


@pytest.mark.parametrize(
    "url",
    [
        "https://openstax.org/a",
        "https://www.openstax.org/a",
        "http://openstax.org:80/b",
        "HTTPS://WWW.OpenStax.org",
        "https://user:word@openstax.org/",
        "https://openstax.org./",
        "//openstax.org/a",
    ],
)
def test_one_host_is_one_site(url):
    assert site(url) == "openstax.org"


@pytest.mark.parametrize("url", [None, "", "no url", "http://[", "file:///a"])
def test_what_has_no_host_has_no_site(url):
    assert site(url) == ""


def test_other_hosts_are_other_sites():
    assert site("https://books.openstax.org/a") == "books.openstax.org"
