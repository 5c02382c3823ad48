"""alpha: the command group. Each command lives in the module of its process and is imported when asked for,
so that a stage that needs little starts fast."""

import gc
import importlib
import os

# One thread per process: the pools of the linear-algebra libraries would fight over the cores. Read when
# numpy is first imported, hence before anything else.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import click  # noqa: E402
from click.shell_completion import CompletionItem  # noqa: E402

from procs import completion  # noqa: E402

#: the commands by what they are for: name -> its module, and what it does in a line
SECTIONS = {
    "Run": {
        "run": ("procs.run", "Start everything under supervisord and show it running."),
        "restart": ("procs.restart", "Start one stage again, and wait until it is ready."),
        "units": ("procs.units", "Make systemd units of the pipeline."),
        "warm": ("procs.warm", "Compile the kernels, so that stages start fast."),
        "config": ("procs.settings", "Print the configuration in force."),
        "completion": ("procs.completion", "Print the script by which a shell completes these commands."),
    },
    "Look": {
        "status": ("procs.status", "Show what runs, what it waits for and what is in force."),
        "top": ("procs.top", "Show the pipeline live, in a terminal."),
        "doctor": ("procs.doctor", "Look for what is wrong with this machine and instance, and tell how to mend it."),
        "logs": ("procs.logs", "Show what the stages said, in the order of time."),
        "alerts": ("procs.alerts", "Show what is wrong now, and try where it is told."),
        "metrics": ("procs.metrics", "Print the metrics, and what Prometheus and Grafana need to read them."),
        "tap": ("procs.tap", "Print, count, record, play or inject what flows on a link."),
    },
    "Stop and restrain": {
        "halt": ("procs.halt", "Kill switch: stop new orders, cancel working ones."),
        "reduce": ("procs.halt", "Let only orders leave that shrink a position."),
        "flatten": ("procs.halt", "Leave every position, and nothing else."),
        "resume": ("procs.halt", "Lift the kill switch."),
        "arm": ("procs.halt", "Let the executor trade on a live venue."),
    },
    "Orders": {
        "orders": ("procs.orders", "List orders, and what became of them."),
        "position": ("procs.position", "Show what is held, and what it is worth."),
        "explain": ("procs.explain", "Show what an order was made of, and make its decision again."),
        "daily": ("procs.daily", "Report a day of trading, with plots."),
        "reconcile": ("procs.reconcile", "Compare the journal with the venue, and make them equal."),
    },
    "Models": {
        "features": ("procs.features", "List the features: formula, unit, window, source."),
        "dataset": ("procs.dataset", "Make rows and labels of recordings, to train on."),
        "train": ("procs.train", "Train a model on a dataset, judge it walk-forward, export it."),
        "model": ("procs.model", "Check, list and deploy models."),
        "parity": ("procs.parity", "Compare a recorded live session with a replay of its frames, bit by bit."),
    },
    "Recordings": {
        "record": ("procs.record", "Record what the venues send, in files."),
        "replay": ("procs.replay", "Run a recording through the same stages in one process."),
        "backtest": ("procs.backtest", "Trade recordings through the same stages, and report what came of it."),
        "capture": ("procs.capture", "Judge, describe, convert and draw recordings."),
    },
    "Measure and break": {
        "bench": ("procs.bench", "Measure, beside the floor and the article's architecture."),
        "drill": ("procs.drill", "Let each fault loose on the pipeline, and judge what becomes of it."),
    },
    "Stages, each in a process of its own": {
        "exchange": ("procs.exchange", "Stage: the loopback exchange."),
        "ingest": ("procs.ingest", "Stage: frames become validated books and ticks."),
        "feature": ("procs.feature", "Stage: ticks become rows; rows go to idle workers."),
        "inference": ("procs.inference", "Stage: rows become predictions."),
        "executor": ("procs.executor", "Stage: predictions become decisions and orders."),
        "monitor": ("procs.monitor", "Stage: judges predictions by their outcome; serves page and metrics."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class _Lazy(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        gc.disable()  # importing makes no garbage, and collecting would take an eighth of the time
        try:
            command = getattr(importlib.import_module(COMMANDS[name][0]), name)
            if completion.asked():
                completion.attach(command)
            return command
        finally:
            gc.enable()

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, with none of them imported."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, context, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(wide), text) for name, (_, text) in section.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="predictive-alpha")
def main() -> None:
    """Predictive Alpha: order-book streams in, risk-managed orders out, through an ONNX model.

    Each command has --help, with examples. Settings come from alpha.toml, or the file that $ALPHA_CONFIG or --config
    names, and from ALPHA_SECTION__KEY variables; secrets from the environment alone.

    \b
    Examples
      alpha run --for 60s
      alpha top
      alpha explain last

    \b
    Exit codes  0  done                        4  the venue, or a recording, is at fault
                1  failed                      5  a resource: memory, disk, port, journal
                2  configuration or option     6  another process holds what only one may
                3  a contract: model, layout   7  nothing runs
    """


if __name__ == "__main__":
    main()
