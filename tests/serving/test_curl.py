"""The endpoint called as docs/serving.md shows it, with curl."""

import json
import shutil
import subprocess
import zipfile

import pytest
from page_endpoint import endpoint

from bundles import Bright, describe

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_readmes_calls_are_answered(readme_block, tiny, lgg, tmp_path):
    slices = sorted(path for path in next(lgg.glob("TCGA_*")).iterdir() if "_mask" not in path.name)
    for number, path in enumerate(slices[:2], start=1):
        shutil.copy(path, tmp_path / f"slice_{number}.tif")
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for path in slices:
            archive.write(path, path.name)
    with endpoint(describe(tiny), Bright()) as url:
        script = readme_block.replace("http://127.0.0.1:8000", url).replace("curl ", "curl --fail --silent -w '\\n' ")
        done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(few["study"]["slices"]) == 2
    assert len(whole["study"]["slices"]) == len(slices)
    assert whole["mask"]["format"] == "tiff"
    assert whole["overlay"]
