"""Grouping of the files of a NIfTI cohort into cases with unique ids, by names and folders."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from glioflow.data.formats.file_roles import DECLARED, FileRoles, Role, case_name
from glioflow.data.formats.paired_folders import PairFolders, is_part, locate_pairs
from glioflow.data.formats.persons import check_persons, is_visit, person_of, refuse_persons
from glioflow.data.formats.record import CaseFiles
from glioflow.data.formats.volume_names import stem
from glioflow.data.sequences import is_channel_name
from glioflow.errors import UserError

NUMBERED = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
# BIDS: the folders of a person, a visit and a kind of data, and the beginning of their files' names.
_PERSON, _VISIT, _ANATOMY, _DERIVED = re.compile(r"sub-[^_/]+"), re.compile(r"ses-[^_/]+"), "anat", "derivatives"
_OTHER_DATA = ("dwi", "func", "fmap", "perf", "pet", "meg", "eeg", "mrs")
# Words before a sequence in some names that are not a person: planes, acquisition techniques, contrast agents and
# processing.
_OF_IMAGES = (
    *("ax", "axial", "tra", "sag", "sagittal", "cor", "coronal", "2d", "3d"),
    *("mprage", "mpr", "bravo", "spgr", "fspgr", "space", "cube", "vibe", "tse", "fse", "se", "ffe", "tfe", "iso"),
    *("gd", "gad", "ce", "km", "cm", "contrast"),
    *("bet", "brain", "stripped", "reg", "registered", "std", "native", "n4"),
)
# Further words of processing before a sequence, which stay in the names of cases.
_OF_PROCESSING = ("coreg", "coregistered", "orig", "original", "resampled", "corrected", "norm", "defaced")
# Words in the names of folders that hold some images of one person, beside those and the folders of BIDS.
_OF_FOLDERS = (
    *("structural", "functional", "perfusion", "diffusion", "conventional", "routine", "mri", "mr", "scans", "images"),
    *("nifti", "nii", "raw", "processed", "preprocessed", "derivatives", "other"),
)
# Numbers of series, as converters of DICOM write them, and sizes of voxels.
_OF_ONE_IMAGE = re.compile(r"[1-9]\d{0,3}|\d+mm")
# Words before a number of a series, a repetition or a technique, as in `se3_t1`.
_OF_SERIES = (
    *("s", "ser", "serie", "series", "seq", "sequence", "scan", "acq", "run", "rec", "im", "img", "image", "vol"),
    *("i", "e", "v", "t", "b", "te", "ti", "tr", "fa", "echo", "grappa", "ipat", "sense", "mr", "mri", "study", "exam"),
)
_NAME_AND_NUMBER = re.compile(
    r"(?<![A-Za-z0-9])(?P<word>[A-Za-z]+|(?:patient|pat|subject|subj|case|person|mrn)[_ -])(?P<number>\d+)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_ONE_PERSON = "the files of a study must be of one person"
_BETWEEN, _EDGES = ("_", "-", " ", ".", ""), "_-. "
_SPACE = re.compile(r"space-", re.IGNORECASE)
# Parts of BIDS names that describe one image of several, as in `sub-1_ce-gadolinium_T1w`.
_BIDS_ENTITIES = re.compile(
    r"^(sub-.*?)(?:_(?:acq|ce|rec|echo|part|space|desc|res|mod|inv|mt|flip|chunk|stain|trc)-[^_]+)+$"
)
_BIDS_BEGINNING = re.compile(r"^sub-[^_]+(?:_ses-[^_]+)?_")


@dataclass
class _NamedCase:
    """A case without an id yet: the folders above it, its name in the last of them, its person, its files."""

    above: tuple[str, ...]
    name: str
    person: str
    files: list[Path] = field(default_factory=list)


def name_cases(files: Iterable[Path], root: Path, roles: FileRoles) -> tuple[CaseFiles, ...]:
    """Return the cases, sorted by id.

    A case is named after its folder, in BIDS `sub-<person>[_ses-<visit>]`, or after the part of its files' names that
    they share, such as `p1` for `p1_t1` and `p1_flair`. If two folders have a case or person of one name, the folders
    above become part of both names.

    Raises:
        UserError: If a mask has no image, or a case has files of several persons.
    """
    listed = [(file, role) for file in files if (role := roles.of(file)) is not None]
    located = [*_in_pairs(listed, root, roles), *_by_folders(listed, root, roles)]
    named_cases: dict[tuple[tuple[str, ...], str], _NamedCase] = {}
    for each in located:
        named_cases.setdefault((each.above, each.name), replace(each, files=[])).files.extend(each.files)
    for each in named_cases.values():
        each.files = [file for file in each.files if roles.of(file) != "brain_mask"]
    cases = [each for each in named_cases.values() if each.files]
    for each in cases:
        if not roles.only("image", each.files):
            hint = f"name it after its image, or say which files are masks with masks: [NAME] in {DECLARED} beside it"
            raise UserError("a mask has no image", file=each.files[0], hint=hint)
        names = [stem(file) for file in each.files]
        check_persons(names, each.files[0].parent)
        refuse_persons(_numbered_persons(names), each.files[0].parent)
    _join_inner(cases, named_cases)
    return tuple(sorted(_distinct(cases), key=lambda case: case.id))


def _join_inner(cases: Sequence[_NamedCase], by_folder: Mapping[tuple[tuple[str, ...], str], _NamedCase]) -> None:
    """Give cases in another case's folder its person, unless the folder holds more cases than are beside it."""
    outers: dict[int, tuple[tuple[str, ...], str]] = {}
    for index, each in enumerate(cases):
        parts = (*each.above, each.name)
        keys = ((parts[: k - 1], parts[k - 1]) for k in reversed(range(1, len(parts))))
        if (outer := next((key for key in keys if key in by_folder and by_folder[key].files), None)) is not None:
            outers[index] = outer
    inside, beside = Counter(outers.values()), Counter(above for (above, _), each in by_folder.items() if each.files)
    for index, (above, name) in outers.items():
        if inside[above, name] <= beside[above]:
            each, outer_case = cases[index], by_folder[above, name]
            each.name = "_".join((*each.above, each.name)[len(above) :])
            each.above, each.person = above, outer_case.person


def _by_folders(listed: Sequence[tuple[Path, Role]], root: Path, roles: FileRoles) -> Iterable[_NamedCase]:
    """Yield each file outside pairs of folders, with its case."""
    paired = locate_pairs((file for file, _ in listed), root)
    there = [(file, role) for file, role in listed if file.parent == root]
    marked = {stem(Path(case_name(file.name))) for file, role in there if role == "mask"}
    owners = _owners([file for file, role in there if role == "image"], marked)
    for file, role in listed:
        if file in paired:
            continue
        flat = file.parent in (root, root / "imagesTr")
        named = _flat(file, roles, owners) if flat else _in_folders(file, root, derived=role == "image")
        if named is not None:
            yield named


def _in_pairs(listed: Sequence[tuple[Path, Role]], root: Path, roles: FileRoles) -> Iterable[_NamedCase]:
    """Yield each file in side-by-side folders of images and masks, with its case.

    The files are named after their case, as in `images/p1_t1.nii`, or the folder of each case has such a pair.
    """
    located = locate_pairs((file for file, _ in listed), root)
    images: dict[PairFolders, list[Path]] = {}
    for file, role in listed:
        if file in located and role == "image":
            images.setdefault(located[file], []).append(file)
    owners = {pair: _owners(files) for pair, files in images.items()}
    alone = {pair: all(owner_of(stem(image)) == "" for image in files) for pair, files in images.items()}
    cases = {pair: {_flat(image, roles, owners[pair]).name for image in files} for pair, files in images.items()}
    lone: dict[tuple[PairFolders, str], list[str]] = {}  # cases by the subject in the names of their images
    for pair, names in cases.items():
        for name in names:
            lone.setdefault((pair, owner_of(name) or ""), []).append(name)
    for file, role in listed:
        if (own := located.get(file)) is None:
            continue
        if own.below or alone.get(own, False):
            folders = (*own.above, *own.below) or (root.resolve().name,)
            yield replace(_of_folders(folders), files=[file])
            continue
        named = _flat(file, roles, owners.get(own, {}))
        known = lone.get((own, named.name), [])
        if role != "image" and len(known) == 1:  # the mask `p1` of the lone image `p1_flair`
            named = replace(named, name=known[0], person=person_of(known[0]))
        if role != "image" and (whole := stem(file)) in cases.get(own, ()):  # `p_0001` of `p_0001_0000`
            named = replace(named, name=whole, person=person_of(whole))
        yield replace(named, above=own.above)


def owner_of(name: str) -> str | None:
    """Return the subject in a name, `p1` for `p1_t1`, empty for `t1`; None if the name has no sequence."""
    if numbered := NUMBERED.match(name):
        return numbered["case"]
    if beginning := _BIDS_BEGINNING.match(name):
        return beginning[0].strip("_")
    pieces, first = _pieces(name)
    if first is None:
        return None
    while first > 0 and (pieces[first - 1] in _BETWEEN or pieces[first - 1].lower() in _OF_IMAGES):
        first -= 1
    return "".join(pieces[:first]).strip(_EDGES)


def check_one_person(names: Iterable[str]) -> None:
    """Refuse images whose names are a sequence followed by different words, such as `t1_p1` and `flair_p2`.

    Ignores series numbers and words for acquisition techniques.

    Raises:
        UserError: If they belong to several persons.
    """
    ends = set()
    for name in names:
        first, _, end = name.replace("-", "_").partition("_")
        if is_channel_name(first) and end and not ("_" in end or is_channel_name(end) or _OF_ONE_IMAGE.fullmatch(end)):
            ends.add(end.lower())
    if len(ends - set(_OF_IMAGES)) > 1:
        hint = "send one study at a time, or let the names of its files begin with the case"
        raise UserError(_ONE_PERSON, f"{len(ends)} case names", hint=hint)


def check_one_owner(images: Iterable[PurePath]) -> None:
    """Refuse images in folders of several persons, such as `p1/t1`, `p1/flair`, `p2/t2` and `p2/t1ce`.

    Ignores folders for a sequence or a kind of images, such as `anat`, folders inside others, and folders of files that
    are named after one case. If each folder holds one sequence, the folders are parts of one study.

    Raises:
        UserError: If they belong to several persons.
    """
    sequences: dict[tuple[str, ...], set[str]] = {}
    owners = set()
    for image in images:
        name, folders = stem(Path(image.name)), list(image.parent.parts)
        owners.add(owner_of(name))
        numbered = NUMBERED.match(name)
        sequence = numbered["channel"] if numbered else channel_in(name)
        while folders and _is_of_images(folders[-1]):
            sequence = sequence or channel_in(folders[-1])
            folders.pop()
        sequences.setdefault(tuple(folders), set()).update({sequence} - {None})  # type: ignore[arg-type]
    filled = [folder for folder, held in sequences.items() if held]
    apart = [one for one in filled if not any(one != other and one[: len(other)] == other for other in filled)]
    several = any(len(sequences[folder]) > 1 for folder in filled)
    if several and len(apart) > 1 and (len(owners) > 1 or owners <= {"", None}):
        hint = "send one study at a time, or the files of one person in one folder"
        raise UserError(_ONE_PERSON, f"sequences in {len(apart)} folders", hint=hint)


def _is_of_images(folder: str) -> bool:
    """Return whether a folder is named for a sequence or a kind of images, such as `anat` or `3D_FLAIR`."""
    pieces = [piece for piece in re.split("[_ .-]", folder.lower()) if not _OF_ONE_IMAGE.fullmatch(piece)]
    known = {_ANATOMY, *_OTHER_DATA, *_OF_IMAGES, *_OF_FOLDERS}
    return bool(pieces) and all(piece in known or is_channel_name(piece) for piece in pieces)


def _numbered_persons(names: Iterable[str]) -> list[str]:
    """Return the persons that names begin with, if they differ in a number alone: `P1` and `P2` of `P1_t1`, `P2_flair`.

    Numbers after words for series and techniques are of images.
    """
    numbers: dict[str, dict[str, str]] = {}
    for owner in filter(None, map(owner_of, names)):
        for named in _NAME_AND_NUMBER.finditer(person_of(owner)):
            word = named["word"].strip(_EDGES).lower()
            if word not in (*_OF_IMAGES, *_OF_SERIES):
                numbers.setdefault(word, {}).setdefault(named["number"], named[0])
    return next((list(persons.values()) for persons in numbers.values() if len(persons) > 1), [])


def unlike_owners(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names of images that begin with words of which neither has all of the other's, or None.

    `anna_t1` and `berta_flair`, which may be of two persons; not `anna_t1` and `anna_new_flair`. Numbers, and words for
    series, techniques and processing, are of images.
    """
    words: dict[str, set[str]] = {}
    for name in names:
        found = {each.lower() for each in re.split(r"[\W_]+", owner_of(name) or "") if each.isalpha()}
        words[name] = found.difference(_OF_IMAGES, _OF_PROCESSING, _OF_SERIES, _OF_FOLDERS)
    pairs = itertools.combinations(words, 2)
    return next((pair for pair in pairs if words[pair[0]] - words[pair[1]] and words[pair[1]] - words[pair[0]]), None)


def channel_in(name: str) -> str | None:
    """Return the sequence in a file's name, `flair` for `p1_flair`; None if there is none."""
    return next((piece.lower() for piece in reversed(re.split("[_-]", name)) if is_channel_name(piece)), None)


def channel_name(name: str, case_id: str, folder: str) -> str:
    """Return the channel in an image's name: the part after the case's name, or `image`."""
    beginning = _BIDS_BEGINNING.match(name)
    if beginning:
        pieces = name[beginning.end() :].split("_")
        # `space-T1w_FLAIR` is a FLAIR on the grid of the T1.
        return "_".join(each for each in pieces if not (_SPACE.match(each) and is_channel_name(each[6:])))
    if name == case_id and (owner := owner_of(name)) is not None and not NUMBERED.match(name):
        return name.removeprefix(owner).strip("_-")
    if name == folder and is_channel_name(name):  # `T1/T1`
        return name
    if (owner := owner_of(name)) and case_id.startswith(f"{owner}_") and not name.startswith(case_id):
        return name.removeprefix(owner).strip(_EDGES)  # `P1_t1` of the case `P1_visit1`
    rest = name.removeprefix(case_id)
    return (rest if rest != name else name.removeprefix(folder)).strip(_EDGES) or "image"


def _flat(file: Path, roles: FileRoles, owners: Mapping[str, str]) -> _NamedCase:
    """Group a file of one folder by the name before `_0000`, `_mask`, `_brain_mask`, a declared ending or a sequence.

    Files named by sequences alone, such as `T1.nii.gz` and `seg.nii.gz`, are one case, named after the folder.
    """
    match = NUMBERED.match(stem(file))
    bare = stem(Path(case_name(file.name)))
    alone = not bare and "" in owners.values()
    own = match["case"] if match else bare or stem(file)
    name = roles.case_of(file) or owners.get(own, "" if alone else own) or file.parent.resolve().name
    return _NamedCase((), name, person_of(name), [file])


def _owners(images: Sequence[Path], marked: Collection[str] = ()) -> dict[str, str]:
    """Return the subject in each name of one folder, such as `p1` for `p1_t1`, if several are images of one case.

    Or if one is in `marked`, the cases of masks: `p1` for `p1_flair` and `p1_seg`. Empty if no two images share the
    part before their sequences, or one has no sequence in its name.
    """
    owners: dict[str, str] = {}
    for name in (stem(image) for image in images):
        pieces, first = _pieces(name)
        if first is None:
            return {}
        beginning = _BIDS_BEGINNING.match(name)  # whose visit may be `ses-pre`, which is no sequence
        own = beginning[0] if beginning else "".join(pieces[:first])
        owners[name] = _BIDS_ENTITIES.sub(r"\1", own.strip(_EDGES))
    check_one_person(owners)
    several = any(count > 1 for count in Counter(owners.values()).values())
    return owners if several or not {*owners.values()}.isdisjoint(marked) else {}


def _pieces(name: str) -> tuple[list[str], int | None]:
    """Return the pieces and separators of a name, and the index of the first sequence; None without one."""
    pieces: list[str] = []
    for between in ("([_ -])", "([_. -])"):  # as in `p1_t1`, `p1 t1`, or else `p1.t1`
        pieces = re.split(between, name)
        if (first := next((k for k, piece in enumerate(pieces) if is_channel_name(piece)), None)) is not None:
            return pieces, first
    return pieces, None


def _in_folders(file: Path, root: Path, *, derived: bool) -> _NamedCase | None:
    """Group a file by its folders; None for other kinds of BIDS data and for `derived` images."""
    parts = file.parent.relative_to(root).parts
    persons = [index for index, part in enumerate(parts) if _PERSON.fullmatch(part)]
    if not persons:
        beginning = _BIDS_BEGINNING.match(file.name)
        if beginning and parts[-1] in (_ANATOMY, *_OTHER_DATA):  # the folder of a person or a visit of BIDS
            name = beginning[0].strip("_")
            return None if parts[-1] in _OTHER_DATA else _NamedCase(parts[:-1], name, person_of(name), [file])
        return replace(_of_folders(parts), files=[file])
    above, below = parts[: persons[-1]], parts[persons[-1] + 1 :]
    if _DERIVED in above:
        if derived:
            return None
        above = above[: above.index(_DERIVED)]
    if below and below[-1] in _OTHER_DATA:
        return None
    person = parts[persons[-1]]
    inner = [part for part in below if part != _ANATOMY]
    return _NamedCase(above, "_".join([person, *inner]), person, [file])


def _of_folders(parts: tuple[str, ...]) -> _NamedCase:
    """Return the case that folders name: the last folder, or the folders of a person and a visit."""
    if len(parts) > 1 and is_visit(parts[-1]) and not (is_visit(parts[-2]) or is_part(parts[-2])):
        person = parts[-2]
        return _NamedCase(parts[:-2], "_".join(parts[-2:]), person_of(person))
    return _NamedCase(parts[:-1], parts[-1], person_of(parts[-1]))


def _distinct(cases: Sequence[_NamedCase]) -> list[CaseFiles]:
    folders_with: dict[str, set[tuple[str, ...]]] = {}
    for case in cases:
        for name in {case.name, case.person}:
            folders_with.setdefault(name, set()).add(case.above)
    named = []
    for case in cases:
        shared = max(len(folders_with[case.name]), len(folders_with[case.person])) > 1
        above = case.above if shared else ()
        patient = "_".join((*above, case.person))
        named.append(CaseFiles("_".join((*above, case.name)), patient, tuple(case.files)))
    counts: Counter[str] = Counter()
    taken = {each.id for each in named}
    for index, each in enumerate(named):  # `a/b_c` and `a_b/c` still share a name
        counts[each.id] += 1
        if counts[each.id] > 1:
            numbers = (f"{each.id}-{number}" for number in itertools.count(counts[each.id]))
            new = next(name for name in numbers if name not in taken)
            taken.add(new)
            named[index] = replace(each, id=new, patient=new)
    return named
