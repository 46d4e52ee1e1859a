"""What the benchmark of page views ends with."""

from typing import Any, cast

import pytest

from bench.page_views import Benchmark, _parser
from bench.standings import Result


@pytest.mark.parametrize(("given", "code"), [([], 0), (["--least", "0.4"], 0), (["--least", "0.6"], 1)])
def test_a_slow_run_fails_only_below_a_bound_that_was_asked_for(
    given: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = Benchmark(cast(Any, None), [], 0)
    benchmark._results = {name: Result(name, True, "") for name in ("Inkstream", "baseline")}
    monkeypatch.setattr("bench.page_views.INKSTREAM", "Inkstream")
    monkeypatch.setattr("bench.page_views.BASELINE", "baseline")
    monkeypatch.setattr("bench.page_views.standings.ratios", lambda *_: [0.5])
    assert benchmark.verdict(_parser().parse_args(["--quick", *given]).least) == code
