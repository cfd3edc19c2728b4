"""Draw docs/pictures/page.png: the web page with the shipped model's answer on the page's synthetic example.

Needs Chromium (`make system-packages`); keeps nothing but the picture.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1366, 768


def main() -> None:
    """Serve the model in this process, open its page, analyze the example and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "page.png")
    out = parser.parse_args().out.resolve()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "serving")]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.chdir(folder):
        os.environ["GLIOFLOW_HOME"] = f"{folder}/home"
        draw(Path(folder), out)
    print(f"{out}: {out.stat().st_size // 1024} KiB")


def draw(folder: Path, out: Path) -> None:
    """Write the picture."""
    import headless_chromium
    import page_endpoint

    from glioflow.bundle.starter import STARTER
    from glioflow.serving.engine.batching import Batcher
    from glioflow.serving.settings import Trial
    from glioflow.serving.versions.loaded import find_wanted, load_version

    champion = find_wanted(STARTER, Trial()).champion
    assert champion is not None
    served = load_version(champion, Batcher(2**18))
    with page_endpoint.serving_here(served) as url, headless_chromium.browser(folder) as page:
        page.size(WIDTH, HEIGHT)
        page.open(f"{url}/page/")
        page.until("document.querySelector('#model')?.className === 'good'")
        page.click("Try an example")
        page.until("!!document.querySelector('.verdict')", seconds=300)
        page.click("Linked")
        page.picture(out)


if __name__ == "__main__":
    main()
