"""The report about an `auto`, from plain values: what was tried, the winner and its margin, scores, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from glioflow.reports.evaluation_page import BESIDE, Answer, beside_baselines
from glioflow.reports.numbers import duration, interval, number, short
from glioflow.reports.page import Drawing, Section, render_page

_ENDED = {"FINISHED": "finished", "KILLED": "stopped early", "FAILED": "failed", "RUNNING": "left open"}


def auto_page(
    name: str,
    stages: Mapping[str, Mapping[str, Any]],
    *,
    hours: float,
    spent_s: float,
    cases: Sequence[Drawing] = (),
) -> str:
    """Return the report as one HTML file.

    Args:
        name: Name of the model.
        stages: Result of each stage, with its `seconds`.
        hours: The budget.
        spent_s: Seconds that were spent of it.
        cases: Pictures of single cases, truth beside prediction.
    """
    scores, train, gate = stages["crossval"], stages["train"], stages["promote"]
    trials = stages["search"].get("trials", [])
    facts = {
        "mean Dice by cross-validation": number(scores["dice_mean"]),
        "95 % interval": interval(*scores["dice_ci95"]),
        "median Dice": number(scores["dice_median"]),
        "mean Dice on the test patients": number(train["metrics"].get("test/dice_mean")),
        "the gate's decision": gate["decision"],
        "configurations tried": str(max(1, len(trials))),
        "time, of the budget": f"{duration(spent_s)} of {duration(3600 * hours)}",
    }
    sections = [
        _scores(scores, searched=bool(trials)),
        Section("Worst, median and best", "Truth in blue, prediction in red." if cases else "", cases),
        _test(train),
        _search(stages["search"], trials),
        _gate(gate),
        _survival(stages["survival"]),
        _plan(stages["plan"]["choices"]),
        _cost(stages),
    ]
    about = "Planned, searched, cross-validated, trained and evaluated by `glioflow auto`"
    return render_page(f"The best model for {name}", about, facts, sections)


def _scores(scores: Answer, *, searched: bool) -> Section:
    text = (
        f"{scores['folds']} folds over {scores['num_patients']} patients, each predicted by a model that never saw "
        f"them; the test patients are {'not ' if scores['hold_out_test'] else ''}among them."
    )
    if searched:
        text += " The search chose the settings on some of these patients, so the figure is slightly optimistic."
    return Section("Cross-validation, next to its baselines", text, head=BESIDE, rows=beside_baselines(scores))


def _test(train: Mapping[str, Any]) -> Section:
    metrics = train["metrics"]
    ends = (metrics.get("test/dice_ci95_low"), metrics.get("test/dice_ci95_high"))
    rows = [["mean Dice", number(metrics.get("test/dice_mean"))], ["95 % interval", interval(*ends)]]
    rows.append(["median Dice", number(metrics.get("test/dice_median"))])
    text = "They neither trained the model nor chose its settings."
    if "ensemble_of" in train:
        text += f" The model averages the probabilities of the {train['ensemble_of']} folds' networks."
    return Section("The registered model on the test patients", text, rows=rows)


def _search(search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Section:
    if not trials:
        return Section("What was tried", f"The plan alone: {search['skipped']}.")
    ended = [trial for trial in trials if trial["status"] == "FINISHED" and trial["dice"] is not None]
    best = max((trial["dice"] for trial in ended), default=None)
    plan = next((trial for trial in ended if trial["planned"]), None)
    text = f"{len(trials)} configurations, the plan among them, compared on the validation patients of the split."
    if plan is not None and best is not None:
        gain = best - plan["dice"]
        text += (
            " The plan itself won."
            if gain <= 0
            else f" The winner is {gain:.3f} in mean Dice above the plan. The best of several tries is partly luck."
        )
    elif best is not None:
        text += " The plan itself did not finish, so nothing says by how much the winner is better."
    if any(trial["status"] == "KILLED" for trial in trials):
        text += " The Dice of a trial that was stopped early is that of its last epoch, before clean-up is chosen."
    keys = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    rows = [
        [
            *(f"{k}, the plan" if trial["planned"] else k, number(trial["dice"])),
            *(_ENDED.get(trial["status"], trial["status"]), duration(trial["seconds"])),
            *(short(trial["params"].get(key), 3) for key in keys),
        ]
        for k, trial in enumerate(trials, 1)
    ]
    return Section("What was tried", text, head=["", "Dice", "state", "time", *keys], rows=rows)


def _gate(gate: Mapping[str, Any]) -> Section:
    rows = [
        [each["rule"], short(each["value"]), short(each["limit"]), "yes" if each["passed"] else "NO"]
        for each in gate["reasons"]
    ]
    return Section(f"The gate: {gate['decision']}", head=["rule", "value", "limit", "holds"], rows=rows)


def _survival(stage: Mapping[str, Any]) -> Section:
    if "skipped" in stage:
        return Section("Survival", f"No stage: {stage['skipped']}.")
    verdict = "beats" if stage["beats_baselines"] else "does not beat"
    return Section("Survival", f"A stage for {stage['task']}, fitted on out-of-fold masks, {verdict} its baselines.")


def _plan(choices: Sequence[Mapping[str, Any]]) -> Section:
    rows = [[each["key"], str(each["value"]), each["reason"]] for each in choices]
    text = "Where the search began. The length of trainings was then fitted to the budget."
    return Section("The plan", text, head=["setting", "value", "because"], rows=rows)


def _cost(stages: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = [[name, duration(outcome["seconds"])] for name, outcome in stages.items() if name != "report"]
    hours = [[key.removeprefix("cost/"), number(value)] for key, value in stages["search"].get("cost", {}).items()]
    return Section("What it cost", "Time of each stage, and what the search booked.", head=["", ""], rows=rows + hours)
