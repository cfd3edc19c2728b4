"""The table of the file layouts of public data sets. Reads no file; `published` reads files by it.

`docs/data-sets.md` names the source of each layout.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_END = r"\.nii(?:\.gz)?$"


@dataclass(frozen=True)
class Layout:
    """The layout of one published data set.

    Attributes:
        key: Its name in `check` and the documentation.
        file: Matches the end of a file's path, with forward slashes. Groups: `what`, which `channels` and `masks` name;
            `case`, or else `person` or `grade`, and `visit`, which form it; `institution`, if the path contains it.
            Without `person`, each case is a person.
        channels: Channel of each `what` that is an image, in the order of channels; in lower case.
        masks: Kind of each `what` that is a tumor mask, by which the user chooses one; the first is the default.
            In lower case.
        scheme: Meaning of the labels of its masks; None if the sources disagree, so that the user must choose.
        optional: Channels that a case may lack.
    """

    key: str
    file: re.Pattern[str]
    channels: Mapping[str, str]
    masks: Mapping[str, str] = field(default_factory=dict)
    scheme: str | None = "tumor"
    optional: tuple[str, ...] = ()


def _layout(key: str, file: str, channels: str, masks: Mapping[str, str], scheme: str | None) -> Layout:
    """Return a layout; `channels` are words such as `flair=FLAIR`: a channel and its name in files."""
    named = {what: channel for channel, what in (word.split("=") for word in channels.split())}
    pattern = re.compile(r"(?:^|/)" + file, re.IGNORECASE)
    return Layout(
        key,
        pattern,
        {what.lower(): channel for what, channel in named.items()},
        {what.lower(): kind for what, kind in masks.items()},
        scheme,
    )


# All cases have the first; the second holds labels in a third of its cases that no source explains.
_UTSW_MASKS = {"tumorseg_FeTS": "automated", "rtumorseg_manual_correction": "corrected"}

_SMIR = (
    r"(?P<grade>[HL]G)/(?P<visit>\d{4})/(?:VSD\.[^/]+/)?VSD\.(?:Brain|Gray_matter_of_neuraxis)(?:_\dmore)?"
    r"\.XX\.(?:O|XX)\.(?P<what>MR_Flair|MR_T1|MR_T1c|MR_T2|OT)(?:\.\d+)?\.mha$"
)

# Order matters: the first one that matches an image is used.
LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "UPENN-GBM",
        rf"(?P<case>(?P<person>UPENN-GBM-\d{{5}})_\d\d)_(?P<what>\w+?){_END}",
        "flair=FLAIR t1=T1 t1ce=T1GD t2=T2",
        {"segm": "corrected", "automated_approx_segm": "automated"},
        "brats-2021",
    ),
    _layout(
        "UPENN-GBM, not skull-stripped",
        rf"(?P<case>(?P<person>UPENN-GBM-\d{{5}})_\d\d)_(?P<what>\w+?){_END}",
        "flair=FLAIR_unstripped t1=T1_unstripped t1ce=T1GD_unstripped t2=T2_unstripped",
        {"segm": "corrected", "automated_approx_segm": "automated"},
        "brats-2021",
    ),
    _layout(
        "BraTS-TCGA",
        rf"(?P<case>(?P<person>TCGA-(?P<institution>\w\w)-\w{{4}})_\d{{4}}\.\d\d\.\d\d)_(?P<what>\w+?){_END}",
        "flair=flair t1=t1 t1ce=t1Gd t2=t2",
        {"GlistrBoost_ManuallyCorrected": "corrected", "GlistrBoost": "automated"},
        "brats-2021",
    ),
    _layout(
        "REMBRANDT",
        rf"(?P<case>(?P<person>900-00-\d{{4}}|HF\d{{4}})_\d{{4}}\.\d\d\.\d\d)_(?P<what>\w+?){_END}",
        "flair=flair_LPS_rSRI t1=t1_LPS_rSRI t1ce=t1ce_LPS_rSRI t2=t2_LPS_rSRI",
        {"GlistrBoost_out": "automated"},
        "brats-2021",
    ),
    _layout(
        "UCSF-ALPTDG",
        rf"(?P<case>(?P<person>\d{{6}})_time\d)_(?P<what>flair|t1|t1ce|t2|seg){_END}",
        "flair=flair t1=t1 t1ce=t1ce t2=t2",
        {"seg": "corrected"},
        "brats-2024-gli",
    ),
    _layout(
        "UCSD-PTGBM",
        rf"(?P<case>(?P<person>UCSD-PTGBM-\d{{4}})_\d\d)_(?P<what>\w+?){_END}",
        "flair=FLAIR t1=T1pre t1ce=T1post t2=T2",
        {"BraTS_tumor_seg": "tumor"},
        "brats-2024-gli",
    ),
    _layout(
        "MU-Glioma-Post",
        rf"(?P<case>(?P<person>PatientID_\d{{4}})_Timepoint_\d+)_(?P<what>\w+?){_END}",
        "flair=brain_t2f t1=brain_t1n t1ce=brain_t1c t2=brain_t2w",
        {"tumorMask": "corrected"},
        "brats-2024-gli",
    ),
    _layout(
        "RHUH-GBM",
        rf"(?P<case>(?P<person>RHUH-\d{{4}})_\d)_(?P<what>\w+?){_END}",
        "flair=flair t1=t1 t1ce=t1ce t2=t2",
        {"segmentations": "corrected"},
        None,
    ),
    _layout(
        "LUMIERE",
        r"(?P<person>Patient-\d{3})/(?P<visit>week-\d{3}(?:-\d)?)/DeepBraTumIA-segmentation/atlas/"
        rf"(?:skull_strip|segmentation)/(?P<what>\w+){_END}",
        "flair=flair_skull_strip t1=t1_skull_strip t1ce=ct1_skull_strip t2=t2_skull_strip",
        {"seg_mask": "DeepBraTumIA"},
        None,
    ),
    _layout(
        "EGD",
        rf"(?P<case>(?:MR_)?EGD-\d{{4}})/(?:\d_\w+/NIFTI/)?(?P<what>\w+){_END}",
        "flair=FLAIR t1=T1 t1ce=T1GD t2=T2",
        {"MASK": "tumor"},
        "tumor",
    ),
    _layout(
        "UTSW-Glioma",
        rf"(?P<case>BT\d{{4}})/(?P<what>\w+){_END}",
        "flair=brain_flair t1=brain_t1 t1ce=brain_t1ce t2=brain_t2",
        _UTSW_MASKS,
        "brats-2021",
    ),
    _layout(
        "UTSW-Glioma, registered with ANTs",
        rf"(?P<case>BT\d{{4}})/(?P<what>\w+){_END}",
        "flair=brain_fl_ants t1=brain_t1_ants t1ce=brain_t1ce_ants t2=brain_t2_ants",
        _UTSW_MASKS,
        "brats-2021",
    ),
    _layout(
        "BraTS-MEN-RT",
        rf"(?P<case>(?P<person>BraTS-MEN-RT-\d+)-\d+)[_-](?P<what>t1c|gtv){_END}",
        "t1ce=t1c",
        {"gtv": "gross tumor volume"},
        "brats-men-rt",
    ),
    _layout(
        "BraTS 2013 or 2015",
        r"(?P<case>(?P<person>brats_\w+?_pat\d+)_\w+)/(?:VSD\.[^/]+/)?"
        r"VSD\.Brain(?:_\dmore)?\.XX\.(?:O|XX)\.(?P<what>MR_Flair|MR_T1|MR_T1c|MR_T2|OT)(?:\.\d+)?\.mha$",
        "flair=MR_Flair t1=MR_T1 t1ce=MR_T1c t2=MR_T2",
        {"OT": "expert"},
        "brats-2013",
    ),
    _layout(
        "BraTS 2013",
        r"(?<!Synthetic_Data/)" + _SMIR,
        "flair=MR_Flair t1=MR_T1 t1ce=MR_T1c t2=MR_T2",
        {"OT": "expert"},
        "brats-2013",
    ),
    _layout(
        "BraTS 2013, drawn by a program",
        r"Synthetic_Data/" + _SMIR,
        "flair=MR_Flair t1=MR_T1 t1ce=MR_T1c t2=MR_T2",
        {"OT": "drawn"},
        None,
    ),
)
