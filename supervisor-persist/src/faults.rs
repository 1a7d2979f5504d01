//! Points at which a test lets the file system fail. Without the feature `test-util` they are nothing.

#[cfg(feature = "test-util")]
pub(crate) use crate::testing::points::{open, rename, sync, write};

#[cfg(not(feature = "test-util"))]
mod none {
    use std::io;
    use std::path::Path;

    #[inline]
    pub(crate) const fn open(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) const fn write(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) const fn sync(_path: &Path) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) const fn rename(_path: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "test-util"))]
pub(crate) use none::{open, rename, sync, write};
