"""The pictures of the page that the documentation shows, taken from a running pipeline: python -m tests.pictures

Writes procs/pictures/page-{light,dark}-{desktop,phone}.png. Takes two minutes: a page is to have something to show.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from common import shm
from tests.browser import TOKEN, chromium, live, missing, opened, until
from tests.pipeline import Pipeline, free_port

FOLDER = Path(__file__).resolve().parents[1] / "procs" / "pictures"
SIZES = {"desktop": (1440, 1180), "phone": (390, 1500)}
SCHEMES = ("light", "dark")
MOST_BYTES = 250_000
_SHOWN = 45  # seconds of the series that a picture has at least


def main() -> None:
    if missing():
        sys.exit(missing())
    FOLDER.mkdir(exist_ok=True)
    folder, instance, port = Path(tempfile.mkdtemp(prefix="ap")), "pictures", free_port()
    for name in ("state", "run"):
        (folder / name).mkdir(mode=0o700)
    pipeline = Pipeline(instance, folder / "state", folder / "run", ALPHA_MONITOR__PAGE="true",
                        ALPHA_MONITOR__PORT=str(port), ALPHA_MONITOR_TOKEN=TOKEN,
                        ALPHA_RISK__MAX_POSITION_NOTIONAL="40000", ALPHA_RISK__SYMBOL_COOLDOWN_MS="1500")
    try:
        pipeline.until_count("monitor", "judged", 300, 300)
        with chromium() as browser:
            pages = {(scheme, name): opened(browser, port, TOKEN, scheme, size)
                     for name, size in SIZES.items() for scheme in SCHEMES}
            for (scheme, name), page in pages.items():
                page.bring_to_front()
                live(page)
                until(page, "seconds => { const all = document.getElementById('chart-price').data;"
                            " return all && all[0].x.length > 4 * seconds && all.slice(3).some(one => one.x.length); }",
                      _SHOWN)
                target = FOLDER / f"page-{scheme}-{name}.png"
                page.screenshot(path=str(target), timeout=120_000, animations="disabled")
                print(f"{target}: {target.stat().st_size:,} bytes")
                if target.stat().st_size > MOST_BYTES:
                    sys.exit(f"{target} is larger than {MOST_BYTES:,} bytes")
    finally:
        pipeline.close()
        shm.sweep(instance)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
