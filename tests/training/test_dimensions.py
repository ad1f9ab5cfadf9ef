"""Valence, arousal and dominance: read from corpora and lists, learned beside the emotions, absent from bundles."""

import dataclasses
import json
from pathlib import Path

import iemocap_tree
import numpy as np
import pytest
import torch
from tiny import LARGE, SIZE

from callmood.training import config, manifest, wav
from callmood.training.__main__ import main
from callmood.training.corpora import iemocap, podcast
from callmood.training.corpora.found import dimensions_of
from callmood.training.loop import runs
from callmood.training.loop.data import Clip, collate
from callmood.training.loop.loop import Loop
from callmood.training.loop.loss import Loss, LossWithDimensions, concordance
from callmood.training.loop.place import Place
from callmood.training.loop.train import Emotions
from callmood.training.networks.dimensions import served
from callmood.training.options import LossConfig
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import load

NAN = float("nan")
LIST = """path,label,speaker,split,valence,arousal,dominance
a.wav,anger,a,train,0.1,0.9,
b.wav,neutral,b,train,,,
c.wav,sadness,c,train,0.2,0.1,0.3
d.wav,happiness,d,train,0.9,0.7,0.6
e.wav,anger,e,valid,,,
f.wav,neutral,f,test,0.5,0.5,0.5
"""


def test_a_scale_becomes_0_to_1():
    """A scale from 1 to 5 begins at 0; what is no number is left out, and what is beyond the scale gets its end."""
    assert dimensions_of(("3.0", "2", "5"), 5) == {"valence": 0.5, "arousal": 0.25, "dominance": 1.0}
    assert dimensions_of(("", "nan", "5.5"), 5) == {"dominance": 1.0}
    assert dimensions_of((), 5) == {}


def test_corpora_have_them_on_a_common_scale(tmp_path: Path):
    """IEMOCAP's line (valence, activation, dominance, 1 to 5) and the columns of MSP-Podcast (1 to 7) are read."""
    tree = iemocap_tree.write(tmp_path / "iemocap", iemocap_tree.small(1))
    assert {tuple(found.dimensions.values()) for found in iemocap.find(tree)} == {(0.375, 0.375, 0.375)}
    labels = tmp_path / "msp" / "Labels"
    labels.mkdir(parents=True)
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    row = "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1"
    (labels / "labels_consensus.csv").write_text(f"{header}\n{row}\n")
    (found,) = podcast.find(tmp_path / "msp")
    assert found.dimensions == {"valence": 0.5, "arousal": 0.2, "dominance": 0.2667}


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """An own list in which some utterances have some dimensions."""
    rng = np.random.default_rng(2)
    for name in "abcdef":
        wav.write(tmp_path / f"{name}.wav", 8000, (rng.normal(size=4000) * 3000).astype("<i2").tobytes())
    (tmp_path / "list.csv").write_text(LIST)
    return tmp_path / "list.csv"


def prepared(listed: Path) -> Path:
    assert main(["prepare", "own", str(listed), str(listed.parent / "data")]) == 0
    return listed.parent / "data" / "manifest.jsonl"


def test_an_own_list_has_them_from_0_to_1(listed: Path):
    """A manifest keeps what a row has; empty cells are no values."""
    items = manifest.read(prepared(listed))
    assert [len(item.dimensions) for item in items] == [2, 0, 3, 3, 0, 3]
    assert items[0].levels[:2] == (0.1, 0.9)
    assert np.isnan(items[0].levels[2])
    assert items[1].levels == ()


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "high"])
def test_a_value_off_the_scale_is_refused(listed: Path, value: str, capsys: pytest.CaptureFixture[str]):
    """A list with a value outside 0 to 1 is an error with its row."""
    listed.write_text(LIST.replace("0.2,0.1,0.3", f"0.2,{value},0.3"))
    assert main(["prepare", "own", str(listed), str(listed.parent / "data")]) == 2
    assert f"row 3: arousal is '{value}': use a number from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("dimensions", [{"arousal": 2}, {"energy": 0.5}, {"arousal": NAN}, {"arousal": "x"}, [0.5]])
def test_a_manifest_with_other_dimensions_is_refused(listed: Path, dimensions: object):
    """Unknown names, values outside 0 to 1 and other types are errors with the line."""
    path = prepared(listed)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "dimensions": dimensions}), *rest]))
    with pytest.raises(ConfigurationError, match="line 1"):
        manifest.read(path)


def test_concordance_is_lins():
    """As by the definition of 1989: 1 for equal values, -1 for opposite ones, and a shift lowers it."""
    rng = np.random.default_rng(4)
    found = rng.normal(size=50)
    true = found + rng.normal(size=50)
    covariance = np.cov(found, true, bias=True)
    expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (found.mean() - true.mean()) ** 2)
    values = torch.tensor(found)
    assert float(concordance(values, torch.tensor(true))) == pytest.approx(expected)
    assert float(concordance(values, values)) == pytest.approx(1)
    assert float(concordance(values - values.mean(), values.mean() - values)) == pytest.approx(-1)
    assert float(concordance(values + 1, values)) < 1


def clips(*levels: tuple[float, ...]) -> list[Clip]:
    """A clip for each of these levels: the higher the first level, the more tone and the less noise."""
    rng, made = np.random.default_rng(3), []
    for number, own in enumerate(levels):
        share = own[0] if own else 0.5
        sound = rng.normal(size=4000) * (1 - share) + 2 * np.sin(np.arange(4000) * 0.6) * share
        made.append(Clip(8000, (sound * 3000).astype("<i2").tobytes(), number % 4, levels=own))
    return made


def test_missing_values_do_not_count():
    """Each dimension is compared on the clips that have it; where fewer than two have one, emotions alone count."""
    heard = clips((0.1, 0.9, NAN), (), (0.5, NAN, NAN), (0.9, NAN, 0.3))
    batch = collate(heard)
    logits, levels = torch.randn(4, 4), torch.rand(4, 3, requires_grad=True)
    plain, both = Loss(LossConfig(), heard), LossWithDimensions(LossConfig(dimensions=0.5), heard)
    loss = both((logits, levels), batch)
    rows = [0, 2, 3]
    expected = 1 - concordance(levels[rows, 0], torch.tensor([0.1, 0.5, 0.9]))
    assert loss.item() == pytest.approx((plain(logits, batch) + 0.5 * expected).item(), abs=1e-6)
    loss.backward()
    assert (levels.grad != 0).tolist() == [[row in rows, False, False] for row in range(4)]
    few = collate(heard[:2])
    assert both((logits[:2], levels[:2]), few).item() == pytest.approx(plain(logits[:2], few).item())


def test_the_task_is_learned_beside_the_emotions():
    """Predicted levels come to agree with the true ones; the layer of the task has the rate of the head."""
    rates = ["train.batch_size=8", "train.encoder_lr=3e-3", "train.head_lr=3e-3", "train.epochs=25"]
    settings = config.load(config.find("PF-hbt-large"), [*rates, "loss.dimensions=1.0"])
    encoder = {"model_type": "hubert", **SIZE, **LARGE}
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, pretrained="", encoder=encoder))
    heard = clips(*((i / 15, 1 - i / 15, NAN) for i in range(16)))
    model = runs.build(settings)
    task = Emotions(model, settings, heard, heard)
    loop = Loop(model, task, settings.train, Place())
    assert any(model.dimensions.weight is one for one in loop._optimizer.param_groups[-1]["params"])
    batch = collate(heard)
    before, after = [], []
    for figures in (before, after):
        with torch.inference_mode():
            _, levels = task.net.eval()(batch.waveforms, batch.lengths)
        figures += [float(concordance(levels[:, i], batch.levels[:, i])) for i in range(2)]
        if figures is before:
            loop.run()
            model.load_state_dict(loop._state()["best"])
    assert min(after) > 0.3 + max(before), (before, after)


def test_without_dimensions_in_training_the_option_is_refused():
    """A weight for what no training utterance has would do nothing, and is an error."""
    with pytest.raises(ConfigurationError, match="no training utterance has valence or arousal or dominance"):
        LossWithDimensions(LossConfig(dimensions=0.5), clips((), ()))
    with pytest.raises(ConfigurationError, match="dimensions is -1"):
        LossConfig(dimensions=-1)
    with pytest.raises(ConfigurationError, match=r"loss\.dimensions needs an encoder"):
        config.load(config.find("AttentionPooling"), ["loss.dimensions=0.5"])
    with pytest.raises(ConfigurationError, match=r"loss\.dimensions has no effect on a frozen encoder"):
        config.load(config.find("Frozen-hbt-base"), ["loss.dimensions=0.5"])


def test_a_bundle_has_no_layer_of_the_task(encoder_folder, listed: Path):
    """`train` ends with a bundle that the worker loads; the run's checkpoint has the layer, and resumes with it."""
    command = ["train", "PF-hbt-large", str(prepared(listed)), str(listed.parent / "model")]
    command += [
        "--encoder",
        str(encoder_folder("hbt-large")),
        "--set",
        "loss.dimensions=0.5",
        "--set",
        "train.epochs=1",
    ]
    assert main(command) == 0
    weights = torch.load(listed.parent / "model.run" / "checkpoint.pt", weights_only=True)["best"]
    assert weights.keys() - served(weights).keys() == {"dimensions.weight", "dimensions.bias"}
    assert load(listed.parent / "model").state_dict().keys() == served(weights).keys()
    assert main([*command, "--resume"]) == 0
