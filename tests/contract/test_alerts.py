"""The alerts: their metrics and runbook pages exist, and they fire."""

import re
import shutil
import subprocess

import pytest
import yaml

from runtime.settings import ROOT
from tests.contract.test_pages import families

ALERTS = ROOT / "deploy" / "alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alerts_metrics_exist(rule: dict[str, str]) -> None:
    named = set(re.findall(r"\binkstream_\w+", rule["expr"]))
    assert named
    assert named <= {name for name, _, _ in families()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alerts_runbook_exists(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {title.lower().replace(" ", "-") for title in titles}


def test_the_alerts_fire() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool")
    subprocess.run([promtool, "test", "rules", str(ROOT / "deploy" / "alerts.test.yml")], check=True)
