# fs-verity: what the store sealed, the kernel refuses to give changed. ext4 with the feature, on a loop device.
. /gantry/lib.sh
cd "$work" || exit 1
truncate -s 400M disk
mkfs.ext4 -q -b 4096 -O verity disk
mkdir fs mnt
attach() { mount -o loop "$work/disk" "$work/fs"; }
check "a file system with fs-verity" attach
g() { gantry --root "$work/fs/store" --runroot "$work/run" --insecure-policy "$@"; }

root_of rootfs
seq 1 40000 >rootfs/etc/big
seq 1 900 >rootfs/etc/small
tar -C rootfs -c . | podman import -q - local/app:1 >said 2>&1 && podman save -q --format oci-dir -o layout local/app:1 >>said 2>&1
check "an image" test -f layout/index.json
check "the image comes in" g pull "oci:$work/layout"
same "nothing enforces yet" false "$(g info --json | jq .verity.enforced)"
check "the store is sealed" g store seal
same "info says that the kernel compares digests" true "$(g info --json | jq .verity.enforced)"
objects=$(find fs/store/objects -type f | wc -l)
same "lsattr sees a sealed object each" "$objects" "$(find fs/store/objects -type f -exec lsattr {} + | cut -d' ' -f1 | grep -c V)"
check "a check agrees" g store check
holding() { grep -rlxF "$1" fs/store/objects; }
object=$(holding 39999)
object_of_small=$(comm -23 <(holding 899 | sort) <(holding 39999 | sort))
check "nobody writes to a sealed object" bash -c "! { echo x >>'$object'; } 2>/dev/null"

check "it mounts" g mount layout "$work/mnt"
same "with digests required" 1 "$(grep -c ' overlay .*verity=require' /proc/mounts)"
same "what it shows is right" "$(sha256sum <rootfs/etc/big)" "$(sha256sum <mnt/etc/big)"
check "and unmounts" g unmount "$work/mnt"
same "run reads through it, too" 40000 "$(g run --rm layout tail -n 1 /etc/big)"

# A byte changes on the disk itself.
at=$(filefrag -b4096 -v "$object" | awk '$1 == "0:" {print $4 + 0}')
umount fs
printf X | dd of=disk bs=1 seek=$((at * 4096 + 100)) conv=notrunc status=none
attach
echo 3 >/proc/sys/vm/drop_caches
check "an image with a changed byte mounts" g mount layout "$work/mnt"
check "reading the changed page fails" bash -c "! cat mnt/etc/big >/dev/null 2>&1"
same "another file is as it was" "$(sha256sum <rootfs/etc/small)" "$(sha256sum <mnt/etc/small)"
g unmount "$work/mnt" >/dev/null 2>&1
check "a check finds it" bash -c "! gantry --root '$work/fs/store' store check >found"
same "at its place" 1 "$(grep -c "^${object#fs/store/}:" found)"
check "it is mended from where it came from" g store repair --from "oci:$work/layout"
check "and sealed again" g store check
g mount layout "$work/mnt" >/dev/null
same "the contents are back" "$(sha256sum <rootfs/etc/big)" "$(sha256sum <mnt/etc/big)"
g unmount "$work/mnt" >/dev/null

# The right bytes without a seal are no proof.
cp "$object_of_small" copy && rm -f "$object_of_small" && cp copy "$object_of_small" && chmod 444 "$object_of_small"
g mount layout "$work/mnt" >/dev/null
check "an unsealed copy is not read" bash -c "! cat mnt/etc/small >/dev/null 2>&1"
g unmount "$work/mnt" >/dev/null
check "and a check says so" bash -c "gantry --root '$work/fs/store' store check | grep -q 'not sealed'"
check "it is mended" g store repair --from "oci:$work/layout"
check "to the last" g store check

# A forged metadata image.
image=$(find fs/store/digests -name image.erofs)
cp "$image" copy && printf X | dd of=copy bs=1 seek=2000 conv=notrunc status=none && rm -f "$image" && cp copy "$image"
check "another metadata image is not mounted, for its digest" bash -c "
	! gantry --root '$work/fs/store' --runroot '$work/run' --insecure-policy mount layout '$work/mnt' 2>said || exit 1
	cat said
	grep -q 'fs-verity digest is none' said"
umount fs
finish
