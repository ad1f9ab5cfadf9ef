"""The options for recordings of `analyze` and `replay`."""

import argparse
from pathlib import Path

import pytest

from callmood.schemas.common import Encoding, Notice, Role
from callmood.worker.commands import options


def parse(*words):
    parser = argparse.ArgumentParser()
    options.add_recording_options(parser, files="+")
    return parser.parse_args([*words, "a/billing.wav"])


def test_without_options_a_call_is_sent_as_most_telephony_does():
    """G.711 at 8 kHz in records of 200 ms; roles by the number of channels."""
    shape = options.shape(parse())
    assert (shape.encoding, shape.rate_hz, shape.chunk_ms) == (Encoding.PCMU, 8000, 200)
    assert (shape.layout, shape.notice, shape.attributes) == (None, None, {})


def test_every_option_reaches_the_shape():
    """Roles, encoding, rate, length, notice and attributes are taken over."""
    shape = options.shape(
        parse(
            *("--layout", "agent, customer", "--encoding", "s16le", "--rate", "16000", "--chunk-ms", "20"),
            *("--notice", "given", "--attr", "queue=sales", "--attr", "note=a=b"),
        )
    )
    assert shape.layout == (Role.AGENT, Role.CUSTOMER)
    assert (shape.encoding, shape.rate_hz, shape.chunk_ms) == (Encoding.S16LE, 16000, 20)
    assert shape.notice is Notice.GIVEN
    assert shape.attributes == {"queue": "sales", "note": "a=b"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layout", "boss"), "not a list of roles: customer, agent, ivr, mixed, unknown"),
        (("--chunk-ms", "0"), "from 1 to 1,000"),
        (("--chunk-ms", "1001"), "from 1 to 1,000"),
        (("--chunk-ms", "20.5"), "from 1 to 1,000"),
        (("--attr", "queue"), "not NAME=VALUE"),
        (("--attr", "=sales"), "not NAME=VALUE"),
        (("--rate", "44100"), "invalid choice"),
        (("--encoding", "opus"), "invalid"),
    ],
)
def test_a_wrong_option_says_what_is_right(capsys, words, said):
    """The command ends with code 2 before anything is read."""
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def ids(files, call_id=None, suffix="", *, legs=False):
    arguments = argparse.Namespace(files=[Path(file) for file in files], call_id=call_id, legs=legs)
    return options.call_ids(arguments, suffix=suffix)


def test_calls_are_named_after_their_files():
    """Files of the same name in several folders are told apart."""
    assert ids(["a/one.wav", "b/two.flac"]) == ["one", "two"]
    assert ids(["a/one.wav", "b/one.wav", "c/one.flac"]) == ["one", "one-1", "one-2"]
    assert ids(["one.wav"], suffix="-x7") == ["one-x7"]
    assert ids(["one.wav", "two.wav"], legs=True) == ["one"]


def test_a_given_id_is_used_as_it_is():
    """With several files it gets a number."""
    assert ids(["one.wav"], "call-9", suffix="-x7") == ["call-9"]
    assert ids(["one.wav", "two.wav"], "call-9") == ["call-9-1", "call-9-2"]
