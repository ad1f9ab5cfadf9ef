"""The synthetic corpus: voices, sentences and splits, and that a seed gives the same corpus."""

import dataclasses
import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.training import config, manifest
from callmood.training.synthetic import prosody, speak, synthesize
from callmood.worker.errors import ConfigurationError

SOURCE = tomllib.loads(synthesize.SOURCE.read_text(encoding="utf-8"))
VOICE = speak.Voice("en", "f2")


@pytest.fixture
def parts() -> list[synthesize.Part]:
    """The whole corpus of the demo model, planned and not spoken."""
    demo = config.load(config.CONFIGS / "demo_tiny.toml")
    return list(synthesize.plan(SOURCE, demo.corpus))


def test_no_voice_and_no_sentence_is_in_two_splits(parts: list[synthesize.Part]):
    """Held-out means held out: neither the voice nor any of the words was trained on."""
    manifest.refuse_shared_speakers(part.item for part in parts)
    for field in ("voice", "sentences"):
        seen = {split: set() for split in manifest.SPLITS}
        for part in parts:
            value = getattr(part, field)
            seen[part.item.split] |= {value.variant} if field == "voice" else set(value)
        assert all(seen.values())
        assert not any(a & b for a, b in combinations(seen.values(), 2))


@pytest.mark.usefixtures("espeak")
def test_no_split_holds_a_near_copy_of_a_voice_of_another():
    """Two variants of different splits share less than half of the lines that define their sound."""
    folder = Path(speak._run("--version").decode().split("Data at:")[1].strip()) / "voices" / "!v"
    sound = (
        "formant",
        "pitch",
        "voicing",
        "consonants",
        "roughness",
        "flutter",
        "breath",
        "intonation",
        "echo",
        "tone",
        "klatt",
    )

    def lines(variant: str) -> set[str]:
        definition = (folder / variant).read_text().splitlines()
        return {line.strip() for line in definition if line.startswith(sound)}

    defined = [(split, lines(variant)) for split, variants in SOURCE["variants"].items() for variant in variants]
    pairs = [(a, b) for (one, a), (two, b) in combinations(defined, 2) if one != two]
    assert len(pairs) == 48 * 16 + 48 * 10 + 16 * 10
    assert max(len(a & b) / len(a | b) for a, b in pairs) < 0.5


def test_every_sentence_is_spoken_in_every_emotion(parts: list[synthesize.Part]):
    """The words say nothing about the label."""
    by_label = {
        emotion: [(part.voice, part.sentences) for part in parts if part.item.label == emotion] for emotion in EMOTIONS
    }
    assert len({tuple(spoken) for spoken in by_label.values()}) == 1


def test_every_utterance_has_its_own_name_and_seed(parts: list[synthesize.Part]):
    """No two utterances share a file or a seed."""
    assert len({part.item.path for part in parts}) == len({part.key for part in parts}) == len(parts) == 4832


def test_a_style_without_strength_is_near_neutral_and_never_negative():
    """Depths of modulation are at least zero, and at strength zero every emotion is the voice as it is on average."""
    rng = np.random.default_rng(1)
    drawn = [dataclasses.astuple(prosody.draw(emotion, rng, 0.0)) for emotion in EMOTIONS for _ in range(200)]
    names = [field.name for field in dataclasses.fields(prosody.Style)]
    for name, values in zip(names, np.array(drawn).T, strict=True):
        spread = getattr(prosody.SPREAD, name)
        assert abs(values.mean()) < spread / 2, name
        assert name not in ("roughness", "tremor", "vibrato_percent") or values.min() >= 0


@pytest.mark.usefixtures("espeak")
def test_the_same_seed_speaks_the_same_corpus(tmp_path: Path, tiny: config.Config):
    """Two corpora of one seed are equal byte by byte; another seed gives another one."""
    other = dataclasses.replace(tiny.corpus, seed=tiny.corpus.seed + 1)
    for name, corpus in (("a", tiny.corpus), ("b", tiny.corpus), ("c", other)):
        synthesize.synthesize(tmp_path / name, corpus)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 17  # 4 emotions x (2 + 1 + 1) and the manifest
    a, b, c = (
        [(tmp_path / name / file).read_bytes() for file in files if (tmp_path / name / file).exists()] for name in "abc"
    )
    assert a == b
    assert a != c


@pytest.mark.usefixtures("espeak")
def test_the_manifest_is_accepted_and_lengths_are_those_of_utterances(tmp_path: Path, tiny: config.Config):
    """What was made can be trained on: splits are sound, and lengths are those that the segmenter cuts."""
    items = manifest.read(synthesize.synthesize(tmp_path, tiny.corpus))
    assert {item.label for item in items} == set(EMOTIONS)
    assert all(0.3 < item.seconds < 15 for item in items)


@pytest.mark.usefixtures("espeak")
def test_two_variants_sound_different():
    """A voice is language and variant; espeak-ng drops the variant quietly when the language is an alias."""
    for language in SOURCE["languages"]:
        spoken = [speak.speak("No.", speak.Voice(language, variant), speak.Pitch()) for variant in ("f2", "adam")]
        assert spoken[0].shape != spoken[1].shape or not np.allclose(*spoken), language


@pytest.mark.usefixtures("espeak")
def test_the_rules_are_heard():
    """Sad speech is longer and duller than angry speech in the same words and voice."""
    spoken = {}
    for emotion in (Emotion.ANGER, Emotion.SADNESS):
        style = prosody.draw(emotion, np.random.default_rng(1), 1.0)
        spoken[emotion] = prosody.act(["I would like to change my tariff."], VOICE, style, np.random.default_rng(1))
    brightness = {emotion: np.mean(np.diff(samples) ** 2) / np.mean(samples**2) for emotion, samples in spoken.items()}
    assert spoken[Emotion.SADNESS].size > 1.2 * spoken[Emotion.ANGER].size
    assert brightness[Emotion.ANGER] > 2 * brightness[Emotion.SADNESS]


@pytest.mark.usefixtures("espeak")
def test_a_variant_that_is_not_installed_is_refused():
    """Without its variant a speaker would be another one, perhaps of another split."""
    with pytest.raises(ConfigurationError, match="no variant 'nobody'"):
        speak.speak("No.", speak.Voice("en", "nobody"), speak.Pitch())


def test_without_espeak_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A machine without espeak-ng gets the command that installs it."""
    speak._program.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="apt-get install espeak-ng") as caught:
        speak._program()
    assert "\n" not in str(caught.value)
