"""Machines that jobs of a run were executed on, other than the one that the harness runs on."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.archive.merge import joint_environment
from harness.archive.recorded import Manifest

_DECIDING = ("python", "hardware", "versions")


@dataclass(frozen=True)
class Site:
    """A node of a cluster."""

    node: str  # its address and the beginning of its id
    environment: Mapping[str, Any]  # as :func:`harness.archive.environment.environment` found it there


def difference(site: Site, here: Mapping[str, Any]) -> str:
    """Why a result of *site* does not stand for the machine with the environment *here*; empty if it does."""
    for name in _DECIDING:
        there, mine = _flat(site.environment, name), _flat(here, name)
        if other := [key for key in sorted({*there, *mine}) if there.get(key) != mine.get(key)]:
            told = ", ".join(f"{key} {there.get(key)}, here {mine.get(key)}" for key in other)
            return f"the node {site.node} differs from this machine: {told}"
    return ""


def _flat(environment: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = environment.get(name)
    return dict(value) if isinstance(value, Mapping) else {name: value}


def sites_of(manifest: Manifest, jobs: Iterable[str]) -> dict[str, Site]:
    """What a manifest says that some of its jobs ran on."""
    return {job: Site(p.name, p.environment) for job in jobs for p in manifest.nodes if job in p.jobs}


def with_nodes(
    manifest: Mapping[str, Any], environment: Mapping[str, Any], sites: Mapping[str, Site]
) -> dict[str, Any]:
    """The manifest of a run, told what each of its jobs ran on; what ran or was kept here counts, too.

    Args:
        environment: of this machine.
    """
    here = Site(f"{platform.node()} (here)", environment)
    nodes: dict[str, dict[str, Any]] = {}
    for name in manifest["jobs"]:
        site = sites.get(name, here)
        part = nodes.setdefault(site.node, {"node": site.node, "environment": site.environment, "jobs": []})
        part["jobs"].append(name)
    joint = joint_environment([part["environment"] for part in nodes.values()])
    return {**manifest, "environment": joint, "nodes": list(nodes.values())}
