from bench import scale
from bench.scale import Case


def test_no_case_is_measured_twice_and_no_process_is_without_a_partition() -> None:
    cases = scale.cases(300_000, full=True)
    ways = [(case.partitions, case.processes, case.backlog) for case in cases]
    assert len(set(ways)) == len(ways)
    assert all(case.processes <= case.partitions for case in cases)


def test_the_backlogs_grow_with_everything_else_the_same() -> None:
    assert {
        case.backlog for case in scale.cases(300_000, full=True) if (case.partitions, case.processes) == (4, 1)
    } == {
        100_000,
        300_000,
        1_000_000,
        3_000_000,
    }


def test_cases_with_the_same_partitions_and_backlog_share_a_topic() -> None:
    assert Case(4, 1, 1_000).namespace == Case(4, 2, 1_000).namespace != Case(12, 1, 1_000).namespace
