"""Download of the public data sets: source, license and method of each. Independent of their content."""

import hashlib
import re
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glioflow.atomic import check_new_folder, new_folder
from glioflow.errors import UserError, argument, one_line, unknown_name

Fetch = Callable[[str], str | Path]
_CHUNK = 2**20


@dataclass(frozen=True)
class PublicSet:
    """One data set.

    Attributes:
        by: `kaggle`: through kagglehub. `url`: an archive. `idc`: DICOM of TCIA, through idc-index. `page`: the user
            downloads it from a page, and may have to agree to terms.
        address: Name at Kaggle, URL, collection at IDC, or URL of the page.
        license: License as stated on its page.
        cite: What to cite.
        inner: Folder in the download that holds the cases; empty for all of it.
        md5: Checksum of the archive, if one is published.
    """

    by: Literal["kaggle", "url", "idc", "page"]
    address: str
    license: str
    cite: str
    inner: str = ""
    md5: str = ""


_TCIA = "https://www.cancerimagingarchive.net/"
_SYNAPSE = "https://www.synapse.org/Synapse:"
_UPENN = "https://www.med.upenn.edu/"
_PAGE = "as its page says"
_BRATS = "doi:10.1109/TMI.2014.2377694"
SETS: Mapping[str, PublicSet] = {
    "lgg": PublicSet(
        "kaggle",
        "mateuszbuda/lgg-mri-segmentation",
        "CC BY-NC-SA 4.0",
        "Buda, Saha, Mazurowski 2019, doi:10.1016/j.compbiomed.2019.05.002",
        "kaggle_3m",
    ),
    "brats2020": PublicSet(
        "kaggle",
        "awsaf49/brats20-dataset-training-validation",
        "terms of BraTS 2020",
        "Menze et al. 2015, doi:10.1109/TMI.2014.2377694",
        "BraTS2020_TrainingData",
    ),
    "decathlon": PublicSet(
        "url",
        "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task01_BrainTumour.tar",
        "CC BY-SA 4.0",
        "Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9",
        "Task01_BrainTumour",
        "240a19d752f0d9e9101544901065d872",
    ),
    "tcga-gbm": PublicSet("idc", "tcga_gbm", "TCIA: see its page", f"{_TCIA}collection/tcga-gbm/"),
    "tcga-lgg": PublicSet("idc", "tcga_lgg", "TCIA: see its page", f"{_TCIA}collection/tcga-lgg/"),
    "brats-2013": PublicSet("page", "https://www.smir.ch/BRATS/Start2013", _PAGE, _BRATS),
    "brats-2015": PublicSet("page", "https://www.smir.ch/BRATS/Start2015", _PAGE, _BRATS),
    "brats-2017": PublicSet("page", f"{_UPENN}sbia/brats2017/registration.html", _PAGE, _BRATS),
    "brats-2018": PublicSet("page", f"{_UPENN}sbia/brats2018/registration.html", _PAGE, _BRATS),
    "brats-2019": PublicSet("page", f"{_UPENN}cbica/brats2019/registration.html", _PAGE, _BRATS),
    "brats-2021": PublicSet("page", f"{_SYNAPSE}syn25829067", _PAGE, _BRATS),
    "brats-2023": PublicSet("page", f"{_SYNAPSE}syn51156910", _PAGE, _PAGE),
    "brats-2024": PublicSet("page", f"{_SYNAPSE}syn53708249", _PAGE, _PAGE),
    "brats-2025": PublicSet("page", f"{_SYNAPSE}syn64153130", _PAGE, _PAGE),
    "brats-men-rt": PublicSet("page", f"{_SYNAPSE}syn59059779", _PAGE, _PAGE),
    "upenn-gbm": PublicSet("page", f"{_TCIA}collection/upenn-gbm/", "CC BY", "doi:10.7937/TCIA.709X-DN49"),
    "ucsf-pdgm": PublicSet("page", f"{_TCIA}collection/ucsf-pdgm/", _PAGE, "doi:10.1148/ryai.220058"),
    "brats-tcga-gbm": PublicSet("page", f"{_TCIA}analysis-result/brats-tcga-gbm/", _PAGE, "doi:10.1038/sdata.2017.117"),
    "brats-tcga-lgg": PublicSet("page", f"{_TCIA}analysis-result/brats-tcga-lgg/", _PAGE, "doi:10.1038/sdata.2017.117"),
    "brats-tcga": PublicSet(
        "page",
        f"{_TCIA}analysis-result/brats-tcga-gbm/ and {_TCIA}analysis-result/brats-tcga-lgg/",
        _PAGE,
        "doi:10.1038/sdata.2017.117",
    ),
    "rembrandt": PublicSet(
        "page", "https://doi.org/10.1038/s41597-022-01415-1", _PAGE, "doi:10.1038/s41597-022-01415-1"
    ),
    "egd": PublicSet("page", "https://xnat.health-ri.nl/data/projects/egd", _PAGE, "doi:10.1016/j.dib.2021.107191"),
    "utsw-glioma": PublicSet("page", f"{_TCIA}collection/utsw-glioma/", "CC BY 4.0", "doi:10.7937/DFAE-1B86"),
    "glis-rt": PublicSet("page", f"{_TCIA}collection/glis-rt/", _PAGE, "doi:10.7937/TCIA.T905-ZQ20"),
    "burdenko-gbm-progression": PublicSet(
        "page", f"{_TCIA}collection/burdenko-gbm-progression/", _PAGE, "doi:10.7937/E1QP-D183"
    ),
    "ucsd-ptgbm": PublicSet("page", f"{_TCIA}collection/ucsd-ptgbm/", _PAGE, "doi:10.7937/k6s5-mq14"),
    "mu-glioma-post": PublicSet("page", f"{_TCIA}collection/mu-glioma-post/", _PAGE, "doi:10.1038/s41597-025-06011-7"),
    "rhuh-gbm": PublicSet("page", f"{_TCIA}collection/rhuh-gbm/", _PAGE, "doi:10.7937/4545-c905"),
    "ucsf-alptdg": PublicSet(
        "page", "https://imagingdatasets.ucsf.edu/dataset/2", "non-commercial", "doi:10.1148/ryai.230182"
    ),
    "lumiere": PublicSet(
        "page", "https://github.com/ysuter/gbm-data-longitudinal", _PAGE, "doi:10.1038/s41597-022-01881-7"
    ),
    "figshare": PublicSet(
        "page", "https://doi.org/10.6084/m9.figshare.1512427", _PAGE, "doi:10.6084/m9.figshare.1512427"
    ),
}


def key_of(name: str) -> str:
    """Return the key of a data set, by a name such as `BraTS2018` or, for a task of one year's BraTS, `brats-2023-ssa`.

    Raises:
        UserError: If there is none.
    """
    keys = {_plain(key): key for key in SETS}
    plain = _plain(name)
    year = re.match(r"brats20\d\d", plain)
    if (key := keys.get(plain) or keys.get(year[0] if year else "")) is None:
        raise unknown_name("data set", name, [key for known, key in keys.items() if plain and plain in known] or SETS)
    return key


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def download(name: str, out: Path, *, fetch: Fetch | None = None) -> Path:
    """Download a public data set into `out`, which appears complete or not at all.

    Args:
        name: Key in `SETS`; see `key_of`.
        out: Folder to make.
        fetch: Takes the address and returns the local folder of its download; None uses the data set's own method.

    Returns:
        `out`.

    Raises:
        UserError: If `out` is not new, the user must download the set, or the source is unreachable or refuses; it
            says how.
    """
    wanted = SETS[key_of(name)]
    if wanted.by == "page":
        hint = f"read its terms at {wanted.address}, download it there, unpack it, and give its folder to glioflow"
        raise UserError(f"{name} must be downloaded by hand, from its page", hint=hint)
    check_new_folder(out, argument("out"))
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".download-") as scratch:
        try:
            source = Path((fetch or _fetcher(wanted, Path(scratch)))(wanted.address))
        except UserError:
            raise
        except Exception as error:  # no network, no account or no such set: the remedy is the same
            where = {"kaggle": "Kaggle", "idc": "the Imaging Data Commons"}.get(wanted.by, "its address")
            raise UserError(
                f"{name} could not be downloaded from {where} ({type(error).__name__})",
                one_line(error, most=160),
                hint=_by_hand(wanted),
            ) from error
        inner = wanted.inner
        cases = next((path for path in sorted(source.rglob(inner)) if path.is_dir()), source) if inner else source
        with new_folder(out) as folder:
            shutil.copytree(cases, folder, dirs_exist_ok=True)
    return out


def _by_hand(wanted: PublicSet) -> str:
    then = f"give the folder {wanted.inner} to glioflow" if wanted.inner else "give its folder to glioflow"
    what = "the data set" if wanted.by == "kaggle" else ""
    return f"in a browser, download {what} {wanted.address}, unpack it, and {then}".replace("  ", " ")


def _fetcher(wanted: PublicSet, scratch: Path) -> Fetch:
    if wanted.by == "kaggle":
        import kagglehub

        return kagglehub.dataset_download  # type: ignore[no-any-return]
    if wanted.by == "idc":
        return lambda collection: _from_idc(collection, scratch)
    return lambda url: _unpack(url, wanted.md5, scratch)


def _from_idc(collection: str, scratch: Path) -> Path:
    try:
        from idc_index import index
    except ImportError:
        hint = "install the package idc-index in this environment"
        raise UserError(
            "downloading DICOM from TCIA needs the package idc-index, which is not installed", hint=hint
        ) from None
    index.IDCClient().download_from_selection(collection_id=collection, downloadDir=str(scratch))
    return scratch


def _unpack(url: str, md5: str, scratch: Path) -> Path:
    """Download a tar archive, check its checksum, and unpack it; no member can be written outside the folder."""
    archive, digest = scratch / "archive.tar", hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url) as response, archive.open("wb") as file:
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if md5 and digest.hexdigest() != md5:
        raise UserError("the archive must have the published checksum", digest.hexdigest(), hint="download it again")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch / "unpacked", filter="data")
    archive.unlink()
    return scratch / "unpacked"
