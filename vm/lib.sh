# What tasks are written with: `. /gantry/lib.sh` first, `finish` last.
#
#   check NAME COMMAND…      the command succeeds
#   same NAME WANTED HAVE    two texts are the same
#   skip NAME REASON         cannot be asked here
#
# Each prints one line of TAP, and of what failed what it printed, as comments.

tests=0 failed=0
work=$(mktemp -d /var/tmp/task-XXXXXX)

ok() {
	tests=$((tests + 1))
	echo "ok $tests - $1"
}

not_ok() {
	tests=$((tests + 1)) failed=$((failed + 1))
	echo "not ok $tests - $1"
	sed 's/^/#   /' <<<"$2"
}

check() {
	local name=$1 status
	shift
	# Not by a pipe: a container that goes on holds it open.
	"$@" >"$work/said" 2>&1
	status=$?
	if [ $status = 0 ]; then ok "$name"; else not_ok "$name" "$* ended with $status
$(cat "$work/said")"; fi
}

same() {
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "wanted: $2
have:   $3"; fi
}

skip() {
	tests=$((tests + 1))
	echo "ok $tests - $1 # SKIP $2"
}

finish() {
	cd /
	rm -rf "$work"
	echo "1..$tests"
	[ "$failed" = 0 ]
}

# until COMMAND…: waits until it succeeds, half a minute at most (the processor may be emulated).
until_ok() {
	local deadline=$((SECONDS + 30))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.2
	done
}

# root_of DIR: a root file system with one static busybox.
root_of() {
	mkdir -p "$1"/{bin,etc,tmp,proc,sys,dev}
	cp /bin/busybox "$1/bin/busybox"
	local applet
	for applet in sh cat echo id ls sleep true mknod dd grep stat touch mkdir ps readlink cut tail; do ln -sf busybox "$1/bin/$applet"; done
	echo 'root:x:0:0::/root:/bin/sh' >"$1/etc/passwd"
}

# bundle DIR SCRIPT [FILTER]: a bundle whose program is `sh -c SCRIPT`; the document goes through jq's FILTER.
bundle() {
	[ -d "$1/rootfs" ] || root_of "$1/rootfs"
	rm -f "$1/config.json"
	(cd "$1" && gantry-runtime spec)
	jq --arg script "$2" ".process.terminal = false | .process.args = [\"sh\", \"-c\", \$script] | ${3:-.}" \
		"$1/config.json" >"$1/new" && mv "$1/new" "$1/config.json"
}
