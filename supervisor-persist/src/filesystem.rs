//! Which kind of file system a directory is on: SQLite's log needs memory shared on one host and locks that hold.

use std::path::Path;

use supervisor_core::error::DatabaseError;

/// What a file system is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, target_os = "linux", target_os = "macos")),
    expect(dead_code, reason = "elsewhere no directory's kind is told")
)]
pub(crate) enum Kind {
    /// It is on this machine.
    Local(&'static str),
    /// It is in memory and gone with the machine.
    Memory(&'static str),
    /// Another program answers for it.
    Other(&'static str),
    /// It is on another machine.
    Network(&'static str),
    /// The system does not tell.
    Unknown,
}

/// Kinds by the number Linux gives them in statfs(2).
#[cfg(any(test, target_os = "linux"))]
const KNOWN: [(u64, Kind); 19] = [
    (0xef53, Kind::Local("ext4")),
    (0x5846_5342, Kind::Local("xfs")),
    (0x9123_683e, Kind::Local("btrfs")),
    (0xf2f5_2010, Kind::Local("f2fs")),
    (0x2fc1_2fc1, Kind::Local("zfs")),
    (0x794c_7630, Kind::Local("overlayfs")),
    (0x4d44, Kind::Local("fat")),
    (0x0102_1994, Kind::Memory("tmpfs")),
    (0x8584_58f6, Kind::Memory("ramfs")),
    (0x6573_5546, Kind::Other("fuse")),
    (0x0102_1997, Kind::Other("9p")),
    (0xf15f, Kind::Other("ecryptfs")),
    (0x6969, Kind::Network("nfs")),
    (0x517b, Kind::Network("smb")),
    (0xff53_4d42, Kind::Network("cifs")),
    (0xfe53_4d42, Kind::Network("smb2")),
    (0x00c3_6400, Kind::Network("ceph")),
    (0x5346_414f, Kind::Network("afs")),
    (0x7375_7245, Kind::Network("coda")),
];

/// Kinds by the name macOS gives them in statfs(2).
#[cfg(any(test, target_os = "macos"))]
const NAMED: [(&str, Kind); 11] = [
    ("apfs", Kind::Local("apfs")),
    ("hfs", Kind::Local("hfs")),
    ("exfat", Kind::Local("exfat")),
    ("msdos", Kind::Local("fat")),
    ("tmpfs", Kind::Memory("tmpfs")),
    ("macfuse", Kind::Other("fuse")),
    ("osxfuse", Kind::Other("fuse")),
    ("nfs", Kind::Network("nfs")),
    ("smbfs", Kind::Network("smb")),
    ("afpfs", Kind::Network("afp")),
    ("webdav", Kind::Network("webdav")),
];

#[cfg(any(test, target_os = "linux"))]
fn of(number: u64) -> Kind {
    KNOWN.iter().find(|(known, _)| *known == number).map_or(Kind::Unknown, |(_, kind)| *kind)
}

#[cfg(any(test, target_os = "macos"))]
fn named(name: &[u8]) -> Kind {
    // The system fills the rest of its field with zeroes.
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let known = NAMED.iter().find(|(known, _)| known.as_bytes() == name);
    known.map_or(Kind::Unknown, |(_, kind)| *kind)
}

/// Gives the kind of file system a directory is on.
pub(crate) fn kind(directory: &Path) -> Kind {
    #[cfg(target_os = "linux")]
    {
        // The type is a C long, whose upper half means nothing here.
        rustix::fs::statfs(directory)
            .map_or(Kind::Unknown, |found| of((found.f_type as u64) & 0xffff_ffff))
    }
    #[cfg(target_os = "macos")]
    {
        rustix::fs::statfs(directory)
            .map_or(Kind::Unknown, |found| named(&found.f_fstypename.map(i8::cast_unsigned)))
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _: &Path = directory;
        Kind::Unknown
    }
}

/// Refuses a directory on another machine.
pub(crate) fn judge(directory: &Path) -> Result<(), DatabaseError> {
    refuse(directory, kind(directory))
}

fn refuse(directory: &Path, kind: Kind) -> Result<(), DatabaseError> {
    let Kind::Network(name) = kind else { return Ok(()) };
    Err(DatabaseError::Refused {
        subject: directory.display().to_string(),
        reason: format!(
            "it is on {name}, a network file system, where SQLite may lose what it acknowledged; choose a state directory on a local disk"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_15_a_network_path_is_refused_and_a_local_one_is_not() {
        for number in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42] {
            let refused = refuse(Path::new("state"), of(number)).unwrap_err().to_string();
            assert!(refused.contains("local disk"), "{refused}");
        }
        for number in [0xef53, 0x0102_1994, 0x6573_5546, 0x1234] {
            assert!(refuse(Path::new("state"), of(number)).is_ok());
        }
        for (name, refused) in [
            (&b"smbfs\0\0\0"[..], true),
            (b"nfs", true),
            (b"apfs\0", false),
            (b"nfsx\0", false),
            (b"", false),
        ] {
            assert_eq!(refuse(Path::new("state"), named(name)).is_err(), refused, "{name:?}");
        }
        let here = tempfile::tempdir().unwrap();
        assert!(judge(here.path()).is_ok());
        if cfg!(target_os = "linux") {
            assert_eq!(kind(Path::new("/proc/self")), Kind::Unknown);
        }
    }
}
