"""systemd units of a pipeline, as text: a target, and a service for each program of supervisord.conf.

Pure: what is rendered is given, and nothing is looked at. `procs.units` gathers it, and writes the files.

systemd starts and stops in one order, one the reverse of the other. A pipeline has none for starting, since each stage
waits for what it needs, and one for stopping: so services are not ordered (`After=`), and each, when the whole target
goes, waits before its SIGTERM until those above it have let go of their locks (`ExecStop=`).
"""

from typing import NamedTuple

from common.programs import Program, stopped_before

WATCHDOG_S = 30  #: no housekeeping turn for so long: killed and started again; a turn is every 0.1 s


class Setting(NamedTuple):
    """What units are made for."""

    instance: str
    system: bool  #: units of the machine, or of a user's own manager
    user: str  #: of system units: whom the stages run as
    folder: str  #: where the stages run: that of the configuration file
    environment: dict[str, str]
    secrets: str  #: path of the file with secrets, mode 0600
    writable: tuple[str, ...]  #: folders
    run_dir: str
    runtime_folder: str  #: name of the run folder under /run or the user's own; "": it is elsewhere, and stays
    network: bool  #: something is asked for that is not on this machine
    cpu_only: bool  #: no device of an accelerator is needed


def target_name(instance: str) -> str:
    return f"alpha-{instance}.target"


def service_name(instance: str, program: Program, number: int | None = None) -> str:
    """Of a numbered program: the template, or one of its instances."""
    return f"alpha-{instance}-{program.name}{'@' if program.numbered else ''}{'' if number is None else number}.service"


def render(programs: tuple[Program, ...], setting: Setting, left_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Text of each unit by the name of its file. `left_out`: variables that are not written, since they hold a
    secret."""
    units = {target_name(setting.instance): _target(programs, setting, left_out)}
    for program in programs:
        units[service_name(setting.instance, program)] = _service(program, programs, setting)
    return units


def _target(programs: tuple[Program, ...], setting: Setting, left_out: tuple[str, ...]) -> str:
    wanted = [service_name(setting.instance, program, number if program.numbered else None)
              for program in reversed(programs) for number in range(program.count)]
    lines = ["# Made by `alpha units` from the configuration and supervisord.conf: make it anew rather than edit it.",
             "# Started and stopped as a whole:"
             f" systemctl{'' if setting.system else ' --user'} start|stop {target_name(setting.instance)}"]
    if setting.system:
        lines += ["# If the user is one who logs in, logind removes the user's shared memory at the last logout: give",
                  "# the pipeline a system account, or set RemoveIPC=no in logind.conf, or `loginctl enable-linger`."]
    else:
        lines += ["# `loginctl enable-linger` lets it run on after the last logout, and keeps its shared memory."]
    lines += [f"# {name} is set and not written here, since it holds a secret: put it into {setting.secrets}"
              for name in left_out]
    lines += ["", "[Unit]", f"Description=Predictive Alpha, instance {setting.instance}"]
    lines += [f"Wants={name}" for name in wanted]
    lines += ["", "[Install]", f"WantedBy={'multi-user.target' if setting.system else 'default.target'}", ""]
    return "\n".join(lines)


def _service(program: Program, programs: tuple[Program, ...], setting: Setting) -> str:
    target = target_name(setting.instance)
    number = " %i" if program.numbered else ""
    lines = ["[Unit]", f"Description=Predictive Alpha, instance {setting.instance}: {program.name}{number}",
             f"PartOf={target}"]
    if setting.network and setting.system:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    lines += ["# Started again for ever: an exchange may be away for a weekend.", "StartLimitIntervalSec=0", "",
              "[Service]", "Type=notify",
              "# Ready is told once the stage has what it waits for, which may take days; what that is: Status.",
              "TimeoutStartSec=infinity", f"WatchdogSec={WATCHDOG_S}s",
              f"ExecStart={program.command.format('%i')}"]
    lines += _stop(program, programs, setting, target)
    lines += [f"Restart={'always' if program.always else 'on-failure'}", "RestartSec=1s", ""]
    if setting.system:
        lines += [f"User={setting.user}"]
    lines += [f"WorkingDirectory={_path(setting.folder)}"]
    lines += [f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(setting.environment.items())]
    lines += ["# Secrets: NAME=value lines, mode 0600; it is read by systemd, not by the stages.",
              f"EnvironmentFile=-{_path(setting.secrets)}", "UMask=0077", ""]
    if setting.runtime_folder:
        lines += [f"RuntimeDirectory={setting.runtime_folder}", "RuntimeDirectoryMode=0700",
                  "# Shared by all stages: it stays while one of them is started again.",
                  "RuntimeDirectoryPreserve=yes", ""]
    lines += ["# Cores and niceness are placed by the stage itself ([placement]): no CPUAffinity=, no Nice=.",
              "LimitMEMLOCK=infinity", "# A core would hold the keys of the venue.", "LimitCORE=0", ""]
    return "\n".join(lines + _hardening(setting)) + "\n"


def _stop(program: Program, programs: tuple[Program, ...], setting: Setting, target: str) -> list[str]:
    before = stopped_before(program, programs)
    # Those above may take as long as they may, one after the other.
    patience = sum(other.stop_s for other in programs if other.priority > program.priority)
    lines = ["KillMode=mixed", f"TimeoutStopSec={program.stop_s + patience}s",
             "# One that hangs has nothing to finish.", "TimeoutAbortSec=5s"]
    if before:
        systemctl = "systemctl" if setting.system else "systemctl --user"
        lines.append("# Where the whole target goes, this stage waits until those that feed it have freed their locks.")
        for stage in before:
            command = f'{systemctl} -q is-active "$$1" || exec flock -w {patience} "$$2" true'
            lines.append(f"ExecStop=-/bin/sh -c '{command}' sh {target}"
                         f" {_argument(f'{setting.run_dir}/stage.{stage}.lock')}")
    return lines


def _hardening(setting: Setting) -> list[str]:
    """What the stages can do without. What they cannot, and why, stands in the units."""
    lines = ["# What is not here, and why:",
             "#   PrivateTmp=         other terminals find the run folder, with its sockets, where it is",
             "#   RemoveIPC=          the rings in /dev/shm outlive a stage that is started again",
             "#   MemoryDenyWriteExecute=   kernels are compiled to machine code",
             "#   PrivateDevices=     /dev/cpu_dma_latency keeps cores awake, where it may be opened",
             "#   RestrictRealtime=   is here: the idle and batch policies, which the stages use, are none of it",
             "NoNewPrivileges=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "RestrictNamespaces=yes",
             "LockPersonality=yes", "SystemCallArchitectures=native",
             "# Netlink: how the C library orders the addresses of a name.",
             "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"]
    if not setting.cpu_only:
        lines.append("# No filter of system calls and devices: drivers of accelerators need more than is known here.")
    else:
        lines += ["SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"]
    if not setting.system:
        return lines + ["# A user's own manager cannot take away folders and capabilities; `--system` does."]
    lines += ["CapabilityBoundingSet=", "AmbientCapabilities=", "ProtectSystem=strict",
              "# /dev/shm stays writable under strict, as all of /dev does."]
    lines += [f"ReadWritePaths={_path(folder)}" for folder in setting.writable]
    lines += ["ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes",
              "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectProc=invisible",
              "# ProcSubset= is not pid: libraries read /proc/cpuinfo."]
    if setting.cpu_only:
        lines += ["ProtectClock=yes", "DevicePolicy=closed", "DeviceAllow=/dev/cpu_dma_latency rw"]
    return lines


def _path(text: str) -> str:
    """Where systemd expects a path, `%` begins a specifier."""
    return text.replace("%", "%%")


def _argument(text: str) -> str:
    """In a command line, where `$` begins a variable, too."""
    return _quoted(text).replace("$", "$$")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%") + '"'
