"""The CPU limit of a container. The files are those that Linux shows; a machine without control groups has none."""

from __future__ import annotations

import math

import pytest

from charloom.kernels import container, cores
from charloom.kernels.container import cpu_limit


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes /proc/self/cgroup, and files below /sys/fs/cgroup, which stay."""
    monkeypatch.setattr(container, "GROUPS", tmp_path / "own")
    monkeypatch.setattr(container, "MOUNT", tmp_path / "mount")

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


def test_no_group_has_a_limit(groups):
    """Catches "max" that is read as a number, and -1 as a limit of no core."""
    groups("0::/a\n", {"a/cpu.max": "max 100000\n"})
    assert cpu_limit() == math.inf
    groups("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert cpu_limit() == math.inf


@pytest.mark.parametrize("own", ["0::/pod/box\n", "0::/pod\n", "3:cpuset:/\n0::/pod/other/box\n"])
def test_the_limit_of_a_group_or_of_one_around_it_counts(groups, own):
    """Catches a pod whose limit is at the group around it."""
    groups(own, {"pod/box/cpu.max": "400000 100000\n", "pod/cpu.max": "150000 100000\n"})
    assert cpu_limit() == 1.5


def test_a_container_sees_its_group_as_the_root(groups):
    """Catches a path of the host that a container does not have."""
    groups("0::/host/path\n", {"cpu.max": "250000 100000\n"})
    assert cpu_limit() == 2.5


def test_control_groups_of_version_1(groups):
    groups("2:cpuset:/b\n1:cpu,cpuacct:/b\n", {"cpu/b/cpu.cfs_quota_us": "50000", "cpu/b/cpu.cfs_period_us": "100000"})
    assert cpu_limit() == 0.5


def test_a_limit_bounds_the_threads(groups):
    """Catches a thread for each core of the host, which Linux then slows down; and no thread at all."""
    groups("0::/\n", {"cpu.max": "10000 100000\n"})
    assert cores() == 1


def test_a_machine_without_groups(tmp_path, monkeypatch):
    """Catches an error on macOS and Windows."""
    monkeypatch.setattr(container, "GROUPS", tmp_path / "none")
    assert cpu_limit() == math.inf
