#!/bin/bash
# Runs in the guest, as root, from the second disk: every task named in `order`, between two lines that the host reads.
cd /gantry || exit 1
# Where the programs were built, since tests know themselves by that path.
while read -r program path; do
	mkdir -p "${path%/*}" && cp "programs/$program" "$path"
done <paths
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
install -m 755 programs/gantry programs/gantry-monitor /usr/local/bin/
ln -sf gantry /usr/local/bin/gantry-runtime
ip link set lo up
while read -r task; do
	echo "# task $task"
	timeout --kill-after=10 1500 bash "tasks/$task.sh" </dev/null
	echo "# end $task $?"
done <order
echo "# all"
