# SPDX-License-Identifier: BSD-3-Clause
"""What holds for every file of the repository: licences, declared dependencies, no traces."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent

LICENCES = {
    ".py": "BSD-3-Clause",
    ".sh": "BSD-3-Clause",
    ".vy": "AGPL-3.0-only",
    ".vyi": "AGPL-3.0-only",
}

# Folders of the machine on which something was written, as opposed to those every machine has.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/$}-])/(?:home|Users|root|work|workspace|mnt|media|opt|srv|tmp|private)/\w"
)
# Where packages come from is the installer's business: no option that names an index, no link to
# a file that an index serves.
REGISTRY = re.compile(
    r"(?:index|find)[-_]?(?:url|links)|registry\s*=|https?://\S+/simple/?(?:\s|$)"
    r"|https?://\S+\.(?:whl|tar\.gz|tgz)\b",
    re.IGNORECASE,
)
SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{30,}")


@cache
def files() -> tuple[Path, ...]:
    """Every file under version control; in an unpacked archive, every file that is not hidden."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z"],
            cwd=ROOT, capture_output=True, check=True, text=True, timeout=60,
        ).stdout.split("\0")  # fmt: skip
        return tuple(path for name in listed if name and (path := ROOT / name).is_file())
    return tuple(
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


@cache
def texts() -> dict[Path, str]:
    found = {}
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            found[path] = content.decode("utf-8")
    return found


def names(paths: list[Path]) -> str:
    return "\n".join(str(path.relative_to(ROOT)) for path in paths)


def occurrences(pattern: re.Pattern[str]) -> str:
    return "\n".join(
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in texts().items()
        if path != Path(__file__).resolve()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    )


@pytest.mark.parametrize(
    "line", ["folder = '/home/somebody/x'", "cd /root/a", "path=/tmp/notes", '"/opt/thing"']
)
def test_a_path_of_a_machine_is_recognised(line):
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line", ["#!/usr/bin/env python3", "GET /tmpfile", "see https://a.b/home/x"]
)
def test_a_path_of_any_machine_is_not(line):
    assert not MACHINE_PATH.search(line)


def test_no_path_of_a_machine():
    assert not occurrences(MACHINE_PATH)


def test_no_address_of_a_package_registry():
    assert not occurrences(REGISTRY)


def test_no_secret():
    assert not occurrences(SECRET)


def test_every_source_names_its_licence():
    missing = [
        path
        for path, text in texts().items()
        if path.suffix in LICENCES
        and text.strip()
        and f"SPDX-License-Identifier: {LICENCES[path.suffix]}" not in text[:300]
    ]
    assert not missing, names(missing)


def test_both_licences_are_there():
    assert "Redistribution and use" in (ROOT / "LICENSE").read_text()
    agpl = (ROOT / "contracts" / "LICENSE").read_text()
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in agpl
    assert "END OF TERMS AND CONDITIONS" in agpl


def test_every_file_parses():
    for path, text in texts().items():
        try:
            if path.suffix == ".py":
                ast.parse(text)
            elif path.suffix == ".json":
                json.loads(text)
            elif path.suffix == ".toml":
                tomllib.loads(text)
            elif path.suffix in (".yml", ".yaml"):
                yaml.safe_load(text)
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            pytest.fail(f"{path.relative_to(ROOT)}: {error}")


def test_shell_scripts_parse():
    for path, text in texts().items():
        if text.startswith("#!/bin/sh"):
            subprocess.run(["sh", "-n", str(path)], check=True, timeout=10)
            assert os.access(path, os.X_OK), f"{path.relative_to(ROOT)} is not executable"


def test_no_catch_all_module():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    broken = [
        path
        for path in files()
        if path.suffix in (".py", ".vy") and vague & {path.stem, path.parent.name}
    ]
    assert not broken, names(broken)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return {normal(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in wanted}


def third_party(folder: str) -> dict[str, Path]:
    """Top-level modules of other projects that a folder imports, each with one place."""
    found: dict[str, Path] = {}
    for path, text in texts().items():
        if path.suffix != ".py" or path.relative_to(ROOT).parts[0] != folder:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            else:
                continue
            found.update((module.split(".")[0], path) for module in modules)
    own = {"monetor_chain", "offchain", "scripts", "tests"}
    return {
        module: path
        for module, path in found.items()
        if module not in sys.stdlib_module_names and module not in own
    }


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("monetor_chain", ()),
        ("offchain", ("experiments",)),
        ("scripts", ()),
        ("tests", ("dev", "experiments")),
    ],
)
def test_every_imported_library_is_declared(folder, extras):
    providers = packages_distributions()
    known = declared(*extras)
    missing = [
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in third_party(folder).items()
        if not known & {normal(name) for name in providers.get(module, [module])}
    ]
    assert not missing, "\n".join(missing)


def test_constraints_are_versions_only_and_cover_what_is_declared():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*", line) for line in lines
    )
    pinned = {normal(line.split("==")[0]) for line in lines}
    assert declared("dev", "experiments") <= pinned
    assert len(pinned) == len(lines)
