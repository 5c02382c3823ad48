"""The pictures of the page that the documentation shows, taken from a running pipeline: python -m tests.pictures

Writes procs/pictures/page-{light,dark}-{desktop,phone}.png. Takes two minutes: a page is to have something to show.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from common import shm
from tests.browser import TOKEN, chromium, live, missing, opened
from tests.pipeline import Pipeline, free_port

FOLDER = Path(__file__).resolve().parents[1] / "procs" / "pictures"
SIZES = {"desktop": (1440, 1240), "phone": (390, 1500)}
SCHEMES = ("light", "dark")
MOST_BYTES = 250_000
_SHOWN_MS = 75_000  # of time that a picture is to show
_SETTLES_MS = 4000  # until every chart in sight has been drawn anew


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if missing():
        sys.exit(missing())
    FOLDER.mkdir(exist_ok=True)
    folder, instance, port = Path(tempfile.mkdtemp(prefix="ap")), "page-demo", free_port()
    for name in ("state", "run"):
        (folder / name).mkdir(mode=0o700)
    pipeline = Pipeline(instance, folder / "state", folder / "run", ALPHA_MONITOR__PAGE="true",
                        ALPHA_MONITOR__PORT=str(port), ALPHA_MONITOR_TOKEN=TOKEN,
                        ALPHA_RISK__MAX_POSITION_NOTIONAL="40000", ALPHA_RISK__SYMBOL_COOLDOWN_MS="1500")
    try:
        pipeline.until_count("monitor", "judged", 300, 300)
        with chromium() as browser:
            page = opened(browser, port, TOKEN, size=SIZES["desktop"])
            live(page)
            page.wait_for_timeout(_SHOWN_MS)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                for name, (width, height) in SIZES.items():
                    page.set_viewport_size({"width": width, "height": height})
                    live(page)
                    page.wait_for_timeout(_SETTLES_MS)
                    target = FOLDER / f"page-{scheme}-{name}.png"
                    page.screenshot(path=str(target), timeout=120_000, animations="disabled")
                    print(f"{target}: {target.stat().st_size:,} bytes", flush=True)
                    if target.stat().st_size > MOST_BYTES:
                        sys.exit(f"{target} is larger than {MOST_BYTES:,} bytes")
    finally:
        pipeline.close()
        shm.sweep(instance)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
