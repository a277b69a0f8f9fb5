# Our own privileged tests, on a host with control groups of version 2 alone and every capability.
. /gantry/lib.sh
export GANTRY_SKIPS=$work/skips TMPDIR=/var/tmp RUST_BACKTRACE=0
total=0 filter=$(cat /gantry/filter)
for program in /gantry/tests/*; do
	name=${program##*/}
	: >"$GANTRY_SKIPS"
	said=0
	"$program" ${filter:+"$filter"} --test-threads=2 >"$work/out" 2>&1
	status=$?
	# Their harness's lines are ours with other words; its names are unique within a program.
	while read -r test result; do
		said=$((said + 1))
		reason=$(grep -F "SKIP $test: " "$GANTRY_SKIPS" | cut -d: -f2-)
		if [ -n "$reason" ]; then
			skip "$name: $test" "$reason"
		elif [ "$result" = ok ]; then
			ok "$name: $test"
		elif [ "$result" = ignored ]; then
			skip "$name: $test" "ignored"
		else
			not_ok "$name: $test" "$(sed -n "/^---- $test stdout/,/^note:/p" "$work/out")"
		fi
	done < <(sed -n 's/^test \([^ ]*\).* \.\.\. \([a-zA-Z]*\).*/\1 \2/p' "$work/out")
	same "$name: ended well" 0 "$status"
	[ -z "$filter" ] && check "$name: has tests" test "$said" -gt 0
	total=$((total + said))
done
check "some test ran" test "$total" -gt 0
finish
