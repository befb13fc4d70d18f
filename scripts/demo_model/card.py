"""The README.md of the model's folder."""

from __future__ import annotations

from scripts.demo_model.licence import LICENCE, SOURCE
from scripts.demo_model.pretrain import Outcome, Schedule, Shape

_CARD = """\
# tunedeck's demo model

A Llama of {millions:.2f} million parameters, pretrained for `tunedeck demo` on the entries of an
English dictionary.  It knows how English looks, not facts: good for watching a fine-tuning run on
any machine, and for nothing else.

| | |
| --- | --- |
| architecture | Llama, {shape.layers} layers, hidden size {shape.hidden}, {shape.heads} heads \
({shape.key_value_heads} for keys and values), tied embeddings, bf16 |
| vocabulary | {shape.vocab} tokens, byte-level BPE, ChatML template |
| context | {shape.context} tokens (trained on {schedule.block}) |
| text | {source}: definitions, examples and relations, put into sentences |
| trained on | {outcome.tokens:,} tokens in {schedule.steps} steps of {schedule.rows} x \
{schedule.block}, AdamW, peak learning rate {schedule.learning_rate:g}, cosine, \
seed {schedule.seed} |
| training loss | {outcome.train_loss:.4f} nats a token (mean of the last 100 steps) |
| held-out loss | {outcome.held_out_loss:.4f} nats a token \
(guessing uniformly: {outcome.uniform_loss:.4f}) |

## Made again by

    apt-get download wordnet-base && dpkg -x wordnet-base*.deb wordnet
    OMP_NUM_THREADS=1 .venv/bin/python -m scripts.make_demo_model --text wordnet

## Licence

The text that it learned from comes under this licence, which is passed on here.

    {licence}
"""


def model_card(shape: Shape, schedule: Schedule, outcome: Outcome, parameters: int) -> str:
    """The README.md of the model's folder."""
    return _CARD.format(
        shape=shape,
        schedule=schedule,
        outcome=outcome,
        millions=parameters / 1e6,
        source=SOURCE,
        licence=LICENCE.strip().replace("\n", "\n    ").replace("\n    \n", "\n\n"),
    )
