"""How the page shows an answer: verdict, viewer, features, survival, model, downloads."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import streamlit as st

from glioflow.bundle.answer import AnswerJson, ModelCard
from glioflow.page.study import Answered
from glioflow.page.survival_view import show_survival
from glioflow.page.tables import downloads, feature_rows, interval_text, region_rows, slice_rows, volume_text
from glioflow.page.viewer import show_viewer, viewer_data
from glioflow.reports.numbers import duration


def show_answer(answered: Answered, card: ModelCard) -> None:
    """Show everything about one answer.

    Args:
        answered: The study and the endpoint's answer.
        card: Of the model that is served now.
    """
    answer = answered.answer.json
    _verdict(answered)
    for warning in answer["study"]["warnings"]:
        st.warning(warning[:1].upper() + warning[1:], icon=":material/warning:")
    picture, facts = st.columns([11, 9], gap="medium")
    with picture:
        show_viewer(_once("viewer_data", answered, viewer_data))
    with facts:
        features, survival, model, files = st.tabs(["Features", "Survival", "Model", "Download"])
    with features:
        _features(answered)
    with survival:
        show_survival(answer["survival"])
    with model:
        _model(answer, card)
    with files:
        _downloads(answered)


def facts_html(facts: Iterable[tuple[str, str, str, str]]) -> str:
    """Return cards of title, value, remark and class."""
    cards = (
        f'<div class="{kind}"><small>{escape(title)}</small><b>{escape(value)}</b><small>{escape(remark)}</small></div>'
        for title, value, remark, kind in facts
    )
    return f'<div class="gf-facts">{"".join(cards)}</div>'


def list_html(rows: Mapping[str, object]) -> str:
    """Return names and values in two columns; what is None is left out."""
    shown = ((name, value) for name, value in rows.items() if value is not None)
    return f'<dl class="gf-list">{"".join(f"<dt>{escape(n)}</dt><dd>{escape(str(v))}</dd>" for n, v in shown)}</dl>'


def _once(name: str, answered: Answered, make: Any) -> Any:
    """Return `make(answered)`, made once for each answer of this session."""
    made_of, made = st.session_state.get(name, (None, None))
    if made_of is not answered:
        made = make(answered)
        st.session_state[name] = (answered, made)
    return made


def _verdict(answered: Answered) -> None:
    answer = answered.answer.json
    tumor, total = answer["tumor"], len(answer["study"]["slices"])
    detected = bool(tumor["detected"])
    volume, remark = volume_text(answer["features"])
    remarks = [each for each in (interval_text(tumor["volume"]), remark if detected else "") if each]
    promised = answer["uncertainty"]["expected_dice"]
    sure = "without a tumor there is none" if promised is None else "by the model's own probabilities"
    unsure = f"{answer['uncertainty']['uncertain_px']:,}".replace(",", " ")
    st.html(
        facts_html(
            [
                (
                    "Tumor",
                    "Found" if detected else "None found",
                    f"in {len(tumor['slices'])} of {total} slices",
                    "gf-found" if detected else "gf-none",
                ),
                ("Volume", volume if detected else "0", "; ".join(remarks), ""),
                ("Expected Dice", "-" if promised is None else f"{promised:.2f}", sure, ""),
                ("Highest probability", f"{tumor['probability']:.2f}", f"{unsure} px between 0.1 and 0.9", ""),
                (
                    "Answered in",
                    duration(answer["timing_ms"]["total"] / 1000, fine=True),
                    f"study {answer['study']['id']}",
                    "",
                ),
            ]
        )
    )


def _features(answered: Answered) -> None:
    rows = region_rows(answered.answer.tumor)
    rows += feature_rows(answered.answer.json["features"], answered.answer.case.slice_numbers)
    known = [row for row in rows if row["Value"] is not None]
    shown = [{"Feature": row["Feature"], "Value": row["Value"], "Unit": row["Unit"]} for row in known]
    st.dataframe(shown, hide_index=True, height=min(430, 38 + 35 * max(1, len(shown))), key="features_table")
    if per_slice := slice_rows(answered.answer.json["features"], answered.answer.case.slice_numbers):
        with st.expander(f"By slice ({len(per_slice)})"):
            st.dataframe(per_slice, hide_index=True, key="slices_table")
    if missing := [row for row in rows if row["Value"] is None]:
        with st.expander(f"Without a value ({len(missing)})"):
            for note in dict.fromkeys(row["Note"] for row in missing):
                names = ", ".join(row["Feature"] for row in missing if row["Note"] == note)
                st.caption(f"**{note or 'undefined'}**: {names}")


def _model(answer: AnswerJson, card: ModelCard) -> None:
    model, now, origin = answer["model"], card["model"], card["origin"]
    if model != now:
        st.warning(
            f"Version {model['version']} gave this answer. Version {now['version']} is served now, and described here.",
            icon=":material/swap_horiz:",
        )
    patients = ", ".join(f"{count} {part}" for part, count in origin["num_patients"].items())
    st.html(
        list_html(
            {
                "Model": now["name"],
                "Version": now["version"],
                "Run": now["run_id"],
                "Network": " ".join(
                    str(card["architecture"][key])
                    for key in ("architecture", "encoder")
                    if card["architecture"].get(key)
                ),
                "Parameters": f"{card['num_parameters']:,}".replace(",", " "),
                "Input": ", ".join(card["input"]["channels"]),
                "Output": _target(card["target"]),
                "Trained on": f"{origin['cohort_format']} cohort {origin['fingerprint'][:12]}; patients: {patients}",
                **_quality(card["metrics"]),
            }
        )
    )
    timing = ", ".join(f"{stage} {duration(ms / 1000, fine=True)}" for stage, ms in answer["timing_ms"].items())
    st.caption(f"Time: {timing}")
    with st.expander("The whole card"):
        st.json(dict(card), expanded=1)


def _target(target: Mapping[str, Any]) -> str:
    if target["kind"] == "binary":
        return "tumor, one label"
    return ", ".join(target["regions"] or (f"label {value}" for value in target["labels"]))


def _quality(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """Return what the model reached by patient: on test patients where it was tested, else on validation patients."""
    part = "test" if metrics.get("test/dice_mean") is not None else "val"
    dice, iou, *interval = (
        metrics.get(f"{part}/{n}") for n in ("dice_mean", "iou_mean", "dice_ci95_low", "dice_ci95_high")
    )
    if dice is None:
        return {}
    low, high = interval
    between = "" if low is None or high is None else f", 95 % interval {low:.2f} to {high:.2f}"
    whose = "test patients" if part == "test" else "validation patients, which chose it"
    return {"Dice": f"{dice:.3f} on {whose}{between}", **({} if iou is None else {"IoU": f"{iou:.3f}"})}


def _downloads(answered: Answered) -> None:
    what = {
        "Mask": "in your files' format",
        "Overlay": "the slice with the most tumor",
        "Features": "as a table",
        "Answer": "the whole answer as JSON",
        "Everything": "all files in one zip",
    }
    for title, (name, content) in _once("downloads", answered, downloads).items():
        st.download_button(
            f"{title}: {what[title]}",
            content,
            file_name=name,
            key=f"download_{title.lower()}",
            on_click="ignore",
            width="stretch",
            icon=":material/download:",
            type="primary" if title == "Everything" else "secondary",
        )
    st.caption("To save the picture in view, use the button in its corner.")
