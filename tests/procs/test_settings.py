"""The config command prints the configuration in force."""

from click.testing import CliRunner

from procs.settings import config


def test_a_wrong_configuration_is_told_and_gives_exit_code_2(tmp_path):
    path = tmp_path / "alpha.toml"
    path.write_text("[market]\nvenu = 1")
    result = CliRunner().invoke(config, ["--config", str(path)])
    assert result.exit_code == 2 and "market.venu" in result.stderr


def test_the_environment_is_in_what_is_printed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_DECISION__THRESHOLD", "0.2")
    assert "threshold = 0.2" in CliRunner().invoke(config, []).stdout
