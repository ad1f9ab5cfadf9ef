"""A summary as one self-contained HTML page with tables and pictures."""

import html as markup
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from callmood.worker.errors import ConfigurationError

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: 0 1rem 1rem 0; }
"""


_DARK: Final = 0.5  # a share whose cell needs light letters


def html(summary: Mapping[str, Any]) -> str:
    """The page of a summary by `row.summarise`.

    Raises:
        ConfigurationError: matplotlib is missing.
    """
    pooled = summary["pooled"]
    published = summary["published"]
    parts = [
        f"<h1>{markup.escape(summary['model'])}</h1>",
        f"<p>{markup.escape(summary['protocol'])}: {markup.escape(summary['meaning'])}.</p>",
        f"<p><strong>WA {summary['wa']:.2f} &plusmn; {summary['wa_std']:.2f} %</strong>, UA {summary['ua']:.2f} %,",
        f"over {len(summary['folds'])} folds. Published: {'none' if published is None else f'{published:.2f} %'}.",
        f"{markup.escape(summary['verdict'].capitalize())}.</p>",
        "<p>WA is the share of utterances that are right, UA the mean recall of the classes.</p>",
        _section("All test utterances", _pooled_table(pooled)),
        _section("Folds", _folds_table(summary["folds"])),
        "<h2>Confusion</h2>",
        table(
            ["true \\ predicted", *summary["labels"]],
            [[label, *row] for label, row in zip(summary["labels"], pooled["confusion"], strict=True)],
        ),
        *(_figure(draw, summary) for draw in (_draw_confusion, _draw_reliability, _draw_risk)),
        *(_section(f"By {name}", _slices_table(kinds)) for name, kinds in summary["slices"].items()),
    ]
    if summary["robustness"]:
        parts.append(_section("Over telephone lines", _slices_table(summary["robustness"])))
    return page(f"{summary['model']}: {summary['protocol']}", "\n".join(parts))


def page(title: str, body: str) -> str:
    """A document of a title, which is text, and a body, which is markup."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{markup.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _section(title: str, table: str) -> str:
    return f"<h2>{markup.escape(title)}</h2>\n{table}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of texts, which are escaped."""

    def cells(values: Sequence[Any], tag: str) -> str:
        return "".join(f"<{tag}>{markup.escape(str(value))}</{tag}>" for value in values)

    lines = [f"<tr>{cells(header, 'th')}</tr>", *(f"<tr>{cells(row, 'td')}</tr>" for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _pooled_table(pooled: Mapping[str, Any]) -> str:
    names = {"wa": "WA", "ua": "UA", "macro_f1": "macro-F1"}
    rows = [
        [
            shown,
            f"{100 * pooled[name]:.2f} %",
            "{:.2f} to {:.2f} %".format(*(100 * v for v in pooled["intervals"][name])),
        ]
        for name, shown in names.items()
    ]
    rows += [
        ["ECE", f"{pooled['ece']:.4f}", f"{pooled['ece_uncalibrated']:.4f} without temperature"],
        ["NLL", f"{pooled['nll']:.4f}", ""],
        ["Brier", f"{pooled['brier']:.4f}", ""],
    ]
    return table(["", "", "95 %, by speaker"], rows)


def _folds_table(folds: Sequence[Mapping[str, Any]]) -> str:
    names = ["utterances", "wa", "ua", "macro_f1", "ece_uncalibrated", "ece", "temperature", "coverage", "risk"]
    return table(["fold", *names], [[fold["fold"], *(fold[name] for name in names)] for fold in folds])


def _slices_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(next(iter(kinds.values())))
    return table(["", *names], [[kind, *figures.values()] for kind, figures in kinds.items()])


def _figure(draw: Callable[[Any, Mapping[str, Any]], None], summary: Mapping[str, Any]) -> str:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigurationError("the report needs matplotlib: pip install 'callmood[train]'") from error
    figure = Figure(figsize=(4, 3.5), layout="constrained")
    draw(figure.add_subplot(), summary)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return "<figure>" + text.getvalue()[text.getvalue().index("<svg") :] + "</figure>"


def _draw_confusion(axes: Any, summary: Mapping[str, Any]) -> None:
    counts = np.array(summary["pooled"]["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > _DARK else "black"
        axes.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", color=color)
    axes.set_xticks(range(len(counts)), summary["labels"], rotation=30)
    axes.set_yticks(range(len(counts)), summary["labels"])
    axes.set(xlabel="predicted", ylabel="true", title="confusion, by true class")


def _draw_reliability(axes: Any, summary: Mapping[str, Any]) -> None:
    confidence, accuracy, _ = zip(*summary["pooled"]["reliability"], strict=True)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(confidence, accuracy, marker="o")
    axes.set(xlabel="confidence", ylabel="accuracy", title="reliability, calibrated", xlim=(0, 1), ylim=(0, 1))


def _draw_risk(axes: Any, summary: Mapping[str, Any]) -> None:
    coverage, risk = zip(*summary["pooled"]["risk_coverage"], strict=True)
    axes.plot(coverage, risk)
    axes.set(xlabel="share with a label", ylabel="share of wrong labels", title="abstention", xlim=(0, 1))
