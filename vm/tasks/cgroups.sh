# Control groups of version 2: by files and by systemd, limits that a reload of systemd does not undo, device rules as eBPF.
. /gantry/lib.sh
cd "$work" || exit 1
limits='.linux.resources = {memory: {limit: 67108864, reservation: 33554432}, pids: {limit: 20},
	cpu: {shares: 512, quota: 20000, period: 50000}, unified: {"memory.high": "50331648", "memory.oom.group": "1"}}'

same "the hierarchy is unified" cgroup2fs "$(stat -f -c %T /sys/fs/cgroup)"

# Files.
bundle plain 'exec sleep 600' "$limits | .linux.cgroupsPath = \"/gantry-vm/plain\""
check "by files: runs" gantry-runtime run --detach --bundle plain plain
group=/sys/fs/cgroup/gantry-vm/plain
for pair in memory.max=67108864 memory.low=33554432 memory.high=50331648 memory.oom.group=1 pids.max=20 "cpu.max=20000 50000"; do
	same "by files: ${pair%%=*}" "${pair#*=}" "$(cat $group/${pair%%=*})"
done
check "by files: update" gantry-runtime update --memory 128m --pids-limit 30 plain
same "by files: memory.max after update" 134217728 "$(cat $group/memory.max)"
check "by files: pause" gantry-runtime pause plain
same "by files: frozen" 1 "$(grep -o 'frozen [01]' $group/cgroup.events | cut -d' ' -f2)"
check "by files: resume" gantry-runtime resume plain
same "by files: events" 30 "$(gantry-runtime events --stats plain | jq .data.pids.limit)"
check "by files: delete" gantry-runtime delete --force plain
check "by files: group is gone" test ! -e $group
rmdir /sys/fs/cgroup/gantry-vm

# systemd.
unit=gantry-vm.scope
bundle sd 'exec sleep 600' "$limits | .linux.cgroupsPath = \"system.slice:gantry:vm\""
check "by systemd: runs" gantry-runtime --systemd-cgroup run --detach --bundle sd sd
group=/sys/fs/cgroup/system.slice/$unit
show() { systemctl show --property "$1" --value $unit; }
same "by systemd: the scope is active" active "$(show ActiveState)"
same "by systemd: systemd knows MemoryMax" 67108864 "$(show MemoryMax)"
same "by systemd: systemd knows MemoryLow" 33554432 "$(show MemoryLow)"
same "by systemd: systemd knows MemoryHigh" 50331648 "$(show MemoryHigh)"
same "by systemd: systemd knows TasksMax" 20 "$(show TasksMax)"
all() { for file in memory.max memory.low memory.high memory.oom.group pids.max cpu.max cpu.weight; do echo "$file $(cat $group/$file)"; done; }
before=$(all)
check "by systemd: the limits are in the kernel" grep -q '^memory.high 50331648$' <<<"$before"
check "systemd reloads" systemctl daemon-reload
same "by systemd: a reload leaves every limit" "$before" "$(all)"
check "systemd starts anew" systemctl daemon-reexec
same "by systemd: so does systemd's own restart" "$before" "$(all)"
check "by systemd: update" gantry-runtime update --memory 128m sd
systemctl daemon-reload
same "by systemd: an update outlives a reload" 134217728 "$(cat $group/memory.max)"
check "by systemd: exec" gantry-runtime exec sd true
check "by systemd: pause" gantry-runtime pause sd
check "by systemd: resume" gantry-runtime resume sd
check "by systemd: delete" gantry-runtime delete --force sd
check "by systemd: the scope is gone" until_ok test ! -e $group
same "by systemd: no unit is left" "" "$(systemctl list-units --all --no-legend "$unit")"

# Devices: what the kernel answers to a node that the container made itself.
modprobe loop
mknods='mknod /tmp/loop c 10 237; mknod /tmp/zero c 1 5; mknod /tmp/rtc c 10 135
	for n in loop zero rtc; do (exec 3</tmp/$n) 2>/dev/null && echo $n; done; exit 0'
caps='.process.capabilities[] |= . + ["CAP_MKNOD"] | .root.readonly = false | .linux.cgroupsPath = "/gantry-vm-dev"'
bundle dev "$mknods" "$caps"
same "devices: without rules only those that every container has" zero "$(gantry-runtime run --bundle dev dev 2>&1)"
bundle dev "rm -f /tmp/*; $mknods" "$caps | .linux.resources.devices += [{allow: true, type: \"c\", major: 10, minor: 237, access: \"rw\"}]"
same "devices: a rule of the document allows one more" $'loop\nzero' "$(gantry-runtime run --bundle dev dev 2>&1)"
check "devices: every container's are usable" gantry-runtime run --bundle dev dev

# A user's container without a namespace of control groups sees the host's, and may write to none (CVE-2023-25809): not even to
# those that are delegated to the user.
chmod 755 "$work"
bundle user 'd=/sys/fs/cgroup$(cut -d: -f3 </proc/self/cgroup); ls -d $d; mkdir $d/below 2>&1 | grep -o "Read-only file system"; exit 0' \
	'.linux.namespaces |= map(select(.type != "cgroup")) | .linux.namespaces += [{type: "user"}]
	| .linux.uidMappings = [{containerID: 0, hostID: 1000, size: 1}] | .linux.gidMappings = .linux.uidMappings
	| .linux.namespaces |= map(select(.type != "network")) | .mounts |= map(select(.destination != "/sys" and .destination != "/dev/pts"))
	| .mounts += [{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev"]}]'
chown -R user: user
until_ok test -S /run/user/1000/bus
as_user() { setpriv --reuid=user --regid=user --init-groups env HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
out=$(as_user systemd-run --user --quiet --wait --pipe --property=Delegate=yes /usr/local/bin/gantry-runtime run --bundle "$work/user" c 2>&1)
same "a user's: control groups of the host are read-only" "Read-only file system" "$(tail -1 <<<"$out")"
check "a user's: and those are the user's own" grep -q '^/sys/fs/cgroup/user.slice/user-1000.slice/' <<<"$out"
finish
