"""What surrounds the project, CI, hooks, citation, agrees with the Makefile and pyproject.toml."""

import re
from typing import Any

import pytest
import yaml
from conftest import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def stated(name: str) -> str:
    """A value of pyproject.toml; Python 3.10 has no module that reads it."""
    found = re.search(rf'^{name} = "(.*)"$', PYPROJECT, re.MULTILINE)
    assert found
    return found[1]


def test_ci_runs_all_tests_on_each_python_version_and_the_two_commands() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    low, high = map(int, re.findall(r"3\.(\d+)", stated("requires-python")))
    assert jobs["all-tests"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(low, high)]
    assert jobs["all-tests"]["steps"][-1] == {"run": ".ci/run"}
    assert f"Python 3.{low} to 3.{high - 1}" in (ROOT / "README.md").read_text()
    assert 'CMD ["sh", "-c", "make train && make test"]' in (ROOT / "Dockerfile").read_text()


def test_hooks_are_the_commands_of_make_lint() -> None:
    [repo] = read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert [hook["entry"] for hook in repo["hooks"]] == commands


def test_citation_and_changes_have_the_projects_version_and_licence() -> None:
    citation = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (stated("version"), stated("license"))
    assert [author["name"] for author in citation["authors"]] == re.findall(
        r"Copyright \(c\) \d+ (.*)", (ROOT / "LICENSE").read_text()
    )
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert stated("version") in versions[:2]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    assert all((ROOT / link).exists() for link in re.findall(r"\]\(([^)#:]+)\)", text))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
