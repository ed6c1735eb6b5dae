"""`python -m ais_bench.session.about` prints the versions and devices of this machine."""

from ais_bench.session.machine import DeviceEntry, RuntimeInfo, SystemInfo, system_info

__all__ = ["DeviceEntry", "RuntimeInfo", "SystemInfo", "system_info"]

if __name__ == "__main__":
    print(system_info())
