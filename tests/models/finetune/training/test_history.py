"""Which epoch is kept."""

from reverse_perturbation.models.finetune.training.history import Epoch, chosen_epoch, highest_epoch


def test_the_chosen_epoch_is_the_last_within_a_standard_error_of_the_highest():
    def epoch(number, hit, mrr=0.5):
        return Epoch(number, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=hit, exact_hit_at_1_error=0.04, mrr=mrr)

    history = [epoch(1, 0.2, 0.9), epoch(2, 0.3, 0.4), epoch(3, 0.3, 0.5), epoch(4, 0.3, 0.5), epoch(5, 0.26)]
    assert highest_epoch(history).epoch == 3, "the first of equals"
    assert chosen_epoch([*history, epoch(6, 0.25)]).epoch == 5
    assert chosen_epoch([*history, epoch(6, 0.31)]).epoch == 6
    assert chosen_epoch([*history, epoch(6, 0.29), epoch(7, 0.34)]).epoch == 7
    assert chosen_epoch([Epoch(n, 1.0, 0.0, 0.0, 0.0) for n in (1, 2)]).epoch == 2, "a refit has no validation"


def test_a_collapsed_epoch_is_kept_only_where_there_is_no_other():
    def epoch(number, hit, collapsed=False):
        return Epoch(number, 1.0, 0.0, 0.0, 0.0, exact_hit_at_1=hit, exact_hit_at_1_error=0.04, collapsed=collapsed)

    sound, collapsed = [epoch(1, 0.2), epoch(2, 0.1)], epoch(3, 0.21, collapsed=True)
    assert highest_epoch([*sound, collapsed]).epoch == chosen_epoch([*sound, collapsed]).epoch == 1
    assert chosen_epoch([collapsed]) is highest_epoch([collapsed]) is collapsed
    refit = [Epoch(n, 1.0, 0.0, 0.0, 0.0, collapsed=n == 3) for n in (1, 2, 3)]
    assert chosen_epoch(refit).epoch == 2
