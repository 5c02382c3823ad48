"""Draws procs/pictures/top.svg from a running pipeline: `python -m tests.pictures_top [OUT]`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from common.config import load
from common.watch.watched import Watched
from procs.top_screen import Top
from tests.pipeline import ROOT, Pipeline

SIZE = 120, 36


async def draw(app: Top, until_seen: int) -> str:
    """The screen as SVG once so many decisions were made."""
    async with app.run_test(size=SIZE) as pilot:
        while app.snapshot["numbers"]["decisions"] < until_seen:
            await pilot.pause(0.5)
        for _ in range(20):
            await pilot.pause(1.0)
        return app.export_screenshot(title="alpha top")


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="at") as folder:
        pipeline = Pipeline("demo", Path(folder), Path(folder) / "run")
        try:
            pipeline.until_count("executor", "decisions", 1, 180)
            config = load(None, {**pipeline.env, "ALPHA_CONFIG": str(ROOT / "alpha.toml")})
            watched = Watched(config)
            svg = asyncio.run(draw(Top(config, watched), 2000))
            watched.close()
        finally:
            pipeline.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(svg)
    print(f"wrote {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "procs" / "pictures" / "top.svg")
