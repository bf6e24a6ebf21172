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


@pytest.mark.parametrize(
    ("letter", "shown"),
    [("\x1b", r"\x1b"), ("\0", r"\x00"), ("\x93", r"\x93"), ("\u202e", r"\u202e"), ("\udc80", r"\udc80")],
)
def test_letters_that_a_terminal_obeys_are_written_out(letter, shown):
    """Names of layers and files come from strangers."""
    assert str(RevgraphError(f"no layer '{letter}'", "é", "✓")) == f"no layer '{shown}': é (✓)"


def test_a_message_stays_short_however_long_a_name_is():
    error = RevgraphError(f"no layer '{'a' * 10**7}'", "no tensor is called so", "the nearest is 'b'")
    assert len(str(error)) < 3000
    assert str(error).startswith("no layer 'aaa")
    assert str(error).endswith("aaa': no tensor is called so (the nearest is 'b')")
