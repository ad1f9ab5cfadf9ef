"""Cut sampled utterances from the recordings of their calls, and write a list to label."""

import contextlib
import csv
import io
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from callmood.training import manifest, wav
from callmood.training.checkpoint import write_text
from callmood.training.corpora import own, sound
from callmood.training.corpora.found import Cut
from callmood.training.production.sample import Candidate, Chosen
from callmood.worker.errors import ConfigurationError

LIST: Final = "to-label.csv"
COLUMNS: Final = ("id", "path", "label", "speaker", "session", "split")
_TIMEOUT_S: Final = 60
_WEB: Final = ("http://", "https://")


class Recordings:
    """Where the recordings of calls are.

    Args:
        where: a folder with files named by call id, or a template of a path or URL with `{call_id}`, and with
            `{stream}` or `{channel}` where those have a file of their own.
        offset_s: time of the call's start in its recording.

    Raises:
        ConfigurationError: it is neither.
    """

    def __init__(self, where: str, offset_s: float = 0.0) -> None:
        self._offset_s = offset_s
        self._by_stem: dict[str, Path] | None = None
        self._template = where
        if "{" not in where:
            if not Path(where).is_dir():
                raise ConfigurationError(f"{where}: no such folder; a template has {{call_id}} in it")
            beside = sorted((path for path in Path(where).iterdir() if path.is_file()), reverse=True)
            beside.sort(key=lambda path: path.suffix.lower() in sound.ENDINGS)  # a recording wins over its notes
            self._by_stem = {path.stem: path for path in beside}
            return
        try:
            without = where.format(call_id="", stream="", channel="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigurationError(f"{where}: a template has {{call_id}}, {{stream}} and {{channel}} only") from error
        if without == where.format(call_id="x", stream="", channel=""):
            raise ConfigurationError(f"{where}: a template needs {{call_id}}")

    def cut(self, one: Candidate) -> tuple[sound.Pcm, int]:
        """Samples and rate of an utterance.

        Raises:
            DroppedError: the recording is missing or does not have it; the message is the reason.
        """
        start_s = one.start_s + self._offset_s
        if start_s < 0:
            raise sound.DroppedError("utterance begins before the recording")
        channel = None if "{channel}" in self._template else one.channel
        with self._file(one) as path:
            return sound.pcm(path, Cut(start_s, one.end_s + self._offset_s, channel))

    @contextlib.contextmanager
    def _file(self, one: Candidate) -> Iterator[Path]:
        if self._by_stem is not None:
            if one.call_id not in self._by_stem:
                raise sound.DroppedError("recording missing")
            yield self._by_stem[one.call_id]
            return
        if not self._template.startswith(_WEB):
            names = {"call_id": one.call_id, "stream": one.stream}
            if any(name != Path(name).name or name == ".." for name in names.values()):
                raise sound.DroppedError("call id or stream is no file name")
            yield Path(self._template.format(**names, channel=one.channel))
            return
        quoted = {
            "call_id": urllib.parse.quote(one.call_id, safe=""),
            "stream": urllib.parse.quote(one.stream, safe=""),
        }
        url = self._template.format(**quoted, channel=one.channel)
        with tempfile.NamedTemporaryFile(suffix=Path(urllib.parse.urlsplit(url).path).suffix) as file:
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http or https, see above
                    file.write(answer.read())
            except urllib.error.HTTPError as error:
                raise sound.DroppedError(f"recording cannot be fetched: status {error.code}") from error
            except (urllib.error.URLError, OSError) as error:
                raise sound.DroppedError(f"recording cannot be fetched: {error}") from error
            file.flush()
            yield Path(file.name)


def write(chosen: Sequence[Chosen], recordings: Recordings, out: Path) -> Counter[str]:
    """Write `audio/` and the list, in an order that reveals nothing; return what was dropped, by reason.

    Only the owner may read the folder: it has speech of customers.

    Raises:
        ConfigurationError: the folder has a list with labels.
    """
    if (out / LIST).exists() and any(row.get("label") for _, row in own.rows(out / LIST)):
        raise ConfigurationError(f"{out / LIST} has labels, and would be overwritten: choose another output folder")
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    dropped: Counter[str] = Counter()
    rows = []
    for one, split in sorted(chosen, key=lambda pair: manifest.file_name(pair.candidate.id)):
        try:
            samples, rate_hz = recordings.cut(one)
        except sound.DroppedError as error:
            dropped[str(error)] += 1
            continue
        path = Path("audio") / f"{manifest.file_name(one.id)}.wav"
        wav.write(out / path, rate_hz, samples.tobytes())
        rows.append(
            {"id": one.id, "path": path, "label": "", "speaker": one.speaker, "session": one.call_id, "split": split}
        )
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    write_text(out / LIST, text.getvalue())
    return dropped
