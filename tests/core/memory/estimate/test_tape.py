"""The sum of allocations in the order of autograd, on operations that can be followed by hand."""

from core.memory.estimate.tape import Step, Tape, Tensor, Weight

KIB = 1024


def chain(tape: Tape, depth: int) -> Tensor:
    """`depth` operations of which each saves its input, as products of two activations do."""
    hidden = tape.make(KIB, 4, grad=True)
    for _ in range(depth):
        made = tape.apply((hidden,), KIB, 4, saved=(hidden,))
        tape.drop(hidden)
        hidden = made
    return hidden


def test_what_operations_save_stays_until_the_backward_pass_has_come_by() -> None:
    tape = Tape()
    out = chain(tape, 3)
    assert tape.live == 4 * 4 * KIB
    tape.drop(out)
    assert tape.live == 3 * 4 * KIB
    tape.backward(out, accumulated=False)
    assert tape.live == 0


def test_nothing_is_saved_without_recording() -> None:
    tape = Tape(recording=False)
    tape.drop(chain(tape, 3))
    assert tape.live == 0
    assert tape.peak.size == 2 * 4 * KIB


def test_sizes_are_rounded_up_to_512_bytes() -> None:
    tape = Tape()
    tape.make(1, 1)
    assert tape.live == 512


def test_the_peak_of_a_backward_pass_counts_the_gradients_beside_what_is_saved() -> None:
    tape = Tape()
    out = chain(tape, 1)
    tape.drop(out)
    tape.forget_peak()
    tape.backward(out, accumulated=False)
    assert tape.peak.size == 3 * 4 * KIB  # what was saved, the gradient, and the one it becomes


def test_a_sum_passes_its_gradient_on_without_a_copy() -> None:
    tape = Tape()
    one, other = tape.make(KIB, 4, grad=True), tape.make(KIB, 4, grad=True)
    out = tape.add(one, other)
    tape.drop(out)
    tape.forget_peak()
    tape.backward(out, accumulated=False)
    assert tape.peak.size == 4 * KIB


def test_a_cast_to_the_same_type_is_the_same_tensor() -> None:
    tape = Tape()
    given = tape.make(KIB, 2)
    assert tape.cast(given, 2) is given
    tape.drop(given, given)
    assert tape.live == 0


def trained(tape: Tape, weight: Weight) -> Tensor:
    given = tape.make(KIB, 2, grad=True)
    out = tape.make(KIB, 2, grad=True)
    tape.record(Step(out, [given], [given.store], 0, [weight]))
    tape.drop(given, out)
    return out


def test_the_gradient_of_a_weight_stays_in_the_weights_own_type() -> None:
    tape = Tape()
    tape.backward(trained(tape, Weight(KIB, 4, trains=True)), accumulated=False)
    assert tape.live == tape.gradients == 4 * KIB


def test_a_gradient_that_is_added_to_others_goes_again() -> None:
    tape = Tape()
    tape.backward(trained(tape, Weight(KIB, 4, trains=True)), accumulated=True)
    assert (tape.live, tape.gradients) == (0, 0)


def test_autocast_keeps_its_copy_of_a_trained_weight_until_it_is_left() -> None:
    tape = Tape()
    weight = Weight(KIB, 4, trains=True)
    first = tape.lowered(weight, 2)
    assert tape.lowered(weight, 2) is first
    tape.release(first)
    tape.release(first)
    assert tape.live == 2 * KIB
    tape.leave_autocast()
    assert tape.live == 0


def test_autocast_keeps_no_copy_of_a_frozen_weight() -> None:
    tape = Tape()
    tape.release(tape.lowered(Weight(KIB, 4, trains=False), 2))
    assert tape.live == 0
    assert tape.lowered(Weight(KIB, 2, trains=False), 2) is None


def test_offloaded_activations_come_back_one_by_one() -> None:
    size = 1 << 20
    tape = Tape(offload=True)
    hidden = tape.make(size, 4, grad=True)
    for _ in range(4):
        made = tape.apply((hidden,), size, 4, saved=(hidden,))
        tape.drop(hidden)
        hidden = made
    tape.drop(hidden)
    assert tape.live == 0
    tape.forget_peak()
    tape.backward(hidden, accumulated=False)
    assert tape.peak.size == 3 * 4 * size


def test_what_an_operation_owns_is_seen_neither_by_checkpoints_nor_by_offloading() -> None:
    size = 1 << 20
    for tape in (Tape(recording=False, graph=True), Tape(offload=True)):
        given = tape.make(size, 2, grad=True)
        tape.drop(tape.apply((given,), size, 2, held=(given,)))
        tape.drop(given)
        assert tape.live == 2 * size


def test_the_peak_says_what_it_was_made_of() -> None:
    tape = Tape()
    tape.make(KIB, 4)
    tape.label = 1
    tape.make(KIB, 2)
    assert tape.peak.parts == [4 * KIB, 2 * KIB, 0, 0]
