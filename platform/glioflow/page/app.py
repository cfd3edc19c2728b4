"""The page for people, as Streamlit runs it: choose a study, have it answered, look. Asks the endpoint for everything.

`launcher` starts it; where the endpoint is, and the token if it wants one, come in the environment.
"""

import hashlib
import os
from html import escape
from pathlib import Path

import streamlit as st

from glioflow.api.client import Client, EndpointBusy
from glioflow.bundle.answer import ModelCard
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE
from glioflow.errors import GlioflowError, RunFailed
from glioflow.json_values import JsonObject
from glioflow.page.answer_view import show_answer
from glioflow.page.launcher import DEFAULT_ENDPOINT, ENDPOINT
from glioflow.page.study import File, ask, examples, has_examples
from glioflow.serving.settings import TOKEN, own_token

_FIRST_TIMEOUT_S = 10
_CLINICAL = {
    "gender": ("Sex", ("female", "male")),
    "grade": ("Grade", (1, 2, 3, 4)),
    "histology": ("Histology", ("astrocytoma", "oligoastrocytoma", "oligodendroglioma")),
    "resection": ("Resection", ("gtr", "str", "na")),
}
_UPLOAD_HELP = (
    "Slices (.tif, .png), a .zip of them, NIfTI modalities (.nii, .nii.gz), or DICOM (files or a .zip). "
    "All files together are one study."
)


def main() -> None:
    """Show the page."""
    st.set_page_config(page_title="GlioFlow", page_icon="🧠", layout="wide")
    st.html(Path(__file__).with_name("static") / "page.css")
    st.html(
        '<div class="gf-head"><b>Glio<i>Flow</i></b><span>Brain tumor segmentation in MRI</span>'
        f'<span class="gf-not">{escape(NOT_FOR_CLINICAL_USE)}</span></div>'
    )
    url, token = os.environ.get(ENDPOINT, DEFAULT_ENDPOINT), own_token()
    left, right = st.columns([1, 3], gap="large")
    try:
        card = Client(url, token=token, timeout_s=_FIRST_TIMEOUT_S, num_tries=1).model()
    except GlioflowError as error:
        with left:
            files, clinical, _ = _choose(None, url)
        _forget_others(files)
        with right:
            _away(error, url)
            if answered := st.session_state.get("answered"):
                _say_if_changed(clinical)
                show_answer(answered, st.session_state["card"])
        return
    st.session_state["card"] = card
    with left:
        files, clinical, wanted = _choose(card, url)
    _forget_others(files)
    with right:
        if wanted or st.session_state.pop("wanted", False):
            _answer(Client(url, token=token), files, clinical)
        if answered := st.session_state.get("answered"):
            _say_if_changed(clinical)
            show_answer(answered, card)
        elif not st.session_state.get("refused"):
            _welcome(card)


def _choose(card: ModelCard | None, url: str) -> tuple[list[File], JsonObject, bool]:
    """Show what can be chosen; return the files, the clinical values, and whether an answer is wanted now."""
    channels = tuple(card["input"]["channels"]) if card else ()
    sources = ["Your files", "An example"] if has_examples(channels) else ["Your files"]
    st.subheader("Study", anchor=False)
    if st.session_state.get("source") not in sources:
        st.session_state["source"] = sources[0]
    source = st.segmented_control("Source", sources, label_visibility="collapsed", key="source")
    if source == "An example":
        offered = {each.title: each.files for each in examples(channels)}
        title = st.selectbox("Example", list(offered), key="example", label_visibility="collapsed")
        st.caption("Generated at random: no real patient.")
        files = list(offered[title])
    else:
        uploads = st.file_uploader(
            "Files of one study",
            accept_multiple_files=True,
            key="files",
            help=_UPLOAD_HELP,
            label_visibility="collapsed",
        )
        st.caption(_UPLOAD_HELP)
        files = [(upload.name, upload.getvalue()) for upload in uploads]
    clinical = _clinical() if card and card.get("survival") else {}
    wanted = st.button("Analyze", type="primary", width="stretch", disabled=not (card and files), key="analyze")
    if card:
        model = card["model"]
        version = "" if model["version"] is None else f", version {model['version']}"
        st.caption(f"{model['name']}{version}, served at `{url}`. Your files go there and nowhere else.")
    return files, clinical, bool(wanted)


def _forget_others(files: list[File]) -> None:
    """Drop the answer about other files than those that are chosen now: it is another patient's."""
    chosen = hashlib.sha256(repr([(name, hashlib.sha256(content).digest()) for name, content in files]).encode())
    if st.session_state.get("chosen") != (now := chosen.hexdigest()):
        st.session_state["chosen"] = now
        for name in ("answered", "refused", "answered_with"):
            st.session_state.pop(name, None)


def _say_if_changed(clinical: JsonObject) -> None:
    if st.session_state.get("answered_with", clinical) != clinical:
        st.warning("This answer was given with other clinical values. Analyze again.", icon=":material/update:")


def _clinical() -> JsonObject:
    with st.expander("Clinical values, if known"):
        age = st.number_input("Age in years", 0, 120, value=None, key="age_years", placeholder="unknown")
        values: JsonObject = {"age_years": age}
        for name, (title, choices) in _CLINICAL.items():
            values[name] = st.selectbox(title, choices, index=None, key=name, placeholder="unknown")
        st.caption("The survival model uses the values it was fitted on, and imputes those that are missing.")
    return {name: value for name, value in values.items() if value is not None}


def _answer(client: Client, files: list[File], clinical: JsonObject) -> None:
    st.session_state.pop("answered", None)
    st.session_state["refused"], st.session_state["answered_with"] = True, clinical
    try:
        with st.spinner("The endpoint is analyzing the study", show_time=True):
            st.session_state["answered"] = ask(client, files, clinical)
    except EndpointBusy as error:
        st.error(f"**The endpoint is busy. Try again in a moment.** {_plain(error)}", icon=":material/hourglass_top:")
    except RunFailed as error:
        st.error(f"**No answer.** {_plain(error)}", icon=":material/cloud_off:")
    except GlioflowError as error:
        st.error(f"**The endpoint refused this study.** {_plain(error)}", icon=":material/block:")
        st.caption("Nothing was stored. Choose other files and try again.")
    else:
        st.session_state["refused"] = False


def _plain(error: Exception) -> str:
    """Return an error's text as a sentence that Markdown shows as it is."""
    text = "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-!|~$:" else letter for letter in str(error))
    return text[:1].upper() + text[1:]


def _away(error: GlioflowError, url: str) -> None:
    if not isinstance(error, RunFailed):
        st.error(f"**The endpoint refuses this page.** {_plain(error)}", icon=":material/key_off:")
        st.caption(f"Set {TOKEN} to the endpoint's token before you start the page, or give another --endpoint.")
    elif isinstance(error, EndpointBusy):
        st.warning(f"**The endpoint is busy. Try again in a moment.** {_plain(error)}", icon=":material/hourglass_top:")
    else:
        st.error(f"**The endpoint does not answer.** {_plain(error)}", icon=":material/cloud_off:")
        st.markdown("Start an endpoint in another terminal, then try again:")
        st.code("glioflow serve", language="bash")
        st.caption(
            "No model is promoted yet? `glioflow demo` makes one. "
            "For an endpoint elsewhere, use `glioflow page --endpoint URL`."
        )
    st.button("Try again", key="again")


def _welcome(card: ModelCard) -> None:
    channels = ", ".join(card["input"]["channels"])
    steps = {
        "1. Choose": "Slices, a zip of them, NIfTI or DICOM: all files of one study. Or a generated example.",
        "2. Analyze": f"The model reads {channels}, marks the tumor and measures it.",
        "3. Look and save": "Scroll through the slices with the mask over them, read the numbers, keep the files.",
    }
    cards = "".join(f"<div><b>{escape(title)}</b><span>{escape(text)}</span></div>" for title, text in steps.items())
    st.html(
        f'<div class="gf-empty"><h3>No study yet</h3><div class="gf-steps">{cards}</div>'
        "<p>The model can miss a tumor and can mark healthy tissue. Check every slice yourself.</p></div>"
    )
    if has_examples(card["input"]["channels"]):
        st.button("Try an example", key="try", type="primary", on_click=_try_example, icon=":material/play_arrow:")


def _try_example() -> None:
    st.session_state["source"] = "An example"
    st.session_state["wanted"] = True


if __name__ == "__main__":
    main()
