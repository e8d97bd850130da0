#!/bin/sh
# Runs as the guest's process 1 on the host's own root: the tests or, for `shell`, a shell. Whatever happens, the guest
# is off afterwards: at the end of this script the kernel panics, which QEMU takes as a power-off.
# /mnt is the host's folder of this run; /mnt/environment has the settings.
. /mnt/environment
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
ip link set lo up
# Nobody's neighbour discovery in the counters and captures of tests.
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ulimit -l unlimited
cd "$PROJECT" || exit
case $MODE in
tests)
    # Imports are what takes the time in emulation: no plugins and no conftest but those that these tests want.
    MESHWRIGHT_GUEST=/mnt PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PYTHON" -P -m pytest -q -p no:cacheprovider \
        -p pytest_asyncio.plugin -p pytest_timeout --confcutdir tests/sriov @/mnt/tests >/mnt/output 2>&1
    echo $? >/mnt/status
    ;;
shell) setsid -c /bin/bash -i </dev/ttyS0 >/dev/ttyS0 2>&1 ;;
esac
sync
echo o >/proc/sysrq-trigger
while :; do sleep 1; done # until the kernel took the power away
