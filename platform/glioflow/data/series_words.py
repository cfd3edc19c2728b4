"""The meaning of words in descriptions of MR series by scanners and sites in several countries."""

import re
import unicodedata

# A weighting in a description: after a plane or a dimension, with one letter before it (`sT1W`, `eT2W_TSE`).
_BEFORE = r"(?<![a-z0-9])(?:axial|ax|sag|cor|tra|obl)?(?:2d|3d)?(?:ce|gd|[a-z])?"
_T1 = re.compile(_BEFORE + r"t1(?!\d)")
_T1_TOO = re.compile(r"mp-?2?-?rage|bravo|f?spgr|\bvibe\b|\btfl\b|\b3d ?tfe\b|\bfspgr|\bisotfe\b|\blava\b|\be?thrive\b")
_T2 = re.compile(_BEFORE + r"t2(?!\d)")
_T2_TOO = re.compile(r"\bhaste\b|\bssfse\b|\bfrfse\b")
_FLAIR = re.compile(r"flair|dark[ -]*fl|\bda-?fl\b|fluid att")
# Neither T1 nor T2 nor FLAIR, whatever else the description says.
_OTHER = re.compile(
    r"\b(?:loc|locali[sz]er|scout|survey|3[ -]?plane|3[ -]?pl|plan ?scan|dwi|dti|trace\w*|ep2d\w*|diff\w*|dw"
    r"|e?adc(?:reg)?|dt1(?:reg)?|b ?1000|swi\w*|swan|venobold|m(?:in)?ip|pha|perf\w*|pwi|dsc|dce|asl|pcasl|mtt"
    r"|[sn]?r?cb[vf](?:reg)?|ttp|ktrans|tof|mr[av]|angio\w*|venogra\w*|cest|t1rho|mrs|svs|csi|spectro\w*|press|fmri"
    r"|bold|sub|subs?tra\w*|soustr\w*|sottr\w*|sustrac\w*|resta"
    r"|ciss|\w*ci3d|fiesta|tru-?fi|true?[ -]?fisp|b-?ffe|(?<!tse )drive|stir|dir|dyn|dynamic|dynamisch|twist|perm|medic"
    r"|me2d\w*|merge|inv ?[12]|molli|posdisp|key ?images?|[ctl]?-?spine|cervical|lumbar|thoracic)\b"
    r"|\b(?:epi|relaxo\w*|[hbl]ws)\b|\bpost\b[\w ]*(?:-|\bminus\b)[\w ]*\bpre\b|\bmp-?2-?rage t1 images\b"
    r"|t2 ?\*|t2[ -]?star|t2 [eé]toile|\bt[12] ?map|\bt2w? ?(?:gre|ffe|fl2d|flash|hemo|mpgr)"
    r"|\b(?:gre|eg)\b.*\bt2|\bt2\b.*\beg\b"
)
_OTHER_ALONE = re.compile(r"\b(?:gre|ffe|mag|hemo\w*|gradient|mask\w*|\w*segmentation\w*|label ?map\w*|roi)\b")
_PROTON_DENSITY = re.compile(r"\bpdw?\b|\bproton\b|\bdual\b|\bdouble echo\b|\bde(?: tse)?$|\bde tse\b")
_INVERTED = re.compile(r"\btirm\b|\bspc ir\b|\birprep\b")

_AGENT = (
    r"(?:contrast\w*|kontra[sś]\w*|контраст\w*|ку|contr?|cont?|kontr|civ|gad\w*|gd(?:-?dtpa)?|n?km|kl|(?<!(?<!t)\d )cm"
    r"|ce|c|iv|inj\w*|mdc|cte|enh\w*|dotarem|dotagraf|magnevist|multihance|prohance|omniscan|clariscan|elucirem|vueway|primovist|eovist)"
)
_TREATMENT = r"ops?\b|operat\w*|surg\w*|rt|rx|srs|radi\w*|treat\w*|therap\w*|chemo\w*|fossa|bx|biops\w*|resect\w*"
_OPERATION = re.compile(rf"\b(?:pre|post)[ -]?(?:{_TREATMENT})\b")
# A protocol's name, which series before and after contrast share.
_MIT, _OHNE = "(?:mit|avec|con|com|met|med|z)", "(?:ohne|sans|senza|sin|sem|zonder|uten|utan|uden|bez)"
_AND = r"[ /&+,-]+(?:(?:and|und|et|e|y|en|og|och|i)[ /]+)?"
_EITHER = re.compile(
    rf"\b{_MIT}{_AND}{_OHNE}\b|\b{_OHNE}{_AND}{_MIT}\b|\b(?:m\.?/ ?o|o\.?/ ?m)\b|(?<!t1)(?<!t1w) plus$|"
    r"\bw(?:ith)?[ /&+-]*(?:and|y|und|et)?[ /]*w(?:ith)?[ /-]?o(?:ut)?\b"
    r"|\bw(?:ith)?/?o(?:ut)?[ /&]+(?:and )?w(?:ith)?\b"
    r"|\+ ?/ ?-|±"
)
_TIMED = re.compile(r"(?<![a-z0-9.,])\d+(?:[.,]\d+)? ?(?:min\w*|sec\w*|sek\w*)\b")
_NO = (
    r"(?:w/o(?:ut)?|w-o|wo|without|no|non|not|never|nicht|keine?|o[./]?|v\.|u/|av|s(?= contra)|sans|ohne|sin|sem|senza"
    r"|zonder|utan|uten|bez|без|minus|before|vor|avant"
    r"|antes(?: de)?|prima(?: di)?|voor|f[öø]re?|fore|for(?=[ -]*kontra)|prze[dt]|p[rř]ed|prae?|prä|до)"
)
_MINUS = r"(?:-(?![a-z0-9])| ?(?:minus|neg\w*)\b)"
_WITHOUT = re.compile(
    rf"\bpr[eé](?:[ -]?{_AGENT})?\b\+?|\b{_NO}[ -]*(?:iv[ -]*)?{_AGENT}\b|(?:\b|\bt1w?){_AGENT}{_MINUS}"
    rf"|(?<![a-z0-9])-{_AGENT}\b|(?<![a-z0-9])c ?\(?-(?![a-z0-9])|\(-\)(?: ?{_AGENT}\b)?|造影前|単純|平[扫掃]|조영 ?전"
    rf"|\b[su]/ ?(?:{_AGENT}|k)\b|\bwocm?\b"
    rf"|\bkontrasts.z\b|\b{_AGENT} [öo]ncesi\b|t1w?[ +-]?pre(?:[ -]?{_AGENT})?(?![a-z])"
    r"|\b(?:w/o|without|wo|s/c|nativ\w*|unenh\w*|plain|antes|noncon\w*|nongad\w*|nc)\b"
)
_WITH = re.compile(
    rf"\bpost(?:[ -]?{_AGENT})?\b|t1w?[ +-]?(?:c|ce|gd|gado?|km|cm|post(?:[ -]?{_AGENT})?)(?![a-z])|(?<![a-z0-9])c ?\+"
    rf"|\+ ?(?:{_AGENT}|k)\b|t1w? ?\+(?! ?[\w/])|\(\+\)|\+$|t1w?\+ |\bnach{_AGENT}\b|\b{_AGENT}\b"
    r"|\b(?:gd|ce|c)t1\w*|\b(?:with|w/|mit|avec)$|\bt1w? plus\b"
    r"|\bw ?c(?:m|on(?:trast)?)?\b|\bm(?:km|/ ?k)\b|\bc(?:gd|mdc)\b"
    r"|\b(?:p[oó]s|apr[eè]s|nach|despu[eé]s|depois|dopo|delay\w*|late|tardif)\b|造影|增[强強]|조영"
)


def plain(description: str) -> str:
    """Return a description in lower case, with spaces for underscores, and without words about surgery."""
    return _OPERATION.sub(" ", " ".join(unicodedata.normalize("NFC", description).lower().replace("_", " ").split()))


def is_other(text: str) -> bool:
    """Return whether a plain description means neither T1, T2 nor FLAIR, but another kind of image."""
    if _OTHER.search(text):
        return True
    weighted = _T1.search(text) or _T1_TOO.search(text) or _FLAIR.search(text)
    if _PROTON_DENSITY.search(text) and not (weighted or _T2.search(text)):
        return True
    return bool(_OTHER_ALONE.search(text)) and not weighted


def weighting(text: str) -> str | None:
    """Return which of `t1`, `t2` or `flair` a plain description means; None if it means none or two."""
    t1, t2, flair = bool(_T1.search(text)), bool(_T2.search(text)), bool(_FLAIR.search(text))
    if t1 and t2:
        return None
    if t1:  # including T1 FLAIR, whose inversion strengthens T1 contrast
        return "t1"
    if flair or (t2 and _INVERTED.search(text)):
        return "flair"
    if t2 or (_T2_TOO.search(text) and not _T1_TOO.search(text)):
        return None if _PROTON_DENSITY.search(text) else "t2"
    return "t1" if _T1_TOO.search(text) or re.search(r"\b(?:pre|post)\b", text) else None


def contrast(text: str) -> set[str]:
    """Return what a plain description implies about contrast, `pre` and `post`; negations are handled first."""
    if _EITHER.search(text):
        return {"pre", "post"}
    rest = _WITHOUT.sub(" ", text)
    return ({"pre"} if rest != text else set()) | ({"post"} if _WITH.search(rest) else set())


def is_timed(text: str) -> bool:
    """Return whether a plain description states minutes or seconds, after an injection or of the scan itself."""
    return bool(_TIMED.search(text))
