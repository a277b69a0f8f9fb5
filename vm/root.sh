#!/bin/bash
# root.sh DIR: builds the guest of `make test-vm` in DIR: disk.ext4, vmlinuz, initrd.
# A Debian 13 with systemd and its cloud kernel, lean enough to boot under software emulation. `cargo xtask vm` calls this once and
# keeps the result under the digest of this file: any change here builds anew.
set -euo pipefail
out=$1
root=$out/root
packages=(
	# What boots, and what the tasks themselves are written with.
	systemd systemd-sysv udev dbus dbus-user-session libpam-systemd linux-image-cloud-amd64 zstd kmod procps util-linux
	iproute2 e2fsprogs attr jq strace busybox-static libseccomp2
	# The callers of a runtime, and the runtimes to compare with.
	podman crun runc conmon netavark aardvark-dns passt nftables fuse-overlayfs uidmap
	# What confines beside the runtime.
	apparmor selinux-basics selinux-policy-default policycoreutils
)
mirror=${GANTRY_MIRROR:-$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)}
mkdir -p "$out"
rm -rf --one-file-system "$root"

# Three drivers instead of all: the initrd is unpacked by an emulated processor.
mmdebstrap --quiet --mode=root --variant=important \
	--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--include="$(IFS=,; echo "${packages[*]}")" \
	--customize-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"' \
	--customize-hook='sed -i "s/^MODULES=.*/MODULES=list/" "$1/etc/initramfs-tools/initramfs.conf"' \
	--customize-hook='chroot "$1" update-initramfs -u' \
	trixie "$root" "${mirror:-http://deb.debian.org/debian}"

printf '/dev/vda / ext4 defaults,noatime 0 0\n' >"$root/etc/fstab"
echo guest >"$root/etc/hostname"
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
echo >>"$root/etc/machine-id"
# The user of rootless tasks; useradd gives subordinate ids.
chroot "$root" useradd --create-home --shell /bin/bash user
mkdir -p "$root/var/lib/systemd/linger" && touch "$root/var/lib/systemd/linger/user"

# The second disk holds what is to be run, the second serial line takes what it says.
cat >"$root/usr/local/sbin/gantry-guest" <<'GUEST'
#!/bin/bash
udevadm settle --timeout=60
mkdir -p /gantry && mount -o ro /dev/vdb /gantry
exec bash /gantry/run >/dev/ttyS1 2>&1
GUEST
chmod 755 "$root/usr/local/sbin/gantry-guest"
cat >"$root/etc/systemd/system/gantry-guest.service" <<'UNIT'
[Unit]
After=basic.target dbus.socket systemd-logind.service
[Service]
ExecStart=/usr/local/sbin/gantry-guest
ExecStopPost=/usr/bin/systemctl poweroff --force
Delegate=yes
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable gantry-guest
# Nothing of these serves a task, and each costs seconds.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service \
	podman-auto-update.timer podman.socket selinux-autorelabel.service; do
	chroot "$root" systemctl --quiet disable "$unit" 2>/dev/null || true
done
for unit in e2scrub_reap ldconfig systemd-hwdb-update systemd-journal-catalog-update systemd-pstore systemd-binfmt systemd-update-done \
	getty@tty1 serial-getty@ttyS0; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
# Labels are what the policy says from the first boot on; without SELinux in the kernel they are attributes that nobody reads.
sed -i 's/^SELINUX=.*/SELINUX=permissive/' "$root/etc/selinux/config"
chroot "$root" setfiles -F /etc/selinux/default/contexts/files/file_contexts / >/dev/null
touch "$root/etc/.updated" "$root/var/.updated"

kernel=$(ls "$root"/boot/vmlinuz-* | tail -1)
cp "$kernel" "$out/vmlinuz"
cp "$root/boot/initrd.img-${kernel##*/vmlinuz-}" "$out/initrd"
rm -f "$root"/boot/initrd.img-* "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*_Packages
mke2fs -q -t ext4 -O verity -L root -d "$root" "$out/disk.ext4" "${GANTRY_GUEST_SIZE:-4G}"
rm -rf --one-file-system "$root"
