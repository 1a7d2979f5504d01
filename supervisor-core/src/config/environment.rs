//! Which variables a service inherits.

use serde::{Deserialize, Serialize};

/// Variables inherited under [`EnvironmentInheritance::Base`].
///
/// What a program needs to find itself, its user, its language and its temporary directory; nothing that
/// usually carries a secret. The second half is what Windows programs cannot start without.
pub const BASE_ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "SystemRoot",
    "SystemDrive",
    "windir",
    "ComSpec",
    "PATHEXT",
    "TEMP",
    "TMP",
    "USERPROFILE",
    "USERNAME",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "ProgramFiles",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
];

/// Variables whose names start like this are inherited under [`EnvironmentInheritance::Base`] too.
pub const BASE_ENVIRONMENT_PREFIXES: &[&str] = &["LC_", "XDG_"];

/// What a service inherits of the supervisor's environment, below what its own `environment` sets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum EnvironmentInheritance {
    /// [`BASE_ENVIRONMENT`] and [`BASE_ENVIRONMENT_PREFIXES`], written `"base"`.
    #[default]
    #[serde(with = "word::base")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("const" = "base")))]
    Base,
    /// Everything, written `"all"`.
    #[serde(with = "word::all")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("const" = "all")))]
    All,
    /// Nothing, written `"none"`.
    #[serde(with = "word::none")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("const" = "none")))]
    None,
    /// Exactly these names, those that are set.
    List(Vec<String>),
}

impl EnvironmentInheritance {
    /// Tells whether the variable `name` is inherited.
    #[must_use]
    pub fn inherits(&self, name: &str) -> bool {
        match self {
            Self::Base => {
                BASE_ENVIRONMENT.iter().any(|base| base.eq_ignore_ascii_case(name))
                    || BASE_ENVIRONMENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            }
            Self::All => true,
            Self::None => false,
            Self::List(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

mod word {
    macro_rules! word {
        ($name:ident, $text:literal) => {
            pub(super) mod $name {
                use serde::{Deserialize, Deserializer, Serializer};

                pub(in super::super) fn serialize<S: Serializer>(to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_str($text)
                }

                pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                    from: D,
                ) -> Result<(), D::Error> {
                    let text = String::deserialize(from)?;
                    if text == $text {
                        return Ok(());
                    }
                    Err(serde::de::Error::custom(
                        "expected \"base\", \"all\", \"none\" or a list of names",
                    ))
                }
            }
        };
    }
    word!(base, "base");
    word!(all, "all");
    word!(none, "none");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives_being_written_and_read() {
        for (value, text) in [
            (EnvironmentInheritance::Base, r#""base""#),
            (EnvironmentInheritance::All, r#""all""#),
            (EnvironmentInheritance::None, r#""none""#),
            (EnvironmentInheritance::List(vec!["PATH".into()]), r#"["PATH"]"#),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<EnvironmentInheritance>(text).unwrap(), value);
        }
        assert!(serde_json::from_str::<EnvironmentInheritance>(r#""some""#).is_err());
    }

    #[test]
    fn base_leaves_out_what_may_be_secret() {
        let base = EnvironmentInheritance::Base;
        assert!(
            base.inherits("PATH") && base.inherits("LC_ALL") && base.inherits("XDG_RUNTIME_DIR")
        );
        assert!(!base.inherits("API_KEY") && !base.inherits("LD_PRELOAD"));
    }
}
