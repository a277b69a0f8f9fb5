// SPDX-License-Identifier: Apache-2.0
//! Builds the fixtures: real images from Debian packages, as OCI layouts with the gzip layers that buildah writes.
//!
//! ```text
//! $XDG_CACHE_HOME/gantry/fixtures/ (or ~/.cache/…)     shared by all clones
//!   NAME-DIGEST/      an OCI layout, tag "latest"; DIGEST is of the recipe, so another recipe means another build
//! fixtures/ (or $GANTRY_FIXTURES)                       what this clone's recipes mean by the names
//!   NAME              link to NAME-DIGEST
//! ```
//!
//! Everything comes from the packages of the machine's own Debian release through the machine's own apt settings, so no
//! address of a package source stands here. Building happens on a scratch ext4; only the finished layout, a handful of
//! large files, is written to the cache, by one rename.

mod recipes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use gantry_testkit::{fixtures, scratch::Disk, skip::is_root, tool};
use sha2::{Digest as _, Sha256};

use recipes::{How, Recipe, Tier};

/// Changes when the same recipes give other layouts.
const FORMAT: &str = "2";
/// Room for the largest image twice, its packages and buildah's copy of its parents; sparse.
const DISK_SIZE_BYTES: u64 = 40 << 30;

/// What to build.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which set: `core` is what tests and demo need, `bench` is the rest.
    #[arg(value_enum, default_value = "core")]
    tier: Tier,
    /// Only the fixtures with these names (and the ones they are built on).
    #[arg(long)]
    only: Vec<String>,
    /// Prints what would be built and why.
    #[arg(long)]
    dry_run: bool,
}

/// Builds what is missing or was made by another recipe.
pub fn run(args: &Args) -> Result<()> {
    let (dir, cache) = (fixtures::dir(), cache_dir()?);
    let codename = codename()?;
    let recipes = recipes::all();
    let asked = plan(&recipes, args)?;
    let place = |recipe: &Recipe| cache.join(entry_name(&recipes, recipe, &codename));
    let wanted: Vec<_> = asked
        .iter()
        .copied()
        .filter(|recipe| !is_layout(&place(recipe)))
        .collect();
    if args.dry_run {
        wanted
            .iter()
            .for_each(|recipe| println!("{}: {:?}", place(recipe).display(), recipe.how));
        return Ok(());
    }
    fs::create_dir_all(&dir)?;
    if !wanted.is_empty() {
        build(&recipes, &wanted, &cache, codename.clone())?;
    }
    asked
        .iter()
        .try_for_each(|recipe| link(&dir, &recipe.name, &place(recipe)))
}

/// Builds `wanted`, in their order.
fn build(recipes: &[Recipe], wanted: &[&Recipe], cache: &Path, codename: String) -> Result<()> {
    ensure!(
        is_root(),
        "fixtures are built as root: package installation chowns files and makes device nodes"
    );
    let missing = tool::missing(&["mmdebstrap", "buildah", "skopeo", "apt-get"]);
    ensure!(
        missing.is_empty(),
        "not installed: {}; run `make setup`",
        missing.join(", ")
    );
    fs::create_dir_all(cache)?;
    let builder = Builder::new(recipes, cache, codename)?;
    for recipe in wanted {
        let start = Instant::now();
        builder
            .build(recipe)
            .with_context(|| format!("build fixture {}", recipe.name))?;
        println!(
            "fixture {} built in {:.0} s",
            recipe.name,
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// Chooses, in build order, the recipes that `args` asks for and those that they are built on.
fn plan<'a>(recipes: &'a [Recipe], args: &Args) -> Result<Vec<&'a Recipe>> {
    for name in &args.only {
        ensure!(
            recipes.iter().any(|recipe| recipe.name == *name),
            "no recipe {name}"
        );
    }
    let mut asked: Vec<&str> = recipes
        .iter()
        .filter(|recipe| match args.only.is_empty() {
            true => recipe.tier <= args.tier,
            false => args.only.contains(&recipe.name),
        })
        .map(|recipe| recipe.name.as_str())
        .collect();
    // Parents stand before their children, so one pass from the end finds them all.
    for recipe in recipes.iter().rev() {
        if let (true, Some(parent)) = (asked.contains(&recipe.name.as_str()), recipe.how.parent()) {
            asked.push(parent);
        }
    }
    Ok(recipes
        .iter()
        .filter(|recipe| asked.contains(&recipe.name.as_str()))
        .collect())
}

/// Where layouts are kept for all clones of the project on this machine.
fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where to keep the fixtures")?;
    Ok(base.join("gantry/fixtures"))
}

/// The name of a recipe's layout in the cache.
fn entry_name(recipes: &[Recipe], recipe: &Recipe, codename: &str) -> String {
    let mut digest = digest(recipes, recipe, codename);
    digest.truncate(16);
    format!("{}-{digest}", recipe.name)
}

/// Whether a layout is there; it appears by one rename, so it is whole.
fn is_layout(path: &Path) -> bool {
    path.join("index.json").is_file()
}

/// Makes `dir/name` a link to `place`, in one step.
fn link(dir: &Path, name: &str, place: &Path) -> Result<()> {
    let path = dir.join(name);
    if fs::read_link(&path).is_ok_and(|target| target == place) {
        return Ok(());
    }
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        remove_dir(&path)?;
    }
    let new = dir.join(format!(".new-{name}-{}", std::process::id()));
    std::os::unix::fs::symlink(place, &new)?;
    fs::rename(&new, &path).with_context(|| format!("link {}", path.display()))
}

/// Digest of a recipe and of all that it is built on, the release included.
fn digest(recipes: &[Recipe], recipe: &Recipe, codename: &str) -> String {
    let parent = recipe
        .how
        .parent()
        .and_then(|parent| recipes.iter().find(|other| other.name == parent))
        .map_or_else(
            || format!("{FORMAT} {codename}"),
            |parent| digest(recipes, parent, codename),
        );
    let text = format!(
        "{parent}\n{}\n{:?}\n{:?}",
        recipe.name, recipe.how, recipe.config
    );
    hex_digest(text)
}

/// SHA-256 in hexadecimal digits, by which what was built is kept.
pub(crate) fn hex_digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Everything that building needs, for the time of one run.
struct Builder<'a> {
    recipes: &'a [Recipe],
    out: &'a Path,
    disk: Disk,
    codename: String,
    sources: Vec<PathBuf>,
}

impl<'a> Builder<'a> {
    fn new(recipes: &'a [Recipe], out: &'a Path, codename: String) -> Result<Self> {
        let disk = Disk::new(DISK_SIZE_BYTES).context("make a scratch file system to build on")?;
        for dir in ["apt/sources", "apt/archives/partial", "tmp"] {
            fs::create_dir_all(disk.path().join(dir))?;
        }
        let sources = apt_sources(&codename)?;
        let builder = Self {
            recipes,
            out,
            disk,
            codename,
            sources,
        };
        builder.write_apt_configuration()?;
        Ok(builder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// The machine's own sources and fetch settings, in a directory that is mounted into each build.
    fn write_apt_configuration(&self) -> Result<()> {
        for source in &self.sources {
            let name = source.file_name().context("a source without a name")?;
            fs::copy(source, self.path("apt/sources").join(name))?;
        }
        let acquire = tool::text("apt-config", ["dump", "Acquire"])?;
        let own = "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"/mnt/sources\";\n\
                   Dir::Cache::archives \"/mnt/archives\";\nAPT::Install-Recommends \"false\";\n\
                   APT::Sandbox::User \"root\";\nquiet \"2\";\n";
        fs::write(self.path("apt/apt.conf"), format!("{acquire}\n{own}"))?;
        if fs::read_dir("/var/lib/apt/lists")?.count() < 4 {
            tool::run(Command::new("apt-get").args(["update", "-q"]))?;
        }
        Ok(())
    }

    /// Builds one fixture beside its final place and moves it there.
    fn build(&self, recipe: &Recipe) -> Result<()> {
        let staged = self
            .out
            .join(format!(".new-{}-{}", recipe.name, std::process::id()));
        remove_dir(&staged)?;
        match &recipe.how {
            How::Bootstrap => self.bootstrap(recipe, &staged)?,
            How::Script {
                from,
                script,
                squash,
            } => self.script(recipe, from, script, *squash, &staged)?,
            How::Programs { paths } => self.programs(recipe, paths, &staged)?,
            How::Zstd { of } => self.zstd(of, &staged)?,
        }
        let place = self
            .out
            .join(entry_name(self.recipes, recipe, &self.codename));
        match fs::rename(&staged, &place) {
            // Another clone was quicker; its layout is in use already.
            Err(_) if is_layout(&place) => remove_dir(&staged),
            other => other.with_context(|| format!("keep {}", place.display())),
        }
    }

    /// The layout of another recipe, built before, as buildah and skopeo spell it in the cache's directory.
    ///
    /// Not the whole path: buildah makes a reference of it, in which `.cache` or a capital letter cannot stand.
    fn built(&self, name: &str) -> Result<String> {
        let recipe = self.recipes.iter().find(|recipe| recipe.name == name);
        let recipe = recipe.with_context(|| format!("no recipe {name}"))?;
        let entry = entry_name(self.recipes, recipe, &self.codename);
        Ok(format!("oci:{entry}:latest"))
    }

    fn bootstrap(&self, recipe: &Recipe, staged: &Path) -> Result<()> {
        let tar = self.path("base.tar");
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--quiet",
            "--variant=minbase",
            "--aptopt=APT::Install-Recommends \"false\"",
        ]);
        for pattern in recipes::NO_DOCUMENTATION {
            command.arg(format!("--dpkgopt=path-exclude={pattern}"));
        }
        command
            .env("TMPDIR", self.path("tmp"))
            .arg(&self.codename)
            .arg(&tar)
            .args(&self.sources);
        tool::run(&mut command)?;
        self.in_container(recipe, "scratch", false, staged, |container| {
            self.buildah(&["add", "-q", container, &tar.to_string_lossy(), "/"])
                .map(drop)
        })
    }

    fn script(
        &self,
        recipe: &Recipe,
        from: &str,
        script: &str,
        squash: bool,
        staged: &Path,
    ) -> Result<()> {
        let from = self.built(from)?;
        self.in_container(recipe, &from, squash, staged, |container| {
            let script = format!("{}\n{script}\n{}", recipes::PROLOGUE, recipes::EPILOGUE);
            let apt = format!("{}:/mnt", self.path("apt").display());
            let mounts = [
                apt.as_str(),
                "/var/lib/apt/lists:/var/lib/apt/lists:ro",
                "/usr/share/keyrings:/usr/share/keyrings:ro",
            ];
            let mut args = vec!["run", "--isolation", "chroot", "--cap-add", "CAP_MKNOD"];
            mounts.iter().for_each(|mount| args.extend(["-v", mount]));
            args.extend([container, "--", "sh", "-euc", &script]);
            self.buildah(&args).map(drop)
        })
    }

    /// An image of nothing but some of the machine's own static programs.
    fn programs(&self, recipe: &Recipe, paths: &[(&str, &str)], staged: &Path) -> Result<()> {
        self.in_container(recipe, "scratch", false, staged, |container| {
            let root = self.buildah(&["mount", container])?;
            let root = Path::new(root.trim());
            for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
                fs::create_dir_all(root.join(dir))?;
            }
            fs::write(
                root.join("etc/passwd"),
                "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
            )?;
            fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
            for (source, name) in paths {
                if let Some(target) = source.strip_prefix("-> ") {
                    std::os::unix::fs::symlink(target, root.join("bin").join(name))?;
                } else {
                    let source =
                        tool::find(source).with_context(|| format!("{source} is not installed"))?;
                    fs::copy(source, root.join("bin").join(name))?;
                }
            }
            self.buildah(&["umount", container]).map(drop)
        })
    }

    fn zstd(&self, of: &str, staged: &Path) -> Result<()> {
        let source = self.built(of)?;
        let destination = format!("oci:{}:latest", staged.display());
        let options = [
            "copy",
            "-q",
            "--dest-compress",
            "--dest-compress-format",
            "zstd",
        ];
        tool::run(
            Command::new("skopeo")
                .current_dir(self.out)
                .args(options)
                .args([source, destination]),
        )
        .map(drop)
    }

    /// Runs `fill` with a working container made from `from`, then commits it to the layout `staged`.
    fn in_container(
        &self,
        recipe: &Recipe,
        from: &str,
        squash: bool,
        staged: &Path,
        fill: impl FnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        let container = self.buildah(&[
            "from",
            "-q",
            "--name",
            &format!("build-{}", recipe.name),
            from,
        ])?;
        let container = container.trim();
        fill(container)?;
        let mut config = vec!["config"];
        config.extend(recipe.config.iter().map(String::as_str));
        config.push(container);
        self.buildah(&config)?;
        let destination = format!("oci:{}:latest", staged.display());
        let mut commit = vec!["commit", "-q", "--rm", "--format", "oci"];
        // What a push would send; a commit leaves layers plain unless told so.
        commit.push("--disable-compression=false");
        commit.extend(squash.then_some("--squash"));
        commit.extend([container, &destination]);
        self.buildah(&commit)?;
        // The imported parents are only in the way once the container is gone.
        self.buildah(&["rmi", "--all", "--force"]).map(drop)
    }

    fn buildah(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"));
        command
            .args(["--storage-driver", "overlay"])
            .args(args)
            .current_dir(self.out)
            .env("TMPDIR", self.path("tmp"));
        Ok(String::from_utf8(tool::run(&mut command)?.stdout)?)
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The release that this machine runs.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = value
        .context("no VERSION_CODENAME in /etc/os-release")?
        .trim_matches('"');
    Ok(codename.to_owned())
}

/// The machine's source files that serve the release itself, leaving out other vendors' packages.
fn apt_sources(codename: &str) -> Result<Vec<PathBuf>> {
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut candidates: Vec<_> = parts
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    candidates.push("/etc/apt/sources.list".into());
    candidates.sort();
    candidates.retain(|path| {
        let known = path
            .extension()
            .is_some_and(|extension| extension == "list" || extension == "sources");
        known && fs::read_to_string(path).is_ok_and(|text| mentions(&text, codename))
    });
    if candidates.is_empty() {
        bail!("no apt source on this machine serves {codename}");
    }
    Ok(candidates)
}

fn mentions(sources: &str, codename: &str) -> bool {
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split_whitespace().any(|word| word == codename))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_planned_before_their_children() {
        let recipes = recipes::all();
        for (index, recipe) in recipes.iter().enumerate() {
            if let Some(parent) = recipe.how.parent() {
                let place = recipes.iter().position(|other| other.name == parent);
                assert!(place.is_some_and(|place| place < index), "{}", recipe.name);
            }
        }
        let args = Args {
            tier: Tier::Core,
            only: vec!["app-v1".into()],
            dry_run: true,
        };
        let names: Vec<_> = plan(&recipes, &args).unwrap();
        let names: Vec<_> = names.iter().map(|recipe| recipe.name.as_str()).collect();
        assert_eq!(names, ["base", "python3", "app-v1"]);
    }

    #[test]
    fn sources_of_other_releases_are_left_out() {
        assert!(mentions(
            "Types: deb\nSuites: bookworm bookworm-updates\n",
            "bookworm"
        ));
        assert!(mentions(
            "deb http://example.org/debian bookworm main\n",
            "bookworm"
        ));
        assert!(!mentions("# bookworm\nSuites: nodistro\n", "bookworm"));
    }
}
