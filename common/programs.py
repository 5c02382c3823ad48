"""The processes of a pipeline, as supervisord.conf lists them: its one home, from which systemd units are made, too.

A program is a section there. Those with the higher priority stop first: ticks first, so that what they caused is
finished, and the executor settles its orders while the venue is still there.
"""

import configparser
import re
from typing import NamedTuple

from common.config import Config
from common.errors import ConfigError

_NUMBER = "%(process_num)d"


class Program(NamedTuple):
    name: str
    command: str  #: with `{}` where the number of the process stands, if `numbered`
    numbered: bool
    count: int
    priority: int  #: the highest stops first
    stop_s: int  #: within so long it ends by itself once it is asked to
    always: bool  #: started again whatever its exit code; else not after 0

    def stage(self, number: int = 0) -> str:
        """What process `number` is called in telemetry, locks and logs."""
        # The first ingest is the one that there nearly always is.
        return self.name if not self.numbered or self.name == "ingest" and not number else f"{self.name}-{number}"

    def stages(self) -> list[str]:
        return [self.stage(number) for number in range(self.count)]


def parse(text: str) -> tuple[Program, ...]:
    """The programs of a supervisord.conf that are started with it, in the order in which they stop. Raises
    ConfigError where a section lacks what every one has."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    try:
        parser.read_string(text)
        found = [_program(name.removeprefix("program:"), parser[name]) for name in parser.sections()
                 if name.startswith("program:") and parser[name].get("autostart", "true") == "true"]
    except (configparser.Error, KeyError, ValueError) as error:
        raise ConfigError("supervisord.conf cannot be understood", where=str(error)) from None
    return tuple(sorted(found, key=lambda program: -program.priority))


def _program(name: str, section: configparser.SectionProxy) -> Program:
    command = section["command"]
    return Program(name, command.replace(_NUMBER, "{}"), _NUMBER in command, section.getint("numprocs", 1),
                   int(section["priority"]), int(section["stopwaitsecs"]), section["autorestart"] == "true")


def environment(text: str) -> dict[str, str]:
    """What supervisord.conf puts into the environment of every program, `%(here)s` and the like as they stand."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(text)
    return dict(re.findall(r'(\w+)="([^"]*)"', parser["supervisord"].get("environment", "")))


def stopped_before(program: Program, programs: tuple[Program, ...]) -> list[str]:
    """The stages that are to have ended before `program` is asked to: those of the priority next above its own."""
    above = [other.priority for other in programs if other.priority > program.priority]
    return [stage for other in programs if above and other.priority == min(above) for stage in other.stages()]


def on_this_machine(config: Config) -> bool:
    """Whether anything of this configuration speaks with the loopback exchange: a feed, or orders."""
    addresses = [address for feed in (config.market, *config.feeds.values())
                 for address in (feed.ws_url, feed.rest_url)]
    if config.executor.gateway != "paper":
        addresses.append(config.executor.base_url)
    here = f"{config.exchange.host}:{config.exchange.port}"
    return any(re.match(rf"\w+://{re.escape(here)}(?:/|$)", address) for address in addresses)
