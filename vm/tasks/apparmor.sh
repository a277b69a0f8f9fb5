# AppArmor: the profile of the document confines the first process and those that exec brings.
. /gantry/lib.sh
cd "$work" || exit 1
check "AppArmor is on" grep -q Y /sys/module/apparmor/parameters/enabled
cat >profile <<'P'
profile gantry-vm flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  mount,
  unix,
  deny /tmp/forbidden rw,
}
P
check "the profile loads" apparmor_parser --replace profile
profile='.process.apparmorProfile = "gantry-vm" | .root.readonly = false'
script='cat /proc/self/attr/current; echo x >/tmp/allowed && echo wrote; echo x 2>/dev/null >/tmp/forbidden || echo refused; exit 0'
bundle a "$script" "$profile"
same "run: confined, and the profile bites" $'gantry-vm (enforce)\nwrote\nrefused' "$(gantry-runtime run --bundle a a 2>/dev/null)"
bundle a 'exec sleep 600' "$profile"
check "the container runs" gantry-runtime run --detach --bundle a a
same "exec: confined as the document says" $'gantry-vm (enforce)\nwrote\nrefused' "$(gantry-runtime exec a sh -c "$script" 2>/dev/null)"
same "the first process is confined" "gantry-vm (enforce)" "$(gantry-runtime exec a cat /proc/1/attr/current)"
same "exec: the profile of its flag is taken, as by runc" "unconfined" "$(gantry-runtime exec --apparmor unconfined a cat /proc/self/attr/current)"
gantry-runtime delete --force a
bundle a true '.process.apparmorProfile = "gantry-no-such-profile"'
check "a profile that is not loaded is refused" bash -c '! gantry-runtime run --bundle a a'
bundle a 'cat /proc/self/attr/current' "$profile | .process.noNewPrivileges = true"
same "with no new privileges, too" "gantry-vm (enforce)" "$(gantry-runtime run --bundle a a)"
bundle a 'cat /proc/self/attr/current' "$profile"' | .linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
	| .linux.gidMappings = .linux.uidMappings'
same "in a user namespace, too" "gantry-vm (enforce)" "$(gantry-runtime run --bundle a a)"

# Images that would have the label written elsewhere: a volume on /proc (CVE-2019-16884), a /proc that is a symlink (CVE-2023-28642).
mkdir -p fake/self/attr
bundle a 'exec sleep 600' "$profile | .mounts += [{destination: \"/proc\", type: \"bind\", source: \"$work/fake\", options: [\"bind\"]}]
	| .linux.maskedPaths = [] | .linux.readonlyPaths = []"
if gantry-runtime run --detach --bundle a a >said 2>&1; then
	same "a volume on /proc: the profile is the kernel's" "gantry-vm (enforce)" "$(cat "/proc/$(gantry-runtime state a | jq .pid)/attr/current")"
	gantry-runtime delete --force a
else
	check "a volume on /proc is refused with a reason" grep -q /proc said
fi
rmdir a/rootfs/proc && ln -s tmp a/rootfs/proc
bundle a true "$profile"
check "a /proc that is a symlink is refused" bash -c '! gantry-runtime run --bundle a a'
finish
