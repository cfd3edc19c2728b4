"""benchmarks/scale.py runs: its stages are those of a cohort of very many cases."""

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_benchmark_of_scale_measures_every_stage_and_writes_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    report = tmp_path / "scale.md"
    monkeypatch.setattr("sys.argv", ["scale.py", "--cases", "20", "60", "--report", str(report)])
    monkeypatch.setattr(scale, "DRAWS", 3)
    scale.main()
    rows = [line.split("|")[1:-1] for line in report.read_text().splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0]] == ["CPU seconds for", "20 cases", "60 cases", "exponent"]
    stages = [row[0].strip() for row in rows[1:]]
    for stage in ("split", "weights of patches", "the gate's look for copies", "join judgements"):
        assert stage in stages
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows[1:])
    assert "60 cases: split" in capsys.readouterr().out


def test_an_exponent_tells_linear_from_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    numbers = [10, 100, 1000]
    assert scale.exponent(numbers, [3 * n for n in numbers]) == pytest.approx(1)
    assert scale.exponent(numbers, [n**2 / 7 for n in numbers]) == pytest.approx(2)
