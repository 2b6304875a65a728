"""What each stage of a run took."""

from reverse_perturbation.studies.stage_times import StageTimes


def test_each_stage_lasts_until_the_next_and_the_last_until_now():
    times = iter([0.0, 90.0, 120.0])
    watch = StageTimes(lambda: next(times))
    for line in [
        "Running stage 'prepare':\n",
        "> python\n",
        "Stage 'x' is cached - skipping\n",
        "Running stage 'finetune@0':",
    ]:
        watch.see(line)
    assert str(watch) == "minutes by stage: prepare 1.5, finetune@0 0.5"


def test_without_a_stage_there_is_nothing_to_say():
    assert str(StageTimes()) == ""
