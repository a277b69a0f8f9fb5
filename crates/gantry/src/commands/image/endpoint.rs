// SPDX-License-Identifier: Apache-2.0
//! From the words of the command line to sources and destinations.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_image::{
    Capabilities, Committed, EndpointError, ImageDestination, ImageSource, ImageWriter, Incoming,
    ManifestBytes, Naming, SignatureBlob,
};
use gantry_oci::{Kind, Platform};
use gantry_store::endpoint::{StoreDestination, StoreSource};
use gantry_store::{CreateOptions, Faces, IngestOptions, Store};
use gantry_transport::ImageName;
use gantry_transport::oci_layout::{LayoutDestination, LayoutOptions, LayoutSource};
use gantry_transport::registry::client::Login;
use gantry_transport::registry::mirrors::RegistriesConf;
use gantry_transport::registry::tls::CertificatePlaces;
use gantry_transport::registry::{
    Credentials, Environment, LookasidePlaces, Options, RegistryDestination, RegistrySource,
    TlsVerify,
};
use gantry_trust::Subject;
use gantry_trust::registries_d::{self, RegistriesD};
use gantry_trust::scope::PathTransport;

use crate::commands::container::find;
use crate::context::Context;
use crate::exit::Failure;
use crate::lookup::{self, Found};
use crate::{stores, trust};

/// Defines the options of one side, with the prefix that skopeo gives them.
macro_rules! side {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct $name {
            /// Read credentials from this file only
            #[arg(id = concat!($prefix, "authfile"), long = concat!($prefix, "authfile"), value_name = "FILE")]
            authfile: Option<PathBuf>,
            /// Use these credentials
            #[arg(id = concat!($prefix, "creds"), long = concat!($prefix, "creds"), value_name = "USER:PASSWORD")]
            creds: Option<String>,
            /// Use no credentials
            #[arg(id = concat!($prefix, "no-creds"), long = concat!($prefix, "no-creds"),
                  conflicts_with_all = [concat!($prefix, "creds"), concat!($prefix, "registry-token")])]
            no_creds: bool,
            /// Use this bearer token
            #[arg(id = concat!($prefix, "registry-token"), long = concat!($prefix, "registry-token"), value_name = "TOKEN",
                  conflicts_with = concat!($prefix, "creds"))]
            registry_token: Option<String>,
            /// Read certificates from this directory
            #[arg(id = concat!($prefix, "cert-dir"), long = concat!($prefix, "cert-dir"), value_name = "DIR")]
            cert_dir: Option<PathBuf>,
            /// Require TLS and a good certificate [default: yes, but loopback addresses may speak plain HTTP]
            #[arg(id = concat!($prefix, "tls-verify"), long = concat!($prefix, "tls-verify"), value_name = "BOOL",
                  num_args = 0..=1, require_equals = true, default_missing_value = "true")]
            tls_verify: Option<bool>,
            /// Blobs of an OCI layout lie in this directory
            #[arg(id = concat!($prefix, "shared-blob-dir"), long = concat!($prefix, "shared-blob-dir"), value_name = "DIR")]
            shared_blob_dir: Option<PathBuf>,
        }

        impl $name {
            /// The options as the transports take them.
            ///
            /// # Errors
            /// Malformed credentials, or configuration files that cannot be read.
            pub fn resolve(self) -> Result<Side, Failure> {
                Side::new(
                    self.authfile,
                    self.creds,
                    self.no_creds,
                    self.registry_token,
                    self.cert_dir,
                    self.tls_verify,
                    self.shared_blob_dir,
                )
            }
        }
    };
}

side!(
    /// Options of the only side.
    PlainArgs, ""
);
side!(
    /// Options of the source.
    SourceArgs, "src-"
);
side!(
    /// Options of the destination.
    DestinationArgs, "dest-"
);

/// The user's own places for credentials and configuration.
fn environment() -> Environment {
    let uid = rustix::process::geteuid().as_raw();
    Environment::from_variables(|name| std::env::var_os(name), uid)
}

/// The registries that a name without one may stand for.
///
/// # Errors
/// registries.conf cannot be read.
pub fn search_registries() -> Result<Vec<String>, Failure> {
    let conf = RegistriesConf::load(&environment())?;
    Ok(conf.unqualified_search().to_vec())
}

/// How one side is reached.
#[derive(Debug)]
pub struct Side {
    /// For registries.
    pub options: Options,
    /// For registries.
    pub conf: RegistriesConf,
    /// For OCI layouts.
    pub layout: LayoutOptions,
}

impl Side {
    fn new(
        authfile: Option<PathBuf>,
        creds: Option<String>,
        no_creds: bool,
        registry_token: Option<String>,
        cert_dir: Option<PathBuf>,
        tls_verify: Option<bool>,
        shared_blob_dir: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let mut environment = environment();
        if authfile.is_some() {
            environment.auth_file = authfile;
        }
        let login = match (creds, registry_token) {
            (Some(creds), _) => Login::Given(Credentials::parse(&creds).ok_or_else(|| {
                Failure::message(
                    Kind::InvalidInput,
                    "credentials are not of the form USER:PASSWORD",
                )
            })?),
            (None, Some(token)) => Login::Token(token),
            (None, None) if no_creds => Login::Anonymous,
            (None, None) => Login::Search,
        };
        Ok(Self {
            options: Options {
                tls_verify: match tls_verify {
                    None => TlsVerify::Default,
                    Some(true) => TlsVerify::Required,
                    Some(false) => TlsVerify::Off,
                },
                certificates: CertificatePlaces {
                    dir: cert_dir,
                    roots: environment.cert_roots(),
                },
                login,
                auth_files: environment.auth_files(),
                ..Options::default()
            },
            conf: RegistriesConf::load(&environment)?,
            layout: LayoutOptions {
                shared_blob_dir,
                ..LayoutOptions::default()
            },
        })
    }

    /// The options for registries, with the places of signatures.
    ///
    /// # Errors
    /// `registries.d` cannot be read.
    pub fn registry_options(&self, context: &Context) -> Result<Options, Failure> {
        let environment = environment();
        let (home, uid) = (environment.config_home.as_deref(), environment.uid);
        let directories = match &context.registries_d {
            Some(only) => vec![only.clone()],
            None => registries_d::directories(home, uid),
        };
        Ok(Options {
            lookaside: LookasidePlaces {
                configured: Arc::new(RegistriesD::load(&directories)?),
                default: registries_d::default_lookaside(environment.home.as_deref(), uid),
            },
            ..self.options.clone()
        })
    }

    /// Opens a source.
    ///
    /// # Errors
    /// As the transport says.
    pub fn source(
        &self,
        name: ImageName,
        context: &Context,
    ) -> Result<Box<dyn ImageSource>, Failure> {
        Ok(self.judged_source(name, context)?.source)
    }

    /// Opens a source, and says what a policy knows it by: in a registry, the name that was asked for, never a
    /// mirror's; in a directory, its path; in a store, the name that it has there.
    ///
    /// # Errors
    /// As the transport says.
    pub fn judged_source(
        &self,
        name: ImageName,
        context: &Context,
    ) -> Result<JudgedSource, Failure> {
        let asked = name.to_string();
        Ok(match name {
            ImageName::Docker(reference) => {
                let options = self.registry_options(context)?;
                JudgedSource {
                    asked,
                    subjects: vec![Subject::docker(&reference)],
                    source: Box::new(RegistrySource::new(reference, &options, &self.conf)?),
                }
            }
            ImageName::OciLayout { path, selection } => {
                let resolved = trust::resolve(&path)?;
                JudgedSource {
                    asked,
                    subjects: vec![Subject::path(PathTransport::Oci, &resolved)],
                    source: Box::new(LayoutSource::new(path, selection, &self.layout)),
                }
            }
            ImageName::Store(text) => {
                let store = Store::open_read_only(&context.root)?;
                let found = lookup::find(&store, &text, self.conf.unqualified_search())?;
                JudgedSource::of_store(context, store, &text, found)?
            }
        })
    }

    /// Opens a destination, making the directory that it is.
    ///
    /// # Errors
    /// As the transport says.
    pub async fn destination(
        &self,
        name: ImageName,
        context: &Context,
        faces: Faces,
    ) -> Result<Box<dyn ImageDestination>, Failure> {
        Ok(match name {
            ImageName::Docker(_) => self.planned(name, context)?,
            ImageName::OciLayout { path, selection } => {
                Box::new(LayoutDestination::create(path, selection, &self.layout).await?)
            }
            ImageName::Store(text) => {
                let store = Store::open_or_create(&context.root, &CreateOptions::default())?;
                let names = vec![lookup::new_name(&store, &text)?];
                Box::new(StoreDestination::new(store, names, IngestOptions { faces }))
            }
        })
    }

    /// A destination to plan a copy to: nothing is made or opened.
    ///
    /// # Errors
    /// As the transport says.
    pub fn planned(
        &self,
        name: ImageName,
        context: &Context,
    ) -> Result<Box<dyn ImageDestination>, Failure> {
        Ok(match name {
            ImageName::Docker(reference) => Box::new(RegistryDestination::new(
                reference,
                &self.registry_options(context)?,
                &self.conf,
            )),
            ImageName::OciLayout { path, selection } => {
                Box::new(LayoutDestination::planned(path, selection, &self.layout)?)
            }
            ImageName::Store(text) => Box::new(PlannedStore(format!(
                "store {}: {text}",
                context.root.display()
            ))),
        })
    }
}

/// A source, and what a policy knows it by.
#[derive(Debug)]
pub struct JudgedSource {
    /// As it was asked for.
    pub asked: String,
    /// The image's place and names: one of them must be admitted.
    pub subjects: Vec<Subject>,
    /// The source.
    pub source: Box<dyn ImageSource>,
}

impl JudgedSource {
    /// An image that was found in the own store.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn of_store(
        context: &Context,
        store: Store,
        text: &str,
        found: Found,
    ) -> Result<Self, Failure> {
        let Found { name, record } = found;
        let registry = stores::own_registry(context, &store);
        let digests = [Some(record.digest)];
        let subjects = find::subjects(&store, name.as_ref(), &digests, registry.as_ref())?;
        let asked = format!("store:{text}");
        let source = StoreSource::new(store, asked.clone(), record.digest);
        Ok(Self {
            asked,
            subjects,
            source: Box::new(source.pulled_as(name.as_ref())),
        })
    }
}

/// A store that a copy is planned to, and that need not exist.
#[derive(Debug)]
pub struct PlannedStore(pub String);

#[async_trait]
impl ImageDestination for PlannedStore {
    fn describe(&self) -> String {
        self.0.clone()
    }

    fn capabilities(&self) -> Capabilities {
        gantry_store::endpoint::capabilities()
    }

    async fn begin(&self, _: Arc<Incoming>) -> Result<Box<dyn ImageWriter>, EndpointError> {
        Err(planned_only())
    }

    async fn put_index(
        &self,
        _: &ManifestBytes,
        _: Vec<SignatureBlob>,
        _: Naming,
    ) -> Result<Committed, EndpointError> {
        Err(planned_only())
    }
}

fn planned_only() -> EndpointError {
    EndpointError::new(
        Kind::Internal,
        "write to a destination that was only planned",
    )
}

/// The views that a store makes of an image that comes into it.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct FacesArgs {
    /// The views that the store makes of the image
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = FacesWish::Composefs)]
    faces: FacesWish,
}

/// The choices of `--faces`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FacesWish {
    /// One EROFS file with all metadata, mounted over the shared objects
    #[default]
    Composefs,
    /// A plain tree of hard links that needs no software of ours
    Hardlink,
    /// Both
    Both,
}

impl From<FacesArgs> for Faces {
    fn from(args: FacesArgs) -> Self {
        match args.faces {
            FacesWish::Composefs => Self::COMPOSEFS,
            FacesWish::Hardlink => Self::HARDLINK,
            FacesWish::Both => Self::BOTH,
        }
    }
}

/// Which platform is chosen from an index.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlatformArgs {
    /// Choose this platform from an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with_all = ["override_arch", "override_os", "override_variant"])]
    platform: Option<String>,
    /// Choose this architecture
    #[arg(long, value_name = "ARCH")]
    override_arch: Option<String>,
    /// Choose this operating system
    #[arg(long, value_name = "OS")]
    override_os: Option<String>,
    /// Choose this variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    override_variant: Option<String>,
}

impl PlatformArgs {
    /// The platform.
    ///
    /// # Errors
    /// The text is not of the form `os/architecture[/variant]`.
    pub fn resolve(self) -> Result<Platform, Failure> {
        if let Some(text) = self.platform {
            return Ok(Platform::parse(&text)?);
        }
        let mut platform = Platform::host();
        if let Some(architecture) = self.override_arch {
            platform.architecture = architecture;
            platform.variant = None;
        }
        if let Some(os) = self.override_os {
            platform.os = os;
        }
        if self.override_variant.is_some() {
            platform.variant = self.override_variant;
        }
        Ok(platform)
    }
}
