"""IEMOCAP, on a folder of the same shape: the whole published table, and the traps in its names."""

from collections import Counter
from pathlib import Path

import iemocap_tree
import pytest

from callmood.schemas.common import Emotion
from callmood.training import manifest
from callmood.training.corpora import iemocap, prepare
from callmood.worker.errors import ConfigurationError

# Session: total, neutral, happiness, anger, sadness, improvised, scripted, by women, by men.
PUBLISHED = {
    "01": (1085, 384, 278, 229, 194, 521, 564, 528, 557),
    "02": (1023, 362, 327, 137, 197, 530, 493, 481, 542),
    "03": (1151, 320, 286, 240, 305, 627, 524, 522, 629),
    "04": (1031, 258, 303, 327, 143, 534, 497, 528, 503),
    "05": (1241, 384, 442, 170, 245, 731, 510, 590, 651),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All names of the corpus, with short audio."""
    return iemocap_tree.write(tmp_path_factory.mktemp("iemocap"), iemocap_tree.whole(), seconds=0.1)


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `prepare` wrote of all of it."""
    return prepare.prepare(iemocap.CORPUS, tree, tmp_path_factory.mktemp("whole"), prepare.Options()).parent


@pytest.fixture(scope="module")
def items(whole: Path) -> list[manifest.Item]:
    """Its utterances."""
    return manifest.read_any(whole / prepare.MANIFEST)


def prepared(tree: Path, out: Path, options: prepare.Options | None = None) -> list[manifest.Item]:
    return manifest.read_any(prepare.prepare(iemocap.CORPUS, tree, out, options or prepare.Options()))


def test_every_margin_of_the_published_table_is_found(items: list[manifest.Item]):
    """5,531 utterances; per session the classes, the styles and the speakers are those of the published lists."""
    found = {}
    for session in PUBLISHED:
        own = [item for item in items if item.session == session]
        labels, styles = Counter(item.label for item in own), Counter(item.style for item in own)
        genders = Counter(item.gender for item in own)
        order = (Emotion.NEUTRAL, Emotion.HAPPINESS, Emotion.ANGER, Emotion.SADNESS)
        counts = (labels[emotion] for emotion in order)
        found[session] = (len(own), *counts, styles["improvised"], styles["scripted"], genders["F"], genders["M"])
    assert found == PUBLISHED
    assert len(items) == 5531
    assert len({item.speaker for item in items}) == 10


def test_other_classes_are_dropped_and_reported(whole: Path, items: list[manifest.Item]):
    """Frustration and no agreement are counted in the report, by their own names."""
    report = prepare.json.loads((whole / prepare.REPORT).read_text())
    assert report["utterances"] == len(items)
    assert {reason: counted["utterances"] for reason, counted in report["dropped"].items()} == {
        "label fru": 20,
        "label xxx": 20,
    }


def test_the_speaker_is_the_last_letter_whatever_the_name(items: list[manifest.Item]):
    """The last letter is the speaker, also where an extra letter in the name shifts what follows."""
    for item in items:
        assert item.speaker == f"{item.id[:5]}{item.id.rpartition('_')[2][0]}"


def test_the_speakers_of_2021_are_wrong_for_65_utterances(tree: Path, items: list[manifest.Item], tmp_path: Path):
    """In compatibility, the fixed position gives 65 utterances by women to the man of their session: 56 and 9."""
    right = {item.id: item.speaker for item in items}
    of_2021 = prepared(tree, tmp_path, prepare.Options(speakers_of_2021=True))
    wrong = Counter(item.session for item in of_2021 if item.speaker != right[item.id])
    assert wrong == {"03": 56, "05": 9}
    assert all(item.speaker.endswith("M") for item in of_2021 if item.speaker != right[item.id])


def test_a_release_that_is_not_whole_is_refused_by_session(tmp_path: Path):
    """Missing utterances are an error with the counts by session, unless the corpus is declared partial."""
    tree = iemocap_tree.write(tmp_path / "tree", iemocap_tree.small(1))
    with pytest.raises(ConfigurationError, match=r"5531 .* this folder has 40 .*session 01: 8 of 1085"):
        prepared(tree, tmp_path / "out")
    assert len(prepared(tree, tmp_path / "out", prepare.Options(partial=True))) == 40


def test_missing_audio_is_dropped_and_counted(tmp_path: Path):
    """An utterance without its file is dropped with that reason."""
    tree = iemocap_tree.write(tmp_path / "tree", iemocap_tree.small(1))
    next(tree.rglob("Ses01F_script01_1_F000.wav")).unlink()
    items = prepared(tree, tmp_path / "out", prepare.Options(partial=True))
    report = prepare.json.loads((tmp_path / "out" / prepare.REPORT).read_text())
    assert len(items) == 39
    assert report["dropped"]["audio missing"] == {"utterances": 1, "examples": ["Ses01F_script01_1_F000"]}


@pytest.mark.parametrize("name", ["Ses01F_impro01_X000", "session_one"])
def test_a_name_that_cannot_be_read_is_dropped_and_counted(tmp_path: Path, name: str):
    """A line whose name has no speaker costs itself: guessing would put it into the wrong fold."""
    tree = iemocap_tree.write(tmp_path / "tree", iemocap_tree.small(1))
    path = next(tree.glob("Session1/dialog/EmoEvaluation/Ses*.txt"))
    path.write_text(path.read_text() + f"[1.0 - 2.0]\t{name}\tneu\t[2.5, 2.5, 2.5]\n")
    assert len(prepared(tree, tmp_path / "out", prepare.Options(partial=True))) == 40
    report = prepare.json.loads((tmp_path / "out" / prepare.REPORT).read_text())
    assert report["dropped"]["name is not of this corpus"] == {"utterances": 1, "examples": [name]}


def test_another_folder_is_refused(tmp_path: Path):
    """A folder that is not the release is an error with the files that were expected."""
    with pytest.raises(ConfigurationError, match="EmoEvaluation"):
        prepared(tmp_path, tmp_path / "out")
