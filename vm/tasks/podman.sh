# podman 5 with our runtime, for root and for a user with subordinate ids; both with the systemd driver.
. /gantry/lib.sh
cd "$work" || exit 1
chmod 755 "$work"
root_of image
tar -C image -cf image.tar .
chmod 644 image.tar
mkdir -p /etc/containers
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >/etc/containers/policy.json
cat >/etc/containers/containers.conf <<'C'
[engine]
runtime = "gantry"
infra_image = "localhost/busybox:latest"
runtime_supports_json = ["gantry"]
[engine.runtimes]
gantry = ["/usr/local/bin/gantry-runtime"]
C
cat >pod.json <<'P'
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"}, "spec": {"containers": [
 {"name": "a", "image": "localhost/busybox:latest", "command": ["sleep", "1000000"]},
 {"name": "b", "image": "localhost/busybox:latest", "command": ["sleep", "1000000"]}]}}
P
chmod 644 pod.json

# scene WHO: the same for everybody, by `p`, which is podman of that one.
scene() {
	local who=$1
	same "$who: the runtime" gantry "$(p info --format '{{.Host.OCIRuntime.Name}}')"
	same "$who: control groups by" systemd "$(p info --format '{{.Host.CgroupManager}}')"
	check "$who: import" p import -q -c 'CMD=["sleep","1000000"]' "$work/image.tar" busybox
	same "$who: run" $'out\n3' "$(p run --rm --network=none busybox sh -c 'echo out; exit 3' 2>&1; echo $?)"
	check "$who: run -d with limits" p run -d --name c --network=none --memory=64m --pids-limit=30 --health-cmd='ls /healthy' --health-interval=disable busybox
	same "$who: the limit is in the kernel" 67108864 "$(p exec c cat /sys/fs/cgroup/memory.max)"
	same "$who: exec, and nothing on standard error" $'in\n5' "$(p exec c sh -c 'echo in; exit 5' 2>&1; echo $?)"
	same "$who: exec of another user" "uid=7 gid=8" "$(p exec -u 7:8 c id 2>&1)"
	check "$who: healthcheck fails" bash -c "$(declare -f p); ! p healthcheck run c"
	p exec c touch /healthy
	check "$who: healthcheck passes" p healthcheck run c
	check "$who: pause" p pause c
	same "$who: paused" paused "$(p inspect --format '{{.State.Status}}' c)"
	check "$who: unpause" p unpause c
	same "$who: stats" 1 "$(p stats --no-stream --format json c | jq -r '.[0].pids')"
	same "$who: update" 134217728 "$(p update --memory=128m c >/dev/null; p exec c cat /sys/fs/cgroup/memory.max)"
	check "$who: top" bash -c "$(declare -f p); p top c | grep -q 'sleep 1000000'"
	echo copied >file && chmod 644 file
	check "$who: cp" p cp "$work/file" c:/tmp/file
	same "$who: what was copied" copied "$(p exec c cat /tmp/file)"
	check "$who: restart" p restart -t 0 c
	check "$who: kill" p kill c
	same "$who: wait" 137 "$(p wait c)"
	check "$who: rm" p rm c
	check "$who: play kube" p play kube --network=none "$work/pod.json"
	same "$who: the pod's containers share a network" "$(p exec two-a readlink /proc/self/ns/net)" "$(p exec two-b readlink /proc/self/ns/net)"
	check "$who: play kube --down" p play kube --down "$work/pod.json"
	same "$who: nothing is left" "" "$(p ps -aq)"
}

p() { podman "$@"; }
scene root
same "root: no scope is left" "" "$(systemctl list-units --all --no-legend 'libpod-*.scope')"

until_ok test -S /run/user/1000/bus
p() { (cd / && setpriv --reuid=user --regid=user --init-groups env HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus podman "$@"); }
scene user
finish
