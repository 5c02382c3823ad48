"""The doctor as a command, and faults that are planted for real: each is found by its name, with its remedy."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import click.testing
import pytest

from common import killswitch, shm
from common.doctor import checks, examine
from common.doctor.check import Finding, Level
from common.doctor.patient import Patient
from common.journal import Journal
from common.orders import BUY, Order
from procs.doctor import doctor, patient_of
from tests.pipeline import ROOT, Pipeline, command, environment
from tests.venue_server import VenueServer
from tests.waiting import until


@pytest.fixture
def env(instance, run_dir, tmp_path) -> dict[str, str]:
    return environment(instance, tmp_path / "state", run_dir, ALPHA_CONFIG=str(ROOT / "alpha.toml"))


def found(name: str, env: dict[str, str], patient: Patient | None = None) -> list[Finding]:
    """What one check says, the worst last."""
    (report,) = examine(patient or patient_of(None, env), (name,))
    return sorted(report.findings, key=lambda finding: finding.level)


def worst(name: str, env: dict[str, str], patient: Patient | None = None) -> Finding:
    return found(name, env, patient)[-1]


def is_found(finding: Finding, level: Level, what: str, remedy: str) -> bool:
    assert finding.level == level and what in finding.what and remedy in finding.remedy, finding
    return True


# ---- memory and disks, which are filled: in a mount namespace, on file systems of a few MiB

_FULL = """
mount -t tmpfs -o size={size} tmpfs /dev/shm && mount -t tmpfs -o size=8m tmpfs {state} || exit 77
{python} -c "
import os, signal
from common.telemetry import Telemetry
Telemetry.create('{dead}', 'feature', ())
os.kill(os.getpid(), signal.SIGKILL)"
head -c 3m /dev/zero > /dev/shm/hog
head -c 7m /dev/zero > {state}/hog
{python} -m procs.cli doctor --json --offline --only shm --only disk --only blocks > {out}/before.json
{python} -m procs.cli doctor --json --offline --fix --only blocks > {out}/after.json
ls /dev/shm > {out}/left
"""


def test_full_memory_a_full_disk_and_leftovers_are_found_and_swept(env, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    script = _FULL.format(size="4m", state=state, python=sys.executable, dead="gone", out=tmp_path)
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr and not (tmp_path / "left").exists():
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    told = json.loads((tmp_path / "before.json").read_text())
    said = {check["name"]: [tuple(finding.values()) for finding in check["findings"]] for check in told["checks"]}
    assert told["exit_code"] == 5 and told["worst"] == "error" and told["removed"] == []
    (memory,) = [one for one in said["shm"] if one[0] == "error"]
    assert "of 4.0 MiB free in /dev/shm" in memory[1] and "mount -o remount,size=" in memory[3]
    (disk,) = [one for one in said["disk"] if one[0] == "error"]
    assert str(state) in disk[1] and "of 0.01 GiB free" in disk[1] and "remove old recordings" in disk[3]
    (blocks,) = said["blocks"]
    assert blocks[0] == "warning" and "instance gone: 1 blocks" in blocks[1] and "telemetry-feature" in blocks[1]
    assert blocks[3] == "alpha doctor --fix"
    after = json.loads((tmp_path / "after.json").read_text())
    assert after["removed"] == [shm.block_name("gone", "telemetry-feature")] and after["exit_code"] == 0
    assert (tmp_path / "left").read_text().split() == ["hog"]  # it was no block of ours


# ---- processes

def test_a_stage_that_lost_who_started_it_is_found(env, run_dir, instance):
    """A real stage, whose shell has gone."""
    shell = subprocess.Popen(["sh", "-c", f"{sys.executable} -m procs.cli ingest >/dev/null 2>&1 & echo $!"], env=env,
                             cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid, lock = int(shell.stdout.readline()), run_dir / "stage.ingest.lock"
    shell.wait()
    try:
        until(lambda: lock.exists() and lock.read_text() == str(pid), 60, "the lock of the stage")
        about = [one for one in found("processes", env) if f"(pid {pid})" in one.what]
        assert is_found(about[0], Level.WARNING, "ingest", f"kill {pid}") and "lost who started it" in about[0].what
        lock.unlink()
        about = [one for one in found("processes", env) if f"(pid {pid})" in one.what]
        assert is_found(about[-1], Level.ERROR, f"a lock that is gone: {lock}", f"kill {pid}")
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), 60, "the end of the stage")
    assert not [one for one in found("processes", env) if f"(pid {pid})" in one.what]
    assert not shm.leaked(instance)


def test_a_taken_port_is_found_with_who_has_it(env):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["ALPHA_EXCHANGE__PORT"])))
        assert worst("ports", env).level == Level.OK  # bound, and nobody listens
        taken.listen()
        assert is_found(worst("ports", env), Level.ERROR, f"{taken.getsockname()[1]} is taken by pid {os.getpid()}",
                        f"kill {os.getpid()}, or set ALPHA_EXCHANGE__PORT")


def test_sockets_that_a_killed_process_left_are_found(env, run_dir):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "ticks.sock"))
    assert is_found(worst("sockets", env), Level.NOTE, "ticks.sock", f"rm {run_dir}/ticks.sock")


def test_a_stage_that_its_supervisor_gave_up_is_found(env, run_dir, tmp_path):
    """A real supervisord, and a program that ends at once."""
    conf = tmp_path / "conf"
    conf.write_text(f"""[supervisord]
nodaemon=true
logfile={tmp_path}/supervisord.log
pidfile={tmp_path}/pid
[unix_http_server]
file={run_dir}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:feature]
command=/bin/false
startretries=0
""")
    process = subprocess.Popen([sys.executable, "-m", "supervisor.supervisord", "-n", "-c", conf],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: worst("supervisor", env).level == Level.ERROR, 60, "the end of the program")
        assert is_found(worst("supervisor", env), Level.ERROR, "feature is in FATAL", "alpha logs feature")
    finally:
        process.kill()  # which leaves its socket
        process.wait()
    assert is_found(worst("supervisor", env), Level.NOTE, "no supervisor answers", f"rm {run_dir}/supervisor.sock")


# ---- configuration, keys, files

def test_a_broken_configuration_is_a_finding_of_the_command(env, tmp_path):
    (tmp_path / "a.toml").write_text("[markt]\nvenue = 'x'\n")
    process = command("doctor", "--offline", "--config", str(tmp_path / "a.toml"), env=env)
    out, err = process.communicate()
    assert process.returncode == 5 and not err
    assert "unknown configuration key (markt)" in out and "mend: known here: " in out and "limits" in out


@pytest.mark.parametrize("gateway, url, key", [("binance-usdm", "https://fapi.binance.com", "ALPHA_BINANCE_SECRET"),
                                               ("vectrade", "https://venue.example", "ALPHA_BOT_KEY")])
def test_a_missing_key_is_found_and_one_that_is_there_is_not_told(env, gateway, url, key):
    env |= {"ALPHA_EXECUTOR__GATEWAY": gateway, "ALPHA_EXECUTOR__BASE_URL": url}
    for name in ("ALPHA_BOT_KEY", "ALPHA_BINANCE_KEY", "ALPHA_BINANCE_SECRET"):
        env.pop(name, None)
    assert is_found(worst("secrets", env), Level.ERROR, "no key", key)
    env |= {name: "s3cr3t-value" for name in ("ALPHA_BOT_KEY", "ALPHA_BINANCE_KEY", "ALPHA_BINANCE_SECRET")}
    well = worst("secrets", env)
    assert well.level == Level.OK and key in well.what and "s3cr3t" not in str(well)


def test_a_bad_permission_is_found(env, tmp_path):
    state = tmp_path / "state"
    (state / "log").mkdir(parents=True, mode=0o700)
    state.chmod(0o777)
    assert is_found(worst("permissions", env), Level.ERROR, f"state folder {state}: mode 0777", f"chmod 700 {state}")
    state.chmod(0o755)
    Journal.open(state / "journal.db").close()
    (state / "journal.db").chmod(0o644)
    assert is_found(worst("permissions", env), Level.WARNING, "journal.db: mode 0644", f"chmod 600 {state}/journal.db")
    state.chmod(0o700)
    assert [one for one in found("permissions", env) if "journal" in one.what and one.level > Level.OK] == []


def test_a_damaged_journal_is_found(env, tmp_path):
    path = tmp_path / "state" / "journal.db"
    assert "no journal yet" in worst("journal", env).what
    journal = Journal.open(path)
    for n in range(50):
        journal.intent(Order(f"a{n:06d}", "BTC-USD", BUY, 100, 123_456_789, 7, n), "{}", n)
    assert "50 orders" in worst("journal", env).what  # while it is written
    journal.close()
    assert worst("journal", env).level == Level.OK
    data = bytearray(path.read_bytes())
    at = data.index(b"a000025")
    data[at:at + 7] = b"a000925"
    path.write_bytes(data)
    assert is_found(worst("journal", env), Level.ERROR, "the journal is damaged", "move it away")
    path.unlink()
    (path.parent / "journal.db-wal").write_bytes(b"x" * 100)
    assert is_found(worst("journal", env), Level.ERROR, "is gone, and its -wal file is there", "move it away")


@pytest.mark.parametrize("fault, remedy", [("gone", "set inference.model"), ("garbage", "export it again"),
                                           ("the manifest of another", "")])
def test_a_wrong_model_is_found(env, tmp_path, fault, remedy):
    path = tmp_path / "mine.onnx"
    if fault != "gone":
        shutil.copy(ROOT / "models" / "default.json", path.with_suffix(".json"))
        content = b"no model" if fault == "garbage" else (ROOT / "models" / "bench_w100.onnx").read_bytes()
        path.write_bytes(content)
    env["ALPHA_INFERENCE__MODEL"] = str(path)
    finding = worst("model", env)
    assert is_found(finding, Level.ERROR, str(path.with_suffix("")), remedy) and finding.remedy


def test_a_model_that_fits_is_told_with_its_time(env):
    assert worst("model", env).level == Level.OK and "one window p50" in worst("model", env).what


def test_the_kill_switch_is_told_with_its_reason(env, tmp_path):
    killswitch.halt(tmp_path / "state", "looks wrong", "somebody")
    finding = worst("switch", env)
    assert is_found(finding, Level.WARNING, "halted by somebody", "alpha resume") and "looks wrong" in finding.what


# ---- the machine, by what it says of itself

def test_a_missing_feature_of_the_processor_is_found(env, tmp_path):
    told = Path("/proc/cpuinfo").read_text()
    (tmp_path / "cpuinfo").write_text(told.replace(" avx2", ""))
    known = patient_of(None, env)
    ill = Patient(known.config, None, None, env, proc=tmp_path)
    if " avx2" not in told:
        pytest.skip("this processor has none to take away")
    assert is_found(worst("cpu", env, ill), Level.WARNING, "has no AVX2", "-cpu host")


def test_a_version_that_differs_from_the_lock_is_found(env, tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    other = ["orjson==0.0.1" if line.startswith("orjson==") else line for line in lines]
    assert other != lines
    (tmp_path / "requirements.lock").write_text("\n".join(other))
    ill = Patient(None, None, None, env, root=tmp_path)
    warned = [one for one in found("packages", env, ill) if one.level == Level.WARNING]
    assert is_found(warned[0], Level.WARNING, "(lock: 0.0.1)", "pip install orjson==0.0.1")


# ---- venues

@pytest.mark.parametrize("way", ["its own", "Date"])
def test_a_skewed_clock_is_found_by_what_the_venue_says(env, way):
    def answer(path):
        late = time.time() - 90
        if way == "its own":
            return 200, {}, json.dumps({"serverTime": int(late * 1000)}).encode()
        return 200, {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(late))}, b"{}"

    with VenueServer(answer=answer) as venue:
        env |= {"ALPHA_MARKET__REST_URL": f"http://127.0.0.1:{venue.port}", "ALPHA_EXECUTOR__GATEWAY": "paper",
                "ALPHA_MARKET__VENUE": "binance-usdm" if way == "its own" else "vectrade"}
        finding = worst("venuetime", env)
        assert is_found(finding, Level.ERROR, "ahead of the venue's", "chronyc") and " 90," in finding.what or (
            " 89," in finding.what), finding
        assert venue.asked == ["/fapi/v1/time" if way == "its own" else "/"]


def test_a_certificate_that_nobody_vouches_for_is_found(env, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"], check=True,
                       capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the openssl command is needed to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with VenueServer(answer=lambda path: (200, {}, b"{}"), ssl=context) as venue:
        env |= {"ALPHA_MARKET__REST_URL": f"https://localhost:{venue.port}", "ALPHA_EXECUTOR__GATEWAY": "paper"}
        finding = worst("venue", env)
    assert is_found(finding, Level.ERROR, "tls failed", "ca-certificates") and "not the venue" in finding.why
    assert "nothing of this instance runs" in worst("venue", env).what  # nor does anything else there, now


def test_a_venue_that_is_there_is_told_with_its_web_socket(env):
    with VenueServer(answer=lambda path: (200, {}, b"{}") if path == "/" else None) as venue:
        env |= {"ALPHA_MARKET__REST_URL": f"http://127.0.0.1:{venue.port}", "ALPHA_EXECUTOR__GATEWAY": "paper",
                "ALPHA_MARKET__WS_URL": f"ws://127.0.0.1:{venue.port}", "ALPHA_MARKET__VENUE": "binance-usdm",
                "ALPHA_MARKET__SYMBOLS": '["BTCUSDT"]'}
        told = found("venue", env)
    assert len(told) == 2 and all(one.level == Level.OK and "answers in" in one.what for one in told), told


# ---- the whole

def test_no_secret_is_in_what_any_check_says(env, tmp_path):
    secrets = {"ALPHA_BOT_KEY": "zq81-bot", "ALPHA_BINANCE_KEY": "zq82-key", "ALPHA_BINANCE_SECRET": "zq83-secret",
               "ALPHA_MONITOR_TOKEN": "zq80-token", "ALPHA_ALERTS_WEBHOOK": "https://hooks.example/zq80-hook",
               "ALPHA_PROXY_AUTH": "zq84-user:zq85-password", "HTTPS_PROXY": "http://zq86-user:zq87-pw@10.0.0.1:3128"}
    env |= secrets | {"ALPHA_MARKET__WS_URL": "ws://zq88-user:zq89-pw@127.0.0.1:9",
                      "ALPHA_EXECUTOR__BASE_URL": "http://zq90-user:zq91-pw@127.0.0.1:9"}
    reports = examine(patient_of(None, env))
    assert "zq8" not in str(reports) and "zq9" not in str(reports) and len(reports) == len(checks())
    (keys,) = [report for report in reports if report.check == "secrets"]
    assert [one for one in keys.findings if "market.ws_url has a name or a password" in one.what]


def test_checks_are_listed_and_a_wrong_name_is_refused():
    runner = click.testing.CliRunner()
    listed = json.loads(runner.invoke(doctor, ["--list", "--json"]).output)
    assert [one["name"] for one in listed] == list(checks()) and {one["name"] for one in listed if one["network"]} == {
        "venue", "venuetime"}
    assert runner.invoke(doctor, ["--only", "shmm"]).exit_code == 2
    assert all(f"  {code}  " in runner.invoke(doctor, ["--help"]).output for code in (0, 1, 2, 5))


def test_a_healthy_pipeline_has_no_error_and_what_is_planted_in_it_is_found(instance, run_dir, tmp_path):
    pipeline = Pipeline(instance, tmp_path, run_dir, "--rate", "200")
    try:
        pipeline.until_count("executor", "decisions", 5, 180)
        process = command("doctor", "--json", env=pipeline.env)
        told = json.loads(process.communicate()[0])
        errors = [finding for check in told["checks"] for finding in check["findings"] if finding["level"] == "error"]
        assert not errors and process.returncode == told["exit_code"] <= 1
        assert not [check["name"] for check in told["checks"] if check["unlooked"]]
        said = {check["name"]: check["findings"][0]["what"] for check in told["checks"]}
        assert "7 stages ready" == said["stages"] and "7 processes run under it" in said["supervisor"]
        assert "this instance's exchange" in said["ports"] and "an executor writes it" in said["journal"]

        ingest, feature = (pipeline.overview.stages[name].get("pid") for name in ("ingest", "feature"))
        cores = os.sched_getaffinity(ingest)
        if len(os.sched_getaffinity(0)) > 1:
            os.sched_setaffinity(ingest, os.sched_getaffinity(0))
            assert is_found(worst("placement", pipeline.env), Level.WARNING, "ingest runs on cores", "restart ingest")
            os.sched_setaffinity(ingest, cores)
        os.kill(feature, signal.SIGSTOP)
        try:
            until(lambda: pipeline.overview.age_s("feature") > 2, 10, "the silence of feature")
            silent = [one for one in found("stages", pipeline.env) if one.level == Level.ERROR]
            assert is_found(silent[0], Level.ERROR, "feature is silent", "alpha logs feature")
            assert "it hangs" in silent[0].what
        finally:
            os.kill(feature, signal.SIGCONT)
        pipeline.stop()
    finally:
        pipeline.close()
    assert worst("stages", pipeline.env).what == "nothing of this instance runs"
