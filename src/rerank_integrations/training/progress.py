"""Progress of a fit on the standard error stream, in place of the lines that the trainer writes among the results."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import ProgressCallback, TrainerCallback


class _Bar(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit=" steps", disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()


def show_progress(trainer: Any) -> None:
    """Give a `transformers.Trainer` a bar with the newest loss."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Bar())
