use serde_json::Value;

use super::*;
use crate::capability::CapabilitySet;
use crate::document::flags::FLAGS;
use crate::document::validate::{is_valid, validate};
use crate::document::{diff, read};
use crate::host::Cgroups;
use crate::options::{MountRequest, Network, Profile};
use crate::spec::tests::{check_golden, host, shell_image};

fn accounts() -> Accounts {
    Accounts {
        passwd: b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n".to_vec(),
        group: b"app:x:1001:\nextra:x:2000:app\n".to_vec(),
    }
}

struct Case {
    image: Option<ImageConfig>,
    options: RunOptions,
    flags: Vec<Given>,
    host: HostFacts,
    id: Option<String>,
    template: Option<Value>,
    accounts: Option<Accounts>,
}

impl Case {
    fn new(edit: impl FnOnce(&mut RunOptions)) -> Self {
        let mut options = RunOptions::default();
        edit(&mut options);
        Self {
            image: None,
            options,
            flags: Vec::new(),
            host: host(),
            id: None,
            template: None,
            accounts: Some(accounts()),
        }
    }

    fn image(mut self) -> Self {
        self.image = Some(shell_image());
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap();
        self.flags.push(Given {
            flag,
            value: value.into(),
        });
        self
    }

    fn make(&self) -> Result<Made, MakeError> {
        make(&Inputs {
            image: self.image.as_ref(),
            options: &self.options,
            flags: &self.flags,
            host: &self.host,
            id: self.id.as_deref(),
            rootfs: None,
            accounts: self.accounts.as_ref(),
            template: self.template.as_ref(),
            version: None,
        })
    }

    fn document(&self) -> Value {
        self.make().unwrap().document
    }
}

/// Without the filter, which has golden files of its own.
fn golden(name: &str, case: &Case) {
    let mut made = case.make().unwrap();
    if let Some(linux) = made.document["linux"].as_object_mut() {
        linux.remove("seccomp");
    }
    let text = serde_json::to_string_pretty(&made.document).unwrap();
    check_golden(
        name,
        &format!("{text}\n--- notes\n{}\n", made.notes.join("\n")),
    );
}

#[test]
fn documents_are_as_agreed() {
    golden("generate-plain.txt", &Case::new(|_| {}));
    golden("generate-image.txt", &Case::new(|_| {}).image());
    let compat = |options: &mut RunOptions| {
        options.profile = Profile::Compat;
        options.args = vec!["id".into()];
        options.mounts = vec![MountRequest::parse_volume("/srv:/data:ro").unwrap()];
        options.labels = vec!["org.example=x".parse().unwrap()];
    };
    let case = Case::new(compat)
        .image()
        .flag("process-rlimits-add", "RLIMIT_NOFILE:20:10")
        .flag("linux-uidmappings", "1000:0:65536")
        .flag("linux-gidmappings", "1000:0:65536")
        .flag("mounts-remove", "/dev/mqueue");
    golden("generate-flags.txt", &case);
}

#[test]
fn same_input_gives_same_bytes() {
    let bytes = || serde_json::to_vec(&Case::new(|_| {}).image().document()).unwrap();
    let first = bytes();
    for _ in 0..20 {
        assert_eq!(bytes(), first);
    }
}

#[test]
fn users_by_name_need_accounts() {
    let mut case = Case::new(|_| {}).image();
    let user = &case.document()["process"]["user"];
    assert_eq!((&user["uid"], &user["gid"]), (&1000.into(), &1001.into()));
    case.accounts = None;
    let error = case.make().unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("--rootfs"));
    case.options.user = Some("7".parse().unwrap());
    let made = case.make().unwrap();
    assert_eq!(made.document["process"]["user"]["uid"], 7);
    assert!(
        made.notes.iter().any(|note| note.contains("accounts")),
        "{:?}",
        made.notes
    );
}

#[test]
fn nothing_refers_to_what_only_run_has() {
    let text = Case::new(|_| {}).image().document().to_string();
    for absent in ["\\u0000", "state", "/etc/hostname", "cgroupsPath", "merged"] {
        assert!(!text.contains(absent), "{absent}");
    }
    let mut case = Case::new(|_| {});
    case.id = Some("web".into());
    let document = case.document();
    assert_eq!(document["linux"]["cgroupsPath"], "/gantry-web");
    assert_eq!(document["hostname"], "web");
}

#[test]
fn template_keeps_what_nobody_asked_to_change() {
    let mut case = Case::new(|options| {
        options.env = vec!["NEW=1".parse().unwrap()];
        options.network = Network::Host;
        options.cap_add = CapabilitySet::of(&["NET_RAW"]);
    });
    let mut template = Case::new(|_| {}).document();
    template["ociVersion"] = "1.0.2".into();
    template["root"]["path"] = "/own".into();
    template["hostname"] = "own".into();
    template["process"]["args"] = json!(["own"]);
    template["unknown"] = json!({ "kept": true });
    case.template = Some(template.clone());
    let document = case.document();
    let lines: Vec<_> = diff::diff(&template, &document)
        .iter()
        .map(|difference| difference.path.to_string())
        .filter(|path| !path.contains("capabilities") && !path.contains("mounts"))
        .collect();
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(has(".process.env") && has(".linux.namespaces"), "{lines:?}");
    for kept in ["ociVersion", "root", "args", "unknown"] {
        assert!(!has(kept), "{kept}: {lines:?}");
    }
    let plain = Case {
        template: Some(template.clone()),
        ..Case::new(|_| {})
    };
    assert_eq!(plain.document(), template);
}

/// A generator of numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn often(&mut self) -> bool {
        self.roll(2) == 0
    }
}

fn any_options(dice: &mut Dice) -> RunOptions {
    let mut options = RunOptions::default();
    if dice.often() {
        options.profile = Profile::Compat;
    }
    if dice.often() {
        options.network = Network::Host;
    }
    options.terminal = dice.often();
    options.privileged = dice.roll(4) == 0;
    options.writable = [None, Some(true), Some(false)][usize::try_from(dice.roll(3)).unwrap()];
    if dice.often() {
        options.user = Some(
            ["0", "app", "1000:5", "77"][usize::try_from(dice.roll(4)).unwrap()]
                .parse()
                .unwrap(),
        );
    }
    if dice.often() {
        options.cap_add = CapabilitySet::from_mask(dice.roll(1 << 30));
    }
    if dice.often() {
        options.cap_drop = CapabilitySet::from_mask(dice.roll(1 << 30));
    }
    if dice.roll(4) == 0 {
        options.cap_drop = CapabilitySet::ALL;
    }
    if dice.often() {
        options.ulimits = vec!["nofile=10:20".parse().unwrap(), "core=1".parse().unwrap()];
    }
    if dice.often() {
        options.memory_max = Some("64m".parse().unwrap());
        options.cpus = Some("0.5".parse().unwrap());
        options.pids_limit = Some(i64::try_from(dice.roll(9)).unwrap() - 1);
    }
    if dice.often() {
        options.mounts = vec![
            MountRequest::parse_volume("/srv:/data:ro,rbind,rslave").unwrap(),
            MountRequest::parse_tmpfs("/tmp:size=1m,exec").unwrap(),
        ];
    }
    if dice.often() {
        options.sysctls = vec!["kernel.shmmax=1".parse().unwrap()];
        options.security = vec!["seccomp=unconfined".parse().unwrap()];
    }
    options
}

#[test]
fn whatever_is_made_is_valid() {
    let mut dice = Dice(1);
    for round in 0..500 {
        let mut case = Case::new(|_| {});
        case.options = any_options(&mut dice);
        if dice.often() {
            case = case.image();
        }
        if dice.often() {
            case.id = Some("web-1".into());
        }
        if dice.roll(3) == 0 {
            case.host.cgroups = Cgroups::None;
            case.options.memory_max = None;
            case.options.cpus = None;
            case.options.pids_limit = None;
        }
        let document = case
            .make()
            .unwrap_or_else(|error| panic!("{round}: {error}"))
            .document;
        let findings = validate(&document);
        assert!(is_valid(&findings), "{round}: {findings:#?}");
        let warnings: Vec<_> = findings
            .iter()
            .filter(|f| f.rule.contains("Extensibility"))
            .collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        // It passes its own reader, and comparing it with itself finds nothing.
        let again = read(
            document.to_string().as_bytes(),
            &gantry_oci::Limits::DEFAULT,
        )
        .unwrap();
        assert_eq!(diff::diff(&document, &again), []);
    }
}

#[test]
fn templates_of_any_shape_are_no_panic() {
    for template in [
        json!(null),
        json!([]),
        json!("x"),
        json!({}),
        json!({"process": 1, "mounts": {}, "linux": [], "root": null}),
        json!({"process": {"env": [1, null, {}], "capabilities": []}, "mounts": [1, "x"]}),
    ] {
        let mut case = Case::new(|options| {
            options.profile = Profile::Compat;
            options.env = vec!["A=1".parse().unwrap()];
            options.network = Network::Host;
            options.labels = vec!["org.example=x".parse().unwrap()];
        })
        .image();
        let is_object = template.is_object();
        case.template = Some(template);
        match case.make() {
            Ok(made) => assert!(is_object && made.document.is_object()),
            Err(error) => assert_eq!(error.kind(), Kind::InvalidInput),
        }
    }
}
