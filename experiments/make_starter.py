"""Make `starter`, the small LGG model that ships in the package, from `lgg-starter.yaml`.

Run: GLIOFLOW_DATA=FOLDER python experiments/make_starter.py [RUN_ID]

FOLDER contains kaggle_3m, lgg_split_65.json and mobilenet_v2_imagenet.pth. Without the RUN_ID of a finished training,
the script trains first. It writes the weights in half precision and measures these on the 13 test patients, so that the
card has the scores of the shipped model.
"""

import shutil
import sys
from pathlib import Path

import glioflow as gf
from glioflow import bundle
from glioflow.bundle.card import CARD, card, subgroup_metrics
from glioflow.bundle.starter import LICENSE, STARTER, starter_folder
from glioflow.config import load_experiment
from glioflow.evaluation import flatten_summary
from glioflow.runs.launch import open_setting
from glioflow.runs.scoring import score_cases

EXPERIMENT = Path(__file__).with_name("lgg-starter.yaml")
TERMS = """The weights in this folder (weights.safetensors) were trained on the LGG segmentation cohort (Buda et al.
2019, Kaggle mateuszbuda/lgg-mri-segmentation, images from TCIA's TCGA-LGG), which is licensed under CC BY-NC-SA 4.0.
They carry the same license:

Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International
https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode

They may be shared and adapted with attribution, for non-commercial purposes, under the same license. The encoder began
from Google Coral's MobileNetV2 (Apache-2.0). GlioFlow's source code is under Apache-2.0 and does not need them.
"""
REMARKS = """
## What its scores rest on

The 13 test patients trained and chose nothing of this network. Its augmentation and its number of steps were chosen by
five folds on the 52 others (benchmarks/lgg.md); its thin decoder and half precision were not chosen by any score.
Earlier versions of the experiment `lgg-best`, from which it descends, were judged on the test patients. This network
was not cross-validated. The weights carry the license in the file beside them, CC BY-NC-SA 4.0.
"""


def main() -> None:
    """Train if no run is given, and write the folder again."""
    run_id = sys.argv[1] if len(sys.argv) > 1 else gf.train(EXPERIMENT).run_id
    model = gf.load(run_id)
    predictor = model.predictor
    halves = {k: v.half() if v.is_floating_point() else v for k, v in predictor.network.state_dict().items()}
    predictor.network.load_state_dict(halves)  # as they are read back
    setting = open_setting(load_experiment(EXPERIMENT), None)
    test, train = (setting.cohort.cases(part) for part in (setting.split.test, setting.split.train))
    scored = score_cases(predictor, test, known=train)
    metrics = {**flatten_summary(scored.summary(), "test"), **subgroup_metrics(scored.rows)}
    folder = starter_folder()
    shutil.rmtree(folder, ignore_errors=True)
    bundle.save(folder, predictor.description.model_copy(update={"metrics": metrics}), halves)
    facts = {"run": run_id, "made by": "experiments/make_starter.py", "precision of the weights": "float16"}
    (folder / CARD).write_text(card(bundle.read_description(folder), title=STARTER, lineage=facts) + REMARKS)
    (folder / LICENSE).write_text(TERMS)
    print(folder, metrics["test/dice_mean"], metrics["test/dice_median"])


if __name__ == "__main__":
    main()
