"""Your own calls to a manifest, as `callmood-train prepare own` does it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.schemas.common import Emotion
from callmood.training import manifest, protocols
from callmood.training.__main__ import main
from callmood.training.corpora import CORPORA, prepare
from callmood.training.loop.data import read_clip
from callmood.worker.errors import ConfigurationError


def recording(path: Path, rate_hz: int = 8000, channels: int = 1, seconds: float = 0.6, **kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.sin(np.arange(round(seconds * rate_hz)) / 7)[:, None] / 2
    soundfile.write(path, np.repeat(samples, channels, axis=1), rate_hz, **kind)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Twelve utterances of six speakers in a list as a spreadsheet writes it."""
    lines = ["\ufeffpath,label,speaker,gender,votes.anger,votes.frustration"]
    for number in range(12):
        recording(tmp_path / "wav" / f"{number}.wav")
        label = ["anger", "Happy", "neutral", "SAD"][number % 4]
        lines.append(f"wav/{number}.wav,{label},caller-{number // 2},F,{number},1")
    (tmp_path / "calls.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "calls.csv"


def test_a_list_of_own_calls_becomes_a_manifest_with_splits(calls: Path, tmp_path: Path, capsys):
    """`prepare own` maps labels in any case, deals speakers out, and leaves 8 kHz files where they are."""
    assert main(["prepare", "own", str(calls), str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    items = manifest.read(tmp_path / "data" / "manifest.jsonl")
    assert {item.label for item in items} == set(Emotion)
    assert {item.split for item in items} == set(manifest.SPLITS)
    assert (tmp_path / "data" / items[0].path).resolve() == tmp_path / "wav" / "0.wav"
    assert not (tmp_path / "data" / "audio").exists()
    assert items[3].votes == {"anger": 3.0}
    assert '"utterances": 12' in printed
    assert printed.endswith(f"{tmp_path / 'data' / 'manifest.jsonl'}\n")


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_utterances_are_cut_from_longer_recordings(tmp_path: Path, ending: str):
    """`start`, `end` and `channel` name a part; the manifest has the cut audio and its start in the recording."""
    rng = np.random.default_rng(1)
    samples = rng.integers(-9000, 9000, size=(32000, 2)).astype(np.int16)
    soundfile.write(tmp_path / f"call.{ending}", samples, 8000, subtype="PCM_16")
    (tmp_path / "list.csv").write_text(
        "path,label,speaker,start,end,channel\n"
        + "".join(f"call.{ending},anger,s{i},{i}.25,{i}.75,{i % 2}\n" for i in range(3))
        + f"call.{ending},sadness,s0,3,,0\ncall.{ending},sadness,s0,9,10,0\ncall.{ending},anger,s1,0,1,2\n"
    )
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 0
    items = manifest.read(tmp_path / "data" / "manifest.jsonl")
    assert [(item.start, item.seconds) for item in items] == [(0.25, 0.5), (1.25, 0.5), (2.25, 0.5), (3.0, 1.0)]
    for item in items:
        first = round(item.start * 8000)
        wanted = samples[first : first + round(item.seconds * 8000), int(item.speaker[1]) % 2]
        np.testing.assert_array_equal(np.frombuffer(read_clip(tmp_path / "data", item).audio, "<i2"), wanted)
    assert set(json.loads((tmp_path / "data" / "prepared.json").read_text())["dropped"]) == {
        "recording ends before the utterance",
        "no channel 2 in a recording of 2; the first one is 0",
    }


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("2,1,0", "end is 1, which is not after start, 2"),
        ("-1,1,0", "start is '-1': use seconds from 0"),
        ("nan,1,0", "start is 'nan'"),
        ("0:01,2,0", "start is '0:01': use seconds"),
        ("0,1,left", "channel is 'left': use a whole number; the first one is 0"),
        ("0,1,-1", "channel is '-1'"),
    ],
)
def test_times_and_channels_that_make_no_sense_are_refused(tmp_path: Path, capsys, times: str, message: str):
    """A part is given in seconds and by the number of a channel; the message has the row."""
    recording(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text(f"path,label,speaker,start,end,channel\na.wav,anger,a,{times}\n")
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 2
    assert f"row 1: {message}" in capsys.readouterr().err


def test_a_part_of_one_channel_has_one_speaker(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Speakers may share a recording and overlap at the edges of utterances, but not share most of one."""
    recording(tmp_path / "a.wav", seconds=4)
    header = "path,label,speaker,start,end,split\na.wav,anger,x,0,1,train\na.wav,anger,y,0.9,2,test\n"
    (tmp_path / "list.csv").write_text(header + "a.wav,anger,z,2,3,valid\n")
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 0
    for leak in ("a.wav,anger,z,1.2,2.2,valid", "a.wav,anger,z,,,valid"):
        (tmp_path / "list.csv").write_text(f"{header}{leak}\n")
        assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 2
        assert "is of speaker" in capsys.readouterr().err


def test_two_own_lists_are_two_corpora(calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Lists with a name each can be trained and tested crosswise; without names, the error says how to give them."""
    for name in ("billing", "sales"):
        assert main(["prepare", "own", str(calls), str(tmp_path / name), "--name", name]) == 0
        assert main(["prepare", "own", str(calls), str(tmp_path / f"no-{name}")]) == 0
    both = [item for name in ("billing", "sales") for item in manifest.read(tmp_path / name / "manifest.jsonl")]
    manifest.refuse_same_ids(both, "both")
    assert [fold.name for fold in protocols.folds("cross_corpus", both, 1)] == ["test-billing", "test-sales"]
    names = {fold.name for fold in protocols.folds("loso_speaker", both, 1)}
    assert names == {f"test-{name}-caller-{i}" for name in ("billing", "sales") for i in range(6)}
    capsys.readouterr()
    lists = [word for name in ("billing", "sales") for word in ("--data", str(tmp_path / f"no-{name}/manifest.jsonl"))]
    assert main(["row", "PF-hbt-large", *lists, "--protocol", "cross_corpus", "--work", str(tmp_path / "runs")]) == 2
    assert "name each with `prepare --name`" in capsys.readouterr().err


@pytest.mark.parametrize(("corpus", "name"), [("own", "../up"), ("own", "with space"), ("crema-d", "mine")])
def test_a_name_of_a_list_is_a_plain_word(calls: Path, tmp_path: Path, capsys, corpus: str, name: str):
    """Names become folders, and released corpora have theirs: anything else is refused."""
    assert main(["prepare", corpus, str(calls), str(tmp_path / "data"), "--name", name]) == 2
    assert "--name" in capsys.readouterr().err


def test_splits_that_are_given_are_kept(tmp_path: Path):
    """A JSON-lines list with splits keeps them; votes are a table there."""
    for name in ("a", "b", "c"):
        recording(tmp_path / f"{name}.wav")
    rows = [
        {
            "id": name,
            "path": f"{name}.wav",
            "label": "neutral",
            "speaker": name,
            "split": split,
            "votes": {"neutral": 3},
        }
        for name, split in zip("abc", manifest.SPLITS, strict=True)
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", "own", str(tmp_path / "list.jsonl"), str(tmp_path / "data")]) == 0
    items = manifest.read(tmp_path / "data" / "manifest.jsonl")
    assert [(item.id, item.split, item.votes) for item in items] == [
        (name, split, {"neutral": 3}) for name, split in zip("abc", manifest.SPLITS, strict=True)
    ]


@pytest.mark.parametrize(
    ("file", "options", "seconds"),
    [
        ("a.flac", {}, 0.6),
        ("a.ogg", {}, 0.6),
        ("a.wav", {"subtype": "PCM_24"}, 0.6),
        ("a.wav", {"subtype": "ULAW"}, 0.6),
        ("a.wav", {"rate_hz": 11_025}, 0.6),
    ],
)
def test_other_audio_is_converted(tmp_path: Path, file: str, options: dict, seconds: float):
    """FLAC, Ogg, 24-bit, mu-law and odd rates become mono 16-bit WAV beside the manifest, of the same length."""
    recording(tmp_path / file, **options)
    row = {"id": "one", "path": file, "label": "neutral", "speaker": "s", "split": "train"}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    path = prepare.prepare(CORPORA["own"], tmp_path / "list.jsonl", tmp_path / "data", prepare.Options())
    [item] = manifest.read_any(path)
    info = soundfile.info(path.parent / item.path)
    assert (info.channels, info.subtype, info.samplerate in (8000, 16_000)) == (1, "PCM_16", True)
    assert info.duration == pytest.approx(seconds, abs=0.01)
    assert item.seconds == pytest.approx(info.duration)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("stereo.wav", "2 channels: give one speaker's channel alone"),
        ("short.wav", "shorter than 0.1 s"),
        ("broken.wav", "audio cannot be read"),
        ("none.wav", "audio missing"),
        ("nan.wav", "samples are not finite numbers"),
        ("integers.wav", "samples beyond 8 times full scale: floats must be scaled to 1"),
        ("slow.wav", "1 samples per second: speech needs 4000"),
    ],
)
def test_what_cannot_be_used_is_dropped_by_reason(tmp_path: Path, file: str, reason: str):
    """Two parties in one file, and very short, broken and missing files are dropped and counted."""
    recording(tmp_path / "good.wav")
    recording(tmp_path / "stereo.wav", channels=2)
    recording(tmp_path / "short.wav", seconds=0.05)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 8000, subtype="FLOAT")
    recording(tmp_path / "slow.wav", rate_hz=1, seconds=100)
    soundfile.write(tmp_path / "integers.wav", np.full(8000, 20_000.0), 8000, subtype="FLOAT")
    (tmp_path / "list.csv").write_text(f"path,label,speaker\ngood.wav,sad,s\n{file},sad,s\n")
    prepare.prepare(CORPORA["own"], tmp_path / "list.csv", tmp_path / "data", prepare.Options())
    report = json.loads((tmp_path / "data" / prepare.REPORT).read_text())
    assert report["dropped"] == {reason: {"utterances": 1, "examples": [f"000002-{file.removesuffix('.wav')}"]}}
    assert report["utterances"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.wav,sad\n", "row 1: no speaker"),
        ("path,label,speaker,emotoin\na.wav,sad,s,x\n", "row 1: unknown emotoin"),
        ("path,label,speaker,votes.anger\na.wav,sad,s,many\n", "row 1: votes are numbers"),
        ("path,label,speaker\n", "no utterance can be used; it lists none"),
        ("path,label,speaker\nnone.wav,sad,s\n", "1 dropped: audio missing"),
        ("id,path,label,speaker\nx,a.wav,sad,s\nx,a.wav,sad,s\n", "two utterances have the id x"),
        ("path,label,speaker\na.wav,sad,s\n", "1 speakers are too few for train, valid, test"),
        ("path,label,speaker\na.wav,sad,s\na.wav,sad,t\n", "row 2: a.wav is of speaker s in row 1"),
        ("path,label,speaker\na,b.wav,sad,s\n", "row 1: more fields than columns; put quotes"),
        (
            "path,label,speaker,split\na.wav,sad,s,held-out\n",
            "row 1: unknown split 'held-out': use train, valid or test",
        ),
        ("path,label,speaker,votes.angr\na.wav,sad,s,3\n", "row 1: unknown votes.angr: write votes.angry"),
        (
            "path,label,speaker,start,end\na.wav,sad,s,0,1e305\n",
            "row 1: end is '1e305': use seconds from 0 to 10,000,000",
        ),
        ("path,label,speaker,start\na.wav,sad,s,1e305\n", "row 1: start is '1e305': use seconds from 0 to"),
        ("path,label,speaker,votes.anger\na.wav,sad,s,nan\n", "row 1: votes are numbers of at least 0, not nan"),
        ("path,label,speaker,label\na.wav,sad,s,anger\n", "two columns are called 'label'"),
        (",path,label,speaker\n0,a.wav,sad,s\n", "row 1: unknown column without a name"),
        ("path,label,speaker\na.wav,sad,s\n.\\a.wav,sad,t\n", "1 dropped: path of Windows: use / between folders"),
        (f"path,label,speaker\n{'x' * 300}.wav,sad,s\n", "1 dropped: audio missing"),
        ("path,label,speaker,votes.anger\na.wav,sad,s,-3\n", "row 1: votes are numbers of at least 0, not -3"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, message: str, capsys):
    """Missing, unknown and impossible values, duplicates, and lists too short to train on are errors with the row."""
    recording(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text(text)
    assert main(["prepare", "own", str(tmp_path / "list.csv"), str(tmp_path / "data")]) == 2
    assert message in capsys.readouterr().err


def test_votes_for_no_emotion_are_refused_in_a_manifest(tmp_path: Path):
    """A manifest whose votes name another emotion is refused."""
    item = manifest.Item("a", "a.wav", "own", "s", "", Emotion.ANGER, "train", 1.0, votes={"boredom": 1})
    manifest.write(tmp_path / "manifest.jsonl", [item])
    with pytest.raises(ConfigurationError, match="line 1: unknown labels in votes: boredom"):
        manifest.read_any(tmp_path / "manifest.jsonl")


def own(folder: Path, name: str, text: str) -> list[manifest.Item]:
    """Items of a list of that name and content, with splits."""
    (folder / name).write_text(text, encoding="utf-8", newline="")
    path = prepare.prepare(CORPORA["own"], folder / name, folder / "data", prepare.Options(split="speakers"))
    return manifest.read_any(path)


SPLITS = "a.wav,sad,a,{}\nb.wav,sad,b,{}\nc.wav,sad,c,{}\nd.wav,sad,d,{}\ne.wav,sad,e,{}\n"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "stated", [("", "", "", "", "test"), ("", "valid", "", "test", "test"), ("train", "", "", "", "valid")]
)
def test_a_stated_split_is_kept_where_others_are_not_stated(tmp_path: Path, stated: tuple[str, ...], seed: int):
    """Speakers without a split are dealt to the splits that nobody states and to training; stated ones stay."""
    for name in "abcde":
        recording(tmp_path / f"{name}.wav")
    (tmp_path / "list.csv").write_text("path,label,speaker,split\n" + SPLITS.format(*stated))
    how = prepare.Options(split="speakers", seed=seed)
    items = manifest.read(prepare.prepare(CORPORA["own"], tmp_path / "list.csv", tmp_path / "data", how))
    for item, split in zip(items, stated, strict=True):
        assert not split or item.split == split
    for split in {"valid", "test"} & set(stated):
        assert sum(item.split == split for item in items) == stated.count(split)


def test_all_utterances_of_a_speaker_follow_the_stated_one(tmp_path: Path):
    """A speaker marked in one row and not in another is in one split; two marks of a speaker are refused."""
    for name in "abcdef":
        recording(tmp_path / f"{name}.wav")
    rows = "path,label,speaker,split\n" + SPLITS.format("", "", "", "", "test")
    assert own(tmp_path, "list.csv", rows + "f.wav,sad,e,\n")[5].split == "test"
    with pytest.raises(ConfigurationError, match="speaker e of own is in test and in valid"):
        own(tmp_path, "list.csv", rows + "f.wav,sad,e,valid\n")


def test_usual_names_of_splits_are_understood(tmp_path: Path):
    """`Train`, `dev` and `TEST` are train, valid and test."""
    for name in "abcde":
        recording(tmp_path / f"{name}.wav")
    text = "path,label,speaker,split\n" + SPLITS.format("Train", "dev", "TEST", "validation", "training")
    assert [item.split for item in own(tmp_path, "list.csv", text)] == ["train", "valid", "test", "valid", "train"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "list.CSV",
            'path,label,speaker\r\n"a,1.wav",sad,Jos\u00e9\r\nb.wav,sad,Jose\u0301\r\nc.wav,sad,c\r\nd.wav,sad,d\r\n',
        ),
        ("list.csv", "path;label;speaker\na,1.wav;sad;Jos\u00e9\nb.wav;sad;Jose\u0301\nc.wav;sad;c\nd.wav;sad;d\n"),
        (
            "list.tsv",
            "path\tlabel\tspeaker\na,1.wav\tsad\tJos\u00e9\nb.wav\tsad\tJose\u0301\nc.wav\tsad\tc\nd.wav\tsad\td\n",
        ),
        (
            "list.jsonl",
            """{"path": "a,1.wav", "label": "sad", "speaker": "Jos\u00e9", "votes": null}
{"path": "b.wav", "label": "sad", "speaker": "Jose\u0301", "session": "a\u2028b", "split": NaN}
{"path": "c.wav", "label": "sad", "speaker": "c"}

{"path": "d.wav", "label": "sad", "speaker": "d"}
""",
        ),
    ],
    ids=["quotes and CRLF", "semicolons", "tabs", "JSON lines of pandas"],
)
def test_lists_as_spreadsheets_and_pandas_write_them_are_read(tmp_path: Path, name: str, text: str):
    """Separators, line ends, empty values and two ways to write an accent do not matter."""
    for file in ("a,1", "b", "c", "d"):
        recording(tmp_path / f"{file}.wav")
    items = own(tmp_path, name, text)
    assert [item.speaker for item in items] == ["Jos\u00e9", "Jos\u00e9", "c", "d"]
    assert Path(items[0].path).name == "a,1.wav"


@pytest.mark.parametrize("listed", ["caf\u00e9/Jos\u00e9.wav", "cafe\u0301/Jose\u0301.wav"])
@pytest.mark.parametrize("folder", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("file", ["Jos\u00e9.wav", "Jose\u0301.wav"])
def test_a_file_is_found_however_its_accents_are_written(tmp_path: Path, listed: str, folder: str, file: str):
    """A list, a folder and a file from other systems may write one accent in two ways; the id is the same."""
    for name in (f"{folder}/{file}", "b.wav", "c.wav"):
        recording(tmp_path / name)
    items = own(tmp_path, "list.csv", f"path,label,speaker\n{listed},sad,a\nb.wav,sad,b\nc.wav,sad,c\n")
    assert Path(items[0].path).parts[-2:] == (folder, file)
    assert items[0].id == "000001-Jos\u00e9"


@pytest.mark.parametrize("name", ["../../escaped", "a/b", ".", "..", "x" * 300, "Jos\u00e9"])
def test_converted_audio_stays_in_its_folder_whatever_the_id(tmp_path: Path, name: str):
    """An id that is no file name is kept in the manifest, and its audio is written under another name."""
    recording(tmp_path / "in" / "odd.wav", rate_hz=11_025)
    for other in "bc":
        recording(tmp_path / "in" / f"{other}.wav")
    rows = f"id,path,label,speaker\n{name},odd.wav,sad,a\n2,b.wav,sad,b\n3,c.wav,sad,c\n"
    item = own(tmp_path / "in", "list.csv", rows)[0]
    assert item.id == name
    audio = (tmp_path / "in" / "data" / item.path).resolve()
    assert audio.parent == (tmp_path / "in" / "data" / "audio").resolve()
    assert audio.is_file()


@pytest.mark.parametrize("size", [0, 36])
def test_a_part_of_a_recording_that_was_not_closed_is_dropped_with_the_reason(tmp_path: Path, size: int):
    """The recording does not end before the utterance: its header has no length."""
    for name in "abcd":
        recording(tmp_path / f"{name}.wav")
    whole = (tmp_path / "d.wav").read_bytes()
    (tmp_path / "d.wav").write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:40] + bytes(4) + whole[44:])
    rows = "path,label,speaker,start,end\n" + "".join(f"{name}.wav,sad,{name},0.1,0.5\n" for name in "abcd")
    assert len(own(tmp_path, "list.csv", rows)) == 3
    dropped = json.loads((tmp_path / "data" / prepare.REPORT).read_text())["dropped"]
    assert list(dropped) == ["no samples found: the recording is empty or was not closed"]


def test_a_header_without_sound_is_dropped(tmp_path: Path):
    """A file that was cut off after its header counts as too short."""
    for name in "abcd":
        recording(tmp_path / f"{name}.wav")
    (tmp_path / "d.wav").write_bytes((tmp_path / "d.wav").read_bytes()[:44])
    rows = "path,label,speaker\n" + "".join(f"{name}.wav,sad,{name}\n" for name in "abcd")
    assert len(own(tmp_path, "list.csv", rows)) == 3
    assert list(json.loads((tmp_path / "data" / prepare.REPORT).read_text())["dropped"]) == ["shorter than 0.1 s"]


def test_votes_that_are_no_counts_are_refused_in_a_manifest(tmp_path: Path):
    """NaN, infinite and negative votes would end in targets that are none."""
    for count in (float("nan"), float("inf"), -1.0):
        item = manifest.Item("a", "a.wav", "own", "s", "", Emotion.ANGER, "train", 1.0, votes={"anger": count})
        manifest.write(tmp_path / "manifest.jsonl", [item])
        with pytest.raises(ConfigurationError, match="line 1: votes are numbers of at least 0"):
            manifest.read_any(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_list_of_another_encoding_is_read_or_named(tmp_path: Path, encoding: str):
    """UTF-16, which says so itself, is read; of other bytes the error has the line, because names must not merge."""
    for name in "abc":
        recording(tmp_path / f"{name}.wav")
    text = "path, label, speaker\na.wav, SAD , Jos\u00e9\nb.wav,sad,b\nc.wav,sad,c\n"
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    how = prepare.Options(split="speakers")
    if encoding == "utf-16":
        items = manifest.read(prepare.prepare(CORPORA["own"], tmp_path / "list.csv", tmp_path / "data", how))
        assert [item.speaker for item in items] == ["Jos\u00e9", "b", "c"]
        return
    with pytest.raises(ConfigurationError, match="line 2: not UTF-8"):
        prepare.prepare(CORPORA["own"], tmp_path / "list.csv", tmp_path / "data", how)
