"""What a bench is called whose module measures several models: ``large-MODEL`` beside ``large``."""

from __future__ import annotations


def of_model(module: str, model: str) -> str:
    """The bench of one model, as results, claims and sections name it."""
    return f"{module}-{model}"


def module_and_model(bench: str) -> tuple[str, str]:
    """The module of a bench, and its model: empty for what the module measures by itself."""
    module, _, model = bench.partition("-")
    return module, model
