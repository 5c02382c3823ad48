"""The text of units; that systemd takes them, and runs them, is tested with the command."""

import configparser
from pathlib import Path

from common.programs import parse
from common.units import WATCHDOG_S, Setting, render, service_name, target_name

PROGRAMS = parse((Path(__file__).resolve().parents[2] / "supervisord.conf").read_text())
SETTING = Setting(instance="demo", system=True, user="quant", folder="/srv/my folder",
                  environment={"ALPHA_X__Y": 'a "b" 50%'}, secrets="/etc/alpha/demo.env", writable=("/srv/state",),
                  run_dir="/run/alpha demo$", runtime_folder="alpha-demo", network=True, cpu_only=True)


def parsed(text: str) -> dict[str, list[str]]:
    """Directive -> values, in order; systemd lets one be given more than once."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_there_is_a_service_for_every_program_and_the_target_wants_each_process():
    units = render(PROGRAMS, SETTING)
    assert set(units) == {target_name("demo"), *(service_name("demo", program) for program in PROGRAMS)}
    wanted = parsed(units["alpha-demo.target"])["Wants"]
    assert len(wanted) == sum(program.count for program in PROGRAMS)
    assert {"alpha-demo-inference@0.service", "alpha-demo-inference@1.service", "alpha-demo-executor.service"} <= set(
        wanted)


def test_every_service_is_watched_restarted_for_ever_and_stopped_with_its_target():
    for program in PROGRAMS:
        told = parsed(render(PROGRAMS, SETTING)[service_name("demo", program)])
        assert told["Type"] == ["notify"] and told["WatchdogSec"] == [f"{WATCHDOG_S}s"]
        assert told["Restart"] == ["always" if program.always else "on-failure"]
        assert told["StartLimitIntervalSec"] == ["0"] and told["TimeoutStartSec"] == ["infinity"]
        assert told["PartOf"] == ["alpha-demo.target"]
        assert told["ExecStart"] == [program.command.format("%i")]
        assert int(told["TimeoutStopSec"][0][:-1]) >= program.stop_s
        assert told["EnvironmentFile"] == ["-/etc/alpha/demo.env"]
        # What would break a stage: an order that starts them one after the other, folders and memory of its own.
        for absent in ("CPUAffinity", "Nice", "PrivateTmp", "PrivateIPC", "PrivateDevices", "MemoryDenyWriteExecute",
                       "RemoveIPC", "Before", "Requires", "BindsTo"):
            assert absent not in told
        assert told["After"] == ["network-online.target"]


def test_a_service_waits_longer_than_all_before_it_may_take():
    units = render(PROGRAMS, SETTING)
    for program in PROGRAMS:
        told = parsed(units[service_name("demo", program)])
        above = sum(other.stop_s for other in PROGRAMS if other.priority > program.priority)
        assert int(told["TimeoutStopSec"][0][:-1]) == program.stop_s + above
        assert bool(told.get("ExecStop")) == bool(above)
        assert all(f"flock -w {above} " in line and line.startswith("-") for line in told.get("ExecStop", []))


def test_what_systemd_would_expand_is_quoted():
    executor = render(PROGRAMS, SETTING)["alpha-demo-executor.service"]
    told = parsed(executor)
    assert told["Environment"] == ['"ALPHA_X__Y=a \\"b\\" 50%%"']
    assert told["ExecStop"][0].endswith('"/run/alpha demo$$/stage.inference-0.lock"')
    assert told["WorkingDirectory"] == ["/srv/my folder"]
    several = render(PROGRAMS, SETTING._replace(environment={"ALPHA_X__Y": "[\n1]\nExecStartPre=/bin/other"}))
    told = parsed(several["alpha-demo-executor.service"])
    assert told["Environment"] == ['"ALPHA_X__Y=[\\n1]\\nExecStartPre=/bin/other"'], "one line, whatever is in it"


def test_a_users_manager_is_asked_for_nothing_that_it_cannot_do():
    user = render(PROGRAMS, SETTING._replace(system=False))
    for name, text in user.items():
        told = parsed(text)
        assert not {"User", "ProtectSystem", "CapabilityBoundingSet", "DevicePolicy"} & set(told), name
        assert "network-online" not in text
    assert "systemctl --user" in user["alpha-demo-executor.service"]
    assert parsed(user["alpha-demo.target"])["WantedBy"] == ["default.target"]


def test_an_accelerator_keeps_its_devices_and_system_calls():
    text = render(PROGRAMS, SETTING._replace(cpu_only=False))["alpha-demo-inference@.service"]
    assert not {"DevicePolicy", "SystemCallFilter", "ProtectClock"} & set(parsed(text))
    assert "SystemCallFilter" in parsed(render(PROGRAMS, SETTING)["alpha-demo-inference@.service"])


def test_a_variable_that_is_left_out_is_named():
    target = render(PROGRAMS, SETTING, ("ALPHA_MARKET__WS_URL",))["alpha-demo.target"]
    assert "# ALPHA_MARKET__WS_URL is set and not written here" in target and "/etc/alpha/demo.env" in target
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(target)
    assert parser.sections() == ["Unit", "Install"]
