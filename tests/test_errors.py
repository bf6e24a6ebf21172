"""The wording that users read: one line, "what: why (remedy)"."""

import pytest

from revgraph.errors import RevgraphError, missing_extra


def test_a_message_says_what_why_and_what_would_work():
    error = RevgraphError("cannot reverse node 'Resize_3'", "no rule for Resize", "choose --at before it")
    assert str(error) == "cannot reverse node 'Resize_3': no rule for Resize (choose --at before it)"
    assert (error.what, error.why) == ("cannot reverse node 'Resize_3'", "no rule for Resize")
    assert error.remedy == "choose --at before it"


@pytest.mark.parametrize("blank", ["\n", "\r\n", "\n\n  ", "\t", " \u2028 ", "\x0b", "\x85"])
def test_line_breaks_collapse_into_one_blank(blank):
    error = RevgraphError(f"a{blank}b", f"{blank}c", f"d{blank}")
    assert str(error) == "a b: c (d)"
    assert len(str(error).splitlines()) == 1


def test_it_is_an_exception_that_keeps_its_cause():
    cause = OSError("disk")
    with pytest.raises(RevgraphError) as raised:
        raise RevgraphError("what", "why", "remedy") from cause
    assert raised.value.__cause__ is cause
    assert isinstance(raised.value, Exception)


def test_a_missing_package_names_the_command_that_installs_it():
    error = missing_extra("cannot run a network", "onnxruntime", "cpu")
    wanted = 'cannot run a network: onnxruntime is not installed (pip install "revgraph[cpu]")'
    assert str(error) == wanted
