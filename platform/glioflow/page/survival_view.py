"""How the page shows the survival stage's answer: with its interval and its warnings."""

from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from glioflow.bundle.answer import SurvivalJson
from glioflow.json_values import JsonObject

_EVENTS = {"death01": "death", "overall_survival": "death", "progression_free": "progression or death"}


def show_survival(survival: SurvivalJson | None) -> None:
    """Show the survival stage's answer; None where the model has no such stage."""
    if survival is None:
        st.info("This model has no survival stage.", icon=":material/info:")
        return
    warnings = [str(warning) for warning in survival["warnings"]]
    if not survival["beats_baselines"]:
        verdict = "**No better than its baselines in cross-validation: it does not predict reliably for this patient.**"
        st.warning("\n".join([verdict, "", *(f"- {warning}" for warning in warnings)]), icon=":material/warning:")
    elif warnings:
        st.warning("\n".join(f"- {warning}" for warning in warnings), icon=":material/warning:")
    st.html(statement_html(survival))
    if survival["curve"]:
        st.vega_lite_chart(curve_spec(survival["curve"]), width="stretch", key="curve")
    if survival["beats_baselines"]:
        st.caption("The model beats its baselines in cross-validation.")
    used = ", ".join(survival["basis"]) or "no value of this patient"
    imputed = f" Imputed: {', '.join(survival['imputed'])}." if survival["imputed"] else ""
    st.caption(f"Computed from: {used}.{imputed}")
    st.caption(f"Risk score {survival['risk_score']:.2f}; higher is worse.")


def statement_html(survival: SurvivalJson) -> str:
    """Return the number that the stage gives, with its 95 % interval as text and as a bar."""
    interval = survival["interval"]
    if survival["predicted_days"] is not None:
        question = "Predicted survival"
        value = f"{survival['predicted_days']:.0f} days"
        remark = "" if interval is None else f"95 % interval {interval[0]:.0f} to {interval[1]:.0f} days; "
        remark += str(survival["category"] or "")
        bar = ""
    elif survival["probability"] is not None:
        horizon = survival["horizon_days"]
        until = "at any time" if horizon is None else f"within {horizon:.0f} days"
        question = f"Probability of {_EVENTS.get(survival['task'], 'the event')} {until}"
        value = f"{100 * survival['probability']:.0f} %"
        remark = "" if interval is None else f"95 % interval {100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"
        bar = _bar(survival["probability"], interval)
    else:
        return ""
    return (
        f'<div class="gf-facts"><div><small>{escape(question)}</small><b>{escape(value)}</b>{bar}'
        f"<small>{escape(remark)}</small></div></div>"
    )


def curve_spec(curve: Mapping[str, Sequence[float]]) -> JsonObject:
    """Return the Vega-Lite chart of a survival curve over its interval."""
    columns = ("days", "survival", "low", "high")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(curve[name] for name in columns), strict=True)]
    days = {"field": "days", "type": "quantitative", "title": "days"}
    scale = {"domain": [0, 1]}
    step = {"interpolate": "step-after"}
    return {
        "data": {"values": rows},
        "height": 220,
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2, "color": "#0b8f87", **step},
                "encoding": {
                    "x": days,
                    "y": {"field": "low", "type": "quantitative", "title": "no event until then", "scale": scale},
                    "y2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "line", "color": "#0b8f87", **step},
                "encoding": {"x": days, "y": {"field": "survival", "type": "quantitative", "scale": scale}},
            },
        ],
    }


def _bar(value: float, interval: tuple[float, float] | None) -> str:
    low, high = interval or (value, value)
    return (
        f'<div class="gf-bar"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:calc({100 * value:.1f}% - 1px)"></b></div>'
    )
