"""Which parameters learn, and how fast. Partial fine-tuning lives here and nowhere else."""

from typing import Any

from training.config import TrainConfig
from worker.model import EmotionModel


def parameter_groups(model: EmotionModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Freeze what `config.train` does not name; give the rest to the optimiser in two groups, encoder and head.

    `encoder` leaves the CNN front end as it is (the paper's partial fine-tuning), `all` trains it too, `head` trains
    the head alone.
    """
    frozen = {"all": (), "encoder": ("encoder.feature_extractor.",), "head": ("encoder.",)}[config.train]
    groups: dict[str, list[Any]] = {"encoder": [], "head": []}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
        if parameter.requires_grad:
            groups[name.split(".", 1)[0]].append(parameter)
    rates = {"encoder": config.encoder_lr, "head": config.head_lr}
    return [{"params": groups[name], "lr": rates[name], "full_lr": rates[name]} for name in groups if groups[name]]
