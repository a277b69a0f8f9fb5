# kernel: security=selinux selinux=1 enforcing=0
# SELinux: the label of the document is that of the processes and of the mounts. First while the policy only tells, then while it
# is enforced.
. /gantry/lib.sh
cd "$work" || exit 1
check "SELinux is on" test -e /sys/fs/selinux/enforce
label=system_u:system_r:container_t:s0:c1,c2
check "the policy knows containers" chcon -t container_file_t .
mount=system_u:object_r:container_file_t:s0:c1,c2
labels=".process.selinuxLabel = \"$label\" | .linux.mountLabel = \"$mount\""
bundle s 'cat /proc/self/attr/current' "$labels"
same "run: the process has the label" "$label" "$(gantry-runtime run --bundle s s 2>&1 | tr -d '\0')"
bundle s 'exec sleep 600' "$labels"
check "the container runs" gantry-runtime run --detach --bundle s s
pid=$(gantry-runtime state s | jq .pid)
same "seen from the host" "$label" "$(tr -d '\0' </proc/"$pid"/attr/current)"
same "exec: the process has the label" "$label" "$(gantry-runtime exec s cat /proc/self/attr/current | tr -d '\0')"
same "its tmpfs has the mounts' label" "$mount" "$(stat -c %C /proc/"$pid"/root/dev/shm)"
gantry-runtime delete --force s
bundle s true '.process.selinuxLabel = "no:such:label"'
check "a label that the policy does not know is refused" bash -c '! gantry-runtime run --bundle s s'

# Enforced, what the policy does not give to containers is refused: reading a file that is none of theirs.
check "the policy can be enforced" setenforce 1
bundle s 'cat /etc/passwd >/dev/null && echo own; cat /etc/secret 2>/dev/null || echo refused' "$labels"
chcon -R "$mount" s/rootfs
echo secret >s/rootfs/etc/secret
chcon system_u:object_r:shadow_t:s0 s/rootfs/etc/secret
same "enforced: own files are read, others not" $'own\nrefused' "$(gantry-runtime run --bundle s s 2>&1)"
setenforce 0
finish
