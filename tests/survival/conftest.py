"""Clinical tables as files, and a small made-up cohort in which age and shape may or may not matter."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def make_table():
    def make(num=40, *, seed=0, age=0.0, shape=0.0, gaps=0):
        rng = np.random.default_rng(seed)
        years, bevr = rng.normal(50, 12, num), rng.normal(0.4, 0.08, num)
        risk = age * (years - 50) / 12 - shape * (bevr - 0.4) / 0.08
        death, censor = rng.exponential(800 * np.exp(-risk)), rng.uniform(300, 2500, num)
        table = pd.DataFrame(
            {
                "age_years": years,
                "gender": rng.choice(["female", "male"], num),
                "institution": rng.choice(["cs", "du", "ht"], num),
                "death01": (rng.random(num) < 1 / (1 + np.exp(-2 * risk))).astype(float),
                "os_days": np.ceil(np.minimum(death, censor)),
                "os_event": (death <= censor).astype(float),
                "bevr": bevr,
            },
            index=pd.Index([f"TCGA_CS_{k:04d}" for k in range(num)], name="patient"),
        )
        table.iloc[:gaps, 0] = np.nan
        return table

    return make


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
