"""The forecast that is there at once: a sum of formulas, in about a millisecond, without torch.

What stays (weights, gradients, states) is counted from the architecture. What comes and goes is one pass of a layer and
of the loss over a `Tape`, which says what each operation saves in the regime of the profile: layers of one kind are
alike, so that one of each is enough.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.data_size import batch_width
from core.memory.estimate.context import context_of, cublas_workspace
from core.memory.estimate.passes import (
    Batch,
    Kind,
    LayerCost,
    TailCost,
    layer_cost,
    residual_width,
    tail_cost,
)
from core.memory.estimate.regime import Regime, decide
from core.memory.estimate.sharing import sharing
from core.memory.estimate.stages import (
    as_trained,
    cache_of_answers,
    further_models,
    needs_of,
    note_of,
)
from core.memory.estimate.states import (
    EMBEDDINGS,
    HEADS,
    base_weights,
    optimizer_states,
    rounded,
    size_of,
    trained_groups,
    update_scratch,
)
from core.memory.estimate.tape import LABELS, Peak
from core.memory.forecast import CATEGORIES, Category, Forecast, Lengths, Moment, Target
from core.memory.models.shape import Architecture
from core.optimizer_settings import PROJECTED
from core.profile import Profile

Held = dict[Category, int]


def estimate(
    profile: Profile, architecture: Architecture, target: Target, lengths: Lengths | None = None
) -> Forecast:
    """What a run of `profile` needs at most on `target`; without `lengths`, rows are as long as data.cutoff_len."""
    lengths = lengths or Lengths.bound(profile)
    regime = decide(profile, architecture, target, padded=lengths.padded)
    run = _Run(profile, architecture, target, regime, lengths)
    run.load()
    run.train()
    run.evaluate()
    return run.forecast()


@dataclass(slots=True)
class _Most:
    """The most of a moment."""

    size: int = 0
    parts: Held = field(default_factory=dict)


class _Run:
    """Goes through the moments of a run and notes the most of each."""

    def __init__(
        self,
        profile: Profile,
        shape: Architecture,
        target: Target,
        regime: Regime,
        lengths: Lengths,
    ) -> None:
        self._profile = profile
        self._needs = needs_of(profile)
        self._shape = shape = as_trained(profile, shape)
        self._target = target
        self._regime = regime
        self._lengths = lengths
        self._groups = trained_groups(shape, regime, profile.method)
        self._sharing = sharing(profile, shape, regime, self._groups)
        self._moments: dict[Moment, _Most] = {}
        self._held = self._what_stays()

    # What is there --------------------------------------------------------------------------------------------------

    def _what_stays(self) -> Held:
        """Weights and states, from the second update on: this GPU's share of them."""
        profile, regime, shared = self._profile, self._regime, self._sharing
        adapters = size_of(self._groups, regime.trained) if regime.method == "lora" else 0
        states = optimizer_states(self._groups, profile.train, regime.trained, cuda=regime.cuda)
        weights = base_weights(self._shape, regime, profile.method)
        further = further_models(profile, self._shape, regime)
        return {
            "weights": weights // shared.weights + further,
            "adapters": adapters // shared.weights,
            "optimizer": states // shared.states,
            "workspace": 2 * cublas_workspace(self._target),
        }

    def load(self) -> None:
        """Weights arrive one by one; one that is quantised arrives in 16 bits first."""
        regime, shape = self._regime, self._shape
        weights = self._held["weights"]
        largest = max((m.weight for m in shape.linears), default=0)
        arriving = largest * 2 if regime.bits < 16 else 0
        self._note("load", {"weights": weights + arriving})
        # peft makes adapters in fp32; they are cast after.
        made = self._held["adapters"] * 4 // regime.trained
        pissa = self._profile.method.pissa_init and regime.method == "lora"
        # A weight in fp32, what is left of it, and the product between; the exact decomposition makes three as large.
        exact = self._profile.method.pissa_iter < 0
        taken = rounded(4 * largest) * (6 if exact else 3) if pissa else 0
        self._note("load", {"weights": weights, "adapters": made, "workspace": taken})

    # Training -------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """An update with states there, the last of its batches with gradients there."""
        profile, regime = self._profile, self._regime
        train = profile.train
        gradients = size_of(self._groups, regime.trained)
        shared = self._sharing
        kept = gradients if shared.buckets is None else shared.buckets
        accumulated = train.gradient_accumulation_steps > 1 or shared.buckets is not None
        rows, width = train.per_device_train_batch_size, self._width_of(self._lengths.train)
        batch = Batch(
            rows=rows * self._needs.rows,
            length=width,
            chunk=self._chunk(),
            accumulated=accumulated,
            offload=train.offload_activations and regime.cuda,
            answers=self._answers(),
            fused=self._fused(rows, width),
        )
        inputs = 3 * rounded(8 * batch.tokens) * train.gradient_accumulation_steps
        held = self._computing()
        held["activations"] = inputs
        if accumulated:
            held["gradients"] = kept + shared.passing
        _Passes(self._shape, regime, self._profile, batch, held, self._note).run()
        updating = dict(self._held)
        updating["activations"] = inputs
        updating["gradients"] = kept
        scratch = update_scratch(self._groups, train, regime.trained, cuda=regime.cuda)
        updating["workspace"] += scratch // shared.states
        self._note("optimizer", updating)

    def evaluate(self) -> None:
        """Forward alone, without gradients. Stage ppo does so with the answers of every round."""
        train = self._profile.train
        longest = self._lengths.evaluation
        if self._needs.drawn:
            longest = max(longest, self._lengths.train)
        if not longest:
            return
        rows = train.per_device_eval_batch_size or train.per_device_train_batch_size
        width = self._width_of(longest)
        batch = Batch(
            rows=rows * self._needs.rows,
            length=width,
            chunk=self._chunk(),
            answers=self._answers(),
            fused=self._fused(rows, width),
        )
        if self._needs.drawn:
            self._draw(batch)
        held = self._computing()
        held["activations"] = 3 * rounded(8 * batch.tokens)
        if self._sharing.weights == 1 and self._sharing.buckets:
            held["gradients"] = self._sharing.buckets

        def note(_: Moment, parts: Held) -> None:
            self._note("eval", parts)

        _Passes(self._shape, self._regime, self._profile, batch, held, note, training=False).run()

    def _width_of(self, longest: int) -> int:
        """How wide a batch is whose longest row has so many tokens, and what is drawn behind it."""
        drawn = self._needs.drawn
        return _padded(longest, self._profile, self._regime) + drawn

    def _chunk(self) -> int | None:
        """Tokens whose scores exist at once; None for all of a batch."""
        return self._profile.train.loss_chunk_tokens if self._needs.tail == "tokens" else None

    def _fused(self, rows: int, width: int) -> int | None:
        """Tokens that TRL's fused head scores of a batch with `rows` rows of the data."""
        if self._needs.tail != "fused":
            return None
        some = rows * self._needs.rows * (width - 1)
        return min(some, rows * self._lengths.learnt) if self._lengths.learnt else some

    def _answers(self) -> int | None:
        """Tokens of a row that are scored where not all are: what is drawn, and the one before it."""
        return self._needs.drawn + 1 if self._needs.tail == "answers" else None

    def _draw(self, batch: Batch) -> None:
        """Answers that are drawn: a token at a time, from keys and values that are kept of all before it."""
        shape = self._shape
        held = self._computing()
        held["activations"] = cache_of_answers(shape, self._regime, batch.rows, batch.length)
        # The scores of the last token in the model's numbers, in fp32, sorted and as shares.
        held["logits"] = batch.rows * shape.vocabulary * (self._regime.weight + 3 * 4)
        self._note("eval", held)

    def _computing(self) -> Held:
        """What stays, and the weights that are whole while layers compute."""
        held = dict(self._held)
        held["weights"] += self._sharing.gathered
        return held

    def _note(self, moment: Moment, parts: Held) -> None:
        size = sum(parts.values())
        if moment not in self._moments or size > self._moments[moment].size:
            self._moments[moment] = _Most(size, parts)

    # The result -----------------------------------------------------------------------------------------------------

    def forecast(self) -> Forecast:
        """The most of all moments."""
        peak = max(self._moments, key=lambda m: self._moments[m].size)
        most = self._moments[peak]
        needed, reserved = _with_fragments(most.size, self._profile, self._target)
        quantized = self._regime.bits < 16 or self._profile.train.optim.endswith("bit")
        stateful = self._held["optimizer"] > 0
        return Forecast(
            tier="estimate",
            allocated=most.size,
            reserved=reserved,
            needed=needed,
            context=context_of(self._target, quantized=quantized) + self._sharing.context,
            parts={c: most.parts[c] for c in CATEGORIES if most.parts.get(c)},
            moments={m: held.size for m, held in self._moments.items()},
            peak=peak,
            peak_step={"load": 0, "optimizer": 1}.get(peak, 2 if stateful else 1),
            notes=_notes(self._profile, self._shape, self._regime, self._sharing.note),
        )


class _Passes:
    """One forward and one backward pass through the whole model."""

    def __init__(
        self,
        shape: Architecture,
        regime: Regime,
        profile: Profile,
        batch: Batch,
        held: Held,
        note: Callable[[Moment, Held], None],
        *,
        training: bool = True,
    ) -> None:
        self._shape = shape
        self._regime = regime
        self._batch = batch
        self._held = held
        self._note = note
        self._training = training
        self._plan = _Plan.of(shape, regime, profile)
        self._width = residual_width(regime, embedding_trains=self._plan.embedding)
        self._costs: dict[Kind, LayerCost] = {}
        self._all_held = sum(held.values())
        self._most: dict[Moment, int] = {}

    def run(self) -> None:
        """Note the most of both passes."""
        kept = [0] * len(LABELS)
        copies = 0
        kinds = self._plan.layers
        entry = self._entry()
        self._add("forward", kept, Peak(entry, [entry, 0, 0, 0]))
        for kind in kinds:
            cost = self._cost(kind)
            self._add("forward", kept, cost.forward, copies + entry)
            kept = [a + b for a, b in zip(kept, cost.kept, strict=True)]
            copies += cost.copies
        tail = self._tail()
        self._add("forward", kept, tail.forward, copies + entry)
        self._add("forward", kept, tail.after)
        if self._training:
            self._backward(kinds, kept, tail)

    def _backward(self, kinds: "Sequence[Kind]", kept: list[int], tail: TailCost) -> None:
        gradients = 0
        mask = self._mask() if any(k.forgets for k in kinds) else 0
        self._add("backward", kept, tail.backward, mask)
        gradients += tail.gradients
        for kind in reversed(kinds):
            if not (kind.trains or kind.flows):
                break
            cost = self._cost(kind)
            kept = [a - b for a, b in zip(kept, cost.kept, strict=True)]
            self._add("backward", kept, cost.backward, mask, gradients)
            gradients += cost.gradients
        if self._plan.embedding:
            self._embedding_backward(kept, mask, gradients)

    def _embedding_backward(self, kept: list[int], mask: int, gradients: int) -> None:
        """The embeddings' gradient is as large as they are; where they are the head too, the sum of both is made."""
        shape, tokens = self._shape, self._batch.tokens
        flow = tokens * shape.hidden * self._width
        size = rounded(shape.embedding * self._regime.trained)
        made = size * (2 if shape.tied else 1)
        # Embedding.cu: above 3072 tokens they are sorted, and each ten of one kind are summed in fp32 first.
        sums = 24 * tokens + 4 * shape.hidden * (tokens // 10 + min(tokens, shape.vocabulary))
        work = sums if self._regime.cuda and tokens > 3072 else 0
        peak = max(
            Peak(flow + made, [flow, 0, 0, made]),
            Peak(flow + work + size, [flow + work, 0, 0, size]),
            key=lambda peak: peak.size,
        )
        self._add("backward", kept, peak, mask, gradients)

    def _add(
        self, moment: Moment, kept: list[int], peak: Peak, more: int = 0, gradients: int = 0
    ) -> None:
        size = self._all_held + sum(kept) + peak.size + more + gradients
        if size <= self._most.get(moment, -1):
            return
        self._most[moment] = size
        parts = dict(self._held)
        for label, base, top in zip(LABELS, kept, peak.parts, strict=True):
            parts[label] = parts.get(label, 0) + base + top
        parts["activations"] += more
        parts["gradients"] = parts.get("gradients", 0) + gradients
        self._note(moment, parts)

    def _cost(self, kind: Kind) -> LayerCost:
        if not self._training:
            # Forward alone, they differ in their weights at most.
            kind = Kind(kind.trains, flows=False, forgets=False)
        found = self._costs.get(kind)
        if found is None:
            found = layer_cost(
                self._shape, self._regime, self._batch, kind, self._width, training=self._training
            )
            self._costs[kind] = found
        return found

    def _tail(self) -> TailCost:
        plan = self._plan
        last = plan.layers[-1]
        return tail_cost(
            self._shape,
            self._regime,
            self._batch,
            self._width,
            head_trains=plan.head or self._shape.scored,
            norm_trains=plan.norm,
            flows=self._training and (last.trains or last.flows),
            head_waits=plan.embedding and self._shape.tied,
            training=self._training,
        )

    def _mask(self) -> int:
        """The masks that the layers share, one for those with a window and one for the others: one byte a pair of
        tokens, or a number for eager attention."""
        if not self._regime.masked or self._regime.kernel == "flash":
            return 0
        width = self._regime.weight if self._regime.kernel == "eager" else 1
        kinds = 2 if 0 < self._shape.windowed < 1 else 1
        return kinds * rounded(self._batch.tokens * self._batch.length * width)

    def _entry(self) -> int:
        """Mask and rotary positions, alive as long as the decoder runs; without gradients, the embeddings and the
        layer's input too."""
        rotary = 2 * self._batch.length * self._shape.head_dim * self._width
        # In training they are saved as the layers' inputs. Without, they are there as the decoder's code names them.
        named = 0 if self._training else 2 * self._batch.tokens * self._shape.hidden * self._width
        return self._mask() + (rotary if self._shape.rotary else 0) + named


@dataclass(frozen=True, slots=True)
class _Plan:
    """What trains, layer by layer."""

    layers: tuple[Kind, ...]
    embedding: bool
    norm: bool
    head: bool

    @staticmethod
    def of(shape: Architecture, regime: Regime, profile: Profile) -> "_Plan":
        train, method = profile.train, profile.method
        every = train.gradient_checkpointing_every if train.gradient_checkpointing else 0
        depth = shape.layers
        if regime.method != "freeze":
            full = regime.method == "full"
            whole = set() if full else _last_names(method.additional_target)
            tied = shape.tied and bool(whole & (EMBEDDINGS | HEADS))
            embedding, head = bool(whole & EMBEDDINGS) or tied, bool(whole & HEADS) or tied
            # With checkpoints, transformers lets the embeddings' result want a gradient.
            flows = full or embedding or every > 0
            kinds = tuple(
                Kind(True, flows or i > 0, every > 0 and i % every == 0) for i in range(depth)
            )
            return _Plan(kinds, full or embedding, full, full or head)
        count = min(abs(method.freeze_trainable_layers), depth)
        chosen = range(count) if method.freeze_trainable_layers < 0 else range(depth - count, depth)
        extra = {p.strip() for p in (method.freeze_extra_modules or "").split(",")}
        embedding = bool(extra & EMBEDDINGS)
        head = bool(extra & HEADS) or (embedding and shape.tied)
        kinds = tuple(
            Kind(
                i in chosen,
                embedding or any(c < i for c in chosen),
                every > 0 and i % every == 0,
            )
            for i in range(depth)
        )
        return _Plan(kinds, embedding, bool(extra & {"norm", "ln_f"}), head)


def _last_names(text: str | None) -> set[str]:
    return {part.strip().rpartition(".")[2] for part in (text or "").split(",")}


def _padded(length: int, profile: Profile, regime: Regime) -> int:
    """How wide the longest row is in a batch: no row is longer than the cut-off, and on CUDA rows are padded to a
    multiple of 8 (core.train.data.batches.Collator)."""
    return batch_width(min(length, profile.data.cutoff_len), cuda=regime.cuda)


FRAGMENTS = {"checkpointed": (1.05, 1.10), "plain": (1.026, 1.06), "expandable": (1.01, 1.03)}
"""The smallest capacity, and what is reserved without a limit, by what is allocated: means of the dry runs of random
profiles (`bench memory grid`). Segments are not filled to the brim. One run can be 15 % off, as its dry run shows."""


def _with_fragments(allocated: int, profile: Profile, target: Target) -> tuple[int, int]:
    """The smallest capacity at which `allocated` fits, and what is reserved without a limit."""
    if target.kind == "cpu":
        return allocated, allocated
    kind = "checkpointed" if profile.train.gradient_checkpointing else "plain"
    needed, reserved = FRAGMENTS["expandable" if target.expandable else kind]
    return int(allocated * needed), int(allocated * reserved)


def _notes(profile: Profile, shape: Architecture, regime: Regime, shared: str) -> tuple[str, ...]:
    notes = [*shape.notes, *(text for text in (shared, note_of(profile)) if text)]
    if shape.quantized and not profile.model.quantization_bit:
        notes.append(
            f"The model's files are quantised by {shape.quantized}; they are counted with {regime.bits} bits a number."
        )
    if profile.train.offload_activations and regime.cuda:
        notes.append(
            "How far transfers to the host overlap is not known: offloaded activations are an estimate."
        )
    if profile.train.optim in PROJECTED:
        notes.append(
            f"What {profile.train.optim} takes to find its projections is an estimate: its package is not looked into."
        )
    if profile.train.optim.startswith("paged") and regime.cuda:
        notes.append(
            "Paged optimizer states are not counted: they move to the host's memory where the GPU's runs out."
        )
    if regime.kernel == "flash" and not regime.masked:
        notes.append("flash-attn is taken to be there.")
    return tuple(notes)
