"""The screen of `alpha top`: keys, dialogs and a picture that is drawn anew once a second. Only this uses textual."""

from collections.abc import Callable
from typing import Any

from rich.markup import escape
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Footer, Static

from common import killswitch
from common.config import Config
from common.errors import AlphaError
from common.watch.controls import Done, act, who
from common.watch.picture import BAD, DIM, GOOD, HEAD, WARN, Trails, picture
from common.watch.watched import Watched

_STYLES = {"": "", GOOD: "green", WARN: "yellow", BAD: "bold red", DIM: "dim", HEAD: "bold"}
_EVERY_S = 1.0
_REASON = "by hand, in alpha top"
_HELP = """\
q          quit
s, tab     next symbol: its orders alone
p          pause the picture, and go on
h          halt: no new orders, working ones cancelled
r          reduce: only orders that shrink a position
f          flatten: leave every position, and nothing else
u          resume: lift all of it
?          this help

! marks a limit that is nearly reached, > the symbol chosen,
~ what an executor that is silent or gone said last.
Latency: full blocks to the p50, light ones to the p99, of the
last five seconds, or of the whole life where none came.
The figures are those of alpha status --json."""


class Picture(Widget):
    """What `common.watch.picture` draws, as large as there is room."""

    def __init__(self, draw: Callable[[int, int], list]) -> None:
        super().__init__()
        self._draw = draw

    def render(self) -> Text:
        lines = self._draw(self.size.width, self.size.height)
        return Text("\n").join(Text.assemble(*((text, _STYLES[mood]) for text, mood in line)) for line in lines)


class Confirm(ModalScreen[bool]):
    """A question; anything but yes is no."""

    BINDINGS = [Binding("y", "answer(True)", "yes"), Binding("n,escape,q", "answer(False)", "no")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog") as dialog:
            # In the frame: what has no room is the text, never the question or its keys.
            dialog.border_title, dialog.border_subtitle = escape(self._title), "y yes   n no"
            yield Static(self._text, markup=False)

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class Help(ModalScreen[None]):
    def compose(self) -> ComposeResult:
        with Vertical(id="dialog") as dialog:
            dialog.border_title, dialog.border_subtitle = "alpha top", "any key closes it"
            yield Static(_HELP, markup=False)

    def on_key(self, event: Any) -> None:
        event.stop()
        self.dismiss()


class Top(App[None]):
    """`take` gives a snapshot; it is looked at once a second."""

    TITLE = "alpha top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Picture { height: 1fr; }
    Confirm, Help { align: center middle; }
    #dialog { width: 66; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1;
              background: $surface; border-title-style: bold; border-subtitle-style: bold; }
    """
    BINDINGS = [
        Binding("q", "quit", "quit"), Binding("h", "halt", "halt"), Binding("r", "reduce", "reduce"),
        Binding("f", "flatten", "flatten"), Binding("u", "resume", "resume"),
        Binding("s,tab", "next", "symbol", priority=True),
        Binding("p", "pause", "pause"), Binding("question_mark", "help", "help", key_display="?")]

    def __init__(self, config: Config, watched: Watched) -> None:
        super().__init__()
        self._config, self._watched, self._trails = config, watched, Trails()
        self.snapshot = watched.take(())
        self.selected = ""
        self.paused = False
        self._trails.add(self.snapshot)

    def compose(self) -> ComposeResult:
        yield Picture(lambda width, height: picture(self.snapshot, self._trails, width, height, self.selected,
                                                    self.paused))
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(_EVERY_S, self.look)

    def look(self) -> None:
        """Take a snapshot and draw it. A paused picture stays, and its rates go on being kept."""
        snapshot = self._watched.take(())
        self._trails.add(snapshot)
        if not self.paused:
            self.snapshot = snapshot
            self._redraw()

    def _redraw(self) -> None:
        for shown in self.screen_stack[0].query(Picture):
            shown.refresh()

    # ---- keys

    def action_next(self) -> None:
        """From all symbols to the first, from the last to all."""
        if len(self.screen_stack) > 1:
            return
        names = ["", *(symbol["name"] for symbol in self.snapshot["symbols"])]
        self.selected = names[(names.index(self.selected) + 1) % len(names)] if self.selected in names else ""
        self._redraw()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.look() if not self.paused else self._redraw()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_halt(self) -> None:
        self._ask("Halt?", "No new orders leave, and working ones are cancelled, until resume.", "halt")

    def action_reduce(self) -> None:
        self._ask("Reduce?", "Only orders that shrink a position leave, until resume.", "reduce")

    def action_flatten(self) -> None:
        self._ask("Flatten?", "Every position is left, at the touch, and nothing else leaves, until resume.", "flatten")

    def action_resume(self) -> None:
        folder = self._config.state_dir
        found = killswitch.state(folder) or killswitch.reduction(folder)
        if found is None:
            self.notify("nothing is halted or reduced")
            return
        self._ask("Resume trading?", f"It was stopped or restrained by {found.who}: {found.why}", "resume")

    def _ask(self, title: str, text: str, action: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(lambda: self._act(action), thread=True)

        self.push_screen(Confirm(title, text), answered)

    def _act(self, action: str) -> None:
        """As the command of that name, off the thread that draws: the executor may take its time to confirm."""
        try:
            done = act(self._config, action, _REASON, who())
        except AlphaError as error:
            done = Done(False, str(error))
        self.call_from_thread(self.notify, done.text, severity="information" if done.ok else "error",
                              timeout=5 if done.ok else 60)
