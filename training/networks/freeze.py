"""Selects the parameters that learn, and their learning rates. Only this module freezes parameters."""

import re
from typing import Any

from torch import nn

from callmood.training.networks.lora import is_adapter
from callmood.training.options import TrainConfig
from callmood.worker.errors import ConfigurationError

_CNN = "encoder.feature_extractor."
_LAYER = re.compile(r"^encoder\.encoder\.layers\.(\d+)\.")
_NORM = "encoder.encoder.layer_norm."


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Freeze what `config` does not name; return the rest in groups by learning rate, encoder first.

    `train = "encoder"` freezes the CNN front end (the paper's partial fine-tuning), `all` trains it too, `head` trains
    the head alone. `freeze_layers` freezes everything below that transformer layer as well. With adapters, nothing else
    of the encoder learns. All parameters of a model without an encoder count as head.

    Raises:
        ConfigurationError: `freeze_layers` is more than the encoder has.
    """
    depths = _depths(model)
    top = max(depths.values(), default=0)
    if config.freeze_layers > top + 1:
        raise ConfigurationError(f"train.freeze_layers is {config.freeze_layers}; the encoder has {top + 1} layers")
    has_adapters = any(map(is_adapter, depths))
    groups: dict[float, list[Any]] = {}
    head: list[Any] = []
    for name, parameter in model.named_parameters():
        if name not in depths:
            parameter.requires_grad_(True)
            head.append(parameter)
            continue
        frozen = config.train == "head" or (config.train == "encoder" and name.startswith(_CNN))
        if has_adapters:
            frozen = not is_adapter(name)
        parameter.requires_grad_(not frozen and (config.freeze_layers == 0 or depths[name] >= config.freeze_layers))
        if parameter.requires_grad:
            rate = config.encoder_lr * config.layer_decay ** (top - depths[name])
            groups.setdefault(rate, []).append(parameter)
    rates = [*sorted(groups.items()), (config.head_lr, head)]
    return [{"params": parameters, "lr": rate, "full_lr": rate} for rate, parameters in rates]


def _depths(model: nn.Module) -> dict[str, int]:
    """The transformer layer that each of the encoder's parameters belongs to; -1 below the first.

    The final norm of large-type encoders counts to the last layer.
    """
    depths: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if name.startswith("encoder."):
            match = _LAYER.match(name)
            depths[name] = int(match[1]) if match else -1
    encoder: Any = getattr(model, "encoder", None)
    if encoder is not None and encoder.config.do_stable_layer_norm:
        top = max(depths.values())
        depths.update({name: top for name in depths if name.startswith(_NORM)})
    return depths
