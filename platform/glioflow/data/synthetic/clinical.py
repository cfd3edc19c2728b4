"""Invented patients: names, tumors, follow-up, and the clinical tables of a cohort. Draws no voxel.

Outcomes follow a proportional hazard in the tumor's irregularity and the age, so that a model can learn something.
"""

from dataclasses import dataclass

import numpy as np

from glioflow.data.synthetic.phantom import TumorPlan

# Patients per institution among the 110 of the real cohort.
INSTITUTIONS = {"DU": 45, "HT": 34, "CS": 16, "FG": 14, "EZ": 1}

LGG_COLUMNS = (
    "Patient,RNASeqCluster,MethylationCluster,miRNACluster,CNCluster,RPPACluster,OncosignCluster,COCCluster,"
    "histological_type,neoplasm_histologic_grade,tumor_tissue_site,laterality,tumor_location,gender,"
    "age_at_initial_pathologic,race,ethnicity,death01"
).split(",")
OUTCOME_COLUMNS = "Patient,OS_days,OS_event,PFI_days,PFI_event,age_years,gender,histology,grade".split(",")
SURVIVAL_COLUMNS = "Brats20ID,Age,Survival_days,Extent_of_Resection".split(",")
MAPPING_COLUMNS = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID"
).split(",")

# Share of empty cells per column, near that of the real table.
_GAPS = {"RNASeqCluster": 0.17, "RPPACluster": 0.09, "OncosignCluster": 0.05, "laterality": 0.02, "ethnicity": 0.08}
_HISTOLOGY = ("Astrocytoma", "Oligoastrocytoma", "Oligodendroglioma")


@dataclass(frozen=True)
class Patient:
    """One invented person.

    Attributes:
        index: Position in the cohort, which seeds the case's voxels.
        tumor: The tumor in the images.
        age_years: At diagnosis.
        survival_days: Days from diagnosis to death, whether or not it was observed.
        follow_up_days: Days until the end of follow-up.
        missing: Sequences never taken, among `pre` and `post`.
    """

    index: int
    tumor: TumorPlan
    age_years: float
    survival_days: int
    follow_up_days: int
    missing: tuple[str, ...] = ()

    @property
    def died(self) -> bool:
        """Whether the death was observed."""
        return self.survival_days <= self.follow_up_days


def invent_patients(rng: np.random.Generator, count: int, *, mean_age: float, median_days: float) -> list[Patient]:
    """Invent `count` patients; three in ten die during follow-up, at least one does, and at least one does not."""
    irregularity = rng.permutation((np.arange(count) + rng.uniform(0, 1, count)) / count)
    age = np.clip(rng.normal(mean_age, 12, count), 18, 85)
    # A year of age raises the hazard by 8 %, near the 6 % of lower-grade gliomas; 110 patients suffice to detect it.
    risk = 1.5 * (irregularity - 0.5) / 0.29 + 0.9 * (age - mean_age) / 12
    survival = median_days * (rng.exponential(1 / np.log(2), count) * np.exp(-risk)) ** 0.7
    follow_up = rng.uniform(0.15, 1.0, count)
    order = np.sort(survival / follow_up)
    dying = int(np.clip(round(0.3 * count), 1, max(count - 1, 1)))
    follow_up *= order[dying - 1] * 1.0001 if dying == count else np.sqrt(order[dying - 1] * order[dying])
    radius = np.clip(0.19 * np.exp(rng.normal(0, 0.3, count)), 0.11, 0.30)
    no_post, no_pre, no_enhancement = (rng.permutation(count) for _ in range(3))
    return [
        Patient(
            index=i,
            tumor=TumorPlan(
                float(radius[i]), float(irregularity[i]), enhancing=bool(no_enhancement[i] >= round(0.15 * count))
            ),
            age_years=float(age[i]),
            survival_days=max(1, int(survival[i])),
            follow_up_days=max(1, int(follow_up[i])),
            missing=tuple(
                name
                for name, rank, share in (("pre", no_pre[i], 6), ("post", no_post[i], 10))
                if rank < np.ceil(count * share / 110 - 0.5)
            ),
        )
        for i in range(count)
    ]


def lgg_names(rng: np.random.Generator, count: int) -> list[str]:
    """Return `count` distinct names such as `TCGA_DU_5849_19950405`, sorted, institutions in the real proportion."""
    share = np.array(list(INSTITUTIONS.values())) / sum(INSTITUTIONS.values())
    # By largest remainder, so that even a small cohort has several institutions.
    whole = np.floor(share * count).astype(int)
    for index in np.argsort(whole - share * count)[: count - whole.sum()]:
        whole[index] += 1
    institutions = [name for name, amount in zip(INSTITUTIONS, whole, strict=True) for _ in range(amount)]
    numbers = rng.choice(np.arange(1000, 10000), count, replace=False)
    years, months, days = rng.integers(1986, 2004, count), rng.integers(1, 13, count), rng.integers(1, 29, count)
    return sorted(
        f"TCGA_{institution}_{number}_{year}{month:02}{day:02}"
        for institution, number, year, month, day in zip(institutions, numbers, years, months, days, strict=True)
    )


def lgg_tables(
    rng: np.random.Generator, names: list[str], patients: list[Patient]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of `data.csv` and `outcomes.csv`; of eight patients or more, one has no codes."""
    clinical, outcomes = [], []
    unknown = rng.integers(len(patients)) if len(patients) >= 8 else -1
    for patient, name in zip(patients, names, strict=True):
        key = name.rsplit("_", 1)[0]
        codes = {column: str(rng.integers(1, 4)) for column in LGG_COLUMNS[1:]}
        # The most irregular tumors are mostly of RNA cluster 2, as Buda et al. report.
        irregular = patient.tumor.irregularity > 0.7
        codes["RNASeqCluster"] = "2" if rng.uniform() < (0.75 if irregular else 0.1) else str(rng.choice([1, 3, 4]))
        codes["MethylationCluster"] = str(rng.integers(1, 6))
        codes["neoplasm_histologic_grade"] = str(1 + int(rng.uniform() < 0.3 + 0.4 * patient.tumor.irregularity))
        codes |= {"tumor_tissue_site": "1", "race": "3", "ethnicity": "2", "gender": str(rng.integers(1, 3))}
        codes["age_at_initial_pathologic"] = str(round(patient.age_years))
        # Follow-up in this table ends earlier than in the outcomes: some patients who died later are alive in it.
        codes["death01"] = str(int(patient.survival_days <= 0.93 * patient.follow_up_days))
        row = {column: "" if rng.uniform() < _GAPS.get(column, 0.01) else code for column, code in codes.items()}
        row["death01"] = codes["death01"] if rng.uniform() > 0.04 else ""
        if patient.index == unknown:
            row = dict.fromkeys(row, "")
        clinical.append([key, *(row[column] for column in LGG_COLUMNS[1:])])
        days = min(patient.survival_days, patient.follow_up_days)
        progression = max(1, int(days * rng.uniform(0.3, 1.3)))
        row_end = ["male" if codes["gender"] == "2" else "female", _HISTOLOGY[int(codes["histological_type"]) - 1]]
        numbers = [days, int(patient.died), min(days, progression), int(patient.died or progression < days)]
        grade = "G2" if codes["neoplasm_histologic_grade"] == "1" else "G3"
        outcomes.append([key, *map(str, numbers), str(round(patient.age_years)), *row_end, grade])
    return clinical, outcomes


def brats_tables(
    rng: np.random.Generator, names: list[str], patients: list[Patient]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of `survival_info.csv` (two thirds of the patients, one ALIVE) and of `name_mapping.csv`."""
    kept = sorted(rng.permutation(len(patients))[: max(1, round(len(patients) * 236 / 369))])
    alive = kept[int(rng.integers(len(kept)))] if len(kept) > 1 else -1
    survival = []
    for i in kept:
        days = patients[i].survival_days
        text = f"ALIVE ({days} days later)" if i == alive else str(days)
        resection = str(rng.choice(["GTR", "NA", "STR"], p=[0.51, 0.45, 0.04]))
        survival.append([names[i], f"{patients[i].age_years:.3f}", text, resection])
    mapping = [
        ["HGG" if patient.tumor.enhancing else "LGG", *["NA"] * 4, name]
        for patient, name in zip(patients, names, strict=True)
    ]
    return survival, mapping
