"""History in PostgreSQL: the tables of deploy/postgres.sql, loaded with the commands of docs/history.md."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from callmood import schemas

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
EXAMPLES = Path(schemas.__file__).parent / "examples"


def program(name):
    """A program of PostgreSQL, which Debian keeps out of the path."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    return found or pytest.skip("apt-get install postgresql")


def documented():
    """The page's command that loads a file: its options, and what it copies and calls."""
    page = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    command = re.search(r'psql (-v .*) -c "(\\copy [^"]*)" \\\n +-c "(CALL [^"]*)" \|\| break', page)
    options, copy, call = command.groups()
    return options.split(), copy, call


@pytest.fixture(scope="module")
def folder():
    """Beside pytest's own folders, which the server's user may not enter."""
    with tempfile.TemporaryDirectory(prefix="callmood-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def psql(folder):
    """`psql(*arguments)`: the output of the client, with a server of these tests' own, which refuses to run as root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*user, program("initdb"), "--auth", "trust", "--username", "test", str(folder / "data"))
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = (*user, program("pg_ctl"), "--pgdata", str(folder / "data"), "--log", str(folder / "log"))
    run(*control, "--wait", "--options", options, "start")
    client = (program("psql"), "-h", str(folder), "-U", "test", "-d", "postgres", *documented()[0], "-qtA")
    try:
        for _ in range(2):
            run(*client, "-f", str(ROOT / "deploy" / "postgres.sql"))
        yield lambda *arguments: run(*client, *arguments)
    finally:
        run(*control, "--mode", "immediate", "stop")


@pytest.fixture
def load(psql, tmp_path):
    """`load(records)` copies them as JSON lines, and loads them."""
    _, copy, call = documented()

    def loaded(records):
        path = tmp_path / "records.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        psql("-c", copy.replace("$file", str(path)), "-c", call)

    return loaded


def examples(name):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((EXAMPLES / name / "valid").glob("*"))]


def test_each_record_is_there_once_and_an_erased_call_is_not(psql, load):
    """Also after a second delivery, with an older version, and if a record comes after the erasure."""
    calls = [one | {"call_id": f"call-{n}", "version": 5} for n, one in enumerate(examples("call"))]
    said = [one | {"call_id": f"call-{n}", "number": 1} for n, one in enumerate(examples("utterance"))]
    of_test = "WHERE call_id LIKE 'call-%'"
    for _ in range(2):
        load([*calls, *said, calls[0] | {"version": 4, "attributes": {"queue": "of an older version"}}])
    read = [json.loads(line) for line in psql("-c", f"SELECT record FROM callmood.calls {of_test}").splitlines()]
    assert sorted(read, key=lambda one: one["call_id"]) == sorted(calls, key=lambda one: one["call_id"])
    assert psql("-c", f"SELECT count(*) FROM callmood.utterances {of_test}").strip() == str(len(said))
    load([examples("erasure")[0] | {"call_id": "call-0"}])
    load([calls[0], said[0]])
    for name, records in (("calls", calls), ("utterances", said)):
        assert psql("-c", f"SELECT count(*) FROM callmood.{name} {of_test}").strip() == str(len(records) - 1)
    assert psql("-c", "SELECT count(*) FROM callmood.received").strip() == "0"


def test_odd_texts_are_loaded(psql, load):
    """Quotes, backslashes, delimiters and NUL: only NUL becomes another character."""
    texts = ['"quoted", \\N', "a\0b", "\\u0000", "\\\0", "\x01\x02\t\r\n", "\N{PERSON FROWNING}"]
    (call, *_) = examples("call")
    load([call | {"call_id": text, "version": 1} for text in texts])
    read = [json.loads(line) for line in psql("-c", "SELECT record->'call_id' FROM callmood.calls").splitlines()]
    assert {text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in texts} <= set(read)


def test_a_file_that_is_no_list_of_records_is_an_error(psql, load, tmp_path):
    """The command fails and loads nothing, so that the page's loop stops at this file."""
    before = psql("-c", "SELECT count(*) FROM callmood.calls")
    _, copy, call = documented()
    (tmp_path / "broken.jsonl").write_text("no JSON\n", encoding="utf-8")
    for name in ("nowhere.jsonl", "broken.jsonl"):
        with pytest.raises(AssertionError, match=r"No such file|invalid input syntax"):
            psql("-c", copy.replace("$file", str(tmp_path / name)), "-c", call)
    psql("-c", "TRUNCATE callmood.received")
    load([examples("call")[0] | {"call_id": "after the correction", "version": 1}])
    assert int(psql("-c", "SELECT count(*) FROM callmood.calls")) == int(before) + 1
