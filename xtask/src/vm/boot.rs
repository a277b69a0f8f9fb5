// SPDX-License-Identifier: Apache-2.0
//! One boot of the guest under QEMU.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use gantry_testkit::scratch::scratch;

use super::Args;
use super::guest::Guest;

/// Ends with the value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Boots, hands over each line that the tasks print, and returns once the guest has switched itself off.
///
/// # Errors
/// The guest does not end in time or never says that it is through; what its console said last is in the error.
pub(super) fn run(
    guest: &Guest,
    image: &Path,
    kernel: &str,
    args: &Args,
    take: &mut dyn FnMut(&str),
) -> Result<()> {
    let work = scratch();
    let console = work.join("console");
    let started = Instant::now();
    let mut machine = Machine(
        command(guest, image, kernel, args.memory_mib, &console)
            .spawn()
            .context("start qemu-system-x86_64")?,
    );
    let stdout = machine.0.stdout.take().context("QEMU without output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let limit = Duration::from_secs(args.limit_s);
    let mut through = false;
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                through |= line == "# all";
                take(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!(
                    "the guest did not end within {} s\n{}",
                    args.limit_s,
                    end_of(&console)
                );
            }
        }
    }
    println!("vm: guest up for {} s", started.elapsed().as_secs());
    if !through {
        bail!("the guest ended before its tasks did\n{}", end_of(&console));
    }
    Ok(())
}

fn command(guest: &Guest, image: &Path, kernel: &str, memory_mib: u32, console: &Path) -> Command {
    let drive =
        |path: &Path, more: &str| format!("file={},if=virtio,format=raw{more}", path.display());
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "q35"])
        .args(processor())
        .args(["-smp", "2", "-m", &memory_mib.to_string()])
        .args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.initrd)
        .arg("-append")
        // An emulated timer can be late on a busy machine; a panic ends the machine, which is not started again.
        .arg(format!(
            "root=/dev/vda rw console=ttyS0 quiet loglevel=4 no_timer_check panic=-1 mitigations=off nowatchdog {kernel}"
        ))
        .arg("-drive")
        .arg(drive(&guest.disk, ",snapshot=on"))
        .arg("-drive")
        .arg(drive(image, ",readonly=on"))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        // Where the view of the guest's disk grows.
        .env("TMPDIR", "/var/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

/// The machine's own processor where it can be had, else an emulated one. The device alone says little: it is there, too,
/// where a hypervisor offers less than what a guest needs.
fn processor() -> [&'static str; 4] {
    let has_extensions = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    });
    let opens = || {
        fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    if has_extensions && opens() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
    }
}

fn end_of(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().rev().take(25).collect();
    lines.reverse();
    lines.join("\n")
}
