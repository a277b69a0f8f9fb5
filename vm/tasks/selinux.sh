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

# Enforced, what the policy does not give to containers is refused: reading a file that is none of theirs. It lets only container
# engines change into the domain of containers, with noNewPrivileges (nnp_transition) or without, so our program has the label that
# the policy gives to crun; without it nothing starts. Containers write to their own file: descriptors of this task's domain are
# none of theirs.
enforced() { # RUNTIME: prints what the container found
	: >s/rootfs/result
	"$1" --root "$work/state-$1" run --bundle s "$1" >s/out 2>s/err </dev/null
	local status=$?
	echo "$(cat s/rootfs/result) $status"
}
bundle s 'exec >/result; cat /etc/passwd >/dev/null && echo own; cat /etc/secret 2>/dev/null || echo refused' \
	"$labels | .process.noNewPrivileges = true | .root.readonly = false"
chcon -R "$mount" s
echo secret >s/rootfs/etc/secret
chcon system_u:object_r:shadow_t:s0 s/rootfs/etc/secret
mkdir state-gantry-runtime state-crun
: >s/out >s/err
chcon -t container_file_t state-* s/out s/err
check "the policy can be enforced" setenforce 1
check "enforced: not from a domain that is no engine's" test "$(enforced gantry-runtime)" != $'own\nrefused 0'
chcon --reference /usr/bin/crun /usr/local/bin/gantry
found=$(enforced gantry-runtime)
same "enforced: own files are read, others not" $'own\nrefused 0' "$found"
[ "$found" = $'own\nrefused 0' ] || sed 's/^/#   /' s/err
found=$(enforced crun)
same "enforced: the same for crun" $'own\nrefused 0' "$found"
[ "$found" = $'own\nrefused 0' ] || sed 's/^/#   /' s/err
setenforce 0
[ "$failed" = 0 ] || dmesg | grep -a 'avc:.*permissive=0' | tail -20 | sed 's/^/#   /'
finish
