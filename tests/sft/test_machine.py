"""What is said of a machine."""

from __future__ import annotations

import platform

from sft.machine import machine


def test_hardware_and_versions_without_the_machine_s_name():
    told = machine()
    assert told["cores"] >= 1 and told["device"] and {"python", "torch", "transformers"} <= told.keys()
    assert platform.node() not in map(str, told.values())
