"""Readers of the corpora's layouts, on folders of the same shape."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.schemas.common import Emotion
from callmood.training import manifest
from callmood.training.corpora import CORPORA, prepare
from callmood.worker.errors import ConfigurationError

TONE = np.sin(np.arange(24_000) / 9) / 2


def write(path: Path, rate_hz: int = 16_000, channels: int = 1) -> None:
    """Half a second and more of a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(TONE[:, None], channels, axis=1), rate_hz)


def read(name: str, root: Path, out: Path) -> dict[str, manifest.Item]:
    """The corpus' items by id."""
    return {item.id: item for item in manifest.read_any(prepare.prepare(CORPORA[name], root, out, prepare.Options()))}


def dropped(out: Path) -> dict[str, int]:
    """Counts in the report, by reason."""
    reasons = prepare.json.loads((out / prepare.REPORT).read_text())["dropped"]
    return {reason: one["utterances"] for reason, one in reasons.items()}


def test_crema_d_with_sexes_and_votes_by_voice(tmp_path: Path):
    """Label and actor come from the name, sex from the table, votes from annotators without the picture."""
    root = tmp_path / "CREMA-D"
    for name in ("1001_IEO_ANG_HI", "1002_IEO_HAP_LO", "1002_DFA_FEA_XX", "1040_ITH_SAD_X"):
        write(root / "AudioWAV" / f"{name}.wav")
    (root / "VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,51,Male\n1002,21,Female\n")
    (root / "processedResults").mkdir()
    # Columns and numbers as in the release: README.md and processedResults/tabulatedVotes.csv of
    # CheyneyComputerScience/CREMA-D@63f0471, where voice is 100001 to 107442, face 200001 and up, both 300001 and up.
    (root / "processedResults" / "tabulatedVotes.csv").write_text(
        '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
        '"100001",6,1,0,0,2,1,"1001_IEO_ANG_HI",10,0.6,"A"\n'
        '"107442",0,0,0,0,1,3,"1040_ITH_SAD_XX",4,0.75,"S"\n'
        '"200001",0,0,0,9,0,0,"1001_IEO_ANG_HI",9,1,"H"\n'
        '"300001",0,0,0,0,9,0,"1001_IEO_ANG_HI",9,1,"N"\n'
    )
    items = read("crema-d", root, tmp_path / "out")
    angry = items["1001_IEO_ANG_HI"]
    assert (angry.label, angry.speaker, angry.gender) == (Emotion.ANGER, "1001", "M")
    assert angry.votes == {"anger": 6, "neutral": 2, "sadness": 1, "happiness": 0}
    assert angry.shares == pytest.approx((6 / 9, 0, 2 / 9, 1 / 9))
    assert items["1002_IEO_HAP_LO"].gender == "F"
    assert items["1002_IEO_HAP_LO"].shares == ()
    assert items["1040_ITH_SAD_X"].label is Emotion.SADNESS
    assert items["1040_ITH_SAD_X"].votes == {"anger": 0, "neutral": 1, "sadness": 3, "happiness": 0}
    assert dropped(tmp_path / "out") == {"label FEA": 1}


def test_ravdess_in_six_folds_of_four_actors(tmp_path: Path):
    """48 kHz speech; odd actors are men, four actors make a fold; song and calm are not read."""
    root = tmp_path / "Audio_Speech_Actors_01-24"
    for actor in (1, 2, 5, 24):
        write(root / f"Actor_{actor:02d}" / f"03-01-05-01-02-01-{actor:02d}.wav", 48_000)
    write(root / "Actor_01" / "03-01-02-01-02-01-01.wav", 48_000)
    items = read("ravdess", tmp_path, tmp_path / "out")
    assert {(item.speaker, item.gender, item.session) for item in items.values()} == {
        ("01", "M", "1"),
        ("02", "F", "1"),
        ("05", "M", "2"),
        ("24", "F", "6"),
    }
    assert dropped(tmp_path / "out") == {"label 02": 1}


def test_emodb_is_german(tmp_path: Path):
    """Speaker, emotion and sex from the name, and the language is not English."""
    for name in ("03a01Wa", "08b02Tb", "16a05Fb", "10a07Na", "12a01La"):
        write(tmp_path / "wav" / f"{name}.wav")
    items = read("emodb", tmp_path, tmp_path / "out")
    assert {item.id: (str(item.label), item.gender) for item in items.values()} == {
        "03a01Wa": ("anger", "M"),
        "08b02Tb": ("sadness", "F"),
        "16a05Fb": ("happiness", "F"),
        "10a07Na": ("neutral", "M"),
    }
    assert {item.language for item in items.values()} == {"de"}


@pytest.mark.parametrize("layout", ["{speaker}_{name}.wav", "{speaker}/{name}.wav"])
def test_savee_flat_or_by_speaker(tmp_path: Path, layout: str):
    """Both layouts are read; `sa` is sadness and not the speaker `a`; 44.1 kHz becomes 16 kHz."""
    for speaker in ("DC", "JE"):
        for name in ("a01", "sa01", "su03", "h04", "n05"):
            write(tmp_path / layout.format(speaker=speaker, name=name), 44_100)
    items = read("savee", tmp_path, tmp_path / "out")
    assert Counter(str(item.label) for item in items.values()) == {
        "anger": 2,
        "sadness": 2,
        "happiness": 2,
        "neutral": 2,
    }
    assert {item.speaker for item in items.values()} == {"DC", "JE"}
    converted = soundfile.info(tmp_path / "out" / next(iter(items.values())).path)
    assert (converted.samplerate, converted.subtype) == (16_000, "PCM_16")
    assert converted.duration == pytest.approx(TONE.size / 44_100, abs=1e-3)


def test_tess_has_two_speakers(tmp_path: Path):
    """The one file whose name lacks a letter does not make a third."""
    for name in ("OAF_back_angry", "YAF_dog_happy", "OA_bite_neutral", "YAF_bar_ps"):
        write(tmp_path / f"{name}.wav", 24_414)
    items = read("tess", tmp_path, tmp_path / "out")
    assert {item.speaker for item in items.values()} == {"OAF", "YAF"}
    assert dropped(tmp_path / "out") == {"label ps": 1}


@pytest.mark.parametrize("spelling", ["labels_consensus.csv", "labels_concensus.csv"])
def test_msp_podcast_keeps_its_splits_and_votes(tmp_path: Path, spelling: str):
    """Splits as released under both spellings; an unknown speaker shares nothing; other test sets are dropped."""
    rows = [
        ("MSP-PODCAST_0001_0001.wav", "A", "12", "Male", "Train"),
        ("MSP-PODCAST_0001_0002.wav", "H", "Unknown", "Female", "Development"),
        ("MSP-PODCAST_0001_0003.wav", "S", "Unknown", "Female", "Test1"),
        ("MSP-PODCAST_0001_0004.wav", "N", "14", "Male", "Test2"),
        ("MSP-PODCAST_0001_0005.wav", "X", "15", "Male", "Train"),
    ]
    for name, *_ in rows:
        write(tmp_path / "Audios" / name)
    (tmp_path / "Labels").mkdir()
    lines = [f"{name},{label},4,4,4,{speaker},{gender},{split}" for name, label, speaker, gender, split in rows]
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    (tmp_path / "Labels" / spelling).write_text("\n".join([header, *lines]) + "\n")
    (tmp_path / "Labels" / "labels_detailed.csv").write_text(
        "FileName,Worker,EmoClass_Major\n" + "".join(f"{rows[0][0]},w,{word}\n" for word in ("Angry", "Angry", "Sad"))
    )
    items = read("msp-podcast", tmp_path, tmp_path / "out")
    assert {item.split for item in items.values()} == {"train", "valid", "test"}
    assert len({item.speaker for item in items.values()}) == 3
    assert items["MSP-PODCAST_0001_0001"].shares == pytest.approx((2 / 3, 0, 0, 1 / 3))
    assert dropped(tmp_path / "out") == {"label Test2": 1, "label X": 1}


def test_meld_without_ffmpeg_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its files are MP4: without ffmpeg there is an error, and not a corpus with everything dropped."""
    monkeypatch.setenv("PATH", "")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}_sent_emo.csv").write_text(
            "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n1,Hi!,Ross,joy,positive,0,0\n"
        )
    for folder in ("train/train_splits", "dev_splits_complete", "output_repeated_splits_test"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dia0_utt0.mp4").write_bytes(b"not a film")
    found = list(CORPORA["meld"].find(tmp_path))
    assert [(one.split, one.speaker, one.label, one.gender) for one in found] == [
        (split, "Ross", "joy", "M") for split in ("train", "valid", "test")
    ]
    with pytest.raises(ConfigurationError, match="ffmpeg"):
        read("meld", tmp_path, tmp_path / "out")


def test_meld_that_is_not_unpacked_is_an_error(tmp_path: Path):
    """A table without its folder of clips is refused, with the archive that has them."""
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}_sent_emo.csv").write_text("Speaker,Emotion,Dialogue_ID,Utterance_ID\n")
    with pytest.raises(
        ConfigurationError, match=r"no folder train/train_splits or train_splits; unpack train\.tar\.gz"
    ):
        list(CORPORA["meld"].find(tmp_path))


@pytest.mark.parametrize(
    ("name", "good", "stray"),
    [
        ("crema-d", "AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1001_IEO_ANG_HI (1).wav"),
        ("crema-d", "AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1001-ANG.wav"),
        ("ravdess", "Actor_01/03-01-05-01-02-01-01.wav", "Actor_01/03-01-05-01-02-01-01 (1).wav"),
        ("emodb", "wav/03a01Wa.wav", "wav/angry.wav"),
        ("savee", "DC/a01.wav", "DC/a01 - Copy.wav"),
        ("tess", "OAF_back_angry.wav", "OAF_back_angry (1).wav"),
    ],
)
def test_a_stray_file_is_dropped_and_counted(tmp_path: Path, name: str, good: str, stray: str):
    """A second download or another file among the clips does not stop the corpus from being read."""
    write(tmp_path / "in" / good)
    write(tmp_path / "in" / stray)
    assert len(read(name, tmp_path / "in", tmp_path / "out")) == 1
    assert dropped(tmp_path / "out") == {"name is not of this corpus": 1}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("crema-d", ["AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1001_IEO_ANG_HI.WAV"]),
        ("ravdess", ["Actor_01/03-01-05-01-02-01-01.wav", "Actor_02/03-01-05-01-02-01-01.wav"]),
        ("emodb", ["wav/03a01Wa.wav", "wav/03a01Wa.WAV"]),
        ("savee", ["DC/a01.wav", "DC/a01.WAV"]),
        ("tess", ["angry/OAF_back_angry.wav", "copy/OAF_back_angry.wav"]),
    ],
)
def test_a_second_file_of_an_utterance_is_dropped_and_counted(tmp_path: Path, name: str, files: list[str]):
    """A copy of a clip in another folder, or with another case, does not stop the corpus from being read."""
    for file in files:
        write(tmp_path / "in" / file)
    assert len(read(name, tmp_path / "in", tmp_path / "out")) == 1
    assert dropped(tmp_path / "out") == {"id of an earlier utterance": 1}


def test_a_good_copy_of_a_broken_file_is_used(tmp_path: Path):
    """Only a file whose audio was read makes a second one of its utterance superfluous."""
    good = tmp_path / "in" / "copy" / "OAF_back_angry.wav"
    write(good)
    broken = tmp_path / "in" / "angry" / "OAF_back_angry.wav"
    broken.parent.mkdir()
    broken.write_bytes(good.read_bytes()[:20])
    (item,) = read("tess", tmp_path / "in", tmp_path / "out").values()
    assert Path(item.path).parent.name == "copy"
    assert dropped(tmp_path / "out") == {"audio cannot be read": 1}


def test_a_row_that_msp_podcast_lists_twice_is_dropped_and_counted(tmp_path: Path):
    """A table to which somebody appended a part again is read: the first row of a file counts."""
    write(tmp_path / "in" / "Audios" / "a.wav")
    (tmp_path / "in" / "Labels").mkdir()
    rows = "FileName,EmoClass,SpkrID,Gender,Split_Set\na.wav,A,30,Male,Test1\na.wav,N,30,Male,Test1\n"
    (tmp_path / "in" / "Labels" / "labels_consensus.csv").write_text(rows)
    (item,) = read("msp-podcast", tmp_path / "in", tmp_path / "out").values()
    assert item.label is Emotion.ANGER
    assert dropped(tmp_path / "out") == {"id of an earlier utterance": 1}


@pytest.mark.parametrize(
    ("folder", "detailed", "votes"),
    [
        (
            "Labels",
            'FileName,EmoDetail\n{0},"W1; Angry; Angry,Sad; A:4.0; V:3.0; D:4.0;"\n{0},W2; Sad; ; A:1.0;\n',
            True,
        ),
        ("Labels", "FileName,Workers,EmoClass_Major\n{0},W1,Angry\n{0},W2,Sad\n", True),
        ("labels", "FileName,EmoDetail\n{0},W1; Angry;\n{0},W2; Sad;\n", True),
        ("Labels", "Name,Emotion\n{0},Angry\n", False),
    ],
    ids=["1.7 to 1.11", "1.6 and 2.0", "1.9's folder", "an unknown form"],
)
def test_msp_podcast_votes_of_every_release(tmp_path: Path, folder: str, detailed: str, votes, caplog):
    """Votes are read in both published forms; in an unknown one the corpus is read without them, with a warning."""
    name = "MSP-PODCAST_0001_0008.wav"
    write(tmp_path / "in" / "Audios" / name)
    (tmp_path / "in" / folder).mkdir()
    (tmp_path / "in" / folder / "labels_consensus.csv").write_text(
        f"FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n{name},A,2.2,4.0,2.6,30,Male,Test1\n"
    )
    (tmp_path / "in" / folder / "labels_detailed.csv").write_text(detailed.format(name))
    (item,) = read("msp-podcast", tmp_path / "in", tmp_path / "out").values()
    assert item.votes == ({"anger": 1, "sadness": 1} if votes else {})
    assert ("no votes read" in caplog.text) is not votes


@pytest.mark.parametrize("name", sorted(set(CORPORA) - {"own"}))
def test_an_empty_folder_is_refused(tmp_path: Path, name: str):
    """A folder without the corpus is an error with the files that were expected."""
    with pytest.raises(ConfigurationError, match="as distributed"):
        read(name, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["ravdess", "emodb"])
def test_endings_may_be_upper_case(tmp_path: Path, name: str):
    """`.WAV` beside `.wav` is read as well: a part of the corpus is not left out in silence."""
    names = {"ravdess": "Actor_02/03-01-0{}-01-01-01-02", "emodb": "wav/03a0{}Wa"}[name]
    for number, ending in ((1, "wav"), (5, "WAV")):
        write(tmp_path / f"{names.format(number)}.{ending}")
    assert len(read(name, tmp_path, tmp_path / "out")) == 2


PODCAST = "FileName,EmoClass,SpkrID,Gender,Split_Set\na.wav,A,1,Male,Train\nb.wav,N,2,Female,Test1\n"


@pytest.mark.parametrize(
    "content",
    [
        PODCAST.encode("utf-8-sig"),
        PODCAST.encode("utf-16"),
        PODCAST.replace(",", ";").replace("\n", "\r\n").encode(),
        PODCAST.replace(",", ", ").encode(),
        (PODCAST + "x,b,c,d,e,f,g\nshort\n").encode(),
    ],
    ids=["mark", "UTF-16", "semicolons and CRLF", "spaces", "ragged rows"],
)
def test_tables_that_a_spreadsheet_has_saved_are_read(tmp_path: Path, content: bytes):
    """A mark at the beginning, another separator, spaces and rows of another length do not change the corpus."""
    for name in "ab":
        write(tmp_path / "Audios" / f"{name}.wav")
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Labels" / "labels_consensus.csv").write_bytes(content)
    items = read("msp-podcast", tmp_path, tmp_path / "out")
    assert {(item.id, str(item.label), item.split) for item in items.values()} == {
        ("a", "anger", "train"),
        ("b", "neutral", "test"),
    }


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("VideoDemographics.csv", "ActorID,Sex\n1001,Male\n1002,Jos\u00e9\n", "line 3: not UTF-8"),
        ("processedResults/tabulatedVotes.csv", ",A,fileName\n100001,NA,1001_DFA_ANG_XX\n", "row 1: votes are numbers"),
        (
            "processedResults/tabulatedVotes.csv",
            ",A,fileName\n100001,-1,1001_DFA_ANG_XX\n",
            "row 1: .*not -1",
        ),
        (
            "processedResults/tabulatedVotes.csv",
            ",A,fileName\n100001,nan,1001_DFA_ANG_XX\n",
            "row 1: .*not nan",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_with_its_line(tmp_path: Path, file: str, content: str, message: str):
    """Bytes of another encoding, and votes that are no numbers, name the file and the line."""
    write(tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=f"{file}, {message}"):
        read("crema-d", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "real", "stray"),
    [
        ("savee", "AudioData/DC/a01.wav", "AB_test.wav"),
        ("tess", "TESS/OAF_angry/OAF_back_angry.wav", "OAF_angry/OAF_test-take.wav"),
        ("emodb", "03a01Wa.wav", "wav/test.wav"),
        ("ravdess", "copy/Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-05-01-01-01-01 (1).wav"),
    ],
)
def test_a_stray_file_in_another_layout_does_not_hide_the_corpus(tmp_path: Path, name: str, real: str, stray: str):
    """Of the layouts of a corpus, one with its files counts; a stray file in an earlier one is dropped and counted."""
    root = tmp_path / "root"
    write(root / real.removeprefix("TESS/"))
    write(root / stray)
    assert len(read(name, root, tmp_path / "out")) == 1
    assert dropped(tmp_path / "out") == {"name is not of this corpus": 1}


def test_a_table_of_meld_that_no_program_can_read_is_an_error(tmp_path: Path):
    """A quotation mark that is never closed makes a field of the rest of the file: an error with the file."""
    for name in ("train", "dev", "test"):
        text = "Speaker,Emotion,Dialogue_ID,Utterance_ID\n" + '"Ross,joy,0,0\n' + "x" * 200_000
        (tmp_path / f"{name}_sent_emo.csv").write_text(text)
    (tmp_path / "train_splits").mkdir()
    csv.field_size_limit(1_000_000)  # as another library of the process leaves it
    with pytest.raises(ConfigurationError, match=r"train_sent_emo\.csv: field larger than"):
        list(CORPORA["meld"].find(tmp_path))
